from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stixflow.errors import ImagingError, UsageError
from stixflow.fits import read_level1
from stixflow.imaging import Gaussian
from stixflow.imaging.flare import image_flare
from stixflow.imaging.source import image_source
from stixflow.time import TimeRange

Maker = Callable[..., xr.Dataset]
LOCATION = (420.0, -310.0)
SOURCES = [Gaussian(6.0, 0.0, 0.0, 12.0), Gaussian(3.0, 24.0, 16.0, 12.0)]
LEVELS = np.array([1, 2, 5, 9, 12, 10, 7, 5, 3, 2, 1, 1])
BANDS = [(6.0, 10.0), (10.0, 15.0)]


@pytest.fixture
def flare(make_pixels: Maker) -> xr.Dataset:
    """Bins of 10 s of a flare with two sources; the attenuator goes in after the fifth."""
    pixels = make_pixels(SOURCES, location=LOCATION, scale=2.0, n_times=len(LEVELS), background=0.2)
    pixels["counts"] = pixels["counts"] * xr.DataArray(LEVELS.astype(np.uint32), dims="time")
    pixels["rcr"][5:] = 1
    return pixels


def test_a_flare_becomes_a_series_of_maps(flare: xr.Dataset, make_pixels: Maker) -> None:
    background = make_pixels(background=0.2, n_times=20)
    found = image_flare(flare, BANDS, counts=20_000, background=background, methods=("bp", "clean"), size=65)
    assert [stack.attrs["method"] for stack in found.source.images] == ["bp", "clean"]
    clean = found.source.images[1]
    per_band = [sum(one.is_enough for one in found.intervals[band].intervals) for band in BANDS]
    assert clean["image"].shape == (sum(per_band), 65, 65)
    assert clean["energy_low"].values.tolist() == [6.0] * per_band[0] + [10.0] * per_band[1]
    assert (clean["counts"] >= 20_000).all()
    for band in range(2):
        chosen = clean.isel(image=clean["energy_low"].to_numpy() == BANDS[band][0])
        assert (np.diff(chosen["time_start"]) > np.timedelta64(0)).all()
    change = flare["time_start"].values[5]
    assert not ((clean["time_start"] < change) & (clean["time_stop"] > change)).any()
    assert {source.image for source in found.source.sources[1]} == set(range(sum(per_band)))
    for source in found.source.sources[1]:
        if source.number == 0:
            assert np.hypot(source.x - LOCATION[0], source.y - LOCATION[1]) < 3
    when, band = found.located_in
    assert band == BANDS[0]
    assert when.start <= flare["time"].values[4] < when.stop


def test_the_location_is_that_of_the_sources(flare: xr.Dataset) -> None:
    source = image_flare(flare, BANDS, cadence=30, size=33).source
    assert np.hypot(source.location.x - LOCATION[0] - 8, source.location.y - LOCATION[1] - 5) < 8
    assert source.images[0].sizes["image"] == 10
    assert source.hpc is None
    assert any("no ephemeris" in warning for warning in source.warnings)


def test_what_has_no_map_says_why(flare: xr.Dataset) -> None:
    flare["rcr"][2:] = 0
    flare["rcr"][:2] = 3
    flare["observed"][7, 8] = False
    found = image_flare(flare, BANDS, counts=60_000, size=33)
    reasons = [(band, reason) for (_, band), reason in found.left_out]
    assert (BANDS[1], "energies were not received") in reasons
    assert all(band != BANDS[0] or "not received" not in reason for band, reason in reasons)
    assert any("too little: the attenuator" in reason for _, reason in reasons)


def test_maps_of_background_are_dropped(make_pixels: Maker) -> None:
    flare = make_pixels(SOURCES, location=LOCATION, scale=20.0, background=1.0)
    flare["counts"][:, 6:] = make_pixels(background=1.0)["counts"][:, 6:]
    background = make_pixels(background=1.0, n_times=30)
    found = image_flare(flare, BANDS, cadence=60, background=background, size=33)
    assert found.source.images[0]["energy_low"].values.tolist() == [6.0]
    (((_, band), reason),) = found.left_out
    assert band == BANDS[1]
    assert "nothing but background" in reason
    with pytest.raises(ImagingError, match="no selection can be imaged"):
        image_flare(flare, BANDS[1], cadence=60, background=background)


def test_maps_may_have_an_uncertainty(flare: xr.Dataset) -> None:
    (stack,) = image_flare(flare, BANDS[0], cadence=60, size=17, realisations=12).source.images
    assert stack["uncertainty"].shape == stack["image"].shape
    assert (stack["uncertainty"] > 0).all()


def test_selections_keep_their_order(flare: xr.Dataset) -> None:
    times = [TimeRange(*flare["time_start"].values[[a, b]]) for a, b in ((0, 3), (3, 5), (6, 9))]
    selections = [(times[1], BANDS[1]), (times[0], BANDS[0]), (times[2], BANDS[1]), (times[1], BANDS[0])]
    (stack,) = image_source(flare, selections, methods=("bp",), size=17).images
    assert stack["energy_low"].values.tolist() == [10.0, 6.0, 10.0, 6.0]
    assert stack["time_start"].values.tolist() == [times[i].start.astype(int) for i in (1, 0, 2, 1)]


def test_what_cannot_be_done_is_refused(flare: xr.Dataset) -> None:
    with pytest.raises(ImagingError, match="no interval has enough"):
        image_flare(flare, BANDS, counts=1e9)
    with pytest.raises(UsageError, match="exactly one"):
        image_flare(flare, BANDS)
    with pytest.raises(UsageError, match="no imaging method"):
        image_flare(flare, BANDS, cadence=60, methods=("clean", "magic"))


def test_a_real_flare_stays_where_it_is(shared: Path) -> None:
    folder = shared / "data/flares_202211/pixel_data"
    pixels = read_level1(next(folder.glob("*_2211091049-54681.fits")))
    background = read_level1(next(folder.glob("*_2211098157-*.fits")))
    within = TimeRange.parse("2022-11-09T07:19:00/2022-11-09T07:24:00")
    found = image_flare(pixels, (4, 10), counts=3000, within=within, background=background, methods=("clean",))
    assert found.source.images[0].sizes["image"] >= 3
    brightest = [source for source in found.source.sources[0] if source.number == 0]
    places = np.array([(source.x, source.y) for source in brightest])
    assert np.hypot(*(places - np.median(places, axis=0)).T).max() < 10
