"""The real light curve of 2021-06-06, turned back into telemetry, travels the whole chain to the flare list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import stixflow
from stixflow.archive import Archive
from stixflow.compute import Serial
from stixflow.fits import read_level1
from stixflow.simulate import replay
from stixflow.stages import Science, find_flares, open_run, run_stages

_BIN = np.timedelta64(4, "s")
_CLOCK = np.timedelta64(5, "ms")
"""The onboard times are equal to the tick. UTC goes by public clock pairs, good to 0.1 s in general; on this day the
file's own kernel and the pairs differ by 0.5 ms at its start, where one of the pairs is, and 4.7 ms at its end."""


@pytest.fixture(scope="module")
def official(shared: Path) -> xr.Dataset:
    (path,) = (shared / "data/lightcurves").glob("*20210606*.fits")
    return read_level1(path).load()


@pytest.fixture(scope="module")
def archive(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("june")
    replay((shared / "data/lightcurves").glob("*20210606*.fits"), folder / "delivery", container="xml")
    report = run_stages(
        ("ingest", "cubes", "flares"),
        [folder / "delivery"],
        root=str(folder / "archive"),
        pool=Serial(),
        command="test",
    )
    assert not report["failed"]
    assert report["balance"] == {"packets_in": 29, "used": 29, "duplicates": 0, "rejected": 0}
    return stixflow.open_archive(folder / "archive")


def test_cube_equals_the_official_file(archive: Archive, official: xr.Dataset) -> None:
    cube = archive.lightcurves("2021-06-06", "2021-06-07").load()
    inside = official["time"].to_numpy() < np.datetime64("2021-06-07")
    assert cube.sizes["time"] == inside.sum() > 16_000
    for name in ("counts", "triggers", "rcr", "timedel", "scet"):
        np.testing.assert_array_equal(cube[name], official[name].to_numpy()[inside], err_msg=name)
    assert np.abs(cube["time"].to_numpy() - official["time"].to_numpy()[inside]).max() <= _CLOCK


def operational(shared: Path) -> pd.DataFrame:
    """Return the peaks that the operational detector finds, minor ones too."""
    listed = pd.read_csv(shared / "oracle/flares/sdc_flares_20210606.csv", dtype={"flare_id": str})
    return listed[listed["min_distance_bins"] == 75].set_index("flare_id")


def test_every_peak_of_the_operational_detector_is_found(archive: Archive, shared: Path) -> None:
    with open_run(archive.root, pool=Serial(), command="test", science=Science(detector="poisson")) as run:
        find_flares(run)
    found = archive.flares("2021-06-06", "2021-06-07")
    assert set(found["method"]) == {"poisson"}
    listed = operational(shared)
    assert len(listed) == 4
    for flare_id, row in listed.iterrows():
        assert (found["peak"] - pd.Timestamp(row["peak_UTC"])).abs().min() <= pd.Timedelta("20s"), flare_id


def test_flare_2106061127_is_that_of_the_operational_list(archive: Archive, shared: Path) -> None:
    with open_run(archive.root, pool=Serial(), command="test") as run:
        find_flares(run)
    listed = operational(shared)
    listed = listed[listed["is_major"]]
    found = archive.flares("2021-06-06", "2021-06-07").set_index("flare_id")
    assert set(found.index) == set(listed.index) >= {"2106061127"}
    for flare_id, row in listed.iterrows():
        for name, column in {"start": "start_UTC", "peak": "peak_UTC", "stop": "end_UTC"}.items():
            assert abs(found.loc[flare_id, name].to_datetime64() - np.datetime64(row[column])) < _BIN, (flare_id, name)
    flare = found.loc["2106061127"]
    assert flare["peak_counts"] == 1343
    assert [flare[f"bkg_median_{band}"] for band in range(5)] == [247, 49, 67, 863, 463]
