"""What to image: the window around a flare's peak, and what its background must fit.

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
from stixflow.time import TimeRange

_WINDOW_S = 60.0
_MINIMUM_COUNTS = 10_000

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
    seconds: float = _WINDOW_S,
    minimum_counts: int = _MINIMUM_COUNTS,
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
    """Tell which energy bins lie entirely inside `energy_range` (keV).

    Raises
    ------
    UsageError
        If no energy bin does.
    """
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
