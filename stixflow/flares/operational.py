"""The operational detector of the mission: peaks of the lowest band above a SNIP envelope (public STIX pipeline)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.flares.background import nearest_quiet
from stixflow.flares.curve import Curve, Floats
from stixflow.flares.find import WIDTH_LEVELS, Find
from stixflow.flares.snip import smooth, snip_envelope

_HEIGHT_SIGMAS = 3.0
_PROMINENCE_SIGMAS = 2.0
_MIN_WIDTH_BINS = 15
_WIDTH_REL_HEIGHT = 0.9
_MIN_DISTANCE_BINS = 75
_MIN_ENVELOPE_ITERATIONS = 150
"""A curve too short for this many windows has no envelope; the quiet hours stand in for it."""
_FALLBACK_QUIET_FACTOR = 2.0
_FALLBACK_HEIGHT_SIGMAS = 2.0
_EMPTY_LIMITS_BINS = (7, 8)
_SEGMENT_GAP_S = 3600.0
"""Bins on the two sides of a longer gap are searched separately: it is the half width of the envelope."""


@dataclass(frozen=True, slots=True)
class _Floor:
    """What the lowest band would be without flares: `level` per bin, its minimum and scatter, the height asked."""

    level: Floats
    baseline: float
    sigma: float
    height: float


def find_snip(curve: Curve, frames: xr.Dataset) -> list[Find]:
    """Find major peaks as the operational pipeline does."""
    return [find for part in curve.segments(_SEGMENT_GAP_S) for find in _find_in(curve, part, frames)]


def smoothed_counts(curve: Curve) -> Floats:
    """Smooth every band, the stretches between long gaps on their own."""
    parts = [smooth(curve.counts[:, part]) for part in curve.segments(_SEGMENT_GAP_S)]
    return np.concatenate(parts, axis=1) if parts else curve.counts


def _find_in(curve: Curve, part: slice, frames: xr.Dataset) -> list[Find]:
    smoothed = smooth(curve.counts[0, part])
    floor = _floor(smoothed, curve.start[part], frames)
    return [] if floor is None else _major(_finds(smoothed, floor, part.start))


def _floor(smoothed: Floats, start: NDArray[np.datetime64], frames: xr.Dataset) -> _Floor | None:
    if (len(smoothed) - 1) // 2 < _MIN_ENVELOPE_ITERATIONS:
        return _quiet_floor(smoothed, start[0], frames)
    level = snip_envelope(smoothed)
    baseline = float(level.min())
    sigma = float(np.sqrt(max(baseline, 1.0)))
    return _Floor(level, baseline, sigma, baseline + _HEIGHT_SIGMAS * sigma)


def _quiet_floor(smoothed: Floats, time: np.datetime64, frames: xr.Dataset) -> _Floor | None:
    quiet = nearest_quiet(frames, time)
    if quiet is None:
        return None
    median, sigma = float(quiet.median[0]), float(quiet.sigma[0])
    if sigma >= _FALLBACK_QUIET_FACTOR * np.sqrt(median):
        return None
    return _Floor(np.full_like(smoothed, median), median, sigma, median + _FALLBACK_HEIGHT_SIGMAS * sigma)


def _finds(smoothed: Floats, floor: _Floor, offset: int) -> list[Find]:
    from scipy.signal import find_peaks, peak_widths

    peaks, properties = find_peaks(
        smoothed,
        height=floor.height,
        prominence=_PROMINENCE_SIGMAS * floor.sigma,
        width=_MIN_WIDTH_BINS,
        rel_height=_WIDTH_REL_HEIGHT,
        distance=_MIN_DISTANCE_BINS,
    )
    known = (properties["prominences"], properties["left_bases"], properties["right_bases"])
    levels = [peak_widths(smoothed, peaks, rel_height=level / 100, prominence_data=known) for level in WIDTH_LEVELS]
    below = np.flatnonzero(smoothed < floor.level + floor.sigma)
    calm = np.flatnonzero(smoothed < floor.height)
    finds = []
    for i, peak in enumerate(peaks.tolist()):
        left, right = _limits(below, peak, len(smoothed))
        finds.append(
            Find(
                peak=peak + offset,
                left=left + offset,
                right=right + offset,
                height=float(smoothed[peak]),
                prominence=float(properties["prominences"][i]),
                baseline=floor.baseline,
                is_boundary=left == 0 or right == len(smoothed) or _runs_out(calm, peak),
                widths=tuple((int(level[2][i]) + offset, int(level[3][i]) + offset) for level in levels),
            )
        )
    return finds


def _limits(below: NDArray[np.intp], peak: int, size: int) -> tuple[int, int]:
    """Walk from the peak to the bins below threshold on both sides; the left one belongs to the flare."""
    at = int(np.searchsorted(below, peak))
    if at < len(below) and below[at] == peak:
        before, after = _EMPTY_LIMITS_BINS
        return max(peak - before, 0), min(peak + after, size)
    return int(below[at - 1]) if at > 0 else 0, int(below[at]) if at < len(below) else size


def _runs_out(calm: NDArray[np.intp], peak: int) -> bool:
    """Tell whether the curve stays up to an end of the observed time: there the envelope rises with the flare."""
    at = int(np.searchsorted(calm, peak))
    return at in (0, len(calm))


def _major(finds: list[Find]) -> list[Find]:
    """Keep the peaks whose limits overlap those of no higher one; of equal ones the later."""

    def loses(one: Find, other: Find) -> bool:
        overlap = one.left < other.right and other.left < one.right
        return overlap and (other.height, other.peak) > (one.height, one.peak)

    return [one for one in finds if not any(loses(one, other) for other in finds)]
