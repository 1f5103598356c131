"""One delivery dated by the anchor table and by a real clock kernel, and dated anew on request."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stixflow import open_archive
from stixflow.compute import Serial
from stixflow.cubes.store import open_store
from stixflow.errors import MissingFile
from stixflow.stages import Science, run_stages

_NAMES = ("naif0012.tls", "solo_ANC_soc-sclk_20200611_V01.tsc")


@pytest.fixture(scope="module")
def packets(shared: Path) -> Path:
    return shared / "data/telemetry/packets"


@pytest.fixture(scope="module")
def kernels(shared: Path) -> list[str]:
    pytest.importorskip("spiceypy", reason="needs the extra spice")
    return [str(shared / "data/spice" / name) for name in _NAMES]


def process(root: Path, *paths: Path, **more: Any) -> dict[str, Any]:
    science = Science(**more)
    report = run_stages(
        ["ingest", "cubes"], list(paths), root=str(root), pool=Serial(), command="test", science=science
    )
    assert not report["failed"]
    return report


def published(root: Path) -> dict[tuple[str, str], Any]:
    with closing(open_archive(str(root))) as archive:
        return {(item.product, item.key): item for item in archive.catalog.partitions()}


def test_a_kernel_dates_what_is_ingested_and_is_named(packets: Path, kernels: list[str], tmp_path: Path) -> None:
    reports = [process(tmp_path / "table", packets), process(tmp_path / "kernel", packets, clock_kernels=kernels)]
    by_table, by_kernel = published(tmp_path / "table"), published(tmp_path / "kernel")
    assert reports[0]["balance"] == reports[1]["balance"]
    assert by_table.keys() == by_kernel.keys() != set()
    assert {item.attrs["clock"] for item in by_table.values()} == {"anchor table"}
    assert {item.attrs["clock"] for item in by_kernel.values()} == {", ".join(_NAMES)}
    assert {by_table[key].input_digest == one.input_digest for key, one in by_kernel.items()} == {True}
    for key, one in by_kernel.items():
        apart = abs(one.start - by_table[key].start) / np.timedelta64(1, "ns") * 1e-9
        assert 0 < apart <= one.attrs["clock_uncertainty_s"] + by_table[key].attrs["clock_uncertainty_s"]


def test_times_of_the_cubes_are_those_of_spice(packets: Path, kernels: list[str], tmp_path: Path) -> None:
    from stixflow.ephemeris import Kernels

    process(tmp_path, packets / "d15d40_tm_21_6_30.hex", clock_kernels=kernels)
    (one,) = published(tmp_path).values()
    cube = open_store(str(tmp_path / one.path)).load()
    with Kernels(kernels) as spice:
        expected = spice.scet_to_utc(cube["scet"].values)
    assert abs(cube["time_start"].values - expected).max() <= np.timedelta64(1, "us")
    assert cube.attrs["clock_uncertainty_s"] == 0.001


def test_a_kernel_given_later_dates_anew_only_on_request(packets: Path, kernels: list[str], tmp_path: Path) -> None:
    process(tmp_path, packets)
    before = published(tmp_path)
    process(tmp_path, packets, clock_kernels=kernels)
    assert published(tmp_path) == before
    report = process(tmp_path, packets, clock_kernels=kernels, redate=True)
    after = published(tmp_path)
    assert after.keys() == before.keys()
    assert {item.attrs["clock"] for item in after.values()} == {", ".join(_NAMES)}
    assert report["balance"] == {"packets_in": 0, "used": 0, "duplicates": 0, "rejected": 0}
    process(tmp_path, packets, clock_kernels=kernels, redate=True)
    assert published(tmp_path) == after


def test_both_kernels_are_asked_for_before_an_archive_is_made(
    packets: Path, kernels: list[str], tmp_path: Path
) -> None:
    with pytest.raises(MissingFile, match="no leap seconds kernel"):
        process(tmp_path / "archive", packets, clock_kernels=kernels[1:])
    assert not (tmp_path / "archive").exists()
