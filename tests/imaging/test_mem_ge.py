from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging import Gaussian, Grid, MemGE, from_arrays, reconstruct, source_visibilities
from stixflow.imaging.mem_ge import MemMaps, mem_ge, signal_to_noise
from stixflow.imaging.nnls import nnls_flux
from stixflow.instrument import detectors, subcollimators

ORACLES = [
    "xrv_circle_measured_high", "xrv_circle_measured_low", "xrv_double_measured_high", "xrv_double_measured_low",
    "xrv_ellipse_measured_high", "xrv_ellipse_measured_low", "xrv_loop_measured_low", "xrv_triple_measured_high",
    "real_stix_20200607_65x2", "rhessi_sample",
]  # fmt: skip
U, V = detectors().u[subcollimators()], detectors().v[subcollimators()]
SOURCES = [Gaussian(6.0, 12.0, -8.0, 14.0), Gaussian(3.0, -20.0, 15.0, 9.0)]
VIS = source_visibilities(SOURCES, U, V)


def _noisy(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(seed).standard_normal((2, n, 24))
    return VIS + 0.3 * (noise[0] + 1j * noise[1]), np.full((n, 24), 0.3)


def _waves(grid: Grid) -> np.ndarray:
    x, y = np.meshgrid(grid.offset_x, grid.offset_y)
    phase = 2 * np.pi * (np.multiply.outer(U, x.ravel()) + np.multiply.outer(V, y.ravel()))
    return np.concatenate([np.cos(phase), np.sin(phase)]) * grid.pixel_area


def _objective(image: np.ndarray, vis: np.ndarray, sigma: np.ndarray, grid: Grid, weight: float) -> float:
    """Misfit and weighted relative entropy, straight from the definition."""
    values, flat = image.ravel(), image.mean()
    misfit = (_waves(grid) @ values - np.concatenate([vis.real, vis.imag])) / np.concatenate([sigma, sigma])
    return float((misfit**2).sum() + weight * (values * np.log(values / flat)).sum())


def _oracle(shared: Path, name: str) -> tuple[Any, Any]:
    folder = shared / "oracle/imaging"
    return np.load(folder / f"{name}.npz"), np.load(folder / "exact_mem_optimum.npz")


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("merge", [False, True], ids=["all", "merged"])
def test_maps_are_the_certified_optimum(shared: Path, name: str, merge: bool) -> None:
    made, best = _oracle(shared, name)
    key = f"{name}|{'merged' if merge else 'all'}"
    objective, flux, _, n_vis = best[f"{key}|J_flux_lambda_frac_nvis"]
    grid = Grid(65, 2.0)
    fraction = "rhessi" if name.startswith("rhessi") else "stix"
    maps = mem_ge(made["vis"], made["sigamp"], made["u"], made["v"], grid, MemGE(fraction, merge=merge, tolerance=1e-9))  # type: ignore[arg-type]
    wanted = best[f"{key}|image"]
    np.testing.assert_allclose(maps.image[0], wanted, rtol=0, atol=1e-4 * wanted.max())
    assert maps.converged[0]
    assert maps.flux[0] == pytest.approx(flux, rel=1e-7)
    assert maps.image[0].sum() * grid.pixel_area == pytest.approx(flux, rel=1e-7)
    shift = maps.regularisation[0] * flux / grid.pixel_area
    assert maps.objective[0] - shift == pytest.approx(objective, rel=1e-6)
    assert (n_vis < len(made["u"])) == merge


@pytest.mark.parametrize("name", ["xrv_double_measured_low", "rhessi_sample"])
def test_signal_to_noise_and_flux_equal_the_reference(shared: Path, name: str) -> None:
    made, _ = _oracle(shared, name)
    assert signal_to_noise(made["vis"], made["sigamp"])[0] == pytest.approx(float(made["snr"]), rel=1e-12)
    flux = nnls_flux(made["vis"], made["sigamp"], made["u"], made["v"], Grid(65, 2.0))
    assert flux[0] == pytest.approx(float(made["mem_total_flux"]), rel=1e-9)


@pytest.mark.parametrize("shape", [(24, 31), (25, 20), (33, 33)])
def test_objective_and_gap_are_what_they_say(shape: tuple[int, int]) -> None:
    (vis, sigma), grid = _noisy(2), Grid(shape, (4.0, 3.5))
    rough = mem_ge(vis, sigma, U, V, grid, MemGE(max_iterations=2))
    exact = mem_ge(vis, sigma, U, V, grid, MemGE(tolerance=1e-12))
    assert not rough.converged.any()
    for i in range(2):
        for maps in (rough, exact):
            weight = float(maps.regularisation[i])
            found = _objective(maps.image[i], vis[i], sigma[i], grid, weight)
            assert maps.objective[i] == pytest.approx(found, rel=1e-9)
        above = rough.objective[i] - exact.objective[i]
        assert 0 < above <= rough.duality_gap[i]
        assert rough.duality_gap[i] > 1e-6 * rough.objective[i]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), pull=st.floats(1e-4, 1e-2))
def test_no_other_map_of_the_same_flux_is_better(seed: int, pull: float) -> None:
    (vis, sigma), grid = _noisy(1, seed), Grid((15, 16), 6.0)
    maps = mem_ge(vis, sigma, U, V, grid, MemGE(tolerance=1e-10))
    other = maps.image[0] * np.exp(pull * np.random.default_rng(seed).standard_normal(grid.shape))
    other *= maps.image[0].sum() / other.sum()
    weight = float(maps.regularisation[0])
    assert _objective(other, vis[0], sigma[0], grid, weight) >= maps.objective[0] - maps.duality_gap[0]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e4))
def test_maps_are_positive_keep_their_flux_and_scale_with_it(seed: int, scale: float) -> None:
    (vis, sigma), grid = _noisy(2, seed), Grid((17, 20), 5.0)
    flux = np.array([9.0, 11.0])
    tight = MemGE(tolerance=1e-10)
    maps = mem_ge(vis, sigma, U, V, grid, tight, flux=flux)
    assert (maps.image > 0).all()
    np.testing.assert_allclose(maps.image.sum(axis=(1, 2)) * grid.pixel_area, flux, rtol=1e-12)
    scaled = mem_ge(vis * scale, sigma * scale, U, V, grid, tight, flux=flux * scale)
    np.testing.assert_allclose(scaled.image, maps.image * scale, rtol=1e-4, atol=1e-7 * maps.image.max() * scale)


def test_conjugate_visibilities_turn_the_map_and_their_order_does_not_matter() -> None:
    (vis, sigma), grid, order = _noisy(1), Grid((21, 24), 5.0), np.random.default_rng(1).permutation(24)
    tight = MemGE(tolerance=1e-12)
    wanted = mem_ge(vis, sigma, U, V, grid, tight).image[0]
    turned = mem_ge(vis.conj(), sigma, U, V, grid, tight).image[0]
    np.testing.assert_allclose(turned[::-1, ::-1], wanted, rtol=1e-5)
    shuffled = mem_ge(vis[:, order], sigma[:, order], U[order], V[order], grid, tight).image[0]
    np.testing.assert_allclose(shuffled, wanted, rtol=1e-5)
    mirrored = mem_ge(vis, sigma, -U, -V, grid, tight).image[0]
    np.testing.assert_allclose(mirrored[::-1, ::-1], wanted, rtol=1e-5)


def test_a_stack_gives_the_images_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    (vis, sigma), grid = _noisy(12), Grid((21, 20), 4.0)
    together = mem_ge(vis, sigma, U, V, grid)
    monkeypatch.setattr("stixflow.imaging.mem_ge._MOST_TOGETHER", 9)
    monkeypatch.setattr("stixflow.imaging.entropy_dual._PRODUCT_BLOCK_BYTES", 1 << 16)
    cut = mem_ge(vis, sigma, U, V, grid)
    np.testing.assert_array_equal(cut.iterations, together.iterations)
    np.testing.assert_allclose(cut.image, together.image, rtol=1e-4)


@pytest.mark.parametrize("source", [Gaussian(6.0, 0.0, 0.0, 150.0), Gaussian(5.0, 70.0, 60.0, 10.0), SOURCES[0]])
@pytest.mark.parametrize("sigma", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("fraction", ["stix", 1e-4])
def test_sources_that_do_not_fit_the_map_are_solved_too(source: Gaussian, sigma: float, fraction: Any) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 4, 24)) * sigma
    vis = source_visibilities([source], U, V) + noise[0] + 1j * noise[1]
    maps = mem_ge(vis, np.full((4, 24), sigma), U, V, Grid(45, 2.5), MemGE(fraction), flux=source.flux)
    assert maps.converged.all()
    assert (maps.duality_gap <= 1e-6 * np.maximum(maps.objective, 1.0)).all()


def test_many_visibilities_take_the_other_way_to_the_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    (vis, sigma), grid = _noisy(9), Grid((21, 20), 4.0)
    shared_products = mem_ge(vis, sigma, U, V, grid, MemGE(tolerance=1e-10)).image
    monkeypatch.setattr("stixflow.imaging.entropy_dual._MOST_SHARED", 0)
    separate = mem_ge(vis, sigma, U, V, grid, MemGE(tolerance=1e-10)).image
    np.testing.assert_allclose(separate, shared_products, rtol=1e-4)


def test_single_precision_is_as_close_as_stated() -> None:
    (vis, sigma), grid = _noisy(3), Grid(65, 2.0)
    exact, quick = (mem_ge(vis, sigma, U, V, grid, MemGE(precision=name)) for name in ("float64", "float32"))  # type: ignore[arg-type]
    assert quick.image.dtype == np.float32
    assert 0 < np.abs(quick.image - exact.image).max() < 1e-5 * exact.image.max()
    assert quick.converged.all()


def _solved(**parameters: Any) -> MemMaps:
    vis, sigma = _noisy(1)
    return mem_ge(vis, sigma, U, V, Grid(21, 5.0), MemGE(**parameters))


def test_flux_and_fraction_can_be_given() -> None:
    assert _solved(flux=12.5).flux[0] == 12.5
    assert _solved(flux="largest").flux[0] == pytest.approx(np.abs(_noisy(1)[0]).max())
    strong, weak = _solved(fraction=0.2), _solved(fraction=0.002)
    assert strong.regularisation[0] > 10 * weak.regularisation[0]
    assert strong.chi2[0] > weak.chi2[0]
    with pytest.raises(UsageError, match="counts"):
        _solved(flux="counts")


def test_the_flux_estimate_of_a_fine_grid_is_that_of_the_same_field_of_view() -> None:
    vis, sigma = _noisy(2)
    coarse, fine = nnls_flux(vis, sigma, U, V, Grid(65, 2.0)), nnls_flux(vis, sigma, U, V, Grid(130, 1.0))
    np.testing.assert_allclose(fine, coarse, rtol=1e-12)


@pytest.mark.parametrize(("roughness", "difference"), [(None, 1e-6), (0.5, 1e-12)], ids=["as it is", "all in doubt"])
def test_the_flux_in_single_precision_stops_at_the_same_step(
    monkeypatch: pytest.MonkeyPatch, roughness: float | None, difference: float
) -> None:
    if roughness is not None:
        monkeypatch.setattr("stixflow.imaging.nnls._FLUX_ROUGHNESS", roughness)
    (vis, sigma), grid = _noisy(80), Grid((33, 40), 3.0)
    exact = nnls_flux(vis, sigma, U, V, grid)
    np.testing.assert_allclose(nnls_flux(vis, sigma, U, V, grid, precision="float32"), exact, rtol=difference)
    scaled = nnls_flux(vis * 1e-25, sigma * 1e-25, U, V, grid, precision="float32")
    np.testing.assert_allclose(scaled, exact * 1e-25, rtol=difference)


@pytest.mark.parametrize(
    ("vis", "sigma"), [(np.full(24, np.nan), np.ones(24)), (VIS, np.zeros(24)), (VIS, np.full(24, np.nan))]
)
def test_unusable_visibilities_are_refused(vis: np.ndarray, sigma: np.ndarray) -> None:
    with pytest.raises(ImagingError, match="not usable"):
        mem_ge(vis, sigma, U, V, Grid(9, 4.0))


def test_an_image_without_positive_flux_is_missing_and_the_others_are_not() -> None:
    (vis, sigma), grid = _noisy(4), Grid(9, 4.0)
    maps = mem_ge(vis, sigma, U, V, grid, flux=[9.0, -1.0, np.nan, 9.0])
    assert np.isnan(maps.image).all(axis=(1, 2)).tolist() == [False, True, True, False]
    assert maps.converged.tolist() == [True, False, False, True]
    wanted = mem_ge(vis[3], sigma[3], U, V, grid, flux=9.0)
    np.testing.assert_allclose(maps.image[3], wanted.image[0], rtol=1e-6)


@pytest.mark.parametrize(
    "parameters",
    [{"fraction": 0.0}, {"fraction": "hinode"}, {"flux": -1.0}, {"flux": "guess"}, {"tolerance": 0.0},
     {"max_iterations": 0}],
)  # fmt: skip
def test_senseless_parameters_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="MEM_GE with"):
        MemGE(**parameters)


def test_the_flux_is_that_of_the_counts_where_there_are_counts() -> None:
    """The estimate of the reference software grows with the field of view; the counts do not."""
    data = from_arrays(U, V, source_visibilities([Gaussian(9.0, 6.0, -4.0, 14.0)], U, V), np.full(U.size, 0.3))
    counted = data.assign(total_flux=("image", [9.0]))
    small, large = Grid(33, 4.0), Grid(65, 4.0)
    assert [reconstruct(counted, grid, "mem_ge")["flux"].item() for grid in (small, large)] == [9.0, 9.0]
    estimates = [reconstruct(data, grid, "mem_ge")["flux"].item() for grid in (small, large)]
    assert estimates == [reconstruct(counted, grid, MemGE(flux="nnls"))["flux"].item() for grid in (small, large)]
    assert 9.0 < estimates[0] < 1.2 * 9.0 < 1.3 * 9.0 < estimates[1]
