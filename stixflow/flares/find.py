"""What every detector returns: a peak with its limits, before it becomes a row of the flare table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stixflow.flares.curve import Floats

WIDTH_LEVELS = (10, 50, 70)


@dataclass(frozen=True, slots=True, eq=False)
class Find:
    """A peak and its limits, as indices of the curve; `left` to `right` is half-open.

    Attributes
    ----------
    height, baseline, prominence
        Of the smoothed band in which the peak was found, counts per bin.
    widths
        For every level of `WIDTH_LEVELS` the bins between which the curve is no more than so many per cent below.
    is_boundary
        The flare may go on beyond the observed time.
    background, background_sigma
        Per band, counts per bin; None where the detector has no background of its own.
    background_age_s
        Time to the nearest quiet minute.
    significance
        In sigma, as if it were one Gaussian number.
    false_alarms_per_day
        How many chance rises as significant as this a day without flares has.
    probability
        That it is no chance rise.
    start_sigma_s, peak_sigma_s, stop_sigma_s
        Standard deviations of the three times.
    sub_peaks
        Lesser peaks, as indices.
    veto
        Why this is no flare; empty for flares.
    """

    peak: int
    left: int
    right: int
    height: float
    prominence: float
    baseline: float
    is_boundary: bool
    widths: tuple[tuple[int, int], ...]
    band: int = 0
    background: Floats | None = None
    background_sigma: Floats | None = None
    background_age_s: float = np.nan
    significance: float = np.nan
    false_alarms_per_day: float = np.nan
    probability: float = np.nan
    start_sigma_s: float = np.nan
    peak_sigma_s: float = np.nan
    stop_sigma_s: float = np.nan
    sub_peaks: tuple[int, ...] = ()
    veto: str = ""
