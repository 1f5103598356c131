"""GOES class as STIX would estimate it: the operational relation between 4-10 keV counts and XRS flux."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Flux = NDArray[np.float64]

LOG_FLUX_COEFFICIENTS = (-6.90, 0.07505, 0.07064)
"""log10 of the 0.1-0.8 nm flux in W m-2 as a quadratic in x = log10 of net counts per 4 s at 1 au."""

LOG_COUNTS_SPREAD = 0.3
"""The operational minimum and maximum are the relation at x minus and plus this."""

_CLASSES = (("A", 1e-8), ("B", 1e-7), ("C", 1e-6), ("M", 1e-5), ("X", 1e-4))


@dataclass(frozen=True, slots=True)
class GoesEstimate:
    """Flux in 0.1-0.8 nm, W m-2, with the bounds of the operational list; NaN where there is no estimate."""

    flux: Flux
    low: Flux
    high: Flux


def estimate_goes(peak_counts: ArrayLike, background_counts: ArrayLike, distance_au: ArrayLike) -> GoesEstimate:
    """Estimate the GOES flux of flares from their quick-look peaks.

    Parameters
    ----------
    peak_counts, background_counts
        Counts per 4 s in 4-10 keV: the unsmoothed maximum and the quiet median. Any shapes that broadcast.
    distance_au
        Distance of the spacecraft from the Sun.

    Returns
    -------
    NaN where the peak does not exceed the background. Not valid while the attenuator is in.
    """
    net = np.asarray(peak_counts, dtype=np.float64) - np.asarray(background_counts, dtype=np.float64)
    scaled = np.where(net > 0, net, np.nan) * np.square(np.asarray(distance_au, dtype=np.float64))
    x = np.log10(scaled)
    return GoesEstimate(_flux(x), _flux(x - LOG_COUNTS_SPREAD), _flux(x + LOG_COUNTS_SPREAD))


def _flux(x: Flux) -> Flux:
    constant, linear, square = LOG_FLUX_COEFFICIENTS
    return np.asarray(10.0 ** (constant + linear * x + square * x * x))


def goes_class(flux: float, *, decimals: int = 0) -> str:
    """Write a flux in W m-2 as a class: estimates without decimals as ``C4``, measurements with one as ``C4.2``.

    The flux is rounded to two significant digits first, as in the operational list, so that ``B10`` occurs; below
    1e-7 the class is ``A`` without a number; an unknown flux gives the empty text.
    """
    if not flux > 0:
        return ""
    rounded = float(f"{flux:.1e}")
    if rounded < 1e-7:
        return "A"
    letter, unit = next((name, unit) for name, unit in reversed(_CLASSES) if rounded >= unit)
    return f"{letter}{rounded / unit:.{decimals}f}"
