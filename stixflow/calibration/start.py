"""Where the fit of a pixel begins: the scale under which its spectrum looks most like that of 133Ba."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from stixflow.calibration.lines import ALPHA, GAMMA, WINDOWS, expected_counts

FloatArray = NDArray[np.float64]

OFFSETS = np.arange(800.0, 1040.5, 4.0)
"""ADC channels of 0 keV that are tried, as those of the ECC: 200 to 260 of 1024."""
SLOPES = np.arange(8.6, 10.21, 0.04)
"""ADC channels per keV that are tried: 2.15 to 2.55 of 1024 for one keV, wider than any pixel of the mission."""

_SIGMA_KEV, _TAIL_KEV = np.log([0.6, 0.7]), np.log([3.0, 6.0])
_COUNTS, _SHARES, _FLOORS = np.log([1.0, 0.24, 0.35]), np.log([0.15, 0.5]), np.log([0.003, 0.002])
_GRID_KEV = np.arange(0.0, 140.0, 0.05)
_AT_ONCE = 256


def find_scale(counts: FloatArray, usable: NDArray[np.bool_], start: FloatArray, stop: FloatArray) -> FloatArray:
    """Correlate every spectrum with that of 133Ba under each scale.

    Parameters
    ----------
    counts, usable
        (pixel, point) counts, and whether the point is there.
    start, stop
        (point,) ADC channels between which the points lie.

    Returns
    -------
    (pixel, 3): offset in ADC channels, slope in ADC channels per keV, and the correlation of the roots of the counts,
    -1 to 1; pixels without counts have NaN.
    """
    offset, slope = (grid.reshape(-1) for grid in np.meshgrid(OFFSETS, SLOPES, indexing="ij"))
    spectra = np.sqrt(np.where(usable, counts, 0.0) / (stop - start))
    is_shown = usable.astype(np.float64)
    best = np.full((len(counts), 3), np.nan)
    for first in range(0, offset.size, _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        templates = np.sqrt(_templates(offset[some], slope[some], start, stop))
        found = _correlation(spectra, is_shown, templates, (templates > 0).astype(np.float64))
        at = np.argmax(found, axis=1)
        value = found[np.arange(len(counts)), at]
        with np.errstate(invalid="ignore"):
            is_better = (value > -1) & ~(value <= best[:, 2])
        best[is_better] = np.stack([offset[some][at], slope[some][at], value], axis=1)[is_better]
    return best


def first_guess(scale: FloatArray, counts: FloatArray) -> FloatArray:
    """Unknowns to begin with, (pixel, unknown), from offset and slope of each pixel, and counts of its 31-keV line."""
    offset, slope = scale[:, 0], scale[:, 1]
    guess = np.empty((len(scale), 13))
    guess[:, 0], guess[:, 1] = offset + ALPHA * slope, offset + GAMMA * slope
    guess[:, 2:4] = _SIGMA_KEV + np.log(slope)[:, None]
    guess[:, 4:7] = _COUNTS + np.log(counts)[:, None]
    guess[:, 7:9] = _SHARES
    guess[:, 9:11] = _TAIL_KEV + np.log(slope)[:, None]
    guess[:, 11:13] = _FLOORS + np.log(counts / slope)[:, None]
    return guess


def _templates(offset: FloatArray, slope: FloatArray, start: FloatArray, stop: FloatArray) -> FloatArray:
    """Counts per ADC channel of 133Ba, (scale, point), zero outside of the windows."""
    low, high = ((axis - offset[:, None]) / slope[:, None] for axis in (start, stop))
    centre, total = (low + high) / 2, np.zeros((offset.size, start.size))
    for window, integral in zip(WINDOWS, _integrals(), strict=True):
        inside = (centre >= window.low) & (centre < window.high)
        total[inside] = np.interp(high[inside], _GRID_KEV, integral) - np.interp(low[inside], _GRID_KEV, integral)
    return total / (stop - start)


@cache
def _integrals() -> tuple[FloatArray, ...]:
    """Counts of 133Ba up to each energy of the grid, for both windows: the same on every scale."""
    unknowns, start, stop = first_guess(np.array([[0.0, 1.0]]), np.ones(1)), _GRID_KEV[None, :-1], _GRID_KEV[None, 1:]
    parts = (expected_counts(window, unknowns, start, stop)[0][0] for window in WINDOWS)
    return tuple(np.concatenate([[0.0], np.cumsum(part)]) for part in parts)


def _correlation(spectra: FloatArray, shown: FloatArray, templates: FloatArray, used: FloatArray) -> FloatArray:
    """Pearson correlation (spectrum, template) over the points that are shown by one and used by the other."""
    number = np.maximum(shown @ used.T, 1.0)
    mean_x, mean_y = spectra @ used.T / number, shown @ templates.T / number
    spread_x = np.maximum(spectra**2 @ used.T / number - mean_x**2, 0.0)
    spread_y = np.maximum(shown @ (templates**2).T / number - mean_y**2, 0.0)
    both = spectra @ templates.T / number - mean_x * mean_y
    return np.asarray(both / np.sqrt(np.maximum(spread_x * spread_y, 1e-30)))


__all__ = ["OFFSETS", "SLOPES", "find_scale", "first_guess"]
