"""Time intervals of a flare, each good for an image: by counts, by signal to noise, or of a fixed cadence.

An interval is whole time bins that follow each other in one instrument state: it never reaches across a motion of the
attenuator, a change of masks, a gap, or a bin whose energies were not received.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import UsageError
from stixflow.imaging.bins import covering_energy_bins, energy_ranges, with_energy_shift
from stixflow.imaging.forward import sum_case
from stixflow.imaging.grids import FloatArray
from stixflow.imaging.readout import readout_of
from stixflow.instrument import SumCase, live_fraction, per_detector
from stixflow.instrument import subcollimators as subcollimator_indices
from stixflow.time import TimeRange

_GAP_PART = 0.05
"""Bins follow each other if less than this part of the longer one, and 0.05 s for the clock, is between them."""
_GAP_S = 0.05
_STATES = (
    ("rcr", "the attenuator or rate control regime changes"),
    ("pixel_mask", "the pixel mask changes"),
    ("detector_mask", "the detector mask changes"),
)


@dataclass(frozen=True, slots=True)
class Interval:
    """Whole time bins to image together: indices ``[first, stop)`` of the data."""

    time_range: TimeRange
    first: int
    stop: int
    counts: tuple[float, ...]
    """Counts in each energy range."""
    is_enough: bool
    """Whether every energy range has what was asked for."""
    reason: str
    """Why it ends where it ends."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """Intervals in the order of time, and what could not be used."""

    intervals: tuple[Interval, ...]
    left_out: tuple[tuple[TimeRange, str], ...]

    @property
    def time_ranges(self) -> list[TimeRange]:
        return [interval.time_range for interval in self.intervals]


def flare_intervals(
    pixels: xr.Dataset,
    energy_range: Any,
    *,
    counts: float | None = None,
    snr: float | None = None,
    cadence: float | None = None,
    background: xr.Dataset | None = None,
    within: TimeRange | None = None,
    shortest: float = 0.0,
    rows: SumCase | str = "top+bottom",
    subcollimators: ArrayLike | None = None,
) -> Intervals:
    """Cut a flare into intervals, as short as the demand allows in every energy range.

    What is left over at the end of a stretch of one state is added to the interval before it; where a whole stretch has
    too little, it becomes one interval that says so.

    Parameters
    ----------
    pixels, background
        Datasets of the product `sci_pixels`.
    energy_range
        One or many pairs in keV; an interval ends when every one of them has enough.
    counts, snr, cadence
        One of: counts in each energy range; net counts over their error; seconds, for intervals of whole bins whose
        middles lie in the same period from the start of the stretch.
    within
        Only bins whose middle lies inside.
    shortest
        Seconds that an interval by counts or signal to noise lasts at least.
    rows, subcollimators
        The pixels and detectors that are counted, as for `visibilities`.

    Raises
    ------
    UsageError
        If not exactly one demand is made, or it is not positive.
    ImagingError
        If the data do not reach the energies.
    """
    demands = {"counts": counts, "snr": snr, "cadence": cadence}
    made = {name: value for name, value in demands.items() if value is not None}
    if len(made) != 1 or not next(iter(made.values())) > 0:
        raise UsageError(
            f"demands {made or 'none'}",
            expected="exactly one of counts, snr, cadence, and positive",
            advice="give one of them",
        )
    case = readout_of(pixels, sum_case(rows)).case
    measured = _Bins.of(with_energy_shift(pixels), energy_range, background, case, subcollimators, within)
    chosen: list[Interval] = []
    for first, stop, end in measured.stretches():
        if cadence is not None:
            chosen += _by_cadence(measured, first, stop, end, cadence)
        else:
            chosen += _by_demand(measured, first, stop, end, counts, snr, shortest)
    return Intervals(tuple(chosen), tuple(measured.left_out()))


@dataclass(frozen=True, slots=True, eq=False)
class _Bins:
    """Time bins with running sums over them, and where one may not go on to the next."""

    start: NDArray[np.datetime64]
    stop: NDArray[np.datetime64]
    total: FloatArray
    """(time + 1, range) running counts"""
    part: FloatArray
    """(time + 1, 1) running live time over that of the background"""
    background: FloatArray
    """(range,) counts of the background"""
    why_not: NDArray[np.str_]
    """(time,) why a bin cannot be used; empty if it can."""
    breaks: NDArray[np.str_]
    """(time,) why it does not belong to the one before; empty if it does."""

    @classmethod
    def of(
        cls,
        pixels: xr.Dataset,
        energy_range: Any,
        background: xr.Dataset | None,
        case: SumCase,
        subcollimators: ArrayLike | None,
        within: TimeRange | None,
    ) -> _Bins:
        detectors = subcollimator_indices() if subcollimators is None else np.asarray(subcollimators, dtype=np.intp)
        energies = energy_ranges(energy_range)
        start = pixels["time_start"].to_numpy()
        stop = start + np.rint(pixels["timedel"].to_numpy() * 1e9).astype("timedelta64[ns]")
        total = _band_counts(pixels, energies, detectors, case)
        part, known = np.zeros((start.size, 1)), np.zeros(len(energies))
        if background is not None:
            background = with_energy_shift(background)
            part = (_live_time(pixels, detectors) / _live_time(background, detectors).sum())[:, None]
            known = _band_counts(background, energies, detectors, case).sum(axis=0)
        why_not = _faults(pixels, energies, detectors, case)
        if within is not None:
            why_not[~within.covers(start + (stop - start) // 2)] = "outside"
        breaks = _breaks(pixels, start, stop)
        return cls(start, stop, _running(total), _running(part), known, why_not, breaks)

    def stretches(self) -> Iterator[tuple[int, int, str]]:
        """Runs of usable bins that follow each other: first, stop, and why they end."""
        usable = self.why_not == ""
        joins = usable[1:] & usable[:-1] & (self.breaks[1:] == "")
        first = np.flatnonzero(usable & ~np.concatenate([[False], joins]))
        stop = np.flatnonzero(usable & ~np.concatenate([joins, [False]])) + 1
        for a, b in zip(first.tolist(), stop.tolist(), strict=True):
            yield a, b, self._end(b)

    def _end(self, stop: int) -> str:
        if stop == len(self.start):
            return "the data end"
        return str(
            self.breaks[stop] or ("the time range ends" if self.why_not[stop] == "outside" else self.why_not[stop])
        )

    def left_out(self) -> Iterator[tuple[TimeRange, str]]:
        bad = (self.why_not != "") & (self.why_not != "outside")
        new = bad & np.concatenate([[True], self.why_not[1:] != self.why_not[:-1]])
        for first in np.flatnonzero(new).tolist():
            others = np.flatnonzero(self.why_not[first:] != self.why_not[first])
            last = first + int(others[0]) - 1 if others.size else len(self.start) - 1
            yield TimeRange(self.start[first], self.stop[last]), str(self.why_not[first])

    def interval(self, first: int, stop: int, is_enough: bool, reason: str) -> Interval:
        counts = tuple((self.total[stop] - self.total[first]).tolist())
        return Interval(TimeRange(self.start[first], self.stop[stop - 1]), first, stop, counts, is_enough, reason)


def _by_cadence(bins: _Bins, first: int, stop: int, end: str, seconds: float) -> Iterator[Interval]:
    middle = bins.start[first:stop] + (bins.stop[first:stop] - bins.start[first:stop]) // 2
    period = ((middle - bins.start[first]) / np.timedelta64(1, "s") // seconds).astype(np.int64)
    cuts = [first, *(first + 1 + np.flatnonzero(np.diff(period))).tolist(), stop]
    for a, b in pairwise(cuts):
        yield bins.interval(a, b, True, end if b == stop else f"{seconds:g} s")


def _by_demand(
    bins: _Bins, first: int, stop: int, end: str, counts: float | None, snr: float | None, shortest: float
) -> list[Interval]:
    enough = _counts_reached(bins, counts) if counts is not None else _snr_reached(bins, snr or 0.0)
    reason = f"{counts:g} counts reached" if counts is not None else f"signal to noise of {snr:g} reached"
    least = np.timedelta64(round(shortest * 1e9), "ns")
    cuts = [first]
    while cuts[-1] < stop:
        begin = cuts[-1]
        reached = enough(begin, stop) & (bins.stop[begin:stop] - bins.start[begin] >= least)
        if not reached.any():
            break
        cuts.append(begin + int(np.argmax(reached)) + 1)
    if len(cuts) == 1:
        return [bins.interval(first, stop, False, f"{end}, with less than asked for")]
    rest = stop - cuts[-1]
    cuts[-1] = stop
    last = f"{end}; what was left is added" if rest else end
    return [bins.interval(a, b, True, last if b == stop else reason) for a, b in pairwise(cuts)]


def _counts_reached(bins: _Bins, counts: float) -> Callable[[int, int], NDArray[np.bool_]]:
    def reached(first: int, stop: int) -> NDArray[np.bool_]:
        return np.asarray((bins.total[first + 1 : stop + 1] - bins.total[first] >= counts).all(axis=1))

    return reached


def _snr_reached(bins: _Bins, snr: float) -> Callable[[int, int], NDArray[np.bool_]]:
    def reached(first: int, stop: int) -> NDArray[np.bool_]:
        total, part = (running[first + 1 : stop + 1] - running[first] for running in (bins.total, bins.part))
        taken, variance = part * bins.background, part**2 * bins.background
        return np.asarray(((total > 0) & (total - taken >= snr * np.sqrt(total + variance))).all(axis=1))

    return reached


def _running(values: FloatArray) -> FloatArray:
    return np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])


def _band_counts(
    pixels: xr.Dataset, energies: list[tuple[float, float]], detectors: NDArray[np.intp], case: SumCase
) -> FloatArray:
    """Counts of every time bin in every energy range, all chosen pixels together."""
    chosen = readout_of(pixels, case).select(pixels["counts"].to_numpy(), detectors)
    total = chosen.sum(axis=(2, 3), dtype=np.float64)
    sums = [total[:, slice(*covering_energy_bins(pixels, *one))].sum(axis=1) for one in energies]
    return np.stack(sums, axis=1)


def _live_time(pixels: xr.Dataset, detectors: NDArray[np.intp]) -> FloatArray:
    """Live seconds of every time bin, mean of the detectors."""
    duration = pixels["timedel"].to_numpy()[:, None]
    live = live_fraction(pixels["triggers"].to_numpy(), duration) * duration
    return np.asarray(per_detector(live)[:, detectors].mean(axis=1))


def _faults(
    pixels: xr.Dataset, energies: list[tuple[float, float]], detectors: NDArray[np.intp], case: SumCase
) -> NDArray[np.str_]:
    """Why a time bin cannot be used."""
    faults = np.full(pixels.sizes["time"], "", dtype="<U80")
    needed = int(np.bitwise_or.reduce(1 << detectors.astype(np.int64)))
    observed = pixels["observed"].to_numpy()
    for one in energies:
        faults[~observed[:, slice(*covering_energy_bins(pixels, *one))].all(axis=1)] = "energies were not received"
    faults[(needed & ~pixels["detector_mask"].to_numpy().astype(np.int64)) != 0] = "detectors were not sent"
    faults[(case.pixel_mask & ~pixels["pixel_mask"].to_numpy().astype(np.int64)) != 0] = "pixels were not sent"
    faults[~np.isfinite(_live_time(pixels, detectors))] = "the triggers leave no live time"
    return faults


def _breaks(pixels: xr.Dataset, start: NDArray[np.datetime64], stop: NDArray[np.datetime64]) -> NDArray[np.str_]:
    """Why a time bin does not go with the one before it."""
    breaks = np.full(start.size, "", dtype="<U80")
    duration = (stop - start) / np.timedelta64(1, "s")
    gap = (start[1:] - stop[:-1]) / np.timedelta64(1, "s")
    allowed = _GAP_PART * np.maximum(duration[1:], duration[:-1]) + _GAP_S
    breaks[1:][np.abs(gap) > allowed] = "the data have a gap"
    for name, reason in reversed(_STATES):
        breaks[1:][np.diff(pixels[name].to_numpy().astype(np.int64)) != 0] = reason
    return breaks
