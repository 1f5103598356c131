"""What to image: the window around a flare's peak, and the background file to subtract.

The rules are those of the mission's imaging pipeline; where they are known to fail this module says so and differs:
the peak is the bin of the highest rate, not of the most counts, because bins differ in length; a window never crosses
a change of the rate control regime; a background may follow the flare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.time import TimeRange, iso

WINDOW_S = 60.0
MINIMUM_COUNTS = 10_000
BACKGROUND_DAYS = 60.0
BACKGROUND_MIN_S = 120.0
THERMAL_CYCLE_S = 2400.0
"""Duration of a thermal cycle of the detectors; a background should cover one."""
CLOSENESS_DAYS = 7.0
ALL_DETECTORS = 0xFFFFFFFF

_EDGE_TOLERANCE_KEV = 1e-3


@dataclass(frozen=True, slots=True)
class ImagingWindow:
    """Whole time bins to image together: ``[start, stop)`` of `time_range`, indices `[first, last)` of the request."""

    time_range: TimeRange
    energy_range: tuple[float, float]
    first: int
    last: int
    counts: int
    rule: Literal["peak bin", "peak minute", "whole flare"]


@dataclass(frozen=True, slots=True)
class NoWindow:
    """Why a flare is not imaged; `counts` is the most that any allowed window held."""

    reason: str
    counts: int = 0


def imaging_window(
    pixels: xr.Dataset,
    flare: Mapping[str, Any] | pd.Series | None,
    energy_range: tuple[float, float],
    *,
    seconds: float = WINDOW_S,
    minimum_counts: int = MINIMUM_COUNTS,
) -> ImagingWindow | NoWindow:
    """Choose the time bins of a request from which a flare is imaged.

    The bin of the highest rate alone if it lasts `seconds`; else the bins entirely inside +-`seconds` / 2 of its
    middle; and if these hold too few counts, the whole flare.

    Parameters
    ----------
    pixels
        A `sci_pixels` (time, energy, detector, pixel).
    flare
        A row of the flare table (`start`, `stop`), or None for the whole request.
    energy_range
        keV; energy bins entirely inside count.
    seconds, minimum_counts
        Length of the window, and the counts that it must hold.

    Raises
    ------
    UsageError
        If no energy bin of the request lies inside `energy_range`.
    """
    start, stop = _bins(pixels)
    counts = _band_counts(pixels, energy_range)
    in_flare = _inside(start, stop, flare)
    if not in_flare.any():
        return NoWindow("the request holds no time bin of the flare")
    length = (stop - start) / np.timedelta64(1, "s")
    peak = int(np.argmax(np.where(in_flare, counts / length, -1.0)))
    alike = _same_regime(pixels["rcr"].to_numpy(), peak)

    def window(chosen: NDArray[np.bool_], rule: Literal["peak bin", "peak minute", "whole flare"]) -> ImagingWindow:
        first, last = _run(chosen, peak)
        span = TimeRange(start[first], stop[last - 1])
        return ImagingWindow(span, energy_range, first, last, int(counts[first:last].sum()), rule)

    if length[peak] >= seconds:
        best = window(np.arange(len(start)) == peak, "peak bin")
    else:
        best = window(alike & _around(start, stop, peak, seconds), "peak minute")
    if best.counts < minimum_counts:
        whole = window(alike & in_flare, "whole flare")
        best = whole if whole.counts > best.counts else best
    if best.counts < minimum_counts:
        low, high = energy_range
        return NoWindow(f"{best.counts} counts in {low:g}-{high:g} keV, {minimum_counts} needed", best.counts)
    return best


def channels_of(pixels: xr.Dataset, energy_range: tuple[float, float]) -> NDArray[np.bool_]:
    """Tell which energy bins lie entirely inside `energy_range` (keV)."""
    low, high = energy_range
    inside = (pixels["energy_low"].to_numpy() >= low - _EDGE_TOLERANCE_KEV) & (
        pixels["energy_high"].to_numpy() <= high + _EDGE_TOLERANCE_KEV
    )
    if not inside.any():
        raise UsageError(
            f"no energy bin of the request lies inside {low:g}-{high:g} keV",
            expected=f"a range that holds one of {_bin_list(pixels)} keV",
            advice="widen the energy range",
        )
    return np.asarray(inside)


def _bin_list(pixels: xr.Dataset) -> str:
    edges = zip(pixels["energy_low"].to_numpy(), pixels["energy_high"].to_numpy(), strict=True)
    return ", ".join(f"{low:g}-{high:g}" for low, high in edges)


def _band_counts(pixels: xr.Dataset, energy_range: tuple[float, float]) -> NDArray[np.int64]:
    band = pixels["counts"].isel(energy=np.flatnonzero(channels_of(pixels, energy_range)))
    summed = band.sum([name for name in band.dims if name != "time"], dtype=np.int64)
    return np.asarray(summed.to_numpy())


def _bins(pixels: xr.Dataset) -> tuple[NDArray[np.datetime64], NDArray[np.datetime64]]:
    start = pixels["time_start"].to_numpy()
    return start, start + np.rint(pixels["timedel"].to_numpy() * 1e9).astype("timedelta64[ns]")


def _inside(
    start: NDArray[np.datetime64], stop: NDArray[np.datetime64], flare: Mapping[str, Any] | pd.Series | None
) -> NDArray[np.bool_]:
    """Bins whose middle lies in the flare."""
    if flare is None:
        return np.ones(len(start), dtype=np.bool_)
    middle = start + (stop - start) / 2
    return np.asarray((middle >= np.datetime64(flare["start"], "ns")) & (middle < np.datetime64(flare["stop"], "ns")))


def _around(
    start: NDArray[np.datetime64], stop: NDArray[np.datetime64], peak: int, seconds: float
) -> NDArray[np.bool_]:
    """Bins entirely inside the window; onboard times jitter by milliseconds, which must not cost a bin."""
    half = np.timedelta64(round((seconds / 2 + 0.01) * 1e9), "ns")
    middle = start[peak] + (stop[peak] - start[peak]) / 2
    return np.asarray((start >= middle - half) & (stop <= middle + half))


def _same_regime(rcr: NDArray[Any], peak: int) -> NDArray[np.bool_]:
    alike = np.zeros(len(rcr), dtype=np.bool_)
    first, last = _run(rcr == rcr[peak], peak)
    alike[first:last] = True
    return alike


def _run(chosen: NDArray[np.bool_], at: int) -> tuple[int, int]:
    """Return the unbroken run of chosen bins around `at`, at least that bin, half-open."""
    others = np.flatnonzero(~chosen)
    before, after = others[others < at], others[others > at]
    return (int(before[-1]) + 1 if len(before) else 0), (int(after[0]) if len(after) else len(chosen))


@dataclass(frozen=True, slots=True)
class BackgroundNeed:
    """What a background must fit: the flare's time and the science channels ``[channel_start, channel_stop)``."""

    time_range: TimeRange
    channel_start: int
    channel_stop: int
    request_id: int | None = None

    @classmethod
    def of(cls, pixels: xr.Dataset, energy_range: tuple[float, float]) -> BackgroundNeed:
        """Describe the need of a pixel request imaged in an energy range (keV)."""
        chosen = channels_of(pixels, energy_range)
        start, stop = _bins(pixels)
        return cls(
            TimeRange(start[0], stop[-1]),
            int(pixels["channel_start"].to_numpy()[chosen].min()),
            int(pixels["channel_stop"].to_numpy()[chosen].max()),
            pixels.attrs.get("request_id"),
        )


def choose_background(
    need: BackgroundNeed, candidates: pd.DataFrame, *, flares: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Score pixel requests as background of an imaging window, best first.

    A background must be another request within 60 days on either side, under the same energy look-up table, with all
    detectors and the needed channels, at least 120 s long and without a listed flare inside. The score falls with the
    distance in time (to a half at a week) and with the root of the duration below a thermal cycle of 2400 s.

    Parameters
    ----------
    candidates
        One row per request: `request_id`, `start`, `stop`, `channel_start`, `channel_stop`, `detector_mask`; observed
        `duration_s` if it is less than stop - start, and `rcr_max` where they are known.
    flares
        Table of flares with `start` and `stop`.

    Returns
    -------
    The candidates with `apart_days`, `usable`, `score` (0 where not usable) and `reasons` (text) added.
    """
    rows = [_judge(need, row, flares) for row in candidates.to_dict("records")]
    judged = pd.DataFrame(rows, columns=["apart_days", "usable", "score", "reasons"], index=candidates.index)
    kept = candidates.drop(columns=judged.columns, errors="ignore")
    return pd.concat([kept, judged], axis=1).sort_values(
        ["score", "apart_days"], ascending=[False, True], kind="stable"
    )


def _judge(need: BackgroundNeed, row: Mapping[Any, Any], flares: pd.DataFrame | None) -> dict[str, Any]:
    start, stop = np.datetime64(row["start"], "ns"), np.datetime64(row["stop"], "ns")
    duration = float(row.get("duration_s", (stop - start) / np.timedelta64(1, "s")))
    apart = abs(_middle_ns(start, stop) - _middle_ns(need.time_range.start, need.time_range.stop)) / 86_400e9
    inside = _flares_inside(flares, start, stop)
    mask = int(row["detector_mask"])
    faults = {
        "is the request of the flare itself": need.request_id is not None and row["request_id"] == need.request_id,
        f"{apart:.0f} days away": apart > BACKGROUND_DAYS,
        "another energy table on board": _table_at(start) != _table_at(need.time_range.start),
        f"lacks channels of {need.channel_start}-{need.channel_stop - 1}": row["channel_start"] > need.channel_start
        or row["channel_stop"] < need.channel_stop,
        f"{32 - mask.bit_count()} detectors missing": mask & ALL_DETECTORS != ALL_DETECTORS,
        f"only {duration:.0f} s": duration < BACKGROUND_MIN_S,
        f"{inside} listed flare{'s' if inside > 1 else ''} inside": inside > 0,
        "attenuator in": row.get("rcr_max", 0) > 0,
    }
    reasons = [text for text, holds in faults.items() if holds]
    score = 0.0 if reasons else _score(apart, duration)
    if not reasons and duration < THERMAL_CYCLE_S:
        reasons_text = f"{duration:.0f} s, less than a thermal cycle"
    else:
        reasons_text = "; ".join(reasons)
    return {"apart_days": apart, "usable": not reasons, "score": score, "reasons": reasons_text}


def _middle_ns(start: np.datetime64, stop: np.datetime64) -> float:
    return (int(start.astype(np.int64)) + int(stop.astype(np.int64))) / 2


def _score(apart_days: float, duration_s: float) -> float:
    return float(np.sqrt(min(duration_s / THERMAL_CYCLE_S, 1.0)) / (1.0 + apart_days / CLOSENESS_DAYS))


def _flares_inside(flares: pd.DataFrame | None, start: np.datetime64, stop: np.datetime64) -> int:
    if flares is None or flares.empty:
        return 0
    return int(((flares["start"].to_numpy() < stop) & (flares["stop"].to_numpy() > start)).sum())


def _table_at(time: np.datetime64) -> tuple[str, str] | str:
    from stixflow.instrument.elut import elut_key

    try:
        return elut_key(time)
    except UsageError:
        return f"none known for {iso(time)[:10]}"
