from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stixflow.ephemeris import hpc_to_stix, pointing, read_ancillary
from stixflow.errors import ImagingError
from stixflow.fits import read_level1
from stixflow.imaging import Gaussian, locate
from stixflow.imaging.back_projection import back_project
from stixflow.imaging.grids import Grid
from stixflow.imaging.location import Location, locate_each, refine_peak
from stixflow.instrument import LOCATION_RESOLUTIONS, detectors, subcollimators
from stixflow.time import TimeRange

RANGE = "2022-11-09T00:00:00/2022-11-09T00:01:00"
RSUN = 1600.0
LIST_PIXELS = 512


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(radius=st.floats(0, 1.0), angle=st.floats(0, 360), fwhm=st.floats(5, 60))
def test_a_simulated_flare_is_found_where_it_is(
    make_pixels: Callable[..., xr.Dataset], radius: float, angle: float, fwhm: float
) -> None:
    center = np.array([90.0, -60.0])
    place = center + radius * RSUN * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    pixels = make_pixels([Gaussian(1e4, 0.0, 0.0, fwhm)], location=tuple(place), n_times=6)
    found = locate(pixels, RANGE, rsun_arcsec=RSUN, center=center, elut=None)
    assert not found.ambiguous
    assert np.hypot(found.x - place[0], found.y - place[1]) < 0.2
    assert np.hypot(found.peak_x - place[0], found.peak_y - place[1]) < 0.5
    assert found.fwhm == pytest.approx(fwhm, abs=2.0)


def test_the_synthetic_flare_of_the_reference_is_found(shared: Path) -> None:
    made = np.load(shared / "oracle/imaging/flare_location_synth.npz")
    grid = Grid(int(made["n"]), float(made["pixel_arcsec"]))
    image = back_project(made["vis"], made["u"], made["v"], grid)[0]
    np.testing.assert_allclose(image[::8, ::8], made["bp_every_8th"], rtol=0, atol=1e-9 * image.max())
    iy, ix = np.unravel_index(image.argmax(), image.shape)
    assert (iy, ix) == tuple(made["peak_index_yx"])
    np.testing.assert_allclose((grid.x[ix], grid.y[iy]), made["peak_xy_arcsec"])
    x, y, value = refine_peak(made["vis"], made["u"], made["v"], made["peak_xy_arcsec"])
    assert value >= image.max()
    assert np.hypot(x - grid.x[ix], y - grid.y[iy]) < grid.pixel[0]


def test_the_refined_peak_has_no_slope() -> None:
    k = subcollimators(*LOCATION_RESOLUTIONS)
    u, v, random = detectors().u[k], detectors().v[k], np.random.default_rng(3)
    vis = np.exp(2j * np.pi * (u * 31.0 - v * 17.0)) + 0.1 * random.standard_normal(12)
    x, y, value = refine_peak(vis, u, v, (28.0, -20.0))
    around = [back_project(vis, u, v, Grid((3, 3), 0.5))[0]]
    for dx, dy in ((0.01, 0.0), (-0.01, 0.0), (0.0, 0.01), (0.0, -0.01)):
        around.append((vis * np.exp(-2j * np.pi * (u * (x + dx) + v * (y + dy)))).real.mean())
    assert all(value > one for one in around[1:])


def test_many_intervals_are_located_in_one_call(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels([Gaussian(1e4, 0.0, 0.0, 30.0)], location=(500.0, 200.0))
    ranges, energies = [RANGE, "2022-11-09T00:00:10/2022-11-09T00:00:30"], [(6.0, 10.0), (10.0, 15.0)]
    found = locate_each(pixels, ranges, energies, rsun_arcsec=RSUN, center=(0.0, 0.0))
    assert len(found) == 4
    alone = [locate(pixels, when, band, rsun_arcsec=RSUN, center=(0.0, 0.0)) for when in ranges for band in energies]
    for one, other in zip(found, alone, strict=True):
        assert (one.x, one.y) == pytest.approx((other.x, other.y), abs=1e-6)


def test_without_the_sun_the_map_is_about_the_axis(make_pixels: Callable[..., xr.Dataset]) -> None:
    off_disk = (0.0, 1.25 * RSUN)
    pixels = make_pixels([Gaussian(1e4, 0.0, 0.0, 30.0)], location=off_disk)
    free = locate(pixels, RANGE, rsun_arcsec=RSUN, elut=None)
    assert np.hypot(free.x - off_disk[0], free.y - off_disk[1]) < 1.0
    confined = locate(pixels, RANGE, rsun_arcsec=RSUN, center=(0.0, 0.0), elut=None)
    assert np.hypot(confined.x, confined.y) < 1.3 * RSUN
    assert confined.chi2 > 10 * free.chi2


def test_an_interval_without_modulation_is_refused(make_pixels: Callable[..., xr.Dataset]) -> None:
    with pytest.raises(ImagingError, match="no modulation"):
        locate(make_pixels(background=50.0), RANGE, rsun_arcsec=RSUN, elut=None)


def _real_flares(folder: Path) -> list[tuple[str, Location, np.ndarray]]:
    """Flare id, location found, and the position of the list without its half-pixel bias.

    The list turned pixel i into (i - n/2) pixels instead of (i - (n-1)/2), along the axes of the spacecraft: half a
    pixel too low in X_so = -Y_stix and in Y_so = X_stix.
    """
    listed = {row["flare ID"]: row for row in _rows(folder / "flare_locations_stix_frame.csv")}
    ephemeris, found = {}, []
    for row in _rows(folder / "flarelist_with_paths.csv"):
        path = folder / row["pixel_paths"].removeprefix("./")
        if not row["pixel_paths"] or not path.is_file():
            continue
        pixels, aux = read_level1(path), row["aux_paths"].removeprefix("./aux_data/")
        if aux not in ephemeris:
            ephemeris[aux] = read_ancillary(folder / "ephemeris" / aux)
        peak = np.datetime64(row["peak_UTC"].replace(" ", "T"), "ns")
        times = TimeRange(peak - np.timedelta64(20, "s"), peak + np.timedelta64(20, "s"))
        rsun = float(pixels.attrs["rsun_arcsec"])
        sun = hpc_to_stix((0.0, 0.0), pointing(ephemeris[aux], times))
        half = 2.6 * rsun / LIST_PIXELS / 2
        entry = listed[row["flare_id"]]
        place = np.array([float(entry["STIX MAX X BP COORD"]) + half, float(entry["STIX MAX Y BP COORD"]) - half])
        found.append((row["flare_id"], locate(pixels, times, rsun_arcsec=rsun, center=sun), place))
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_sixty_real_flares_are_where_the_ground_software_found_them(shared: Path) -> None:
    flares = _real_flares(shared / "data/flares_202211")
    assert len(flares) == 60
    doubtful = [flare for flare, place, _ in flares if place.ambiguous]
    # The list has this one 1.3 solar radii from the centre of the Sun; here it lies on the disk, and is not trusted.
    assert doubtful == ["2211100617"]
    distances = np.array([np.hypot(at.x - xy[0], at.y - xy[1]) for _, at, xy in flares if not at.ambiguous])
    peaks = np.array([np.hypot(at.peak_x - xy[0], at.peak_y - xy[1]) for _, at, xy in flares if not at.ambiguous])
    assert np.median(distances) < 3.2
    assert distances.max() < 10
    assert peaks.max() < 6
