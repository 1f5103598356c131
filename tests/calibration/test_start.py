"""The scale that a fit begins with."""

import numpy as np
import pytest

from stixflow.calibration.lines import WINDOWS, expected_counts
from stixflow.calibration.start import find_scale, first_guess

_EDGES = np.arange(1000.0, 2000.0, 4.0)


def _spectra(scale: np.ndarray, counts: float) -> np.ndarray:
    unknowns = first_guess(scale, np.full(len(scale), counts))
    start, stop = (np.broadcast_to(axis, (len(scale), axis.size)) for axis in (_EDGES[:-1], _EDGES[1:]))
    return sum(expected_counts(window, unknowns, start, stop)[0] for window in WINDOWS)


@pytest.mark.parametrize("counts", [300.0, 3e4])
def test_the_scale_is_found_within_a_step_or_two(counts: float) -> None:
    rng = np.random.default_rng(3)
    scale = np.stack([rng.uniform(805.0, 1035.0, 200), rng.uniform(8.65, 10.15, 200)], axis=1)
    spectra = rng.poisson(_spectra(scale, counts)).astype(np.float64)
    found = find_scale(spectra, np.ones(spectra.shape, bool), _EDGES[:-1], _EDGES[1:])
    assert (found[:, 2] > 0.8).all()
    for energy in (31.0, 81.0):
        away = (found[:, 0] + energy * found[:, 1]) - (scale[:, 0] + energy * scale[:, 1])
        assert np.abs(away).max() < 6.0


def test_nothing_is_like_nothing() -> None:
    empty = np.zeros((2, _EDGES.size - 1))
    found = find_scale(empty, np.ones(empty.shape, bool), _EDGES[:-1], _EDGES[1:])
    assert not (found[:, 2] > 0).any()
