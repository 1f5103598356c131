from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stixflow.errors import UsageError
from stixflow.imaging import Gaussian, Grid, Loop, expected_column_rates, expected_pixel_rates, source_visibilities
from stixflow.imaging.forward import modulation_amplitude, source_image, sum_case
from stixflow.imaging.visibilities import phase_correction
from stixflow.instrument import detectors, grid_transmission, subcollimators

ELLIPSE = [Gaussian(2.0, 12.0, -20.0, 24.0, 9.0, 30.0), Gaussian(1.0, -15.0, 8.0, 14.0)]


def test_visibilities_are_the_transform_of_the_image() -> None:
    grid = Grid((241, 201), (1.0, 1.25))
    u, v = detectors().u[subcollimators()], detectors().v[subcollimators()]
    phase = np.multiply.outer(u, grid.x)[:, None, :] + np.multiply.outer(v, grid.y)[:, :, None]
    summed = (source_image(ELLIPSE, grid) * np.exp(2j * np.pi * phase)).sum(axis=(1, 2)) * grid.pixel_area
    np.testing.assert_allclose(source_visibilities(ELLIPSE, u, v), summed, atol=2e-5)


@pytest.mark.parametrize("loop_angle", [90.0, -60.0, 150.0, 0.0])
def test_a_loop_has_the_flux_the_centre_and_the_widths_it_says(loop_angle: float) -> None:
    loop = Loop(12.0, 3.0, 5.0, 50.0, 30.0, 70.0, loop_angle)
    circles = loop.circles()
    weight = np.array([circle.flux for circle in circles]) / 12.0
    x, y = (np.array([getattr(circle, name) for circle in circles]) for name in "xy")
    assert weight.sum() == pytest.approx(1.0)
    assert (weight @ x, weight @ y) == pytest.approx((3.0, 5.0))
    cos, sin = np.cos(np.deg2rad(70.0)), np.sin(np.deg2rad(70.0))
    chord, top = (y - 5.0) * cos - (x - 3.0) * sin, (x - 3.0) * cos + (y - 5.0) * sin
    moment, own = 8 * np.log(2), circles[0].fwhm ** 2
    if circles[0].fwhm > 1.0:
        assert weight @ chord**2 * moment + own == pytest.approx(50.0**2)
    assert weight @ chord**2 - weight @ top**2 == pytest.approx((50.0**2 - 30.0**2) / moment)
    if loop_angle:
        assert np.sign(top[len(top) // 2]) == np.sign(loop_angle)


def test_a_loop_shines_as_that_of_the_independent_simulation(shared: Path) -> None:
    made = np.load(shared / "oracle/imaging/sim_loop_ideal_high.npz")
    (s,) = json.loads(str(made["sources"]))
    k = made["isc24"] - 1
    loop = Loop(s["flux"], s["x"], s["y"], s["fwhm_max"], s["fwhm_min"], s["pa"], s["loop_angle"])
    found = source_visibilities([loop], made["u"][k], made["v"][k])
    np.testing.assert_allclose(found, made["vis_true"][k], atol=1e-12)


def test_a_visibility_of_frequency_zero_is_the_flux() -> None:
    assert source_visibilities(ELLIPSE, 0.0, 0.0) == pytest.approx(3.0)


def test_ideal_grids_modulate_as_the_formula_says() -> None:
    assert modulation_amplitude(0.25) == pytest.approx(4 * np.sin(np.pi / 4) / np.pi**3, rel=1e-15)
    assert modulation_amplitude(0.25, 2) == pytest.approx(8 * np.sin(np.pi / 8) / np.pi**3, rel=1e-15)


@pytest.mark.parametrize("name", ["circle", "double", "triple", "ellipse"])
def test_rates_agree_with_the_independent_simulation(shared: Path, name: str) -> None:
    made = np.load(shared / "oracle/imaging" / f"sim_{name}_measured_high.npz")
    k, (x, y) = made["isc24"] - 1, made["center"]
    sources = [
        Gaussian(
            s["flux"], s["x"] + x, s["y"] + y, s.get("fwhm", s.get("fwhm_max")), s.get("fwhm_min"), s.get("pa", 0.0)
        )
        for s in json.loads(str(made["sources"]))
    ]  # fmt: skip
    vis = source_visibilities(sources, made["u"][k], made["v"][k])
    flux = sum(source.flux for source in sources)
    rates = expected_column_rates(flux, vis, grid_transmission(x, y)[k], phase_correction(k))
    np.testing.assert_allclose(rates, made["expected_rates"][k], rtol=1e-6)


def test_many_energies_at_once_equal_one_by_one() -> None:
    k = subcollimators()
    vis = source_visibilities(ELLIPSE, detectors().u[k], detectors().v[k])
    factors = np.array([1.0, 0.5, 0.1])
    transmission, phase = grid_transmission(0.0, 0.0)[k], phase_correction(k)
    together = expected_pixel_rates(3.0 * factors[:, None], vis * factors[:, None], transmission, phase)
    assert together.shape == (3, 24, 12)
    for factor, rates in zip(factors, together, strict=True):
        np.testing.assert_allclose(rates, expected_pixel_rates(3.0 * factor, vis * factor, transmission, phase))


def test_columns_conserve_the_flux_behind_the_grids() -> None:
    rates = expected_column_rates(2.0, np.array([0.3 + 0.4j]), np.array([0.24]), np.array([77.0]))
    assert rates.sum() == pytest.approx(4 * 0.24 * 2.0)


def test_unknown_rows_are_refused() -> None:
    assert sum_case("top+bottom").rows == (0, 1)
    with pytest.raises(UsageError, match=r"top\+bottom"):
        sum_case("middle")
