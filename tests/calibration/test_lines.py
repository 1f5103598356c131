"""What a pixel counts of the lines: integrals and slopes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from stixflow.calibration.lines import UNKNOWNS, WINDOWS, Window, expected_counts
from stixflow.instrument import barium

_LOGS = np.log([4.3, 5.2, 8000.0, 3000.0, 5000.0, 0.2, 0.3, 15.0, 30.0, 7.0, 3.0])
_USUAL = np.concatenate([[1180.0, 1640.0], _LOGS])


def _points(window: Window, width: float) -> tuple[np.ndarray, np.ndarray]:
    low, high = (1130.0, 1300.0) if window is WINDOWS[0] else (1530.0, 1700.0)
    edges = np.arange(low, high, width)
    return edges[None, :-1], edges[None, 1:]


@pytest.mark.parametrize("window", WINDOWS, ids=["X-rays", "gamma"])
@given(change=st.lists(st.floats(-0.5, 0.5), min_size=len(UNKNOWNS), max_size=len(UNKNOWNS)))
def test_slopes_are_those_of_the_counts(window: Window, change: list[float]) -> None:
    unknowns, step = (_USUAL + np.array(change))[None], 1e-5
    start, stop = _points(window, 4.0)
    _, slopes = expected_counts(window, unknowns, start, stop)
    for place in range(len(UNKNOWNS)):
        up, down = (unknowns + sign * step * (np.arange(len(UNKNOWNS)) == place) for sign in (1, -1))
        numeric = (expected_counts(window, up, start, stop)[0] - expected_counts(window, down, start, stop)[0]) / (
            2 * step
        )
        assert_allclose(slopes[place], numeric, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("window", WINDOWS, ids=["X-rays", "gamma"])
def test_a_wide_point_has_the_counts_of_its_parts(window: Window) -> None:
    fine, _ = expected_counts(window, _USUAL[None], *_points(window, 1.0))
    start, stop = (axis[:, ::4] if place == 0 else axis[:, 3::4] for place, axis in enumerate(_points(window, 1.0)))
    number = min(start.shape[1], stop.shape[1])
    wide, _ = expected_counts(window, _USUAL[None], start[:, :number], stop[:, :number])
    assert_allclose(wide[0], fine[0, : 4 * number].reshape(number, 4).sum(axis=1), rtol=1e-10)


def test_points_with_gaps_are_integrated_each_for_itself() -> None:
    start, stop = _points(WINDOWS[0], 4.0)
    whole, slopes = expected_counts(WINDOWS[0], _USUAL[None], start, stop)
    some, of_some = expected_counts(WINDOWS[0], _USUAL[None], start[:, ::2], stop[:, ::2])
    assert_allclose(some, whole[:, ::2], rtol=1e-12)
    assert_allclose(of_some, slopes[:, :, ::2], rtol=1e-12, atol=1e-9)


def test_all_counts_of_the_lines_are_somewhere() -> None:
    far = np.array([[-20000.0]]), np.array([[20000.0]])
    unknowns = _USUAL.copy()
    unknowns[11] = -50.0
    counts, _ = expected_counts(WINDOWS[0], unknowns[None], *far)
    assert_allclose(counts, 8000 + 3000, rtol=1e-9)


@pytest.mark.parametrize(("lines", "centroid"), [(barium.X_RAYS_ALPHA, 30.851), (barium.X_RAYS_BETA, 35.13)])
def test_blends_lie_at_their_centroids(lines: dict[float, float], centroid: float) -> None:
    assert_allclose(np.average(list(lines), weights=list(lines.values())), centroid, atol=5e-4)
