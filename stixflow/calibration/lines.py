"""The lines of the 133Ba sources, and the counts that a pixel collects of them in its ADC channels.

A line is a Gaussian with an exponential tail to lower energies, of the charge that the holes do not bring home. Its
integral to the ADC value x, with z = (x - position) / sigma, r = sigma / tail and f the share of the tail, is
``Phi(z) + f exp(z r + r^2 / 2) Phi(-z - r)``: one normal integral more than without a tail, and all slopes follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stixflow.instrument.barium import ALPHA, BETA, GAMMA, GAMMA_LINES, X_RAYS_ALPHA, X_RAYS_BETA

FloatArray = NDArray[np.float64]

LINE_NAMES = ("31 keV", "35 keV", "81 keV")
LINE_ENERGIES = np.array([ALPHA, BETA, GAMMA])


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """Lines that a pixel does not resolve: they share amplitude, width and tail."""

    energies: FloatArray
    shares: FloatArray
    """Counts of each line over those of the line that the blend is named for."""
    amplitude: int
    """Place of the logarithm of the counts among the unknowns."""

    @classmethod
    def of(cls, lines: Mapping[float, float], named_for: float, amplitude: int) -> Blend:
        """Take lines of so many photons in a hundred decays; `named_for` are those that the amplitude counts."""
        return cls(np.array(list(lines)), np.array(list(lines.values())) / named_for, amplitude)


_X_RAYS = (
    Blend.of(X_RAYS_ALPHA, sum(X_RAYS_ALPHA.values()), 4),
    Blend.of(X_RAYS_BETA, sum(X_RAYS_BETA.values()), 5),
)
_GAMMA = (Blend.of(GAMMA_LINES, GAMMA_LINES[GAMMA], 6),)

UNKNOWNS = (
    "position_31", "position_81", "sigma_31", "sigma_81", "counts_31", "counts_35", "counts_81",
    "tail_share_31", "tail_share_81", "tail_31", "tail_81", "floor_31", "floor_81",
)  # fmt: skip
"""Positions of 30.851 and 80.9979 keV in ADC channels, all others logarithms: widths and tails in ADC channels,
floors in counts per ADC channel."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What is fitted around the X-rays, or around the gamma line."""

    low: float
    high: float
    """keV."""
    blends: tuple[Blend, ...]
    sigma: int
    share: int
    tail: int
    floor: int
    """Places among the unknowns."""


WINDOWS = (Window(26.0, 43.0, _X_RAYS, 2, 7, 9, 11), Window(69.0, 88.0, _GAMMA, 3, 8, 10, 12))


def expected_counts(
    window: Window, unknowns: FloatArray, start: FloatArray, stop: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Expected counts of every point of a window, and their slopes.

    Parameters
    ----------
    unknowns
        (pixel, unknown), as `UNKNOWNS`.
    start, stop
        (pixel, point) ADC channels between which the points lie.

    Returns
    -------
    Counts (pixel, point), and their slopes (unknown, pixel, point).
    """
    slopes = np.zeros((len(UNKNOWNS), *start.shape))
    floor = np.exp(unknowns[:, window.floor, None]) * (stop - start)
    slopes[window.floor] = floor
    edges, at = _edges(start, stop)
    for blend in window.blends:
        parts = (
            np.exp(unknowns[:, blend.amplitude, None])
            * np.diff(_blend_integral(window, blend, unknowns, edges), axis=-1)[:, :, at]
        )
        slopes[blend.amplitude] = parts[0]
        slopes[[0, 1, window.sigma, window.share, window.tail]] += parts[1:]
    counts = floor + sum(slopes[blend.amplitude] for blend in window.blends)
    return counts, slopes


def _edges(start: FloatArray, stop: FloatArray) -> tuple[FloatArray, NDArray[np.intp] | slice]:
    """Edges to integrate to, and which of the pieces between them are the points; neighbours share an edge."""
    if np.array_equal(start[:, 1:], stop[:, :-1]):
        return np.concatenate([start, stop[:, -1:]], axis=1), slice(None)
    both = np.stack([start, stop], axis=-1).reshape(len(start), -1)
    return both, np.arange(0, both.shape[1], 2)


def _blend_integral(window: Window, blend: Blend, unknowns: FloatArray, edges: FloatArray) -> FloatArray:
    """Integral of a blend of one count to each edge, and its slopes in both positions, sigma, share and tail."""
    from scipy.special import log_ndtr, ndtr

    sigma, share, tail = (np.exp(unknowns[:, place, None]) for place in (window.sigma, window.share, window.tail))
    ratio = sigma / tail
    total = np.zeros((6, *edges.shape))
    for energy, weight in zip(blend.energies, blend.shares, strict=True):
        along = (energy - ALPHA) / (GAMMA - ALPHA)
        position = unknowns[:, :1] + along * (unknowns[:, 1:2] - unknowns[:, :1])
        z = (edges - position) / sigma
        normal = np.exp(-0.5 * z**2) * (1 / np.sqrt(2 * np.pi))
        lag = share * np.exp(np.minimum(z * ratio + 0.5 * ratio**2 + log_ndtr(-z - ratio), 0.0))
        # Slope in the place of the line; those of sigma and tail follow with the same two functions.
        density = ((1 - share) * normal + lag * ratio) / sigma
        total[0] += weight * (ndtr(z) + lag)
        total[1] -= weight * (1 - along) * density
        total[2] -= weight * along * density
        total[3] += weight * (lag * ratio**2 - normal * (z * (1 - share) + share * ratio))
        total[4] += weight * lag
        total[5] += weight * (share * normal * ratio - lag * (z * ratio + ratio**2))
    return total


__all__ = ["ALPHA", "GAMMA", "LINE_ENERGIES", "LINE_NAMES", "UNKNOWNS", "WINDOWS", "Window", "expected_counts"]
