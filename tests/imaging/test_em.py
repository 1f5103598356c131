from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging import EM, Gaussian, Grid, expected_column_rates, source_visibilities
from stixflow.imaging.em import EMMaps, c_statistic, em
from stixflow.imaging.forward import modulation_amplitude
from stixflow.imaging.visibilities import phase_correction
from stixflow.instrument import SumCase, detectors, grid_transmission, subcollimators

K = subcollimators()
U, V = detectors().u[K], detectors().v[K]
PHASE = phase_correction(K)
OFFSET = 46.1
IDEAL = 0.25
TRANSMISSION = grid_transmission(0.0, 0.0)[K]
SOURCES = [Gaussian(6.0, 12.0, -8.0, 14.0), Gaussian(3.0, -20.0, 15.0, 9.0)]


def _rates(sources: list[Gaussian] = SOURCES, rows: SumCase = SumCase.TOP_BOTTOM) -> np.ndarray:
    flux = sum(source.flux for source in sources)
    return expected_column_rates(flux, source_visibilities(sources, U, V), TRANSMISSION, PHASE, rows)


def _noisy(n: int, sigma: float = 0.05, seed: int = 0) -> np.ndarray:
    return _rates() + sigma * np.random.default_rng(seed).standard_normal((n, 24, 4))


def _maps(rates: np.ndarray, grid: Grid, parameters: EM | None = None) -> EMMaps:
    return em(rates, TRANSMISSION, PHASE + OFFSET, U, V, grid, parameters)


def _system(grid: Grid) -> np.ndarray:
    """The 96 rows of the problem as a plain matrix: the rates of one pixel of flux 1 after the other."""
    x, y = np.meshgrid(grid.offset_x, grid.offset_y)
    vis = np.exp(2j * np.pi * (np.multiply.outer(x.ravel(), U) + np.multiply.outer(y.ravel(), V)))
    return expected_column_rates(1.0, vis, TRANSMISSION, PHASE).reshape(x.size, -1).T


@pytest.mark.parametrize(
    "name",
    [
        "circle_measured_high", "circle_measured_low", "double_measured_high", "double_measured_low",
        "ellipse_measured_high", "ellipse_measured_low", "loop_measured_low", "triple_measured_high",
    ],
)  # fmt: skip
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_maps_equal_those_of_the_ground_software(shared: Path, name: str, precision: str) -> None:
    made = np.load(shared / "oracle/imaging" / f"sim_{name}.npz")
    reference = np.load(shared / "oracle/imaging" / f"idl_{name}.npz")
    k, (x, y) = reference["isc"].astype(int) - 1, made["center"]
    u, v = made["u"][k], made["v"][k]
    phase = phase_correction(k) + OFFSET - 360.0 * (u * x + v * y)
    maps = em(made["rates"][k], reference["subc_transmission"][k], phase, u, v, Grid(65, 2.0), EM(precision=precision))  # type: ignore[arg-type]
    wanted = reference["em_65x65_2"]
    np.testing.assert_allclose(maps.image[0], wanted, rtol=0, atol=1e-5 * wanted.max())
    assert maps.converged.all()


@pytest.mark.parametrize("energies", ["e6-10", "e18-28"])
def test_maps_equal_those_of_stixpy_after_as_many_updates(shared: Path, energies: str) -> None:
    made = np.load(shared / "oracle/imaging/stixpy_synth_cpd.npz")
    (x, y) = np.load(shared / "oracle/imaging/synth_cpd_truth.npz")["location"]
    key = f"{energies}_top+bot_noshadow"
    rates = (made[f"{key}_sci_rate"] - made[f"{key}_bkg_rate"])[K]
    phase = PHASE + OFFSET - 360.0 * (U * x + V * y)
    stop = em(rates, IDEAL, phase, U, V, Grid(65, 2.0)).iterations[0]
    one_more = EM(tolerance=0.0, max_iterations=int(stop) + 1)  # stixpy looks after the next update
    maps = em(rates, IDEAL, phase, U, V, Grid(65, 2.0), one_more)
    wanted = made[f"{key}_em_65x2"]
    np.testing.assert_allclose(maps.image[0], wanted, rtol=0, atol=1e-10 * wanted.max())


@pytest.mark.parametrize("shape", [(9, 11), (8, 7), (6, 10)])
def test_updates_are_those_of_the_plain_matrix(shape: tuple[int, int]) -> None:
    grid, rates = Grid(shape, (5.0, 4.0)), _noisy(1)[0]
    matrix, x = _system(grid), np.ones(shape[0] * shape[1])
    for _ in range(40):
        x *= matrix.T @ (rates.ravel() / (matrix @ x)) / matrix.sum(axis=0)
    maps = _maps(rates, grid, EM(tolerance=0.0, max_iterations=40))
    np.testing.assert_allclose(maps.image[0].ravel() * grid.pixel_area, x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(maps.rates[0].ravel(), matrix @ x, rtol=1e-9)
    assert not maps.converged[0]


def test_the_stop_rule_is_looked_at_every_25_updates() -> None:
    grid, rates = Grid((13, 12), 5.0), _noisy(1)[0]
    matrix, x = _system(grid), np.ones(13 * 12)
    found = _maps(rates, grid, EM(tolerance=0.05)).iterations[0]
    sensitivity = matrix.sum(axis=0)
    measures = []
    for _ in range(found):
        x *= matrix.T @ (rates.ravel() / (matrix @ x)) / sensitivity
        ratio = rates.ravel() / (matrix @ x)
        above = ((x * (sensitivity - matrix.T @ ratio)) ** 2).sum()
        measures.append(above / (x**2 * ((1 / (matrix @ x)) @ matrix**2)).sum())
    assert found % 25 == 0
    assert measures[-1] < 0.05
    assert all(measure >= 0.05 for measure in measures[24:-1:25])


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_total_of_the_rates_is_kept_and_no_pixel_is_negative(seed: int, scale: float) -> None:
    rates, grid = np.abs(_noisy(2, 0.1, seed)) * scale, Grid((15, 16), 5.0)
    maps = _maps(rates, grid)
    assert (maps.image >= 0).all()
    np.testing.assert_allclose(maps.rates.sum(axis=(1, 2)), rates.sum(axis=(1, 2)), rtol=1e-10)
    flux = maps.image.sum(axis=(1, 2)) * grid.pixel_area
    np.testing.assert_allclose(4 * TRANSMISSION.sum() * flux, rates.sum(axis=(1, 2)), rtol=1e-10)
    same_updates = EM(tolerance=0.0, max_iterations=50)
    wanted = _maps(rates, grid, same_updates).image
    np.testing.assert_allclose(_maps(rates / scale, grid, same_updates).image * scale, wanted, rtol=1e-7)


def test_negative_net_rates_neither_raise_the_flux_nor_make_negative_pixels() -> None:
    grid = Grid(33, 4.0)
    rates = _noisy(8, 1.5, seed=3)
    assert (rates < 0).mean() > 0.05
    maps = _maps(rates, grid, EM(max_iterations=200))
    assert (maps.image >= 0).all()
    assert np.isfinite(maps.image).all()
    flux = maps.image.sum(axis=(1, 2)) * grid.pixel_area
    unbiased = rates.sum(axis=(1, 2)) / (4 * TRANSMISSION.sum())
    clipped = np.maximum(rates, 0).sum(axis=(1, 2)) / (4 * TRANSMISSION.sum())
    assert (np.abs(flux - unbiased) < 0.5 * (clipped - unbiased)).all()


def test_an_image_without_positive_total_is_zero_and_has_not_converged() -> None:
    rates = np.stack([_rates(), -_rates(), np.zeros((24, 4))])
    maps = _maps(rates, Grid(17, 5.0))
    assert maps.converged.tolist() == [True, False, False]
    assert not maps.image[1:].any()
    assert np.isnan(maps.cstat[1:]).all()


def test_stacks_of_any_size_give_the_images_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rates, grid = np.concatenate([_noisy(5), _rates()[None] * 100]), Grid((21, 20), 4.0)
    together = _maps(rates, grid)
    monkeypatch.setattr("stixflow.imaging.em._STACK", 2)
    monkeypatch.setattr("stixflow.imaging.em._PIXEL_BLOCK", 64)
    cut = _maps(rates, grid)
    np.testing.assert_array_equal(cut.iterations, together.iterations)
    np.testing.assert_allclose(cut.image, together.image, rtol=1e-8, atol=1e-12)
    for i, one in enumerate(rates):
        np.testing.assert_allclose(_maps(one, grid).image[0], together.image[i], rtol=1e-8, atol=1e-12)


def test_each_image_has_its_own_transmission_and_phase() -> None:
    places = np.array([(400.0, -300.0), (-900.0, 100.0)])
    grid, transmission = Grid(33, 4.0), grid_transmission(places[:, 0], places[:, 1])[:, K]
    shift = 360.0 * (np.multiply.outer(places[:, 0], U) + np.multiply.outer(places[:, 1], V))
    moved = [[Gaussian(s.flux, s.x + x, s.y + y, s.fwhm) for s in SOURCES] for x, y in places]
    vis = np.stack([source_visibilities(sources, U, V) for sources in moved])
    rates = expected_column_rates(9.0, vis, transmission, PHASE)
    maps = em(rates, transmission, PHASE + OFFSET - shift, U, V, grid)
    for image in maps.image:
        iy, ix = np.unravel_index(image.argmax(), grid.shape)
        assert abs(grid.x[ix] - 12.0) <= 4.0
        assert abs(grid.y[iy] + 8.0) <= 4.0


def test_small_pixels_have_their_own_modulation() -> None:
    grid = Grid(33, 4.0)
    rates = _rates(rows=SumCase.SMALL)
    phase = PHASE + SumCase.SMALL.phase_offset_deg
    many = EM(tolerance=0.0, max_iterations=500)
    modulation = modulation_amplitude(TRANSMISSION, SumCase.SMALL.harmonic)
    right = em(rates, TRANSMISSION, phase, U, V, grid, many, modulation=modulation)
    wrong = em(rates, TRANSMISSION, phase, U, V, grid, many)
    assert right.cstat[0] < 0.2 * wrong.cstat[0]


@pytest.mark.parametrize("rows", [SumCase.TOP_BOTTOM, SumCase.SMALL])
def test_a_point_behind_the_finest_grids_keeps_its_flux(rows: SumCase) -> None:
    k, grid = subcollimators(*range(10, 0, -1)), Grid(45, 1.5)
    u, v, transmission = detectors().u[k], detectors().v[k], grid_transmission(0.0, 0.0)[k]
    vis = source_visibilities([Gaussian(6.0, 0.0, 0.0, 1.5)], u, v)
    rates = expected_column_rates(6.0, vis, transmission, phase_correction(k), rows)
    rates += 0.02 * np.random.default_rng(0).standard_normal(rates.shape)
    assert rates.min() < 0
    modulation = modulation_amplitude(transmission, rows.harmonic)
    maps = em(rates, transmission, phase_correction(k) + rows.phase_offset_deg, u, v, grid, modulation=modulation)
    assert maps.image.sum() * grid.pixel_area == pytest.approx(6.0, rel=0.1)
    iy, ix = np.unravel_index(maps.image[0].argmax(), grid.shape)
    assert (iy, ix) == (22, 22)


def test_sources_and_order_of_the_subcollimators_do_not_matter() -> None:
    grid, order = Grid(21, 5.0), np.random.default_rng(1).permutation(24)
    wanted = _maps(_rates(), grid)
    shuffled = em(_rates()[order], TRANSMISSION[order], (PHASE + OFFSET)[order], U[order], V[order], grid)
    np.testing.assert_allclose(shuffled.image, wanted.image, rtol=1e-9, atol=1e-12)


def test_c_statistic_is_zero_for_the_right_model_and_skips_empty_columns() -> None:
    assert c_statistic([[1.0, 2.0]], [[1.0, 2.0]])[0] == 0
    expected = 2 * (2.0 * np.log(2.0) + 1.0 - 2.0)
    assert c_statistic([[2.0, 0.0, -1.0]], [[1.0, 5.0, 7.0]])[0] == pytest.approx(expected)


def test_single_precision_is_as_close_as_stated() -> None:
    rates, grid = _noisy(3), Grid(65, 2.0)
    exact, quick = _maps(rates, grid), _maps(rates, grid, EM(precision="float32"))
    assert quick.image.dtype == np.float32
    np.testing.assert_array_equal(quick.iterations, exact.iterations)
    assert 0 < np.abs(quick.image - exact.image).max() < 1e-4 * exact.image.max()


def test_rates_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ImagingError, match="not finite"):
        _maps(np.full((24, 4), np.nan), Grid(9, 4.0))


@pytest.mark.parametrize("parameters", [{"tolerance": -1.0}, {"max_iterations": 0}])
def test_senseless_parameters_are_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="EM with"):
        EM(**parameters)  # type: ignore[arg-type]
