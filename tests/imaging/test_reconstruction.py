from __future__ import annotations

import pickle
import tracemalloc
from functools import partial
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units

from stixflow.compute import Serial, map_batches
from stixflow.errors import UsageError
from stixflow.imaging import (
    EM,
    BackProjection,
    Clean,
    ForwardFit,
    Gaussian,
    Grid,
    MemGE,
    chunks,
    from_arrays,
    reconstruct,
    source_visibilities,
    visibilities,
)
from stixflow.imaging.em import em
from stixflow.imaging.forward import modulation_amplitude
from stixflow.imaging.reconstruction import column_phase, column_response
from stixflow.imaging.visibilities import STIXPY, UNIT, Convention
from stixflow.instrument import detectors, grid_transmission, subcollimators

from .conftest import PixelsMaker

U, V = detectors().u[subcollimators()], detectors().v[subcollimators()]
SOURCE = [Gaussian(8.0, 12.0, -20.0, 12.0)]
SIGMA = np.full(24, 0.2)
SPAN = "2022-11-09T00:00:00", "2022-11-09T00:01:00"


def test_methods_by_name_are_those_with_their_usual_parameters() -> None:
    data, grid = from_arrays(U, V, source_visibilities(SOURCE, U, V), SIGMA), Grid(65, 2.0)
    methods = {"clean": Clean(), "bp": BackProjection(), "mem_ge": MemGE(), "forward_fit": ForwardFit()}
    for name, parameters in methods.items():
        by_name, by_value = reconstruct(data, grid, name), reconstruct(data, grid, parameters)
        np.testing.assert_array_equal(by_name["image"], by_value["image"])
        assert by_name.attrs["method"] == by_value.attrs["method"] == name


def test_a_clean_map_shows_the_source_where_it_is_with_its_flux() -> None:
    data, grid = from_arrays(U, V, source_visibilities(SOURCE, U, V)), Grid((65, 81), (2.0, 1.5))
    images = reconstruct(data, grid, Clean(beam_fwhm=15.0))
    assert images["image"].dims == ("image", "y", "x")
    iy, ix = np.unravel_index(int(images["image"].to_numpy()[0].argmax()), grid.shape)
    assert abs(images["x"][ix] - 12.0) <= 1.5
    assert abs(images["y"][iy] + 20.0) <= 2.0
    assert images["component_flux"].item() == pytest.approx(8.0, rel=0.03)
    restored = images["image"][0] - images["residual"][0] / (np.pi * 15.0**2 / (4 * np.log(2)))
    assert restored.sum().item() * grid.pixel_area == pytest.approx(images["component_flux"].item(), rel=0.01)
    assert images["residual_max"].item() == images["residual"].max().item()


def test_units_are_those_of_a_brightness_for_clean_and_of_v_for_back_projection() -> None:
    data, grid = from_arrays(U, V, source_visibilities(SOURCE, U, V)), Grid(9, 2.0)
    brightness = units.Unit(reconstruct(data, grid, "clean")["image"].attrs["units"])
    assert brightness == units.Unit(UNIT) / units.arcsec**2
    assert units.Unit(reconstruct(data, grid, "bp")["image"].attrs["units"]) == units.Unit(UNIT)


def test_a_grid_with_a_centre_moves_the_map_to_it() -> None:
    moved = [Gaussian(8.0, 412.0, -320.0, 12.0)]
    far = from_arrays(U, V, source_visibilities(moved, U, V))
    near = from_arrays(U, V, source_visibilities(SOURCE, U, V), center=(400.0, -300.0))
    for data in (far, near):
        images = reconstruct(data, Grid(65, 2.0, center=(400.0, -300.0)), "bp")
        iy, ix = np.unravel_index(int(images["image"].to_numpy()[0].argmax()), (65, 65))
        assert (images["x"][ix], images["y"][iy]) == (12.0, -20.0)
        assert (images["center_x"].item(), images["center_y"].item()) == (400.0, -300.0)


def test_each_image_of_a_stack_keeps_its_own_centre_without_one_for_the_grid() -> None:
    centers = np.array([(100.0, 50.0), (-700.0, 20.0)])
    data = from_arrays(U, V, np.tile(source_visibilities(SOURCE, U, V), (2, 1)), center=centers)
    images = reconstruct(data, Grid(33, 2.0), "bp")
    np.testing.assert_allclose(images["image"][0], images["image"][1], atol=1e-12)
    assert images["center_x"].values.tolist() == [100.0, -700.0]


def test_parameters_are_the_provenance() -> None:
    data = from_arrays(U, V, source_visibilities(SOURCE, U, V))
    boxes = ((-5.0, -5.0, 5.0, 5.0),)
    attrs = reconstruct(data, Grid(9, 2.0), Clean(gain=0.2, niter=7, beam_fwhm=None, boxes=boxes)).attrs
    assert (attrs["gain"], attrs["niter"], attrs["boxes"]) == (0.2, 7, str(boxes))
    assert attrs["beam_fwhm"] == pytest.approx(31.0, abs=0.1)


@pytest.mark.parametrize("method", ["mem", "CLEAN", 3, None])
def test_unknown_methods_are_refused_with_the_known_ones(method: object) -> None:
    data = from_arrays(U, V, source_visibilities(SOURCE, U, V))
    with pytest.raises(UsageError, match=r"'bp', 'clean'"):
        reconstruct(data, Grid(9, 2.0), method)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["em", MemGE(flux="counts"), "forward_fit", "clean"])
def test_every_method_shows_the_flare_where_it_is_from_counts(make_pixels: PixelsMaker, method: Any) -> None:
    location = (-500.0, 250.0)
    pixels = make_pixels(SOURCE, location=location)
    data = visibilities(pixels, SPAN, [(6, 10), (10, 15)], location=location)
    images = reconstruct(data, Grid(65, 2.0), method)
    for image in images["image"].to_numpy():
        iy, ix = np.unravel_index(image.argmax(), image.shape)
        assert abs(images["x"][ix] - 12.0) <= 4.0
        assert abs(images["y"][iy] + 20.0) <= 4.0
    brightness = units.Unit(images["image"].attrs["units"])
    assert brightness == units.Unit(UNIT) / units.arcsec**2
    if method != "clean":
        assert images["converged"].all()
        np.testing.assert_allclose(images["flux"], 8.0, rtol=0.05)
        np.testing.assert_allclose(images["image"].sum(("y", "x")) * 4.0, images["flux"], rtol=0.01)


def test_em_moves_with_the_centre_of_the_grid(make_pixels: PixelsMaker) -> None:
    data = visibilities(make_pixels(SOURCE), SPAN, (6, 10))
    still = reconstruct(data, Grid(65, 2.0), "em")["image"].to_numpy()[0]
    moved = reconstruct(data, Grid(65, 2.0, center=(20.0, -10.0)), "em")["image"].to_numpy()[0]
    iy, ix = np.unravel_index(still.argmax(), still.shape)
    assert np.unravel_index(moved.argmax(), moved.shape) == (iy + 5, ix - 10)


@pytest.mark.parametrize(
    "convention",
    [Convention(), Convention(grids="wedge"), Convention(amplitude="shadow"), Convention(amplitude="ideal"), STIXPY],
    ids=lambda one: f"{one.grids} {one.amplitude}",
)
def test_em_sees_what_the_visibilities_of_any_convention_say(make_pixels: PixelsMaker, convention: Convention) -> None:
    data = visibilities(make_pixels(SOURCE), SPAN, (6, 10), convention=convention)
    mean, modulation = column_response(data)
    a, b, c, d = np.moveaxis(data["rate"].to_numpy(), -1, 0)
    np.testing.assert_allclose(4 * modulation * np.abs(data["visibility"]), np.hypot(c - a, d - b), rtol=1e-9)
    np.testing.assert_allclose((a + b + c + d) / (4 * mean), data["flux"], rtol=1e-9)
    image = reconstruct(data, Grid(65, 2.0), "em")
    assert image["flux"].item() == pytest.approx((a + b + c + d).sum() / (4 * mean.sum()))


def test_em_allows_for_slats_that_are_not_opaque(make_pixels: PixelsMaker) -> None:
    """At 84 to 120 keV the slats let 10 to 48 % of the modulation go; without that a source would look too wide."""
    pixels = make_pixels(SOURCE, channels=(1, 30), scale=100.0)
    data = visibilities(pixels, SPAN, (84, 120), elut=None, convention=Convention(grids="wedge"))
    mean, modulation = column_response(data)
    opaque = modulation_amplitude(grid_transmission(0.0, 0.0)[data["detector"].to_numpy()])[None]
    assert 0.5 < (modulation / opaque).min() < (modulation / opaque).max() < 0.9
    truth, phase, grid = source_visibilities(SOURCE, U, V)[None], column_phase(data), Grid(65, 2.0)

    def image(seen: np.ndarray, assumed: np.ndarray) -> np.ndarray:
        wave, level = 2 * seen * truth * np.exp(-1j * np.deg2rad(phase)), 8.0 * mean
        rates = np.stack([level - wave.real, level - wave.imag, level + wave.real, level + wave.imag], axis=-1)
        if assumed is modulation:
            return reconstruct(data.assign(rate=(data["rate"].dims, rates)), grid, EM(0.0, 200))["image"].to_numpy()
        return em(rates, mean, phase, U, V, grid, EM(0.0, 200), modulation=assumed).image

    aware, unaware = image(modulation, modulation).max(), image(modulation, opaque).max()
    assert unaware < 0.9 * aware < 0.9 * image(opaque, opaque).max()


def test_em_without_rates_is_refused() -> None:
    data = from_arrays(U, V, source_visibilities(SOURCE, U, V), SIGMA)
    with pytest.raises(UsageError, match="no rate, transmission, detector"):
        reconstruct(data, Grid(9, 2.0), "em")


def test_a_fit_reports_its_sources_with_errors() -> None:
    data = from_arrays(U, V, source_visibilities(SOURCE, U, V), SIGMA)
    fit = reconstruct(data, Grid(65, 2.0), ForwardFit(("circle",)))
    circle = fit["fit"].sel(parameter="x", source=0), fit["fit_error"].sel(parameter="x", source=0)
    assert circle[0].item() == pytest.approx(12.0, abs=1e-3)
    assert 0 < circle[1].item() < 1.0
    assert fit["kind"].values.tolist() == [["circle"]]
    assert fit.attrs["sources"] == "('circle',)"


def test_mem_can_take_the_flux_of_the_counts(make_pixels: PixelsMaker) -> None:
    data = visibilities(make_pixels(SOURCE), SPAN, (6, 10))
    image = reconstruct(data, Grid(33, 4.0), MemGE(flux="counts"))
    assert image["flux"].item() == pytest.approx(data["total_flux"].item())
    assert image["duality_gap"].item() <= 1e-6 * max(image["objective"].item(), 1.0)


METHODS = [Clean(niter=30), BackProjection(), MemGE(), EM(max_iterations=50), ForwardFit()]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_parts_of_a_stack_sent_to_workers_are_the_whole(make_pixels: PixelsMaker, method: Any) -> None:
    pixels, grid = make_pixels(SOURCE), Grid((20, 17), 5.0)
    data = visibilities(pixels, SPAN, [(4, 8), (6, 10), (8, 12), (10, 14), (6, 15)])
    whole = reconstruct(data, grid, method)
    parts = list(chunks(data, grid, budget_bytes=2 * 20 * 17 * 8 * 4))
    assert [part.sizes["image"] for part in parts] == [2, 2, 1]
    sent = pickle.loads(pickle.dumps((partial(reconstruct, grid=grid, method=method), parts)))
    outcomes = sorted(map_batches(*sent, pool=Serial()), key=_index)
    joined = xr.concat([outcome.value for outcome in outcomes], "image", data_vars="minimal")
    scale = float(np.abs(whole["image"]).max())
    np.testing.assert_allclose(joined["image"], whole["image"], rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_array_equal(joined["energy_low"], whole["energy_low"])
    assert joined.attrs == whole.attrs


def _index(outcome: Any) -> int:
    return int(outcome.index)


def test_one_image_larger_than_the_budget_is_a_part_of_its_own() -> None:
    data = from_arrays(U, V, np.ones((3, 24)))
    assert [part.sizes["image"] for part in chunks(data, Grid(65, 2.0), budget_bytes=1)] == [1, 1, 1]


@pytest.mark.parametrize(
    "method",
    [Clean(niter=3), BackProjection(), MemGE(max_iterations=1), EM(max_iterations=1), ForwardFit(starts=2)],
    ids=lambda method: type(method).__name__,
)
def test_only_the_maps_grow_with_the_stack(
    make_pixels: PixelsMaker, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    monkeypatch.setattr("stixflow.imaging.forward_fit._STACK", 128)
    one = visibilities(make_pixels(SOURCE), SPAN, (6, 10))
    few, many = (one.isel(image=np.zeros(n, np.intp)) for n in (64, 192))
    reconstruct(one, Grid(33, 4.0), method)
    growth = _peak_bytes(many, method) - _peak_bytes(few, method)
    assert growth < 128 * 33 * 33 * 8 * 4.5


def _peak_bytes(data: xr.Dataset, method: Any) -> int:
    tracemalloc.start()
    try:
        reconstruct(data, Grid(33, 4.0), method)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
