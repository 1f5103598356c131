"""Pixel counts of many intervals at once: selection, live time, background, energy correction.

The sequence is that of the ground software: whole bins that cover the request; the background subtracted with the ratio
of live times; then the first and the last channel corrected from their actual edges (ELUT) to the nominal ones;
then the sum to columns. The counts are cut at all interval limits first and accumulated over the pieces and the
channels, so that every further interval costs a few look-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging.elut_correction import edge_factors, spectral_index
from stixflow.imaging.grids import FloatArray
from stixflow.instrument import SumCase, actual_edges, live_fraction, live_fraction_error, per_detector
from stixflow.instrument.elut import elut_key
from stixflow.telemetry.compression import unpack_skm, variance
from stixflow.time import TimeRange, iso, to_utc

ElutMode = Literal["power_law", "linear"]
IntArray = NDArray[np.intp]

_EDGE_TOLERANCE_KEV = 1e-3
_LARGE_PIXELS = 8
_NANOSECOND = 1e-9


class Box(NamedTuple):
    """Half-open index ranges of the time bins and energy bins of one interval."""

    time: tuple[int, int]
    energy: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class IntervalCounts:
    """Counts of the columns A to D of a stack of intervals; detectors in the order asked for."""

    net: FloatArray
    """(image, detector, 4) after background and energy correction."""
    variance: FloatArray
    """(image, detector, 4)"""
    raw: FloatArray
    """(image,) counts in the selection as measured."""
    background: FloatArray
    """(image,) background subtracted from them."""
    live_time: FloatArray
    """(image, detector) in seconds."""
    exposure: FloatArray
    """(image,) seconds."""
    energy_width: FloatArray
    """(image,) keV."""
    boxes: tuple[Box, ...]
    rcr: NDArray[np.uint8]
    """(image,) rate control regime."""


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


def covering_time_bins(pixels: xr.Dataset, wanted: TimeRange) -> tuple[int, int]:
    """Index range of the whole time bins that cover a time range, as far as the data reach.

    Raises
    ------
    ImagingError
        If the data and the range do not overlap.
    """
    start, stop = _bin_limits(pixels)
    first = int(np.searchsorted(start, wanted.start, side="right")) - 1
    last = int(np.searchsorted(stop, wanted.stop, side="left"))
    first, end = max(first, 0), min(last + 1, start.size)
    if first < start.size and stop[first] <= wanted.start:
        first += 1
    if end > 0 and start[end - 1] >= wanted.stop:
        end -= 1
    if first >= end:
        raise ImagingError(
            f"no time bin in {wanted}",
            expected=f"a time within {iso(start[0])}/{iso(stop[-1])}" if start.size else "data with time bins",
            advice="choose a time range that the request covers",
        )
    return first, end


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
        bins = ", ".join(f"{a:g}-{b:g}" for a, b in zip(lows, highs, strict=True))
        raise ImagingError(problem, expected=f"energies within the bins {bins} keV", advice="change the energy range")
    return first, end


def interval_counts(
    pixels: xr.Dataset,
    times: Sequence[TimeRange],
    energies: Sequence[tuple[float, float]],
    detectors: IntArray,
    case: SumCase,
    *,
    background: xr.Dataset | None = None,
    elut: ElutMode | None = "power_law",
) -> IntervalCounts:
    """Net counts of every time range with every energy range (time slowest).

    Parameters
    ----------
    pixels, background
        Datasets of the product `sci_pixels`. All of the background's time bins are used.
    detectors
        Detector indices.
    case
        Pixels that make a column.
    elut
        How counts between actual and nominal edges are interpolated; None for no correction.

    Raises
    ------
    ImagingError
        If an interval has no data, changes its state, misses pixels or detectors, or has unobserved energies, or if the
        background does not fit.
    """
    time_bins = [covering_time_bins(pixels, one) for one in times]
    energy_bins = [covering_energy_bins(pixels, *one) for one in energies]
    for bins in time_bins:
        _check_state(pixels, bins, energy_bins, detectors, case)
    pieces = _Pieces.cut(time_bins)
    rows = case.pixels.ravel()
    counts = pieces.sum(_select(pixels["counts"].to_numpy()[pieces.span], detectors, rows))
    errors = pieces.sum(_count_variance(pixels, pieces.span, detectors, rows))
    live, live_error = _live_times(pixels, pieces, detectors)
    duration = pieces.sum(pixels["timedel"].to_numpy()[pieces.span])
    estimate = np.zeros(())
    net, total_error = counts, errors
    if background is not None:
        groups = _energy_groups(pixels, background, energy_bins)
        if elut is not None:
            _check_same_table(pixels, background)
        estimate, estimate_error = _scaled_background(background, groups, detectors, case, live, live_error)
        net, total_error = counts - estimate, errors + estimate_error
    if not np.isfinite(live).all() or (live <= 0).any():
        raise ImagingError(
            "the triggers leave no live time in some interval", expected="live detectors", advice="leave it out"
        )
    boxes = tuple(Box(time, energy) for time in time_bins for energy in energy_bins)
    factors = _factors(pixels, time_bins, energy_bins, detectors, rows, net, elut)
    lows, highs = pixels["energy_low"].to_numpy(), pixels["energy_high"].to_numpy()
    n_energies = len(energies)
    return IntervalCounts(
        net=_columns(_corrected_sums(net, energy_bins, factors), case),
        variance=_columns(_corrected_sums(total_error, energy_bins, [(a**2, b**2) for a, b in factors]), case),
        raw=_energy_totals(counts, energy_bins),
        background=_energy_totals(np.broadcast_to(estimate, counts.shape), energy_bins),
        live_time=np.repeat(live, n_energies, axis=0),
        exposure=np.repeat(duration, n_energies),
        energy_width=np.tile([highs[stop - 1] - lows[start] for start, stop in energy_bins], len(times)),
        boxes=boxes,
        rcr=pixels["rcr"].to_numpy()[[box.time[0] for box in boxes]],
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """Time bins cut at all limits of the intervals, so that any interval is a run of pieces."""

    span: slice
    cuts: IntArray
    first: IntArray
    stop: IntArray

    @classmethod
    def cut(cls, time_bins: Sequence[tuple[int, int]]) -> _Pieces:
        limits = np.asarray(time_bins, dtype=np.intp)
        cuts, position = np.unique(limits, return_inverse=True)
        position = position.reshape(limits.shape)
        return cls(slice(int(cuts[0]), int(cuts[-1])), cuts - cuts[0], position[:, 0], position[:, 1])

    def sum(self, values: NDArray[Any]) -> FloatArray:
        """Sum `values` (first axis: time bins of the span) over every interval: (interval, ...)."""
        if self.first.size == 1:
            return np.asarray(values.sum(axis=0, dtype=np.float64)[None])
        sums = np.add.reduceat(values, self.cuts[:-1], axis=0, dtype=np.float64)
        running = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(sums, axis=0)])
        return np.asarray(running[self.stop] - running[self.first])


def _is_range(item: Any) -> bool:
    if isinstance(item, TimeRange) or (isinstance(item, str) and "/" in item):
        return True
    return not isinstance(item, str) and isinstance(item, Sequence | np.ndarray) and np.ndim(item) == 1


def _bin_limits(pixels: xr.Dataset) -> tuple[NDArray[np.datetime64], NDArray[np.datetime64]]:
    start = pixels["time_start"].to_numpy()
    duration = np.rint(pixels["timedel"].to_numpy() / _NANOSECOND).astype("timedelta64[ns]")
    return start, start + duration


def _select(values: NDArray[Any], detectors: IntArray, rows: IntArray) -> NDArray[Any]:
    """(..., 32, 12) to (..., detector, pixel) as asked for."""
    return values[..., detectors[:, None], rows]


def _check_state(
    pixels: xr.Dataset,
    bins: tuple[int, int],
    energy_bins: Sequence[tuple[int, int]],
    detectors: IntArray,
    case: SumCase,
) -> None:
    inside = slice(*bins)
    start = iso(pixels["time_start"].to_numpy()[bins[0]])
    problems = []
    for name, meaning in (
        ("rcr", "the rate control regime (attenuator)"),
        ("pixel_mask", "the pixel mask"),
        ("detector_mask", "the detector mask"),
    ):
        values = np.unique(pixels[name].to_numpy()[inside])
        if values.size > 1:
            problems.append(f"{meaning} changes ({', '.join(map(str, values))})")
    pixel_mask, detector_mask = (int(pixels[name].to_numpy()[bins[0]]) for name in ("pixel_mask", "detector_mask"))
    if case.pixel_mask & ~pixel_mask:
        problems.append(f"pixels of the rows {case.lower().replace('_', '+')} were not sent (mask {pixel_mask:#05x})")
    missing = [int(detector) for detector in detectors if not detector_mask >> int(detector) & 1]
    if missing:
        problems.append(f"the detectors with index {missing} were not sent")
    observed = pixels["observed"].to_numpy()[inside]
    if not all(observed[:, first:stop].all() for first, stop in energy_bins):
        problems.append("some energy bins were not received at all times")
    if problems:
        raise ImagingError(
            f"the interval from {start} cannot be imaged: {'; '.join(problems)}",
            expected="one instrument state and complete data in an interval",
            advice="choose another interval, energy range, or set of rows and sub-collimators",
        )


def _count_variance(pixels: xr.Dataset, span: slice, detectors: IntArray, rows: IntArray) -> FloatArray:
    """Poisson plus compression variance, (time, energy, detector, pixel)."""
    counts = _select(pixels["counts"].to_numpy()[span], detectors, rows)
    return counts + _compression_variance(counts, pixels["counts_skm"].to_numpy()[span])


def _compression_variance(values: NDArray[Any], skm: NDArray[np.uint16]) -> FloatArray:
    """Variance from compression; the scheme may change along the first axis."""
    result = np.zeros(values.shape)
    for packed in np.unique(skm):
        s, k, m = (int(part) for part in unpack_skm(packed))
        chosen = skm == packed
        result[chosen] = variance(values[chosen], (s, k, m))
    return result


def _live_times(pixels: xr.Dataset, pieces: _Pieces, detectors: IntArray) -> tuple[FloatArray, FloatArray]:
    """Live time of every interval and its relative variance, (interval, detector)."""
    triggers = pixels["triggers"].to_numpy()[pieces.span]
    duration = pixels["timedel"].to_numpy()[pieces.span, None]
    compression = np.sqrt(_compression_variance(triggers, pixels["triggers_skm"].to_numpy()[pieces.span]))
    live = pieces.sum(live_fraction(triggers, duration) * duration)
    error = pieces.sum((live_fraction_error(triggers, compression, duration) * duration) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = error / live**2
    return per_detector(live)[:, detectors], per_detector(relative)[:, detectors]


def _scaled_background(
    background: xr.Dataset,
    groups: Sequence[tuple[int, int] | None],
    detectors: IntArray,
    case: SumCase,
    live: FloatArray,
    live_error: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Background in the energy bins of the science data, scaled to its live time, with variance."""
    everything = (0, background.sizes["time"])
    _check_state(background, everything, [group for group in groups if group], detectors, case)
    rows = case.pixels.ravel()
    pieces = _Pieces.cut([everything])
    counts = pieces.sum(_select(background["counts"].to_numpy(), detectors, rows))[0]
    errors = pieces.sum(_count_variance(background, pieces.span, detectors, rows))[0]
    counts, errors = _regroup(counts, groups), _regroup(errors, groups)
    live_background, relative = _live_times(background, pieces, detectors)
    ratio = (live / live_background)[:, None, :, None]
    estimate = counts * ratio
    return estimate, errors * ratio**2 + estimate**2 * (live_error + relative)[:, None, :, None]


def _energy_groups(
    pixels: xr.Dataset, background: xr.Dataset, energy_bins: Sequence[tuple[int, int]]
) -> list[tuple[int, int] | None]:
    """The background bins that make each science bin; None, which must not be asked for, where there are none."""
    starts, stops = background["channel_start"].to_numpy(), background["channel_stop"].to_numpy()
    groups: list[tuple[int, int] | None] = []
    for start, stop in zip(pixels["channel_start"].to_numpy(), pixels["channel_stop"].to_numpy(), strict=True):
        first, last = np.flatnonzero(starts == start), np.flatnonzero(stops == stop)
        whole = first.size and last.size and (starts[first[0] + 1 : last[0] + 1] == stops[first[0] : last[0]]).all()
        groups.append((int(first[0]), int(last[0]) + 1) if whole else None)
    if not all(groups[channel] for first, stop in energy_bins for channel in range(first, stop)):
        raise ImagingError(
            "the background does not have the energy bins of the science data",
            expected="bins that the background's bins add up to",
            advice="choose another background or energy range",
        )
    return groups


def _regroup(values: FloatArray, groups: Sequence[tuple[int, int] | None]) -> FloatArray:
    empty = np.full(values.shape[1:], np.nan)
    return np.stack([values[slice(*group)].sum(axis=0) if group else empty for group in groups])


def _check_same_table(pixels: xr.Dataset, background: xr.Dataset) -> None:
    tables = [elut_key(data["time_start"].to_numpy()[0])[0] for data in (pixels, background)]
    if tables[0] != tables[1]:
        raise ImagingError(
            f"science and background were taken with different energy tables ({tables[0]} and {tables[1]})",
            expected="one table for both",
            advice="choose a background from the same period, or elut=None",
        )


def _factors(
    pixels: xr.Dataset,
    time_bins: Sequence[tuple[int, int]],
    energy_bins: Sequence[tuple[int, int]],
    detectors: IntArray,
    rows: IntArray,
    net: FloatArray,
    elut: ElutMode | None,
) -> list[tuple[FloatArray, FloatArray]]:
    """Factors on the first and on the last channel of every energy range, each (interval, detector, pixel) or scalar.

    For a single channel the second is 1 and the first is the whole correction.
    """
    if elut is None:
        return [(np.ones(()), np.ones(()))] * len(energy_bins)
    if elut not in ("power_law", "linear"):
        raise UsageError(f"elut={elut!r}", expected="'power_law', 'linear' or None", advice="choose one of them")
    edges = _select(np.moveaxis(actual_edges(pixels["time_start"].to_numpy()[time_bins[0][0]]), -1, 0), detectors, rows)
    lows, highs = pixels["energy_low"].to_numpy(), pixels["energy_high"].to_numpy()
    low, high = edges[pixels["channel_start"].to_numpy()], edges[pixels["channel_stop"].to_numpy()]
    index = peak = None
    if elut == "power_law":
        large = rows < _LARGE_PIXELS if (rows < _LARGE_PIXELS).any() else np.ones(rows.size, dtype=np.bool_)
        spectrum = net[..., large].sum(axis=(2, 3)) / (highs - lows)
        index, peak = spectral_index(spectrum, lows, highs)
    return [edge_factors(one, lows, highs, low, high, index, peak) for one in energy_bins]


def _corrected_sums(
    values: FloatArray, energy_bins: Sequence[tuple[int, int]], factors: Sequence[tuple[FloatArray, FloatArray]]
) -> FloatArray:
    """Sum the channels of every energy range, first and last multiplied: (interval, range, detector, pixel)."""
    sums = []
    for (first, stop), (at_first, at_last) in zip(energy_bins, factors, strict=True):
        total = values[:, first:stop].sum(axis=1)
        sums.append(total + values[:, first] * (at_first - 1.0) + values[:, stop - 1] * (at_last - 1.0))
    return np.stack(sums, axis=1)


def _columns(sums: FloatArray, case: SumCase) -> FloatArray:
    n_times, n_energies, n_detectors, _ = sums.shape
    return np.asarray(sums.reshape(n_times * n_energies, n_detectors, len(case.rows), 4).sum(axis=2))


def _energy_totals(values: FloatArray, energy_bins: Sequence[tuple[int, int]]) -> FloatArray:
    spectrum = values.sum(axis=(2, 3))
    return np.stack([spectrum[:, first:stop].sum(axis=1) for first, stop in energy_bins], axis=1).ravel()
