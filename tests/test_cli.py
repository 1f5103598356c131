"""The command line: what a person types, what is printed, and the exit codes 0, 1, 2."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_delivery import DAYS, PEAK, assert_balanced, pick, published, telemetry, write

from stixflow import cli
from stixflow.ephemeris import distance_au
from stixflow.telemetry import Packets

COMMANDS = ("demo", "process", "ingest", "flares", "image", "status", "verify", "rollback", "simulate", "replay")


class Told:
    """What a command returned and printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output; NaN is not JSON."""
        found: dict[str, Any] = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        return found


Command = Callable[..., Told]


@pytest.fixture
def stixflow(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str | Path) -> Told:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return Told(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def packets(delivery: Path) -> Packets:
    return telemetry(delivery)


# Help and wrong use -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    told = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "--json" in told
    assert len(told.split("\n\n")[1].split()) > 4, "no sentence about what it does"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    told = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "First steps" in told
    assert all(f"\n    {command} " in told for command in COMMANDS)


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert capsys.readouterr().out.startswith("usage: stixflow")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import stixflow

    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"stixflow {stixflow.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["process"],
        ["demo", "--workers", "0"],
        ["demo", "--seed", "-1"],
        ["simulate", "--output", "x", "--flares", "-2"],
        ["simulate", "--output", "x", "--day", "yesterday"],
        ["simulate", "--output", "x", "--container", "tape"],
        ["image", "a.fits"],
        ["image", "a.fits", "--time-range", "a/b", "--energy-range", "4-10"],
        ["image", "a.fits", "--time-range", "2022-01-01/2021-01-01", "--energy-range", "4-10"],
        ["image", "a.fits", "--time-range", "2022-01-01/2022-01-02", "--energy-range", "10-4"],
        ["image", "a.fits", "--time-range", "2022-01-01/2022-01-02", "--energy-range", "4-10", "--size", "0"],
        ["image", "a.fits", "--time-range", "2022-01-01/2022-01-02", "--energy-range", "4-10", "--pixel", "0"],
        ["rollback", "ql_lightcurve"],
        ["flares", "a.fits", "--archive", "b"],
        ["flares", "a.fits", "--detect"],
        ["flares", "a.fits", "--method", "oracle"],
        ["flares", "a.fits", "--month", "2024-13"],
        ["flares", "a.fits", "--month", "2024-09", "--start", "2024-09-02"],
        ["flares", "a.fits", "--output", "list.xlsx"],
    ],
)
def test_wrong_use_exits_2_and_says_what_to_do(
    stixflow: Command, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = stixflow(*arguments, "--json")
    assert told.code == 2
    assert told.json["exit_code"] == 2
    assert "Expected: " in told.json["error"]
    assert "Do: " in told.json["error"]
    assert told.err == f"stixflow: {told.json['error']}\n"
    assert not list(tmp_path.rglob("*.sqlite"))


@pytest.mark.parametrize("command", ["status", "verify", "flares", "rollback"])
def test_a_folder_that_is_no_archive(stixflow: Command, command: str, tmp_path: Path) -> None:
    more = ("ql_lightcurve", DAYS[0]) if command == "rollback" else ()
    told = stixflow(command, *more, "--archive", tmp_path / "none", "--json")
    assert told.code == 1
    assert "is not an archive" in told.json["error"]
    assert "Do: " in told.json["error"]
    assert not (tmp_path / "none").exists()


def test_detecting_makes_no_archive_where_there_is_none(stixflow: Command, tmp_path: Path) -> None:
    told = stixflow("flares", "--detect", "--archive", tmp_path / "none", "--json")
    assert told.code == 1
    assert not (tmp_path / "none").exists()


def test_the_real_program(tmp_path: Path) -> None:
    """As a person runs it: a process of its own, its streams and its exit code."""
    command = [sys.executable, "-m", "stixflow.cli", "process", "nowhere", "--serial", "--json", "--archive", "a"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"].startswith("nowhere does not exist")
    assert "Traceback" not in done.stderr


def test_a_fault_of_the_program_is_still_one_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("stixflow.stages.archive_status", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["status", "--archive", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["exit_code"] == 1


def test_an_interrupt_exits_130(stixflow: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stixflow.stages.archive_status", interrupt)
    told = stixflow("status", "--archive", tmp_path, "--json")
    assert (told.code, told.json["exit_code"]) == (130, 130)


# The everyday commands ----------------------------------------------------------------------------------------------


def test_ingest_then_process_then_status(stixflow: Command, delivery: Path, processed: Path, tmp_path: Path) -> None:
    root = tmp_path / "archive"
    told = stixflow("ingest", delivery / "telemetry", "--serial", "--archive", root, "--json")
    assert told.code == 0
    assert told.json["counts"]["sci_pixels"] == 2
    assert "flares" not in told.json["counts"]
    told = stixflow("process", delivery / "ephemeris", "--serial", "--archive", root)
    assert told.code == 0
    assert "packets   0 in = 0 used + 0 duplicates + 0 rejected" in told.out
    assert "of" in told.err
    told = stixflow("status", "--archive", root, "--json")
    assert told.json["products"]["ql_lightcurve"]["partitions"] == 2
    assert (told.json["flares"], told.json["images"], told.json["quarantined"]) == (1, 8, 0)
    assert [run["command"] for run in told.json["runs"]] == ["stixflow process", "stixflow ingest"]
    assert published(root) == published(processed)
    assert "ql_lightcurve" in stixflow("status", "--archive", root).out


def test_quiet_shows_no_progress(stixflow: Command, delivery: Path, tmp_path: Path) -> None:
    told = stixflow("ingest", delivery / "ephemeris", "--serial", "--archive", tmp_path / "a", "--quiet")
    assert told.err == ""


def test_flares(stixflow: Command, archive_copy: Path) -> None:
    (flare,) = stixflow("flares", "--archive", archive_copy, "--json").json["flares"]
    assert (flare["flare_id"], flare["goes_class"]) == ("2206160100", "C8")
    assert abs(flare["x_hpc"] - 300) < 1
    assert flare["peak"].startswith("2022-06-16T01:00:")
    assert stixflow("flares", "--archive", archive_copy, "--stop", DAYS[1], "--json").json == {"flares": []}
    assert "2206160100" in stixflow("flares", "--archive", archive_copy).out
    assert stixflow("flares", "--archive", archive_copy, "--stop", DAYS[1]).out == "no flares\n"


def test_flares_of_telemetry_without_an_archive(stixflow: Command, delivery: Path, archive_copy: Path) -> None:
    files = sorted((delivery / "telemetry").glob("*"))
    (kept,) = stixflow("flares", "--archive", archive_copy, "--json").json["flares"]
    for method in ("snip", "poisson"):
        (flare,) = stixflow("flares", *files, "--method", method, "--json").json["flares"]
        assert (flare["flare_id"][:8], flare["method"]) == (kept["flare_id"][:8], method)
        # The orbit of the delivery is made up: the telemetry does not tell it.
        assert flare["distance_au"] == pytest.approx(float(distance_au(PEAK)), abs=1e-3)
    assert stixflow("flares", *files, "--month", "2022-07", "--json").json == {"flares": []}
    told = stixflow("flares", sorted((delivery / "ephemeris").glob("*.fits"))[0], "--json")
    assert told.code != 0
    assert "quick-look light curve" in told.json["error"]


@pytest.mark.parametrize("ending", ["fits", "csv", "vot", "txt"])
@pytest.mark.parametrize("layout", ["stixflow", "official"])
def test_flare_lists_are_written(
    stixflow: Command, archive_copy: Path, tmp_path: Path, ending: str, layout: str
) -> None:
    path = tmp_path / f"list.{ending}"
    place = ("--archive", archive_copy, "--output", path, "--layout", layout)
    assert stixflow("flares", *place, "--month", "2022-06").out == f"1 flares written to {path}\n"
    assert (b"peak_UTC" if layout == "official" and ending != "txt" else b"peak") in path.read_bytes()
    if ending != "txt":
        from astropy.table import Table

        (row,) = Table.read(path, format={"vot": "votable", "csv": "ascii.csv"}.get(ending, ending))
        assert str(row["flare_id"]) == "2206160100"
    assert stixflow("flares", *place, "--month", "2022-07", "--json").json == {"flares": []}
    assert path.is_file()


def test_flares_of_another_method_are_not_passed_off(stixflow: Command, archive_copy: Path) -> None:
    told = stixflow("flares", "--archive", archive_copy, "--method", "poisson", "--json")
    assert told.code == 2
    assert "--detect" in told.json["error"]
    found = stixflow("flares", "--archive", archive_copy, "--method", "poisson", "--detect", "--json").json["flares"]
    assert [flare["method"] for flare in found] == ["poisson"]
    assert stixflow("flares", "--archive", archive_copy, "--method", "poisson", "--json").json["flares"] == found


def test_measured_class_of_flares(stixflow: Command, archive_copy: Path, tmp_path: Path) -> None:
    import xarray as xr

    paths = []
    for day, flux in zip(DAYS, (1e-7, 5.2e-6), strict=True):
        time = np.datetime64(day, "ns") + np.arange(1440) * np.timedelta64(1, "m")
        paths.append(tmp_path / f"{day}.nc")
        xr.Dataset({"xrsb_flux": ("time", np.full(1440, flux))}, {"time": time}).to_netcdf(paths[-1])
    files = [part for path in paths for part in ("--xrs", path)]
    (flare,) = stixflow("flares", "--archive", archive_copy, *files, "--json").json["flares"]
    assert (flare["goes_measured_class"], flare["goes_measured_flux"]) == ("C5.2", 5.2e-6)


def test_flares_are_detected_again_only_where_asked(stixflow: Command, archive_copy: Path) -> None:
    told = stixflow("flares", "--detect", "--archive", archive_copy, "--json")
    assert told.code == 0
    assert [flare["flare_id"] for flare in told.json["flares"]] == ["2206160100"]


def test_verify(stixflow: Command, archive_copy: Path) -> None:
    told = stixflow("verify", "--archive", archive_copy, "--json")
    assert (told.code, told.json["defects"], told.json["removed"]) == (0, [], [])
    assert stixflow("verify", "--archive", archive_copy).out == f"no defects in {told.json['stores']} stores, 0.5 MB\n"
    shard = next(path for path in archive_copy.rglob("counts/c.*") if path.is_file())
    blob = shard.read_bytes()
    shard.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    told = stixflow("verify", "--archive", archive_copy, "--json")
    assert told.code == 1
    assert any("counts" in defect for defect in told.json["defects"])
    shard.unlink()
    assert stixflow("verify", "--archive", archive_copy).code == 1


def test_rollback(stixflow: Command, packets: Packets, tmp_path: Path) -> None:
    root, light = tmp_path / "archive", packets.of_product("ql_lightcurve")
    for name, part in {"1": light.select(slice(0, 8)), "2": light}.items():
        stixflow("ingest", write(tmp_path / name, part), "--serial", "--archive", root)
    after = published(root)
    told = stixflow("rollback", "ql_lightcurve", DAYS[1], "--archive", root, "--json")
    assert told.code == 0
    assert set(told.json) == {"product", "key", "run_id", "digest"}
    assert published(root)[f"ql_lightcurve {DAYS[1]}"][1] < after[f"ql_lightcurve {DAYS[1]}"][1]
    told = stixflow("rollback", "ql_lightcurve", DAYS[1], "--archive", root, "--json")
    assert told.code == 1
    assert "published once" in told.json["error"]


def test_simulate_and_replay(stixflow: Command, tmp_path: Path, shared: Path) -> None:
    told = stixflow("simulate", "--flares", "0.01", "--seed", "3", "--output", tmp_path / "sim", "--json")
    assert told.code == 0
    assert told.json["flares"] == []
    assert Path(told.json["truth"]).is_file()
    source = shared / "data/l1/solo_L1_stix-sci-xray-cpd_20200505T235959-20200506T000019_V01_0087031809-50883.fits"
    told = stixflow("replay", source, "--output", tmp_path / "replay", "--container", "binary", "--json")
    assert told.code == 0
    told = stixflow("ingest", *told.json["files"], "--serial", "--archive", tmp_path / "a", "--json")
    assert told.code == 0
    assert told.json["counts"]["sci_pixels"] == 1
    told = stixflow("replay", tmp_path / "sim" / "truth.json", "--output", tmp_path / "bad", "--json")
    assert told.code == 1
    assert "Do: " in told.json["error"]


# Bad input ----------------------------------------------------------------------------------------------------------


def ingest(stixflow: Command, root: Path, *paths: Path) -> Told:
    told = stixflow("process", *paths, "--serial", "--archive", root, "--json")
    if "balance" in told.json:
        assert_balanced(told.json["balance"])
    assert told.code == bool(told.json.get("failed", True))
    assert "Traceback" not in told.err
    return told


def test_a_path_that_does_not_exist(stixflow: Command, tmp_path: Path) -> None:
    told = ingest(stixflow, tmp_path / "a", tmp_path / "nowhere")
    assert told.code == 1
    assert "nowhere does not exist" in told.json["error"]
    assert "Do: check the path" in told.json["error"]


def test_an_empty_folder(stixflow: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    told = ingest(stixflow, tmp_path / "a", tmp_path / "empty")
    assert told.code == 1
    assert "is empty" in told.json["error"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(500), "a PNG image"),
        ("nothing.bin", b"", "is empty"),
        ("notes.txt", b"these are notes of the shift\n", "no telemetry"),
        ("delivery.xml", b"<?xml version='1.0'?><other/>", "XML without packets"),
        ("packets.hex", b"00 11 22 33 44 55", "without a packet header"),
        ("damaged.fits", b"SIMPLE  =                    T" + b" " * 3000, "FITS"),
    ],
)
def test_a_file_that_is_no_telemetry(
    stixflow: Command, tmp_path: Path, packets: Packets, name: str, content: bytes, reason: str
) -> None:
    """Named, it is a failure; found in a folder, it is left out and listed; the rest is processed in both cases."""
    good, bad = write(tmp_path / "in" / "good.bin", packets.of_product("sci_spectrogram")), tmp_path / "in" / name
    bad.write_bytes(content)
    told = ingest(stixflow, tmp_path / "named", bad, good)
    assert told.code == 1
    (failed,) = told.json["failed"]
    assert (failed["stage"], failed["item"]) == ("ingest", name)
    assert reason in failed["error"]
    assert "Expected: " in failed["error"]
    assert "Do: " in failed["error"]
    assert told.json["counts"]["sci_spectrogram"] == 1
    told = ingest(stixflow, tmp_path / "walked", tmp_path / "in")
    assert told.code == 0
    assert [note["item"] for note in told.json["skipped"]] == [name]
    assert told.json["counts"]["sci_spectrogram"] == 1
    bad.rename(tmp_path / name)
    assert ingest(stixflow, tmp_path / "alone", tmp_path / name).code == 1


def test_a_folder_without_telemetry(stixflow: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("nothing here")
    told = ingest(stixflow, tmp_path / "a", tmp_path / "in")
    assert told.code == 1
    assert "none of the 1 files is telemetry" in told.json["error"]


def test_level_1_fits_is_taken_in_and_its_books_are_told(stixflow: Command, tmp_path: Path, shared: Path) -> None:
    source = next((shared / "data/l1").glob("*ql-lightcurve*"))
    told = ingest(stixflow, tmp_path / "a", source)
    assert told.code == 0
    books = told.json["official"]
    assert (books["files"], books["bins"], books["used"]) == (1, 21516, 21516)
    assert books["counts"] == books["counts_used"] == 70564080


def test_level_0_fits_is_refused(stixflow: Command, tmp_path: Path, shared: Path) -> None:
    source = next((shared / "data/telemetry").glob("*_L0_*.fits"))
    told = ingest(stixflow, tmp_path / "a", source)
    assert told.code == 1
    assert "level L0" in told.json["failed"][0]["error"]


@pytest.mark.parametrize("cut", [3, 17, 2000])
def test_a_truncated_stream(stixflow: Command, tmp_path: Path, packets: Packets, cut: int) -> None:
    blob = packets.of_product("sci_spectrogram").to_bytes()
    (tmp_path / "cut.bin").write_bytes(blob[:-cut])
    told = ingest(stixflow, tmp_path / "a", tmp_path / "cut.bin")
    assert told.code == 0
    assert told.json["balance"]["rejected"] == 1
    assert told.json["counts"]["incomplete"] == 1
    status = stixflow("status", "--archive", tmp_path / "a", "--json").json
    assert (status["quarantined"], status["products"]["sci_spectrogram"]["incomplete"]) == (1, 1)


def test_a_truncated_xml(stixflow: Command, tmp_path: Path, delivery: Path) -> None:
    source = next((delivery / "telemetry").glob("*spectrogram*"))
    (tmp_path / "cut.xml").write_bytes(source.read_bytes()[:-1500])
    told = ingest(stixflow, tmp_path / "a", tmp_path / "cut.xml")
    assert told.code == 0
    assert told.json["balance"]["rejected"] == 1
    assert told.json["counts"]["incomplete"] == 1


@pytest.mark.parametrize("damage", [b"", b"0", b"ff" * 80, b"zz", b"\xe9"])
def test_an_xml_with_broken_prefixes(
    stixflow: Command, tmp_path: Path, delivery: Path, packets: Packets, damage: bytes
) -> None:
    """The ground header of each packet is damaged; packets that can still be told are used, all are accounted for."""
    source = next((delivery / "telemetry").glob("*spectrogram*")).read_bytes()
    pieces = source.split(b"<Packet>")
    assert len(pieces) > 3, "the container writes Packet elements"
    (tmp_path / "broken.xml").write_bytes(b"<Packet>".join([pieces[0], *(damage + piece[9:] for piece in pieces[1:])]))
    told = ingest(stixflow, tmp_path / "a", tmp_path / "broken.xml")
    assert told.code == 0
    books = told.json["balance"]
    assert books["packets_in"] == len(packets.of_product("sci_spectrogram"))
    assert stixflow("status", "--archive", tmp_path / "a", "--json").json["quarantined"] == books["rejected"]


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits(stixflow: Command, tmp_path: Path, packets: Packets, seed: int) -> None:
    """Bits flipped anywhere, headers more often: never a crash, the books balance, the rest is published."""
    rng = np.random.default_rng(seed)
    names = packets.product()
    rows = np.flatnonzero((names != "sci_pixels") | (np.cumsum(names == "sci_pixels") % 20 == 0))
    chosen = pick(packets, rows)
    blob = np.frombuffer(chosen.to_bytes(), np.uint8).copy()
    starts = np.cumsum(chosen.length) - chosen.length
    in_headers = rng.choice(starts, 2 * seed) + rng.integers(0, 40, 2 * seed)
    anywhere = rng.integers(0, blob.size, 3 * seed + 1)
    for at in np.concatenate([in_headers, anywhere]).astype(int).tolist():
        blob[at] ^= 1 << rng.integers(0, 8)
    (tmp_path / "flipped.bin").write_bytes(blob.tobytes())
    told = ingest(stixflow, tmp_path / "a", tmp_path / "flipped.bin")
    books = told.json["balance"]
    assert books["used"] >= len(rows) - 5 * seed - 1
    assert stixflow("verify", "--archive", tmp_path / "a").code == 0
    assert not told.json["failed"], told.json["failed"]


def test_a_request_with_a_missing_packet(stixflow: Command, tmp_path: Path, packets: Packets) -> None:
    science = packets.of_product("sci_spectrogram")
    rows = np.arange(len(science)) != 4
    told = ingest(stixflow, tmp_path / "a", write(tmp_path / "most.bin", pick(science, rows)))
    assert told.code == 0
    (note,) = (note for note in told.json["skipped"] if note["stage"] == "cubes")
    assert note["reason"] == "published incomplete: 1 packet(s) between counts 181 and 183"


def test_a_file_that_cannot_be_read(stixflow: Command, tmp_path: Path, packets: Packets) -> None:
    """A dangling link stands for what the operating system refuses; root may read everything else."""
    write(tmp_path / "in" / "good.bin", packets.of_product("sci_spectrogram"))
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "nowhere")
    told = ingest(stixflow, tmp_path / "a", tmp_path / "in")
    assert told.json["counts"]["sci_spectrogram"] == 1


# Output -------------------------------------------------------------------------------------------------------------


def test_numbers_of_numpy_are_json_and_nan_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    import argparse

    from stixflow.cli.output import emit

    found = {"a": np.bool_(False), "b": np.float32("nan"), "c": [np.int64(3), float("inf")], "d": Path("x")}
    emit(argparse.Namespace(json=True), found, str)
    assert json.loads(capsys.readouterr().out) == {"a": False, "b": None, "c": [3, None], "d": "x"}
