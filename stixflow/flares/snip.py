"""Smoothing and the SNIP envelope of a light curve: what the curve would be without its flares.

The envelope is the sensitive non-linear iterative peak clipping of order six with a decreasing window and three-bin
smoothing inside the loop (Morhac et al. 1997, NIM A 401, 113; the choice of the public STIX pipeline).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Curve = NDArray[np.float64]

_SMOOTH_BINS = 15
_ITERATIONS = 900

_TIE = 1 - 1e-12
"""Counts are quantised, so estimate and value are often equal; rounding must not decide which one a bin becomes."""


def smooth(counts: ArrayLike, width: int = _SMOOTH_BINS) -> Curve:
    """Unweighted moving mean over `width` bins along the last axis, the ends padded with their own values.

    The shares are added from the earliest to the latest: counts are quantised, so equal peaks are common, and which
    of two equal peaks the operational list names hangs on exactly this rounding.

    Parameters
    ----------
    counts
        Any shape (..., time).
    width
        Odd number of bins.
    """
    shares = np.asarray(counts, dtype=np.float64) * (1.0 / width)
    size, left = shares.shape[-1], width // 2
    padded = np.pad(shares, [(0, 0)] * (shares.ndim - 1) + [(left, width - 1 - left)], mode="edge")
    mean = padded[..., :size].copy()
    for k in range(1, width):
        mean += padded[..., k : k + size]
    return mean


def snip_envelope(smoothed: ArrayLike, iterations: int = _ITERATIONS) -> Curve:
    """Clip the peaks of a curve, window by window, down to its slowly varying floor.

    For p from ``min((N - 1) // 2, iterations)`` down to 1 a bin becomes the largest of three central estimates over
    +-p bins (orders 2, 4 and 6) where that is below its value, and the mean of itself and its neighbours elsewhere.

    Parameters
    ----------
    smoothed
        Shape (..., time); curves of equal length may be stacked.
    iterations
        Largest half width in bins.
    """
    envelope = np.array(smoothed, dtype=np.float64, order="C")
    half = np.empty_like(envelope)
    pool = tuple(np.empty_like(envelope) for _ in range(4))
    below = np.empty(envelope.shape, dtype=np.bool_)
    for p in range(min((envelope.shape[-1] - 1) // 2, iterations), 0, -1):
        _halved_mean_of_three(envelope, half)
        _clip(envelope, half, p, pool, below)
    return envelope


def _halved_mean_of_three(values: Curve, out: Curve) -> None:
    """Half the mean of each bin and its neighbours: the sum of two of them is then the order-2 estimate itself."""
    inner = out[..., 1:-1]
    np.add(values[..., :-2], values[..., 2:], out=inner)
    np.add(inner, values[..., 1:-1], out=inner)
    np.multiply(inner, 1 / 6, out=inner)
    out[..., 0] = (values[..., 0] + values[..., 1]) / 4
    out[..., -1] = (values[..., -1] + values[..., -2]) / 4


def _clip(envelope: Curve, half: Curve, p: int, pool: tuple[Curve, ...], below: NDArray[np.bool_]) -> None:
    """One pass of the window p, in place; `half` holds the old curve, so the update is of the Jacobi kind.

    With S(k) = half(j - k) + half(j + k), q = p // 2 and r = p // 3 the estimates are S(p), (4 S(q) - S(2q)) / 3 and
    (15 S(r) - 6 S(2r) + S(3r)) / 10. For even p the larger of the first two is (4 max(S(p), S(q)) - S(p)) / 3.
    """
    size = envelope.shape[-1]
    q, r = p // 2, p // 3
    best, term, outer, far = (buffer[..., : size - 2 * p] for buffer in pool)
    inside = half[..., p : size - p]

    def pair(k: int, out: Curve) -> Curve:
        return np.add(half[..., p - k : size - p - k], half[..., p + k : size - p + k], out=out)

    pair(p, outer)
    pair(q, best)
    if p % 2:
        np.multiply(best, 4 / 3, out=best)
        np.multiply(pair(2 * q, term), 1 / 3, out=term)
        np.subtract(best, term, out=best)
        np.maximum(best, outer, out=best)
    else:
        np.maximum(best, outer, out=best)
        np.multiply(best, 4 / 3, out=best)
        np.multiply(outer, 1 / 3, out=term)
        np.subtract(best, term, out=best)
    np.multiply(pair(2 * r, far), 0.4, out=far)
    np.subtract(pair(r, term), far, out=term)
    np.multiply(term, 1.5, out=term)
    np.multiply(outer if p % 3 == 0 else pair(3 * r, far), 0.1, out=outer)
    np.add(term, outer, out=term)
    np.maximum(best, term, out=best)
    target, where = envelope[..., p : size - p], below[..., : size - 2 * p]
    np.less(best, np.multiply(target, _TIE, out=term), out=where)
    np.add(inside, inside, out=target)
    np.copyto(target, best, where=where)
