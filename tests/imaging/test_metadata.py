from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.ephemeris import Observer, Pointing, average_pointing, hpc_to_heliographic, stix_to_hpc
from stixflow.imaging import Clean, Gaussian, Grid, from_arrays, reconstruct, source_visibilities
from stixflow.imaging.forward import source_image
from stixflow.imaging.metadata import find_sources, map_noise, source_rows
from stixflow.instrument import detectors, subcollimators

CENTER = (-560.0, 330.0)
OBSERVER = Observer(distance_m=8.9e10, hgln_deg=-24.2, hglt_deg=5.2, rsun_arcsec=1612.0)
GRID = Grid((121, 129), (1.5, 2.0))
PAIR = [Gaussian(4.0, -31.3, 12.6, 18.0, 12.0, 30.0), Gaussian(3.0, 24.1, -17.2, 14.0)]


def _stack(*stacks: list[Gaussian], noise: float = 0.0) -> xr.Dataset:
    maps = np.stack([source_image(sources, GRID) for sources in stacks])
    maps = maps + noise * np.random.default_rng(3).standard_normal(maps.shape)
    return xr.Dataset(
        {
            "image": (("image", "y", "x"), maps, {"units": "ct / (s cm2 keV arcsec2)"}),
            "center_x": ("image", np.full(len(maps), CENTER[0])),
            "center_y": ("image", np.full(len(maps), CENTER[1])),
        },
        {"x": GRID.offset_x, "y": GRID.offset_y},
        {"method": "em", "pixel_x_arcsec": 2.0, "pixel_y_arcsec": 1.5},
    )


def test_sources_are_found_where_they_are() -> None:
    found = find_sources(_stack(PAIR, PAIR[1:]))
    assert [(source.image, source.number) for source in found] == [(0, 0), (0, 1), (1, 0)]
    order = [PAIR[0], PAIR[1], PAIR[1]]
    for source, truth in zip(found, order, strict=True):
        major, minor = truth.widths
        assert source.x == pytest.approx(truth.x + CENTER[0], abs=0.15)
        assert source.y == pytest.approx(truth.y + CENTER[1], abs=0.15)
        assert source.centroid_x == pytest.approx(truth.x + CENTER[0], abs=0.2)
        assert source.area == pytest.approx(np.pi / 4 * major * minor, rel=0.03)
        assert source.flux == pytest.approx(truth.flux / 2, rel=0.1)
        assert source.peak == pytest.approx(truth.flux * 4 * np.log(2) / (np.pi * major * minor), rel=0.01)
        assert not source.is_cut
        np.testing.assert_allclose(source.contour[0], source.contour[-1])


@settings(max_examples=30, deadline=None)
@given(x=st.floats(-70, 70), y=st.floats(-50, 50), fwhm=st.floats(9, 40))
def test_a_single_source_is_one_source(x: float, y: float, fwhm: float) -> None:
    (source,) = find_sources(_stack([Gaussian(2.0, x, y, fwhm)], noise=1e-6))
    assert np.hypot(source.x - x - CENTER[0], source.y - y - CENTER[1]) < max(0.4, 0.02 * fwhm)
    assert source.fwhm == pytest.approx(fwhm, rel=0.04)
    distance = np.hypot(*(source.contour - (x + CENTER[0], y + CENTER[1])).T)
    np.testing.assert_allclose(distance, fwhm / 2, atol=0.3)


def test_sources_do_not_depend_on_the_stack() -> None:
    stack = _stack(PAIR, PAIR[:1], [], PAIR[1:], noise=1e-4)
    together = find_sources(stack)
    alone = [replace(one, image=i) for i in range(4) for one in find_sources(stack.isel(image=[i]))]
    assert source_rows(together) == source_rows(alone)
    assert [one.image for one in together] == [one.image for one in alone]


def test_maxima_in_one_contour_are_one_source() -> None:
    close = [Gaussian(3.0, -9.0, 0.0, 16.0), Gaussian(2.8, 9.0, 0.0, 16.0)]
    (source,) = find_sources(_stack(close))
    assert source.peaks == 2
    assert source.x == pytest.approx(CENTER[0] - 9, abs=2)


def test_a_source_at_the_border_is_cut() -> None:
    (source,) = find_sources(_stack([Gaussian(2.0, 118.0, 0.0, 40.0)]))
    assert source.is_cut
    assert source.contour[:, 0].max() <= CENTER[0] + GRID.offset_x[-1] + 1e-9


def test_noise_alone_is_no_source_and_faint_peaks_do_not_count() -> None:
    assert find_sources(_stack([], noise=1.0)) == []
    faint = [PAIR[0], Gaussian(0.2, 60.0, 40.0, 14.0)]
    assert len(find_sources(_stack(faint, noise=1e-5))) == 1
    assert len(find_sources(_stack(faint, noise=1e-5), part=0.03)) == 2


def test_the_error_of_the_position_is_the_scatter_of_noisy_images() -> None:
    """Noise of maps is correlated over a resolution element: here it is made so."""
    from scipy.ndimage import gaussian_filter

    truth, random = Gaussian(2.0, 3.0, -4.0, 20.0), np.random.default_rng(1)
    stack = _stack(*[[truth]] * 60)
    rough = gaussian_filter(random.standard_normal(stack["image"].shape), (0, 20 / 2.355 / 1.5, 20 / 2.355 / 2.0))
    stack["image"] = stack["image"] + rough / rough.std() * float(stack["image"].max()) / 20
    stack["uncertainty"] = xr.full_like(stack["image"], float(stack["image"].max()) / 20)
    found = [source for source in find_sources(stack) if source.number == 0]
    scatter = np.std([source.x for source in found])
    assert 0.4 < scatter / np.mean([source.sigma for source in found]) < 2.5


def test_without_a_noise_no_error_is_claimed() -> None:
    (source,) = find_sources(_stack(PAIR[:1], noise=1e-6))
    assert np.isnan(source.snr)
    assert np.isnan(source.sigma)
    assert source_rows([source])[0]["sigma"] is None


def test_a_dirty_map_has_its_source_but_not_its_sidelobes() -> None:
    k = subcollimators()
    u, v = detectors().u[k], detectors().v[k]
    data = from_arrays(u, v, source_visibilities(PAIR[1:], u, v), center=CENTER)
    (source,) = find_sources(reconstruct(data, Grid(129, 2.0), "bp"))
    assert (source.x, source.y) == pytest.approx((CENTER[0] + 24.1, CENTER[1] - 17.2), abs=1.0)
    assert np.isnan(source.flux)


def test_the_noise_of_a_source_is_that_of_its_pixel() -> None:
    stack = _stack(PAIR)
    stack["uncertainty"] = stack["image"] / 8 + 1e-9
    found = find_sources(stack)
    assert [source.snr for source in found] == pytest.approx([8.0, 8.0], rel=0.02)
    stack["uncertainty"][:, :, :64] = 1.0
    (right,) = find_sources(stack)
    assert right.x > CENTER[0]


def test_clean_maps_have_the_noise_of_their_residual() -> None:
    k = subcollimators()
    u, v = detectors().u[k], detectors().v[k]
    random = np.random.default_rng(2)
    vis = source_visibilities(PAIR, u, v) + 0.05 * (
        random.standard_normal((3, 24)) + 1j * random.standard_normal((3, 24))
    )
    images = reconstruct(from_arrays(u, v, vis, center=CENTER), Grid(129, 2.0), Clean(beam_fwhm=14.0))
    beam = np.pi / (4 * np.log(2)) * 14.0**2
    np.testing.assert_allclose(map_noise(images)[:, 0, 0], images["residual_rms"] / beam)
    found = find_sources(images)
    assert {source.image for source in found} == {0, 1, 2}
    for image in range(3):
        two = [source for source in found if source.image == image][:2]
        places = sorted((source.x - CENTER[0], source.y - CENTER[1]) for source in two)
        np.testing.assert_allclose(places, [(-31.3, 12.6), (24.1, -17.2)], atol=2.0)


def test_positions_on_the_sky_and_on_the_sun() -> None:
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from sunpy.coordinates import HeliographicStonyhurst, Helioprojective

    pointing = Pointing(16.4, 82.7, -33.0, "sas", 0.4)
    stack = _stack([Gaussian(2.0, 5.0, 7.0, 20.0)])
    stack["uncertainty"] = xr.full_like(stack["image"], float(stack["image"].max()) / 30)
    (source,) = find_sources(stack, pointing=pointing, observer=OBSERVER)
    assert source.hpc == pytest.approx(tuple(stix_to_hpc((source.x, source.y), pointing)))
    assert source.hpc_sigma is not None
    assert source.hpc_sigma[0] >= 0.4 / np.sqrt(2)
    place = SkyCoord(
        OBSERVER.hgln_deg * u.deg, OBSERVER.hglt_deg * u.deg, OBSERVER.distance_m * u.m,
        frame=HeliographicStonyhurst(obstime="2022-11-09"),
    )  # fmt: skip
    frame = Helioprojective(observer=place, obstime="2022-11-09", rsun=695700 * u.km)
    wanted = SkyCoord(*(source.hpc * u.arcsec), frame=frame).transform_to(HeliographicStonyhurst(obstime="2022-11-09"))
    assert source.hgs == pytest.approx((wanted.lon.wrap_at(180 * u.deg).deg, wanted.lat.deg), abs=1e-6)
    assert source.hgs_sigma is not None
    assert 0.2 < source.hgs_sigma[0] / (source.hpc_sigma[0] / 1612 * 57.3) < 3


def test_beside_the_disk_there_is_no_place_on_the_sun() -> None:
    places = np.array([[0.0, 0.0], [1700.0, 0.0], [0.0, -1611.0]])
    found = hpc_to_heliographic(places, OBSERVER)
    np.testing.assert_allclose(found[0], [-24.2, 5.2])
    assert np.isnan(found[1]).all()
    assert found[2, 1] < -80
    pointing = Pointing(-3000.0, 0.0, 0.0, "sas", 0.4)
    (source,) = find_sources(_stack(PAIR[:1]), pointing=pointing, observer=OBSERVER)
    assert source.hpc is not None
    assert source.hgs is None


def test_an_average_pointing_gives_no_place_on_the_sky() -> None:
    (source,) = find_sources(_stack(PAIR[:1]), pointing=average_pointing(), observer=OBSERVER)
    assert source.hpc is source.hgs is None


def test_rows_are_plain_values() -> None:
    rows = source_rows(find_sources(_stack(PAIR), pointing=Pointing(1, 2, 3, "sas", 0.1), observer=OBSERVER))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0]["number"] == 0
    assert len(rows[0]["hpc"]) == 2
    assert 20 < len(rows[0]["contour"]) <= 48
    assert rows[0]["contour"][0] == rows[0]["contour"][-1]
