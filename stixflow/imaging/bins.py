"""Which time and energy bins of pixel data make an interval, and what energies and times they really have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import ImagingError, UsageError
from stixflow.instrument import energy_shift
from stixflow.time import TimeRange, iso, to_utc

BinRule = Literal["cover", "stixpy"]
"""Whole bins that cover the request, as the ground software; or as stixpy: the time bins that touch it, neighbours at
its very limits included, and the energy bins inside it."""
IntArray = NDArray[np.intp]
_EDGE_TOLERANCE_KEV = 1e-3
_NANOSECOND = 1e-9


def time_ranges(ranges: Any) -> list[TimeRange]:
    """Read one or many time ranges: TimeRange, "A/B", a pair of times, or a sequence of these."""
    if isinstance(ranges, TimeRange):
        return [ranges]
    if isinstance(ranges, str):
        return [TimeRange.parse(ranges)]
    items = list(ranges)
    if len(items) == 2 and not any(_is_range(item) for item in items):
        return [TimeRange(to_utc(items[0]), to_utc(items[1]))]
    return [one for item in items for one in time_ranges(item)]


def energy_ranges(ranges: Any) -> list[tuple[float, float]]:
    """Read one or many energy ranges in keV: a pair of numbers or a sequence of pairs.

    Raises
    ------
    UsageError
        If a range is not a lower energy before a higher one.
    """
    pairs = np.asarray(ranges, dtype=np.float64)
    pairs = pairs[None] if pairs.ndim == 1 else pairs
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not (pairs[:, 0] < pairs[:, 1]).all():
        raise UsageError(
            f"energy range {ranges!r}", expected="(low, high) in keV, low < high", advice="correct the energies"
        )
    return [(float(low), float(high)) for low, high in pairs]


def choose_bins(
    pixels: xr.Dataset, times: Sequence[TimeRange], energies: Sequence[tuple[float, float]], rule: BinRule
) -> tuple[IntArray, list[tuple[int, int]]]:
    """Half-open ranges of time bins (interval, 2), and of energy bins, of intervals by a rule.

    Raises
    ------
    UsageError
        If there is no such rule.
    ImagingError
        If the data do not have the bins.
    """
    if rule == "cover":
        return covering_time_bins(pixels, times), [covering_energy_bins(pixels, *one) for one in energies]
    if rule == "stixpy":
        return touching_time_bins(pixels, times), [inside_energy_bins(pixels, *one) for one in energies]
    raise UsageError(f"bins={rule!r}", expected="'cover' or 'stixpy'", advice="choose one of them")


def covering_time_bins(pixels: xr.Dataset, ranges: Sequence[TimeRange]) -> IntArray:
    """Index ranges, (interval, 2), of the whole time bins that cover the time ranges, as far as the data reach.

    Raises
    ------
    ImagingError
        If the data and a range do not overlap.
    """
    start, stop = _bin_limits(pixels)
    wanted_start = np.array([wanted.start for wanted in ranges], dtype=start.dtype)
    wanted_stop = np.array([wanted.stop for wanted in ranges], dtype=start.dtype)
    first = np.maximum(np.searchsorted(start, wanted_start, side="right") - 1, 0)
    end = np.minimum(np.searchsorted(stop, wanted_stop, side="left") + 1, start.size)
    if start.size:
        first = first + (stop[first] <= wanted_start)
        end = end - (start[end - 1] >= wanted_stop)
    _check_some_bins(first, end, start, stop, ranges)
    return np.stack([first, end], axis=1)


def touching_time_bins(pixels: xr.Dataset, ranges: Sequence[TimeRange]) -> IntArray:
    """Index ranges, (interval, 2), of the time bins that share at least one point with the time ranges, as in stixpy.

    Both limits count, so that a range between two edges of bins takes in one bin more on either side.

    Raises
    ------
    ImagingError
        If there is none.
    """
    start, stop = _bin_limits(pixels)
    first = np.searchsorted(stop, np.array([wanted.start for wanted in ranges], dtype=start.dtype), side="left")
    end = np.searchsorted(start, np.array([wanted.stop for wanted in ranges], dtype=start.dtype), side="right")
    _check_some_bins(first, end, start, stop, ranges)
    return np.stack([first, end], axis=1)


def _check_some_bins(
    first: IntArray,
    end: IntArray,
    start: NDArray[np.datetime64],
    stop: NDArray[np.datetime64],
    ranges: Sequence[TimeRange],
) -> None:
    empty = np.flatnonzero(first >= end)
    if empty.size:
        raise ImagingError(
            f"no time bin in {ranges[empty[0]]}",
            expected=f"a time within {iso(start[0])}/{iso(stop[-1])}" if start.size else "data with time bins",
            advice="choose a time range that the request covers",
        )


def covering_energy_bins(pixels: xr.Dataset, low: float, high: float) -> tuple[int, int]:
    """Index range of the whole energy bins that cover an energy range.

    Raises
    ------
    ImagingError
        If the bins do not reach that far, leave a gap, or have no upper limit.
    """
    lows, highs = pixels["energy_low"].to_numpy(), pixels["energy_high"].to_numpy()
    first = int(np.searchsorted(lows, low + _EDGE_TOLERANCE_KEV, side="right")) - 1
    end = int(np.searchsorted(highs, high - _EDGE_TOLERANCE_KEV)) + 1
    problem = ""
    if first < 0 or end > lows.size or first >= end:
        problem = f"the data do not cover {low:g} to {high:g} keV"
    elif (np.abs(lows[first + 1 : end] - highs[first : end - 1]) > _EDGE_TOLERANCE_KEV).any():
        problem = f"the data have a gap within {low:g} to {high:g} keV"
    elif not np.isfinite(highs[end - 1]):
        problem = f"the energy bin above {lows[end - 1]:g} keV has no upper limit"
    if problem:
        expected = f"energies within the bins {_bins_text(pixels)} keV"
        raise ImagingError(problem, expected=expected, advice="change the energy range")
    return first, end


def inside_energy_bins(pixels: xr.Dataset, low: float, high: float) -> tuple[int, int]:
    """Index range of the energy bins that lie inside an energy range, as in stixpy.

    Raises
    ------
    ImagingError
        If there is none, or the data leave a gap between them.
    """
    lows, highs = pixels["energy_low"].to_numpy(), pixels["energy_high"].to_numpy()
    first = int(np.searchsorted(lows, low - _EDGE_TOLERANCE_KEV))
    end = int(np.searchsorted(highs, high + _EDGE_TOLERANCE_KEV, side="right"))
    return covering_energy_bins(pixels, lows[first], highs[end - 1]) if first < end else _no_bin(pixels, low, high)


def _no_bin(pixels: xr.Dataset, low: float, high: float) -> NoReturn:
    raise ImagingError(
        f"no energy bin lies inside {low:g} to {high:g} keV",
        expected=f"a range that holds one of the bins {_bins_text(pixels)} keV",
        advice="widen the energy range",
    )


def _bins_text(pixels: xr.Dataset) -> str:
    edges = zip(pixels["energy_low"].to_numpy(), pixels["energy_high"].to_numpy(), strict=True)
    return ", ".join(f"{low:g}-{high:g}" for low, high in edges)


def with_energy_shift(pixels: xr.Dataset) -> xr.Dataset:
    """Pixel data with the energies that its bins had: 1.6 keV lower from 15 November to 4 December 2020.

    The shift is noted in the attribute `energy_shift_kev`; data that have the attribute are not shifted again.
    """
    if "energy_shift_kev" in pixels.attrs or not pixels.sizes["time"]:
        return pixels
    shift = energy_shift(pixels["time_start"].to_numpy()[0])
    if not shift:
        return pixels
    moved = {
        name: (pixels[name].dims, np.maximum(pixels[name].to_numpy() + shift, 0.0), pixels[name].attrs)
        for name in ("energy_low", "energy_high")
    }
    return pixels.assign(moved).assign_attrs(energy_shift_kev=shift)


def correct_bin_shift(pixels: xr.Dataset) -> xr.Dataset:
    """Pixel data whose counts and triggers are moved back by one time bin; the last bin is lost.

    Until 9 December 2021 the flight software could file the counts of a bin under the bin after it. Whether it did can
    be told from the data only where bins differ in length, and it must be corrected at full time resolution, before
    bins are summed: so this is for the user to ask for. The attribute `bin_shift` becomes "corrected".

    Raises
    ------
    ImagingError
        If the data cannot be shifted, are corrected already, or have a single bin.
    """
    state = pixels.attrs.get("bin_shift", "possible")
    if state != "possible" or pixels.sizes["time"] < 2:
        found = "there is one time bin" if state == "possible" else f"the attribute bin_shift is {state!r}"
        raise ImagingError(
            f"the counts cannot be moved by one bin: {found}",
            expected="data from before 9 December 2021, not corrected yet, with several time bins",
            advice="use the data as they are",
        )
    follows = ("counts", "observed", "triggers", "counts_skm", "triggers_skm")
    moved = {name: pixels[name].isel(time=slice(1, None)).variable for name in follows if name in pixels}
    return pixels.isel(time=slice(None, -1)).assign(moved).assign_attrs(bin_shift="corrected")


def _is_range(item: Any) -> bool:
    if isinstance(item, TimeRange) or (isinstance(item, str) and "/" in item):
        return True
    return not isinstance(item, str) and isinstance(item, Sequence | np.ndarray) and np.ndim(item) == 1


def _bin_limits(pixels: xr.Dataset) -> tuple[NDArray[np.datetime64], NDArray[np.datetime64]]:
    start = pixels["time_start"].to_numpy()
    duration = np.rint(pixels["timedel"].to_numpy() / _NANOSECOND).astype("timedelta64[ns]")
    return start, start + duration
