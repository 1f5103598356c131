"""Quasi-likelihood fit of all pixels at once: damped scoring, each pixel until it has reached its minimum.

Counts have the variance of their expectation plus that of their compression on board. The deviance of that variance is
minimised, ``2 [(n + q) ln((n + q) / (m + q)) - (n - m)]``, which without compression is Poisson's; Gaussian
priors hold what few counts cannot: the shapes of tails and floors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stixflow.calibration.lines import UNKNOWNS, WINDOWS, Window, expected_counts

FloatArray = NDArray[np.float64]

_PRECISION = 1e-4
_MOST_STEPS = 60
_RIDGE = 1e-14
_LARGEST_STEP = 2.0
_PRIOR_SPREAD = np.array([np.inf, np.inf, 0.5, 0.5, np.inf, 2.0, np.inf, 0.7, 0.7, 0.5, 0.5, 2.0, 2.0])
"""One sigma of the priors, in the order of the unknowns (all but the positions are logarithms)."""


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """The points of one window, for each pixel its own, padded with unused ones to the same number."""

    window: Window
    start: FloatArray
    stop: FloatArray
    counts: FloatArray
    variance: FloatArray
    """Variance of the compression."""
    used: NDArray[np.bool_]

    def of(self, rows: NDArray[np.intp]) -> Points:
        """Return the points of some pixels."""
        start, stop, counts, variance = (part[rows] for part in (self.start, self.stop, self.counts, self.variance))
        return Points(self.window, start, stop, counts, variance, self.used[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Minima:
    """What was found for each pixel."""

    unknowns: FloatArray
    """(pixel, unknown)"""
    covariance: FloatArray
    """(pixel, unknown, unknown)"""
    chi2: FloatArray
    """Pearson's, (pixel,)"""
    points: NDArray[np.int64]
    is_done: NDArray[np.bool_]


def descend(points: tuple[Points, ...], first: FloatArray, *, most_steps: int = _MOST_STEPS) -> Minima:
    """Fit every pixel, from `first` (pixel, unknown), whose values are also the centres of the priors."""
    n_pixels = len(first)
    result, done = first.copy(), np.zeros(n_pixels, np.bool_)
    curvatures, chi2 = np.empty((n_pixels, len(UNKNOWNS), len(UNKNOWNS))), np.empty(n_pixels)
    rows, free, damping = np.arange(n_pixels), first.copy(), np.full(n_pixels, 1e-3)
    left, state = points, _expand(points, free, first)
    diagonal = np.arange(len(UNKNOWNS))
    for _ in range(most_steps):
        damped = _ridged(state[2])
        damped[:, diagonal, diagonal] *= 1 + damping[:, None]
        step = -np.linalg.solve(damped, state[1][..., None])[..., 0]
        expected = -(step * state[1]).sum(axis=1)
        step[:, 2:] = np.clip(step[:, 2:], -_LARGEST_STEP, _LARGEST_STEP)
        trial = free + step
        new = _expand(left, trial, first[rows])
        with np.errstate(invalid="ignore"):
            is_lower = new[0] <= state[0]
        is_done = (expected <= _PRECISION) | (damping > 1e10)
        free[is_lower] = trial[is_lower]
        for mine, other in zip(state, new, strict=True):
            mine[is_lower] = other[is_lower]
        damping = np.where(is_lower, damping * 0.2, damping * 8.0)
        out = rows[is_done]
        result[out], curvatures[out], chi2[out], done[out] = (
            free[is_done], state[2][is_done], state[3][is_done], damping[is_done] < 1e10
        )  # fmt: skip
        keep = np.flatnonzero(~is_done)
        if keep.size < rows.size:
            rows, free, damping = rows[keep], free[keep], damping[keep]
            left, state = tuple(one.of(keep) for one in left), tuple(part[keep] for part in state)
        if not rows.size:
            break
    result[rows], curvatures[rows], chi2[rows] = free, state[2], state[3]
    number = sum(one.used.sum(axis=1) for one in points)
    return Minima(
        result,
        np.asarray(np.linalg.inv(_ridged(curvatures)), dtype=np.float64),
        chi2,
        np.asarray(number, dtype=np.int64),
        done,
    )


def _ridged(curvature: FloatArray) -> FloatArray:
    """Curvature with something on its diagonal also where the points say nothing of an unknown."""
    diagonal = np.arange(curvature.shape[-1])
    ridged = curvature.copy()
    ridged[:, diagonal, diagonal] += _RIDGE * (1 + ridged[:, diagonal, diagonal].max(axis=1, keepdims=True))
    return ridged


def _expand(points: tuple[Points, ...], unknowns: FloatArray, centre: FloatArray) -> tuple[FloatArray, ...]:
    """Deviance (pixel,), half its gradient, half its expected curvature, and Pearson's chi2."""
    away = (unknowns - centre) / _PRIOR_SPREAD
    deviance, chi2 = (away**2).sum(axis=1), np.zeros(len(unknowns))
    gradient = away / _PRIOR_SPREAD
    curvature = np.zeros((*unknowns.shape, unknowns.shape[1]))
    diagonal = np.arange(unknowns.shape[1])
    curvature[:, diagonal, diagonal] = _PRIOR_SPREAD**-2.0
    for one in points:
        with np.errstate(over="ignore", invalid="ignore"):
            model, slopes = expected_counts(one.window, unknowns, one.start, one.stop)
        spread = model + one.variance
        weight = np.where(one.used, 1 / np.maximum(spread, 1e-9), 0.0)
        excess = one.counts - model
        seen = one.counts + one.variance
        with np.errstate(divide="ignore", invalid="ignore"):
            term = np.where(seen > 0, seen * np.log(seen / np.maximum(spread, 1e-9)), 0.0) - excess
        deviance += 2 * np.where(one.used, term, 0.0).sum(axis=1)
        chi2 += (excess**2 * weight).sum(axis=1)
        parts = slopes.transpose(1, 0, 2)
        gradient -= (parts @ (excess * weight)[..., None])[..., 0]
        curvature += (parts * weight[:, None, :]) @ parts.transpose(0, 2, 1)
    return deviance, gradient, curvature, chi2


def select_points(
    window: Window, scale: FloatArray, start: FloatArray, stop: FloatArray, spectra: tuple[FloatArray, ...]
) -> Points:
    """Pick for each pixel the points that lie in a window.

    Parameters
    ----------
    scale
        (pixel, 2) offset in ADC channels, and ADC channels per keV.
    start, stop
        (point,) ADC channels.
    spectra
        Counts, variance of their compression, and whether they can be used, (pixel, point) each.
    """
    low, high = (scale[:, :1] + energy * scale[:, 1:2] for energy in (window.low, window.high))
    first = np.searchsorted(start, low[:, 0])
    size = np.searchsorted(stop, high[:, 0], side="right") - first
    most = max(int(size.max(initial=1)), 1)
    place = first[:, None] + np.arange(most)
    inside = np.clip(place, 0, start.size - 1)
    counts, variance, usable = (np.take_along_axis(values, inside, axis=1) for values in spectra)
    used = usable.astype(bool) & (np.arange(most) < size[:, None]) & (place < start.size)
    return Points(window, start[inside], stop[inside], counts, variance, used)


def windows_of(
    scale: FloatArray, start: FloatArray, stop: FloatArray, spectra: tuple[FloatArray, ...]
) -> tuple[Points, ...]:
    """Pick the points of both windows."""
    return tuple(select_points(window, scale, start, stop, spectra) for window in WINDOWS)


__all__ = ["Minima", "Points", "descend", "windows_of"]
