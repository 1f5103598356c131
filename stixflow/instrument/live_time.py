"""Live time from triggers, and triggers from a photon rate.

Model of the present analysis software: readout time `TAU`, latency `ETA` in which a second photon piles up,
`BETA` the part of the area where it can.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.instrument.detectors import detectors

TAU = 10.1e-6
ETA = 1.1e-6
BETA = 0.94059104

_DEAD = TAU + ETA


def photon_rate(triggers: ArrayLike, duration: ArrayLike) -> NDArray[np.float64]:
    """Photons per second on the detectors of one accumulator, dead time undone.

    Parameters
    ----------
    triggers, duration
        Trigger counts and seconds; broadcast against each other, so give durations as ``duration[:, None]``
        for triggers (time, 16).

    Returns
    -------
    NaN where the triggers leave no live time, which no detector can produce.
    """
    rate = np.asarray(triggers, dtype=np.float64) / np.asarray(duration, dtype=np.float64)
    free = 1.0 - rate * _DEAD
    return rate / np.where(free > 0.0, free, np.nan)


def trigger_rate(photons_per_second: ArrayLike) -> NDArray[np.float64]:
    """Triggers per second that a photon rate causes: the inverse of `photon_rate`."""
    rate = np.asarray(photons_per_second, dtype=np.float64)
    return np.asarray(rate / (1.0 + _DEAD * rate))


def live_fraction_of_rate(photons_per_second: ArrayLike) -> NDArray[np.float64]:
    """Part of the time in which a photon is registered, at a given photon rate of one accumulator."""
    rate = np.asarray(photons_per_second, dtype=np.float64)
    return np.asarray(np.exp(-ETA * BETA * rate) / (1.0 + _DEAD * rate))


def live_fraction(triggers: ArrayLike, duration: ArrayLike) -> NDArray[np.float64]:
    """Live fraction from the triggers of an accumulator; shapes and NaN as in `photon_rate`."""
    return live_fraction_of_rate(photon_rate(triggers, duration))


def live_fraction_error(triggers: ArrayLike, comp_err: ArrayLike, duration: ArrayLike) -> NDArray[np.float64]:
    """Standard error of `live_fraction` from Poisson noise and compression of the triggers.

    Parameters
    ----------
    triggers, comp_err, duration
        Trigger counts, their compression error (1 σ), seconds; broadcast against each other.
    """
    counts, seconds = np.asarray(triggers, dtype=np.float64), np.asarray(duration, dtype=np.float64)
    sigma_rate = np.sqrt(np.asarray(comp_err, dtype=np.float64) ** 2 + counts) / seconds
    rate = photon_rate(counts, seconds)
    sigma_photons = sigma_rate / (1.0 - counts / seconds * _DEAD) ** 2
    pile_up = BETA * ETA
    slope = np.exp(-pile_up * rate) * (pile_up + pile_up * _DEAD * rate + _DEAD) / (1.0 + _DEAD * rate) ** 2
    return np.asarray(slope * sigma_photons)


def per_detector(values: ArrayLike, *, axis: int = -1) -> NDArray[np.float64]:
    """Spread values of the 16 accumulators along `axis` over the 32 detectors that they serve."""
    return np.take(np.asarray(values), detectors().accumulator, axis=axis)
