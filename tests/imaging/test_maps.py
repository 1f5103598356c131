from __future__ import annotations

from collections.abc import Callable
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
from stixflow.imaging.maps import write_cube
from stixflow.imaging.metadata import find_sources
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


def _cube(n_times: int = 3, pointing: Pointing | None = None) -> xr.Dataset:
    """Maps of every time with both energies; the flux grows with time, and the faint source is harder."""
    one = _images(pointing or Pointing(16.4, 82.7, -33.0, "sas", 0.2))
    starts = np.datetime64("2022-11-09T00:50:00", "ns") + np.arange(n_times) ** 2 * np.timedelta64(20, "s")
    time, low = (np.repeat(starts, 2), np.tile([6.0, 16.0], n_times))
    number = xr.DataArray(np.arange(1.0, 2 * n_times + 1), dims="image")
    images = one.isel(image=np.zeros(2 * n_times, dtype=int))
    return images.assign(
        image=(images["image"] * number).assign_attrs(one["image"].attrs),
        uncertainty=xr.zeros_like(images["image"]) + number,
        time_start=("image", time), time_stop=("image", time + np.timedelta64(20, "s")),
        energy_low=("image", low), energy_high=("image", np.where(low == 6, 10.0, 28.0)), counts=100 * number,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:'datfix' made the change")
def test_a_cube_has_axes_of_energy_and_time(tmp_path: Path) -> None:
    from astropy.wcs import WCS

    pointing = Pointing(16.4, 82.7, -33.0, "sas", 0.2)
    images = _cube(pointing=pointing)
    sources = find_sources(images.drop_vars("uncertainty"), pointing=pointing, observer=OBSERVER)
    path = write_cube(tmp_path / "cube.fits", images, pointing=pointing, observer=OBSERVER, sources=sources)
    plain = images.drop_vars("uncertainty")
    single = sunpy.map.Map(write_map(tmp_path / "map.fits", plain, 3, pointing=pointing, observer=OBSERVER))
    with fits.open(path, checksum=True) as file:
        file.verify("exception")
        assert [hdu.name for hdu in file[1:]] == ["UNCERTAINTY", "AXES", "INTERVALS", "SOURCES"]
        cube = file[0].data
        assert cube.shape == (3, 2, *GRID.shape) == file["UNCERTAINTY"].data.shape
        np.testing.assert_array_equal(cube[1, 1], single.data)
        wcs = WCS(file[0].header, file)
        lon, lat, energy, time = wcs.pixel_to_world_values(50, 60, [0, 1, 1], [0, 1, 2])
        np.testing.assert_allclose(np.asarray(energy) * wcs.wcs.cunit[2].to("keV"), [8.0, 22.0, 22.0])
        np.testing.assert_allclose(time, [10.0, 30.0, 90.0])
        here = single.pixel_to_world(50 * units.pix, 60 * units.pix)
        assert lon[0] * 3600 == pytest.approx(here.Tx.to_value("arcsec") % (360 * 3600), abs=1e-6)
        assert lat[0] * 3600 == pytest.approx(here.Ty.to_value("arcsec"), abs=1e-6)
        header, table = file[0].header, file["INTERVALS"].data
        assert (header["DATE-BEG"], header["DATE-END"]) == ("2022-11-09T00:50:00.000", "2022-11-09T00:51:40.000")
        assert (header["DATEREF"], header["ENERGY_L"], header["ENERGY_H"]) == ("2022-11-09T00:50:00.000", 6.0, 28.0)
        assert "CNTS_TOT" not in header
        assert table["COUNTS"].tolist() == [100, 200, 300, 400, 500, 600]
        assert table["TIME_START"][2] == "2022-11-09T00:50:20.000"
        assert len(file["SOURCES"].data) == len(sources)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda images: images.isel(image=slice(0, 5)), "every time with every energy"),
        (lambda images: images.isel(image=[0, 2, 1, 3]), "every time with every energy"),
        (lambda images: images.isel(image=[0, 1, 3, 2]), "same order"),
        (lambda images: images.assign(center_x=images["center_x"] + xr.DataArray(np.arange(6.0), dims="image")),
         "different centres"),
        (lambda images: images.drop_vars("energy_low"), "does not say"),
    ],
)  # fmt: skip
def test_stacks_that_are_no_cube_are_refused(tmp_path: Path, change: Callable[..., xr.Dataset], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        write_cube(tmp_path / "cube.fits", change(_cube()))
    assert list(tmp_path.iterdir()) == []


def test_uncertainty_and_sources_go_with_the_map(tmp_path: Path) -> None:
    pointing = Pointing(16.4, 82.7, -33.0, "sas", 0.2)
    images = _cube(1, pointing)
    sources = find_sources(images.drop_vars("uncertainty"), pointing=pointing, observer=OBSERVER)
    path = write_map(tmp_path / "map.fits", images, 1, pointing=pointing, observer=OBSERVER, sources=sources)
    with fits.open(path, checksum=True) as file:
        assert [hdu.name for hdu in file[1:]] == ["UNCERTAINTY", "SOURCES"]
        assert (file["UNCERTAINTY"].data == 2.0).all()
        table = file["SOURCES"].data
        assert table["IMAGE"].tolist() == [1] * len(table)
        np.testing.assert_allclose(table["HPC"][:2], [BRIGHT, FAINT], atol=2.0)
        outline = table["CONTOUR"][0].reshape(-1, 2)
        np.testing.assert_allclose(outline.mean(axis=0), (table["X"][0], table["Y"][0]), atol=3.0)
        assert np.isfinite(table["HGS"][0]).all()
    maps = sunpy.map.Map(path)
    assert isinstance(maps, list) and len(maps) == 2  # noqa: PT018


def test_the_place_of_the_spacecraft_is_given_in_all_its_frames(tmp_path: Path) -> None:
    pointing = Pointing(16.4, 82.7, -33.0, "sas", 0.2)
    header = fits.getheader(write_map(tmp_path / "m.fits", _images(pointing), pointing=pointing, observer=OBSERVER))
    for name in ("HEE", "HCI", "HAE", "HEQ"):
        assert np.linalg.norm([header[f"{name}{axis}_OBS"] for axis in "XYZ"]) == pytest.approx(8.9e10)
    longitude = np.rad2deg(np.arctan2(header["HEQY_OBS"], header["HEQX_OBS"]))
    assert longitude == pytest.approx(OBSERVER.hgln_deg)
    assert header["CRLT_OBS"] == pytest.approx(OBSERVER.hglt_deg)
    assert header["CRLN_OBS"] == pytest.approx(318.698, abs=0.001)
    assert header["HEEZ_OBS"] == pytest.approx(header["GSEZ_OBS"])
    assert header["DATE_SUN"] < header["DATE-AVG"]
    assert header["SUN_TIME"] == pytest.approx(8.9e10 / 299792458)
