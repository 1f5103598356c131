"""Sixty real flares of November 2022, turned back into telemetry, travel the whole chain to positions on the Sun."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.bench_real_flares import distances, forward_fit_distances, locate_all, process
from stixflow.archive import Archive
from stixflow.fits import read_level1

_EXACT = ("counts", "triggers", "rcr", "timedel", "scet", "pixel_mask", "detector_mask", "energy_low")


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "data/flares_202211"


@pytest.fixture(scope="module")
def archive(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return process(folder, tmp_path_factory.mktemp("november"))


def test_cubes_equal_the_official_files(archive: Archive, folder: Path) -> None:
    assert len(archive.requests()) == 69
    for path in sorted((folder / "pixel_data").glob("*.fits"))[::6]:
        official = read_level1(path)
        cube = archive.pixels(official.attrs["request_id"])
        for name in _EXACT:
            np.testing.assert_array_equal(cube[name], official[name], err_msg=f"{path.name} {name}")
        # The file counts onboard seconds from its first bin; the onboard clock gains up to 2e-6 on UTC.
        apart = np.abs(cube["time"].to_numpy() - official["time"].to_numpy()) / np.timedelta64(1, "s")
        elapsed = (official["time"].to_numpy() - official["time"].to_numpy()[0]) / np.timedelta64(1, "s")
        assert (apart <= 2e-3 + 2e-6 * elapsed).all(), path.name


@pytest.fixture(scope="module")
def located(archive: Archive, folder: Path) -> pd.DataFrame:
    return locate_all(archive, folder)


def test_positions_agree_with_the_operational_list(located: pd.DataFrame) -> None:
    """The list gives centres of 8 arcsec pixels, half a pixel off: its own rounding leaves a median of 3.3 arcsec."""
    clear = located[~located["ambiguous"]]
    assert len(located) == 60
    assert len(clear) >= 58
    # The list takes n / 2 for the middle of its map; in the STIX frame that shifts it by half a pixel in both axes.
    for axis in ("dx", "dy"):
        assert abs(clear[axis].median()) == pytest.approx(clear["half_pixel"].median(), abs=1.5)
    assert distances(located).median() < 4.0
    assert distances(located).max() < 10.0


def test_the_flare_among_sidelobes_is_called_ambiguous(located: pd.DataFrame) -> None:
    far = located[np.hypot(located["dx"], located["dy"]) > 100.0]
    assert list(far["flare_id"]) == [2211100617]
    assert far["ambiguous"].all()
    assert (far["sidelobe_ratio"] > 0.9).all()


def test_positions_on_the_sun_agree_with_the_forward_fits(located: pd.DataFrame) -> None:
    """Helioprojective, with the pointing, to fits of the ground software whose own errors are 0.5 to 1.5 arcsec."""
    apart = forward_fit_distances(located)
    assert len(apart) == 58
    assert apart.median() < 3.0
    assert apart.max() < 10.0


def test_flares_with_high_sidelobes_are_named(located: pd.DataFrame) -> None:
    doubtful = located[located["sidelobe_ratio"] >= 0.9].set_index("flare_id")
    assert set(doubtful.index) == {2211100617, 2211101252}
    # Of the two the fit decides one, for the lobe that the list has too.
    assert list(doubtful.index[doubtful["ambiguous"]]) == [2211100617]
    assert np.hypot(doubtful["dx"], doubtful["dy"])[2211101252] < 15.0
