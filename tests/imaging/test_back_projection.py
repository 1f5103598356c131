from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.errors import UsageError
from stixflow.imaging import BackProjection, Grid
from stixflow.imaging.back_projection import Weighting, back_project, point_spread, shift_phase_center, weights

ORACLES = [
    "xrv_double_measured_high", "xrv_loop_measured_low", "real_stix_20200607_65x2", "real_stix_20200607_129x2",
    "rhessi_sample",
]  # fmt: skip


def _set(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    u, v = random.uniform(-0.03, 0.03, (2, n))
    return u, v, random.standard_normal(n) + 1j * random.standard_normal(n)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("weighting", ["natural", "uniform"])
@pytest.mark.parametrize("copies", [1, 17])
def test_maps_and_point_spread_equal_the_reference(shared: Path, name: str, weighting: Weighting, copies: int) -> None:
    made = np.load(shared / "oracle/imaging" / f"{name}.npz")
    parameters = json.loads(str(made["params"]))
    grid = Grid(parameters["n"], float(parameters["pixel_arcsec"]))
    maps = back_project(np.tile(made["vis"], (copies, 1)), made["u"], made["v"], grid, BackProjection(weighting))
    wanted = made[f"bp_{weighting}"]
    np.testing.assert_allclose(maps[-1], wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    half = grid.shape[0] // 2
    spread = point_spread(made["u"], made["v"], grid, weighting)[half:-half, half:-half]
    np.testing.assert_allclose(spread, made[f"psf_{weighting}"], rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(ny=st.integers(1, 9), nx=st.integers(1, 9), copies=st.sampled_from([1, 20]), n=st.integers(1, 6))
def test_every_pixel_is_the_weighted_sum(ny: int, nx: int, copies: int, n: int) -> None:
    u, v, vis = _set(n, seed=ny * 10 + nx)
    grid = Grid((ny, nx), (3.0, 2.0))
    maps = back_project(np.tile(vis, (copies, 1)), u, v, grid)
    for iy, y in enumerate(grid.y):
        for ix, x in enumerate(grid.x):
            wanted = (vis * np.exp(-2j * np.pi * (u * x + v * y))).real.mean()
            np.testing.assert_allclose(maps[:, iy, ix], wanted, atol=1e-13)


def test_a_stack_with_different_images_keeps_their_order() -> None:
    u, v, vis = _set(24)
    stack = np.arange(1, 33)[:, None] * vis
    maps = back_project(stack, u, v, Grid((33, 20), 2.0))
    np.testing.assert_allclose(maps, np.arange(1, 33)[:, None, None] * maps[0], rtol=1e-12, atol=1e-13)


def test_float32_is_as_close_as_its_digits() -> None:
    u, v, vis = _set(24)
    stack, grid = np.tile(vis, (20, 1)), Grid(65, 2.0)
    exact, quick = back_project(stack, u, v, grid), back_project(stack, u, v, grid, BackProjection(precision="float32"))
    assert quick.dtype == np.float32
    assert 0 < np.abs(quick - exact).max() < 1e-6 * np.abs(exact).max()


def test_moving_the_phase_centre_moves_the_map() -> None:
    u, v, vis = _set(24)
    moved = shift_phase_center(vis[None], u, v, 6.0, -4.0)
    before, after = (back_project(one, u, v, Grid((41, 41), 2.0))[0] for one in (vis[None], moved))
    np.testing.assert_allclose(after[2:, :-3], before[:-2, 3:], atol=1e-12)


def test_point_spread_peaks_at_one_and_is_symmetric() -> None:
    u, v, _ = _set(24)
    spread = point_spread(u, v, Grid((10, 7), 2.0), "uniform")
    assert spread.shape == (19, 13)
    assert spread[9, 6] == pytest.approx(1.0)
    np.testing.assert_allclose(spread, spread[::-1, ::-1], atol=1e-14)


def test_weights_sum_to_one_and_others_are_refused() -> None:
    u, v, _ = _set(24)
    assert weights(u, v, "natural").sum() == pytest.approx(1.0)
    assert weights(u, v, "uniform").sum() == pytest.approx(1.0)
    with pytest.raises(UsageError, match="natural"):
        weights(u, v, "robust")  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.floats(-1e3, 1e3), weighting=st.sampled_from(["natural", "uniform"]))
def test_maps_are_linear_and_do_not_depend_on_the_order(seed: int, factor: float, weighting: Weighting) -> None:
    u, v, one = _set(24, seed)
    other, order = _set(24, seed + 1)[2], np.random.default_rng(seed).permutation(24)
    grid, parameters = Grid((9, 12), 3.0), BackProjection(weighting)
    first, second, both = (back_project(vis, u, v, grid, parameters) for vis in (one, other, one + factor * other))
    np.testing.assert_allclose(both, first + factor * second, atol=1e-12 * (1 + abs(factor)))
    np.testing.assert_allclose(back_project(one[order], u[order], v[order], grid, parameters), first, atol=1e-13)
