"""One row of the flare table from a find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.flares.background import nearest_quiet
from stixflow.flares.columns import GAP_MARGIN_S
from stixflow.flares.curve import NANOSECONDS, Curve, Floats
from stixflow.flares.find import WIDTH_LEVELS, Find

_UPPER_BAND_BINS = 7
"""A flare reaches a band in which more bins than this lie two sigma above the background."""
_UPPER_BAND_SIGMAS = 5.0
_RUN_WIDTHS_BINS = (5, 15)
_GAP = np.timedelta64(2, "s")
_UNSURE = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class _Quiet:
    level: Floats
    sigma: Floats
    start: np.datetime64
    age_s: float


def row_of(
    curve: Curve,
    find: Find,
    smoothed: Floats,
    frames: xr.Dataset | None,
    holds_flare: NDArray[np.bool_] | None,
) -> dict[str, Any]:
    """Measure a find: everything but the GOES estimates.

    Parameters
    ----------
    smoothed
        The curve of every band, smoothed as in the operational list.
    frames, holds_flare
        Quiet hours, and which of them hold flares; used where the find has no background of its own.
    """
    quiet = _quiet(curve, find, frames, holds_flare)
    inside = slice(find.left, find.right)
    counts, peak = curve.counts[:, inside], curve.start[find.peak]
    start, stop = curve.start[find.left], _stop(curve, find.right)
    total = counts[0].sum()
    above = (counts > (quiet.level + 2 * quiet.sigma)[:, None]).sum(axis=1)
    upper = _upper_band(counts, quiet, above, find)
    at_start, within, at_stop = _gaps(curve, find)
    row: dict[str, Any] = {
        "flare_id": flare_id(peak),
        "start": start,
        "peak": peak,
        "stop": stop,
        "start_sigma_s": find.start_sigma_s,
        "peak_sigma_s": find.peak_sigma_s,
        "stop_sigma_s": find.stop_sigma_s,
        "duration_s": _seconds(stop - start),
        "bins": find.right - find.left,
        "significance": find.significance,
        "false_alarms_per_day": find.false_alarms_per_day,
        "probability": find.probability,
        "peak_band": find.band,
        "peak_counts": int(counts[0].max()),
        "bkg_start": quiet.start,
        "bkg_age_s": quiet.age_s,
        "baseline": find.baseline,
        "prominence": find.prominence,
        "total_counts": int(total),
        "signal_counts": float(total - _floor(find, quiet) * (find.right - find.left)),
        "mean_rate": float(total / curve.seconds[inside].sum()),
        "n_sub_peaks": len(find.sub_peaks),
        "sub_peaks": " ".join(str(np.datetime_as_string(curve.start[i], unit="s")) for i in find.sub_peaks),
        "upper_band": upper,
        "upper_energy_keV": float(curve.energy_high[upper]),
        "is_boundary": find.is_boundary,
        "has_gap": at_start or within or at_stop,
        "veto": find.veto,
    }
    for level, (left, right) in zip(WIDTH_LEVELS, find.widths, strict=True):
        first, last = curve.start[left], curve.start[right]
        row |= {f"start_{level}": first, f"stop_{level}": last}
        row[f"duration_{level}_s"] = _seconds(curve.stop[right] - first)
    row |= _regimes(curve.rcr[inside], int(curve.rcr[find.peak]))
    row["flags"] = _flags(curve.rcr[inside], row, (at_start, within, at_stop))
    per_band = {
        "peak_counts": counts.max(axis=1).astype(np.int64),
        "peak_smoothed": smoothed[:, inside].max(axis=1),
        "counts": counts.sum(axis=1).astype(np.int64),
        "bkg_median": quiet.level,
        "bkg_sigma": quiet.sigma,
        "bins_above": above,
    }
    return row | {f"{name}_{band}": value for name, values in per_band.items() for band, value in enumerate(values)}


def flare_id(peak: np.datetime64) -> str:
    """Name a flare by the minute of its peak, as the operational lists do: ``yymmddHHMM``."""
    text = str(np.datetime_as_string(peak, unit="m"))
    return text[2:].translate({ord(mark): None for mark in "-T:"})


def _quiet(curve: Curve, find: Find, frames: xr.Dataset | None, holds_flare: NDArray[np.bool_] | None) -> _Quiet:
    none = np.datetime64("NaT", "ns")
    if find.background is not None and find.background_sigma is not None:
        return _Quiet(find.background, find.background_sigma, none, find.background_age_s)
    found = None if frames is None else nearest_quiet(frames, curve.start[find.peak], excluded=holds_flare)
    if found is None:
        unknown = np.full(curve.bands, np.nan)
        return _Quiet(unknown, unknown, none, np.nan)
    return _Quiet(found.median, found.sigma, found.start, found.age_s)


def _floor(find: Find, quiet: _Quiet) -> float:
    return find.baseline if find.background is None else float(quiet.level[0])


def _upper_band(counts: Floats, quiet: _Quiet, above: NDArray[np.intp], find: Find) -> int:
    if find.background is None:
        return int(np.max(np.flatnonzero(above > _UPPER_BAND_BINS), initial=0))
    excess = counts - quiet.level[:, None]
    best = np.zeros(len(counts))
    for width in (*_RUN_WIDTHS_BINS, counts.shape[1]):
        if width <= counts.shape[1]:
            sums = np.pad(np.cumsum(excess, axis=1), ((0, 0), (1, 0)))
            highest = (sums[:, width:] - sums[:, :-width]).max(axis=1)
            noise = np.sqrt(np.square(quiet.sigma) * width + np.square(0.005 * quiet.level * width))
            best = np.maximum(best, highest / np.maximum(noise, 1e-9))
    return int(np.max(np.flatnonzero(best > _UPPER_BAND_SIGMAS), initial=find.band))


def _seconds(length: np.timedelta64) -> float:
    return float(length / np.timedelta64(1, "ns")) / NANOSECONDS


def _stop(curve: Curve, right: int) -> np.datetime64:
    """Start of the next bin where it follows without a gap, else the end of the last bin."""
    end: np.datetime64 = curve.stop[right - 1]
    if right == len(curve.start) or curve.start[right] - end >= np.timedelta64(1, "s"):
        return end
    following: np.datetime64 = curve.start[right]
    return following


def _gaps(curve: Curve, find: Find) -> tuple[bool, bool, bool]:
    """Tell whether bins are missing just before, inside and just after a flare."""
    margin = np.timedelta64(round(GAP_MARGIN_S * NANOSECONDS), "ns")
    first = int(np.searchsorted(curve.stop, curve.start[find.left] - margin))
    last = int(np.searchsorted(curve.start, curve.stop[find.right - 1] + margin, side="right"))

    def missing(a: int, b: int) -> bool:
        """Between the bins a - 1 and a, up to b - 2 and b - 1."""
        a, b = max(a, 1), min(b, len(curve.start))
        return bool((curve.start[a:b] - curve.stop[a - 1 : b - 1] > _GAP).any())

    return missing(first, find.left + 1), missing(find.left + 1, find.right), missing(find.right, last + 1)


def _regimes(rcr: NDArray[np.int64], at_peak: int) -> dict[str, int]:
    return {
        "rcr_start": int(rcr[0]),
        "rcr_peak": at_peak,
        "rcr_stop": int(rcr[-1]),
        "rcr_max": int(rcr.max()),
        "attenuator_motions": int((np.diff(rcr > 0)).sum()),
    }


def _flags(rcr: NDArray[np.int64], row: dict[str, Any], gaps: tuple[bool, bool, bool]) -> str:
    """Flags of the HESSI list that apply: regime at the peak (A) and others met (a), gaps, doubts about the Sun."""
    marks = [f"A{row['rcr_peak']}", *(f"a{regime}" for regime in np.unique(rcr).tolist() if regime != row["rcr_peak"])]
    marks += [name for name, there in zip(("GS", "GD", "GE"), gaps, strict=True) if there]
    if row["veto"]:
        marks.append("NS")
    elif row["probability"] < _UNSURE:
        marks.append("PS")
    return " ".join(marks)
