"""Light curves across motions of the attenuator: which factor makes them continuous."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stixflow.flares.curve import Floats, Indices

_SIDE_BINS = 4
_LEAST_SIGMAS = 3.0
_LARGEST_FACTOR = 1e4


def continued(excess: Floats, rcr: NDArray[np.int64], scatter: Floats, segment: Indices) -> Floats:
    """Scale an excess over background so that changes of the rate control regime leave no step.

    Where the regime changes, the counts of both sides should agree; the factor between them is carried through the
    regimes above 0 and, if the curve returns to regime 0, what is left then is spread evenly over the excursion.

    Parameters
    ----------
    excess, rcr, scatter, segment
        Per bin: counts above background, regime, standard deviation of a quiet bin, number of the unbroken stretch.

    Returns
    -------
    Per bin: the excess had the attenuator stayed out, for the shape only.
    """
    if not (rcr > 0).any():
        return excess
    result = excess.copy()
    edges = np.flatnonzero((np.diff(rcr) != 0) | (np.diff(segment) != 0)) + 1
    runs = list(zip([0, *edges.tolist()], [*edges.tolist(), len(rcr)], strict=True))
    pending: list[tuple[int, int, float]] = []
    offset = 0.0
    for (a, b), (c, _) in zip(runs, [*runs[1:], (len(rcr), len(rcr))], strict=True):
        if rcr[a] > 0:
            if not pending:
                offset = 0.0
            offset += _step(excess, scatter, a, segment)
            pending.append((a, b, offset))
            returns = c < len(rcr) and rcr[c] == 0 and segment[c] == segment[a]
            if returns or c == len(rcr) or segment[c] != segment[a]:
                left = offset + _step(excess, scatter, c, segment) if returns else 0.0
                _apply(result, pending, left)
                pending = []
    for edge in edges.tolist():
        if segment[edge - 1] == segment[edge] and 1 <= edge < len(rcr) - 1:
            result[edge] = (result[edge - 1] + result[edge + 1]) / 2.0
    return result


def _step(excess: Floats, scatter: Floats, edge: int, segment: Indices) -> float:
    """Log of the excess before an edge over that after it, the bin of the motion left out; 0 if either is faint."""
    if edge < 1 or segment[edge - 1] != segment[edge]:
        return 0.0
    before, after = slice(max(edge - _SIDE_BINS, 0), edge), slice(edge + 1, edge + 1 + _SIDE_BINS)
    if not len(excess[after]):
        return 0.0
    one, other = float(np.median(excess[before])), float(np.median(excess[after]))
    if one < _LEAST_SIGMAS * scatter[edge] or other < _LEAST_SIGMAS * scatter[edge] / _SIDE_BINS:
        return 0.0
    return float(np.clip(np.log(one / other), -np.log(_LARGEST_FACTOR), np.log(_LARGEST_FACTOR)))


def _apply(result: Floats, pending: list[tuple[int, int, float]], left: float) -> None:
    """Multiply the runs by their factors, less the part of the closing error that lies before each bin."""
    first, last = pending[0][0], pending[-1][1]
    ramp = left * (np.arange(first, last) - first) / max(last - first, 1)
    for a, b, offset in pending:
        result[a:b] *= np.exp(offset - ramp[a - first : b - first])
