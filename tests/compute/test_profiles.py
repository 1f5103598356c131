from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stixflow.compute import load_profile, profile_names
from stixflow.compute.profiles import (
    AddressProfile,
    KubernetesProfile,
    LocalProfile,
    SlurmProfile,
    parse_memory,
    parse_walltime,
)
from stixflow.errors import MissingFile, UsageError

_INFRA = Path(__file__).resolve().parents[2] / "infra/clusters"
_SLURM = 'kind = "slurm"\nworkers = 4\nmemory = "2GB"\nwalltime = "01:00:00"\n'


def test_every_profile_that_comes_along_is_valid_and_also_stands_in_infra() -> None:
    assert set(profile_names()) == {"address", "kubernetes", "local", "slurm"}
    for name in profile_names():
        assert load_profile(name).kind == name
        assert load_profile(_INFRA / f"{name}.toml") == load_profile(name)


def test_every_line_that_is_commented_out_is_valid_too(tmp_path: Path) -> None:
    for name in profile_names():
        lines = (_INFRA / f"{name}.toml").read_text().splitlines()
        plain = [line.removeprefix("# ") if " = " in line else line for line in lines]
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join(plain))
        profile = load_profile(path)
        assert set(type(profile).model_fields) - {"wait_seconds"} <= profile.model_fields_set | {"environment"}


def test_arguments_replace_what_the_file_says() -> None:
    profile = load_profile("slurm", workers=5, memory=None, address="tcp://not-for-slurm:1")
    assert isinstance(profile, SlurmProfile)
    assert (profile.workers, profile.memory, profile.jobs) == (5, "3GB", 1)
    assert load_profile("address", address="tcp://there:8786") == AddressProfile(
        kind="address", address="tcp://there:8786", wait_seconds=30.0
    )
    assert isinstance(load_profile("local", workers=2), LocalProfile)
    assert isinstance(load_profile("kubernetes"), KubernetesProfile)


def test_workers_of_slurm_end_before_their_job_does() -> None:
    profile = load_profile("slurm")
    assert isinstance(profile, SlurmProfile)
    assert profile.lifetime_s == 8 * 3600 - 300
    assert profile.jobs == 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (_SLURM + "soup = 1\n", ["soup", "Extra inputs"]),
        (_SLURM.replace("workers = 4", "workers = 0"), ["workers", "greater than or equal to 1", "found 0"]),
        (_SLURM.replace("workers = 4", 'workers = "4"'), ["workers", "valid integer", "found '4'"]),
        (_SLURM.replace("2GB", "much"), ["memory", "as 4GB", "found 'much'"]),
        (_SLURM.replace('memory = "2GB"\n', ""), ["memory", "required"]),
        (_SLURM.replace("01:00:00", "1h"), ["walltime", "HH:MM:SS"]),
        (_SLURM.replace("01:00:00", "00:10:00"), ["walltime", "at least 00:14:00"]),
        ('kind = "address"\naddress = "there"\n', ["address", "tcp://dask-scheduler:8786"]),
        ('kind = "kubernetes"\nname = "Stix Flow"\nimage = "x"\nworkers = 1\nmemory = "1GB"\n', ["name", "lower-case"]),
        ('kind = "abacus"\n', ["kind", "abacus", "slurm"]),
        ("workers = 1\n", ["kind"]),
        ("kind = ", ["is not TOML"]),
    ],
)
def test_what_makes_no_sense_is_named_with_file_key_and_expectation(tmp_path: Path, text: str, told: list[str]) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_profile(path)
    for part in ["ours.toml", *told]:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["abacus", "./nowhere.toml"])
def test_a_profile_that_is_not_there(name: str) -> None:
    with pytest.raises(MissingFile, match="kubernetes, local, slurm") as caught:
        load_profile(name)
    assert name in str(caught.value)


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_walltime_is_read_as_slurm_writes_it(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}-{hours:02}:{minutes:02}:{seconds:02}"
    assert parse_walltime(text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def test_memory_is_decimal_or_binary_as_written() -> None:
    assert parse_memory("2GB") == 2_000_000_000
    assert parse_memory("2GiB") == 2 << 30
    assert parse_memory("500MB") == 500_000_000
