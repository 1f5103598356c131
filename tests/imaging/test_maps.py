from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sunpy.map
import xarray as xr
from astropy import units
from astropy.io import fits

from stixflow.ephemeris import Observer, Pointing, average_pointing, hpc_to_stix
from stixflow.errors import UsageError
from stixflow.imaging import Clean, Gaussian, Grid, from_arrays, reconstruct, source_visibilities, write_map
from stixflow.instrument import detectors, subcollimators

OBSERVER = Observer(distance_m=8.9e10, hgln_deg=-24.2, hglt_deg=9.2, rsun_arcsec=1612.0)
GRID = Grid((129, 101), (2.0, 1.5))
BRIGHT, FAINT = (420.0, -610.0), (462.0, -583.0)


@cache
def _images(pointing: Pointing) -> xr.Dataset:
    """Maps of a bright and a faint source at known places on the sky, neither in the middle nor along an axis."""
    u, v = detectors().u[subcollimators()], detectors().v[subcollimators()]
    bright, faint = (hpc_to_stix(place, pointing) for place in (BRIGHT, FAINT))
    center = (bright + faint) / 2 + (7.0, -11.0)
    sources = [Gaussian(6.0, *(bright - center), 8.0), Gaussian(3.0, *(faint - center), 8.0)]
    data = from_arrays(u, v, source_visibilities(sources, u, v), center=center)
    at = np.array(["2022-11-09T00:50:00", "2022-11-09T00:51:00"], dtype="datetime64[ns]")
    data = data.assign(
        time_start=("image", at[:1]), time_stop=("image", at[1:]), energy_low=("image", [6.0]),
        energy_high=("image", [10.0]), counts=("image", [12345.0]), background_counts=("image", [45.0]),
    )  # fmt: skip
    return reconstruct(data, GRID, Clean(beam_fwhm=12.0))


def _two_highest(image: np.ndarray) -> list[tuple[int, int]]:
    first = np.unravel_index(int(image.argmax()), image.shape)
    iy, ix = np.indices(image.shape)
    far = np.hypot((iy - first[0]) * GRID.pixel[0], (ix - first[1]) * GRID.pixel[1]) > 25
    second = np.unravel_index(int(np.where(far, image, -np.inf).argmax()), image.shape)
    return [(int(y), int(x)) for y, x in (first, second)]


@pytest.mark.parametrize(
    ("x", "y", "roll"),
    [(0.0, 0.0, 0.0), (16.4, 82.7, -0.85), (26.1, 58.2, 125.0), (-1430.0, 729.0, -60.0), (5.0, -9.0, 179.0)],
)  # fmt: skip
def test_two_sources_are_seen_where_they_are_on_the_sky(tmp_path: Path, x: float, y: float, roll: float) -> None:
    pointing = Pointing(x, y, roll, "sas", 0.2)
    path = write_map(tmp_path / "map.fits", _images(pointing), pointing=pointing, observer=OBSERVER)
    seen = sunpy.map.Map(path)
    assert seen.observer_coordinate.lon.to_value("deg") == pytest.approx(-24.2)
    assert seen.observer_coordinate.radius.to_value("m") == pytest.approx(8.9e10)
    for (iy, ix), place in zip(_two_highest(seen.data), (BRIGHT, FAINT), strict=True):
        world = seen.pixel_to_world(ix * units.pix, iy * units.pix)
        off = np.hypot(world.Tx.to_value("arcsec") - place[0], world.Ty.to_value("arcsec") - place[1])
        assert off < max(GRID.pixel)


def test_rotating_the_map_keeps_the_sources_and_turns_north_up(tmp_path: Path) -> None:
    pointing = Pointing(16.4, 82.7, -33.0, "sas", 0.2)
    seen = sunpy.map.Map(write_map(tmp_path / "map.fits", _images(pointing), pointing=pointing, observer=OBSERVER))
    turned = seen.rotate(missing=0.0)
    np.testing.assert_allclose(turned.rotation_matrix, np.eye(2), atol=1e-12)
    top = np.unravel_index(int(turned.data.argmax()), turned.data.shape)
    world = turned.pixel_to_world(top[1] * units.pix, top[0] * units.pix)
    assert np.hypot(world.Tx.to_value("arcsec") - BRIGHT[0], world.Ty.to_value("arcsec") - BRIGHT[1]) < 3.0


def test_the_header_says_what_was_observed_and_how(tmp_path: Path) -> None:
    pointing = Pointing(16.4, 82.7, -0.85, "attitude", 5.0, ("pointing moves by 5.0 arcsec",))
    path = write_map(
        tmp_path / "deep" / "map.fits", _images(pointing), pointing=pointing, observer=OBSERVER,
        extra={"FLNM_SCI": "science.fits"}, history=["made by a test"],
    )  # fmt: skip
    with fits.open(path, checksum=True) as file:
        file.verify("exception")
        header = file[0].header
        assert file[0].data.shape == GRID.shape
    wanted = {
        "TELESCOP": "SOLO/STIX", "INSTRUME": "STIX", "OBSRVTRY": "Solar Orbiter", "DATE-OBS": "2022-11-09T00:50:00.000",
        "DATE-BEG": "2022-11-09T00:50:00.000", "DATE-AVG": "2022-11-09T00:50:30.000",
        "DATE-END": "2022-11-09T00:51:00.000", "ENERGY_L": 6.0, "ENERGY_H": 10.0, "CNTS_TOT": 12345.0,
        "CNTS_BKG": 45.0, "ALG_USED": "CLEAN", "CLN_GAIN": 0.1,
        "CLN_NMAX": 200, "CLN_BEAM": 12.0, "WEIGHT": "natural", "STX_PSRC": "attitude", "FLNM_SCI": "science.fits",
        "RSUN_REF": 695700000.0, "RSUN_ARC": 1612.0, "HGLN_OBS": -24.2, "CUNIT1": "arcsec",
    }  # fmt: skip
    assert {keyword: header[keyword] for keyword in wanted} == wanted
    assert list(header["HISTORY"]) == ["made by a test", "pointing moves by 5.0 arcsec"]
    assert units.Unit(header["BUNIT"]) == units.ct / units.s / units.cm**2 / units.keV / units.arcsec**2
    assert header["DATE_EAR"] > header["DATE-AVG"]
    assert {"CHECKSUM", "DATASUM"} <= set(header)


@pytest.mark.parametrize("pointing", [None, average_pointing(12.0)])
def test_without_a_known_pointing_no_place_on_the_sky_is_claimed(tmp_path: Path, pointing: Pointing | None) -> None:
    images = _images(Pointing(0.0, 0.0, 0.0, "sas", 0.1))
    header = fits.getheader(write_map(tmp_path / "map.fits", images, pointing=pointing, observer=OBSERVER))
    assert (header["CTYPE1"], header["CTYPE2"]) == ("SXLN-TAN", "SXLT-TAN")
    assert header["CRVAL1"] == header["STX_X"] == images["center_x"].item()
    assert header["PC1_1"] == 1.0
    assert "HGLN_OBS" not in header
    assert "STX_ROLL" not in header


def test_an_unknown_observer_means_no_place_on_the_sky_either(tmp_path: Path) -> None:
    pointing = Pointing(16.4, 82.7, -0.85, "sas", 0.1)
    header = fits.getheader(write_map(tmp_path / "map.fits", _images(pointing), pointing=pointing))
    assert header["CTYPE1"] == "SXLN-TAN"


def test_writing_twice_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    images = _images(Pointing(0.0, 0.0, 0.0, "sas", 0.1))
    write_map(tmp_path / "map.fits", images)
    write_map(tmp_path / "map.fits", images, variable="residual")
    assert [path.name for path in tmp_path.iterdir()] == ["map.fits"]
    np.testing.assert_allclose(fits.getdata(tmp_path / "map.fits"), images["residual"][0], rtol=1e-6)


@pytest.mark.parametrize(("index", "variable"), [(1, "image"), (-1, "image"), (0, "uncertainty")])
def test_maps_that_do_not_exist_are_refused(tmp_path: Path, index: int, variable: str) -> None:
    with pytest.raises(UsageError, match="no "):
        write_map(tmp_path / "map.fits", _images(Pointing(0.0, 0.0, 0.0, "sas", 0.1)), index, variable=variable)
