"""A spacecraft that rolls and drifts during a flare: every map keeps the source where it is on the sky."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from stixflow.ephemeris import Pointing, hpc_to_stix, observer, pointing
from stixflow.ephemeris.constants import AU_M
from stixflow.errors import UsageError
from stixflow.imaging import Gaussian, write_cube, write_map
from stixflow.imaging.attitude import attitude_of, centers_on_sky, with_attitude
from stixflow.imaging.flare import FlareImages, image_flare
from stixflow.time import TimeRange

Maker = Callable[..., xr.Dataset]
PLACE = np.array([450.0, -280.0])
START = np.datetime64("2022-11-09T00:00:00", "ns")
N_BINS, SECONDS = 12, 10.0


def _ephemeris(rolling: float, drifting: float) -> xr.Dataset:
    """Samples every 10 s: so many degrees and arcsec a minute, and a thousandth of an au."""
    seconds = np.arange(-60.0, 240.0, 10.0)
    minutes = seconds / 60
    values = {
        "roll": 20.0 + rolling * minutes, "pitch": 0 * minutes, "yaw": 0 * minutes, "sas_ok": minutes > -9,
        "sas_y": -30.0 + drifting * minutes, "sas_z": -52.0 + 0 * minutes,
        "distance": AU_M * (0.6 + 1e-3 * minutes), "hgln": 10.0 + 0 * minutes, "hglt": -3.0 + 0 * minutes,
        "rsun": 1594.0 + 0 * minutes,
    }  # fmt: skip
    time = START + (seconds * 1e9).astype("timedelta64[ns]") + np.timedelta64(32, "s")
    return xr.Dataset({name: ("time", value) for name, value in values.items()}, {"time": time})


def _series(make_pixels: Maker, ephemeris: xr.Dataset) -> FlareImages:
    pixels = make_pixels(n_times=N_BINS)
    for number in range(N_BINS):
        begin = START + np.timedelta64(round(number * SECONDS * 1e9), "ns")
        moment = TimeRange(begin, begin + np.timedelta64(10, "s"))
        x, y = hpc_to_stix(PLACE, pointing(ephemeris, moment)).tolist()
        one = make_pixels([Gaussian(8.0, 0.0, 0.0, 14.0)], location=(x, y), n_times=1, scale=3.0)
        pixels["counts"][number] = one["counts"][0]
    return image_flare(pixels, [(6, 10)], cadence=20, ephemeris=ephemeris, methods=("clean",), size=65, pixel=3.0)


@pytest.fixture
def moving(make_pixels: Maker) -> FlareImages:
    return _series(make_pixels, _ephemeris(rolling=4.0, drifting=25.0))


def test_every_map_has_the_attitude_of_its_own_time(moving: FlareImages, tmp_path: Path) -> None:
    (stack,), ephemeris = moving.source.images, _ephemeris(rolling=4.0, drifting=25.0)
    assert stack.sizes["image"] == 6
    for index in range(6):
        within = TimeRange(stack["time_start"].values[index], stack["time_stop"].values[index])
        point, place = attitude_of(stack, index)
        assert point == pointing(ephemeris, within)
        assert place == observer(ephemeris, within.middle)
        header = fits.getheader(write_map(tmp_path / "map.fits", stack, index))
        assert header["STX_ROLL"] == point.roll
        assert header["DSUN_OBS"] == place.distance_m
        assert (header["CRVAL1"], header["CRVAL2"]) == pytest.approx(moving.source.hpc, abs=1e-9)
    assert np.ptp(stack["roll"].to_numpy()) == pytest.approx(4 * 100 / 60, abs=0.01)


def test_the_source_stays_where_it_is_on_the_sky(moving: FlareImages) -> None:
    """In the STIX frame it moves by 40 arcsec with the drift, and with the roll."""
    brightest = [source for source in moving.source.sources[0] if source.number == 0]
    assert len(brightest) == 6
    stix, sky = (np.array([getattr(source, name) for source in brightest]) for name in ("centroid_x", "hpc"))
    assert np.ptp(stix) > 30
    assert np.hypot(*(sky - PLACE).T).max() < 1.0


def test_a_cube_is_made_of_what_did_not_roll(moving: FlareImages, make_pixels: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the spacecraft rolled"):
        write_cube(tmp_path / "cube.fits", moving.source.images[0])
    (drifted,) = _series(make_pixels, _ephemeris(rolling=0.0, drifting=25.0)).source.images
    assert np.ptp(drifted["center_x"].to_numpy()) + np.ptp(drifted["center_y"].to_numpy()) > 30
    with fits.open(write_cube(tmp_path / "cube.fits", drifted)) as file:
        assert file[0].data.shape == (6, 1, 65, 65)
        assert np.ptp(file["INTERVALS"].data["POINTING_X"]) > 30
        assert (file["INTERVALS"].data["ROLL"] == 20.0).all()


def test_a_stack_tells_what_it_was_told(moving: FlareImages) -> None:
    bare = moving.source.images[0].isel(image=slice(0, 2))
    one = Pointing(1.0, 2.0, 3.0, "attitude", float("nan"), ("far off", "and moves"))
    told = with_attitude(bare, [one, None], [None, None])
    point, place = attitude_of(told, 0, pointing=Pointing(9.0, 9.0, 9.0, "sas", 0.1))
    assert (point.x, point.y, point.roll, point.source, point.warnings) == (1, 2, 3, "attitude", one.warnings)
    assert place is None
    assert attitude_of(told, 1) == (None, None)
    np.testing.assert_array_equal(centers_on_sky(told)[:, 0], told["center_x"])
