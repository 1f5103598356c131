"""Counts between the actual edges of a pixel's channels, turned into counts between the nominal ones.

Only the first and the last channel of an energy range need it: what one inner channel loses its neighbour has. The
spectrum is taken either as a power law whose index comes from the net counts themselves (the way of the ground
software), or as flat within a channel ("linear").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stixflow.imaging.grids import FloatArray

_MAX_INDEX = 8.0


def spectral_index(spectrum: FloatArray, low: FloatArray, high: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Power-law index of every channel of a stack of count spectra.

    Parameters
    ----------
    spectrum
        (interval, channel) net counts per keV; channels without counts get index 0.
    low, high
        (channel,) nominal edges, keV.

    Returns
    -------
    Index (interval, channel), positive for falling spectra, and the channel of the peak (interval,).
    """
    usable = (low > 0) & np.isfinite(high)
    inside = np.flatnonzero(usable)
    low, high, inner = low[usable], high[usable], spectrum[:, usable]
    peak = np.argmax(np.where(np.isfinite(inner), inner, -np.inf), axis=1)
    center = np.broadcast_to((low + high) / 2, inner.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = _slopes(np.log(inner), np.log(center), peak)
        weighted = _power_mean(low, high, slope)
        weighted = np.where(np.arange(low.size) == peak[:, None], center, weighted)
        index = -_slopes(np.log(inner), np.log(weighted), peak)
    result = np.zeros(spectrum.shape)
    result[:, usable] = np.clip(np.nan_to_num(index, nan=0.0, posinf=0.0, neginf=0.0), -_MAX_INDEX, _MAX_INDEX)
    return result, inside[peak]


def edge_factors(
    bins: tuple[int, int],
    low: FloatArray,
    high: FloatArray,
    actual_low: FloatArray,
    actual_high: FloatArray,
    index: FloatArray | None,
    peak: NDArray[np.intp] | None,
) -> tuple[FloatArray, FloatArray]:
    """Factors on the first and the last channel of one energy range, each (interval, detector, pixel).

    Parameters
    ----------
    bins
        Half-open range of channels; for a single channel the second factor is 1.
    low, high
        (channel,) nominal edges.
    actual_low, actual_high
        (channel, detector, pixel) actual edges.
    index, peak
        From `spectral_index`; None for spectra flat within a channel.
    """
    first, last = bins[0], bins[1] - 1
    one = np.ones((1, 1, 1))
    a, b = low[first], high[last]
    a_first, b_first = actual_low[first][None], actual_high[first][None]
    a_last, b_last = actual_low[last][None], actual_high[last][None]
    if index is None:
        index = np.zeros((1, low.size))
    gamma_first, gamma_last = (index[:, channel, None, None] for channel in (first, last))
    if first != last:
        return _moved_edge(a, a_first, b_first, gamma_first), _moved_edge(b, b_last, a_last, gamma_last)
    ordinary = _integral(a, b, gamma_first) / _integral(a_first, b_first, gamma_first)
    if peak is None:
        return ordinary, one
    at_peak = _peak_factor(a, b, a_first, b_first, *_neighbours(index, first))
    return np.where((peak == first)[:, None, None], at_peak, ordinary), one


def product_factors(
    bins: tuple[int, int],
    low: FloatArray,
    high: FloatArray,
    actual_low: FloatArray,
    actual_high: FloatArray,
    index: FloatArray | None = None,
    peak: NDArray[np.intp] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """`edge_factors` of flat spectra as stixpy has them: for a single channel the product of both edges' factors."""
    first, last = bins[0], bins[1] - 1
    if first != last:
        return edge_factors(bins, low, high, actual_low, actual_high, index, peak)
    a, b = actual_low[first][None], actual_high[first][None]
    return (b - low[first]) * (high[first] - a) / (b - a) ** 2, np.ones((1, 1, 1))


def _neighbours(index: FloatArray, channel: int) -> tuple[FloatArray, FloatArray]:
    """Indices below and above a channel, the existing one for both at an end of the range."""
    below, above = max(channel - 1, 0), min(channel + 1, index.shape[1] - 1)
    below, above = (above if below == channel else below), (below if above == channel else above)
    return index[:, below, None, None], index[:, above, None, None]


def _peak_factor(
    a: float, b: float, actual_a: FloatArray, actual_b: FloatArray, rising: FloatArray, falling: FloatArray
) -> FloatArray:
    """Correction of a single channel with the peak in its middle: one power law on either side."""
    middle = (a + b) / 2
    match = middle ** (rising - falling)
    nominal = match * _integral(a, middle, rising) + _integral(middle, b, falling)
    return np.asarray(nominal / (match * _integral(actual_a, middle, rising) + _integral(middle, actual_b, falling)))


def _moved_edge(nominal: float, actual: FloatArray, other: FloatArray, index: FloatArray) -> FloatArray:
    """Integral of E**(-index) from the nominal edge to the other one, over that from the actual edge to it."""
    power = 1.0 - index
    to_nominal, to_actual = np.log(nominal / other), np.log(actual / other)
    small = np.abs(power) < 1e-9
    if small.any():
        power = np.where(small, 1e-9, power)
    return np.asarray(np.expm1(power * to_nominal) / np.expm1(power * to_actual))


def _integral(a: FloatArray | float, b: FloatArray | float, index: FloatArray) -> FloatArray:
    """Integral of E**(-index) from a to b; the limit log(b/a) where index is 1."""
    power = 1.0 - index
    log_a, log_b = np.log(a), np.log(b)
    small = np.abs(power) < 1e-9
    safe = np.where(small, 1.0, power)
    return np.where(small, log_b - log_a, (np.exp(safe * log_b) - np.exp(safe * log_a)) / safe)


def _slopes(y: FloatArray, x: FloatArray, peak: NDArray[np.intp]) -> FloatArray:
    """Slope at every point: forward below the peak, backward above, 0 at it."""
    difference = np.diff(y, axis=1) / np.diff(x, axis=1)
    ends = np.zeros((len(y), 1))
    forward, backward = np.concatenate([difference, ends], axis=1), np.concatenate([ends, difference], axis=1)
    position = np.arange(y.shape[1])
    slope = np.where(position < peak[:, None], forward, backward)
    return np.where(position == peak[:, None], 0.0, slope)


def _power_mean(low: FloatArray, high: FloatArray, slope: FloatArray) -> FloatArray:
    """Mean energy of a channel weighted with a power law of the given slope."""
    return _integral(low, high, -(slope + 1.0)) / _integral(low, high, -slope)
