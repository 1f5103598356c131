"""Pixel counts of many intervals at once: selection, live time, background, energy correction.

The sequence is that of the ground software: whole bins that cover the request; the background subtracted with the ratio
of live times; then the first and the last channel corrected from their actual edges (ELUT) to the nominal ones;
then the sum to columns. The counts are cut at all interval limits first and accumulated over the pieces and the
channels, so that every further interval costs a few look-ups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, NoReturn, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging.bins import BinRule, IntArray, choose_bins, with_energy_shift
from stixflow.imaging.elut_correction import edge_factors, product_factors, spectral_index
from stixflow.imaging.grids import FloatArray
from stixflow.imaging.readout import Readout, readout_of
from stixflow.instrument import (
    SumCase,
    actual_edges,
    live_fraction,
    live_fraction_error,
    per_detector,
)
from stixflow.instrument.elut import elut_key
from stixflow.telemetry.compression import packed_variance
from stixflow.time import TimeRange, iso

ElutMode = Literal["power_law", "linear", "stixpy"]

_BLOCK = 128
"""Time ranges worked on together: what they need stays in the cache of a core."""
_STATE: Mapping[str, str] = MappingProxyType(
    {
        "rcr": "the rate control regime (attenuator)",
        "pixel_mask": "the pixel mask",
        "detector_mask": "the detector mask",
    }
)
"""What must not change inside an interval."""


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
    time_bins: IntArray
    """(image, 2) half-open range of time bins."""
    energy_bins: IntArray
    """(image, 2) half-open range of energy bins."""
    rcr: NDArray[np.uint8]
    """(image,) rate control regime."""


def interval_counts(
    pixels: xr.Dataset,
    times: Sequence[TimeRange],
    energies: Sequence[tuple[float, float]],
    detectors: IntArray,
    case: SumCase,
    *,
    background: xr.Dataset | None = None,
    elut: ElutMode | None = "power_law",
    bins: BinRule = "cover",
) -> IntervalCounts:
    """Net counts of every time range with every energy range (time slowest).

    Parameters
    ----------
    pixels, background
        Datasets of the product `sci_pixels`. All of the background's time bins are used.
    detectors
        Detector indices.
    case
        Pixels that make a column; where columns were summed on board, those of the data count.
    elut
        How counts between actual and nominal edges are interpolated; None for no correction.
    bins
        Which bins make an interval.

    Raises
    ------
    ImagingError
        If an interval has no data, changes its state, misses pixels or detectors, or has unobserved energies, or if the
        background does not fit.
    """
    pixels = with_energy_shift(pixels)
    background = None if background is None else with_energy_shift(background)
    readout = readout_of(pixels, case)
    time_bins, energy_bins = choose_bins(pixels, times, energies, bins)
    _check_states(pixels, time_bins, energy_bins, detectors, readout.case)
    pieces = _Pieces.cut(time_bins)
    bands = _Bands(tuple(energy_bins), readout, needs_edges=elut is not None)
    live, live_error = _live_times(pixels, pieces, detectors)
    if not np.isfinite(live).all() or (live <= 0).any():
        raise ImagingError(
            "the triggers leave no live time in some interval", expected="live detectors", advice="leave it out"
        )
    other = None
    if background is not None:
        if elut is not None:
            _check_same_table(pixels, background)
        groups = _energy_groups(pixels, background, energy_bins)
        other = _Background.measure(background, groups, detectors, readout)
    running = _Running.of(pixels, pieces, bands, detectors, needs_spectrum=elut == "power_law")
    edges = None if elut is None else _Edges.of(pixels, int(time_bins[0, 0]), bands, detectors, elut)
    blocks = []
    for start in range(0, len(times), _BLOCK):
        block = slice(start, start + _BLOCK)
        found = running.between(pieces.first[block], pieces.stop[block], live[block], live_error[block])
        if other is not None:
            found = found.without(other, bands)
        factors = [] if edges is None else edges.factors(found.spectrum)
        net, variance = bands.columns(found.net, factors), bands.columns(found.variance, factors, power=2)
        blocks.append((net, variance, found.raw, found.background))
    net, variance, raw, subtracted = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    n_energies = len(energies)
    lows, highs = pixels["energy_low"].to_numpy(), pixels["energy_high"].to_numpy()
    return IntervalCounts(
        net=net,
        variance=variance,
        raw=raw,
        background=subtracted,
        live_time=np.repeat(live, n_energies, axis=0),
        exposure=np.repeat(pieces.sum(pixels["timedel"].to_numpy()[pieces.span]), n_energies),
        energy_width=np.tile([highs[stop - 1] - lows[start] for start, stop in energy_bins], len(times)),
        time_bins=np.repeat(time_bins, n_energies, axis=0),
        energy_bins=np.tile(np.array(energy_bins), (len(times), 1)),
        rcr=pixels["rcr"].to_numpy()[np.repeat(time_bins[:, 0], n_energies)],
    )


class _Measured(NamedTuple):
    """What the intervals hold; net counts and variance as the parts of a `_Bands`."""

    net: FloatArray
    variance: FloatArray
    raw: FloatArray
    """(image,)"""
    background: FloatArray
    """(image,)"""
    spectrum: FloatArray | None
    """(interval, channel) net counts of the large pixels, where the correction needs them."""
    live: FloatArray
    """(interval, detector) seconds"""
    live_error: FloatArray
    """(interval, detector) relative variance"""

    def without(self, other: _Background, bands: _Bands) -> _Measured:
        """The same less a background scaled by live time."""
        ratio = self.live / other.live
        wide = ratio[:, None, :, None]
        estimate = bands.parts(other.counts[None]) * wide
        relative = (self.live_error + other.live_error)[:, None, :, None]
        added = bands.parts(other.variance[None]) + bands.parts(other.counts[None], power=2) * relative
        spectrum = self.spectrum
        if spectrum is not None:
            spectrum = spectrum - ratio @ other.counts[..., bands.readout.is_large].sum(axis=-1).T
        return self._replace(
            net=self.net - estimate,
            variance=self.variance + added * wide**2,
            background=bands.totals(estimate),
            spectrum=spectrum,
        )


class _Running(NamedTuple):
    """Running sums over the pieces, so that an interval is a difference of two of them."""

    counts: FloatArray
    """(piece + 1, range, detector, part)"""
    variance: FloatArray
    spectrum: FloatArray | None
    """(piece + 1, channel)"""

    @classmethod
    def of(
        cls, pixels: xr.Dataset, pieces: _Pieces, bands: _Bands, detectors: IntArray, *, needs_spectrum: bool
    ) -> _Running:
        counts = bands.readout.select(pixels["counts"][pieces.span].to_numpy(), detectors)
        skm = pixels["counts_skm"].to_numpy()[pieces.span]
        large = counts[..., bands.readout.is_large] if needs_spectrum else None
        return cls(
            pieces.running(counts, bands.parts),
            pieces.running(_count_variance(counts[:, bands.channels], skm), bands.shifted.parts),
            None if large is None else pieces.running(large.sum(axis=(-1, -2))),
        )

    def between(self, first: IntArray, stop: IntArray, live: FloatArray, live_error: FloatArray) -> _Measured:
        counts = _difference(self.counts, first, stop)
        raw = _Bands.totals(counts)
        spectrum = None if self.spectrum is None else _difference(self.spectrum, first, stop)
        variance = _difference(self.variance, first, stop)
        return _Measured(counts, variance, raw, np.zeros(raw.shape), spectrum, live, live_error)


def _difference(running: FloatArray, first: IntArray, stop: IntArray) -> FloatArray:
    result = running.take(stop, axis=0)
    result -= running.take(first, axis=0)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Bands:
    """Energy ranges as what is needed of them: the sum of their channels and, to correct the edges, first and last."""

    bins: tuple[tuple[int, int], ...]
    readout: Readout
    needs_edges: bool

    @property
    def channels(self) -> slice:
        """All channels that any range needs."""
        return slice(min(first for first, _ in self.bins), max(stop for _, stop in self.bins))

    @property
    def shifted(self) -> _Bands:
        """The same, for values of `channels` only."""
        offset = self.channels.start
        return _Bands(
            tuple((first - offset, stop - offset) for first, stop in self.bins), self.readout, self.needs_edges
        )

    def parts(self, values: FloatArray, *, power: int = 1) -> FloatArray:
        """(n, channel, detector, pixel) to (n, range, detector, part).

        The parts are the columns of the sum of the channels and, to correct the edges, the pixels of the first and of
        the last channel; with a `power`, of each pixel's sum.
        """
        return np.stack([self._parts_of(values, first, stop, power) for first, stop in self.bins], axis=1)

    def _parts_of(self, values: FloatArray, first: int, stop: int, power: int) -> FloatArray:
        total = self.readout.rows_added(values[:, first:stop].sum(axis=1, dtype=np.float64) ** power)
        if not self.needs_edges:
            return total
        return np.concatenate([total, values[:, first] ** power, values[:, stop - 1] ** power], axis=-1)

    def columns(
        self, parts: FloatArray, factors: Sequence[tuple[FloatArray, FloatArray]], *, power: int = 1
    ) -> FloatArray:
        """Sums of the ranges with corrected edges, pixels added to columns: (n * range, detector, 4)."""
        n_pixels = len(self.readout.positions)
        sums = parts[..., :4].copy()
        for k, (at_first, at_last) in enumerate(factors):
            edges = parts[:, k, :, 4 : 4 + n_pixels] * (at_first**power - 1.0)
            if self.bins[k][1] - self.bins[k][0] > 1:
                edges += parts[:, k, :, 4 + n_pixels :] * (at_last**power - 1.0)
            sums[:, k] += self.readout.rows_added(edges)
        return sums.reshape(-1, *sums.shape[2:])

    @staticmethod
    def totals(parts: FloatArray) -> FloatArray:
        """Counts of every range, all detectors and pixels together, uncorrected: (n * range,)."""
        return np.asarray(parts[..., :4].sum(axis=(2, 3)).ravel())


@dataclass(frozen=True, slots=True, eq=False)
class _Background:
    """Counts of a whole background request in the energy bins of the science data; NaN where it has none."""

    counts: FloatArray
    """(energy, detector, pixel)"""
    variance: FloatArray
    live: FloatArray
    """(1, detector) seconds"""
    live_error: FloatArray
    """(1, detector) relative variance"""

    @classmethod
    def measure(
        cls,
        background: xr.Dataset,
        groups: Sequence[tuple[int, int] | None],
        detectors: IntArray,
        wanted: Readout,
    ) -> _Background:
        everything = np.array([[0, background.sizes["time"]]])
        readout = readout_of(background, wanted.case)
        if readout.case != wanted.case or (readout.is_summed and not wanted.is_summed):
            raise ImagingError(
                f"the background was summed on board to columns of the rows {readout.case.lower()}",
                expected=f"single pixels, or what the science data are ({wanted.case.lower()})",
                advice="choose a background with single pixels",
            )
        _check_states(background, everything, [group for group in groups if group], detectors, readout.case)
        pieces = _Pieces.cut(everything)
        counts = readout.select(background["counts"].to_numpy(), detectors)
        variance = _count_variance(counts, background["counts_skm"].to_numpy())
        total, total_variance = (_regroup(pieces.sum(values)[0], groups) for values in (counts, variance))
        if wanted.is_summed and not readout.is_summed:
            total, total_variance = readout.rows_added(total), readout.rows_added(total_variance)
        return cls(total, total_variance, *_live_times(background, pieces, detectors))


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """Time bins cut at all limits of the intervals, so that any interval is a run of pieces."""

    span: slice
    cuts: IntArray
    first: IntArray
    stop: IntArray

    @classmethod
    def cut(cls, time_bins: IntArray) -> _Pieces:
        cuts, position = np.unique(time_bins, return_inverse=True)
        position = position.reshape(time_bins.shape)
        return cls(slice(int(cuts[0]), int(cuts[-1])), cuts - cuts[0], position[:, 0], position[:, 1])

    def running(self, values: NDArray[Any], reduce: Callable[[FloatArray], FloatArray] | None = None) -> FloatArray:
        """Running sums of `values` (first axis: time bins of the span) at the cuts: (piece + 1, ...).

        `reduce` acts on the other axes, linearly; it is done before the intervals multiply the work.
        """
        sums = np.add.reduceat(values, self.cuts[:-1], axis=0, dtype=np.float64)
        sums = sums if reduce is None else reduce(sums)
        return np.concatenate([np.zeros((1, *sums.shape[1:])), np.cumsum(sums, axis=0)])

    def sum(self, values: NDArray[Any]) -> FloatArray:
        """Sum `values` (first axis: time bins of the span) over every interval: (interval, ...)."""
        return _difference(self.running(values), self.first, self.stop)


def _check_states(
    pixels: xr.Dataset,
    time_bins: IntArray,
    energy_bins: Sequence[tuple[int, int]],
    detectors: IntArray,
    case: SumCase,
) -> None:
    """Refuse the first interval that changes its state or misses data, with all that is wrong with it."""
    first, last = time_bins[:, 0], time_bins[:, 1] - 1
    bad = np.zeros(len(time_bins), dtype=np.bool_)
    for name in _STATE:
        changes = np.cumsum(np.diff(pixels[name].to_numpy(), prepend=pixels[name].to_numpy()[:1]) != 0)
        bad |= changes[last] != changes[first]
    bad |= (case.pixel_mask & ~pixels["pixel_mask"].to_numpy()[first].astype(np.int64)) != 0
    needed = int(np.bitwise_or.reduce(1 << detectors.astype(np.int64)))
    bad |= (needed & ~pixels["detector_mask"].to_numpy()[first].astype(np.int64)) != 0
    lost = np.cumsum(~pixels["observed"].to_numpy(), axis=0)
    for start, stop in energy_bins:
        before = np.where(first[:, None] > 0, lost[np.maximum(first - 1, 0), start:stop], 0)
        bad |= (lost[last, start:stop] != before).any(axis=1)
    if bad.any():
        _refuse(pixels, time_bins[int(np.argmax(bad))], energy_bins, detectors, case)


def _refuse(
    pixels: xr.Dataset,
    bins: IntArray,
    energy_bins: Sequence[tuple[int, int]],
    detectors: IntArray,
    case: SumCase,
) -> NoReturn:
    inside = slice(int(bins[0]), int(bins[1]))
    problems = []
    for name, meaning in _STATE.items():
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
    raise ImagingError(
        f"the interval from {iso(pixels['time_start'].to_numpy()[bins[0]])} cannot be imaged: {'; '.join(problems)}",
        expected="one instrument state and complete data in an interval",
        advice="choose another interval, energy range, or set of rows and sub-collimators",
    )


def _count_variance(counts: NDArray[Any], skm: NDArray[np.uint16]) -> FloatArray:
    """Poisson plus compression variance; time on the first axis."""
    return np.asarray(counts + packed_variance(counts, skm))


def _live_times(pixels: xr.Dataset, pieces: _Pieces, detectors: IntArray) -> tuple[FloatArray, FloatArray]:
    """Live time of every interval and its relative variance, (interval, detector)."""
    triggers = pixels["triggers"].to_numpy()[pieces.span]
    duration = pixels["timedel"].to_numpy()[pieces.span, None]
    compression = np.sqrt(packed_variance(triggers, pixels["triggers_skm"].to_numpy()[pieces.span]))
    live = pieces.sum(live_fraction(triggers, duration) * duration)
    error = pieces.sum((live_fraction_error(triggers, compression, duration) * duration) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = error / live**2
    return per_detector(live)[:, detectors], per_detector(relative)[:, detectors]


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


class _Edges(NamedTuple):
    """Nominal and actual edges of the channels, and how to correct from these to those."""

    bins: tuple[tuple[int, int], ...]
    low: FloatArray
    high: FloatArray
    actual_low: FloatArray
    """(channel, detector, pixel)"""
    actual_high: FloatArray
    correction: Callable[..., tuple[FloatArray, FloatArray]]

    @classmethod
    def of(cls, pixels: xr.Dataset, first_bin: int, bands: _Bands, detectors: IntArray, elut: ElutMode) -> _Edges:
        if elut not in get_args(ElutMode):
            expected = f"{', '.join(map(repr, get_args(ElutMode)))} or None"
            raise UsageError(f"elut={elut!r}", expected=expected, advice="choose one of them")
        table = actual_edges(pixels["time_start"].to_numpy()[first_bin])
        table = np.maximum(table + pixels.attrs.get("energy_shift_kev", 0.0), 0.0)
        edges = bands.readout.edges(table, detectors)
        lows, highs = pixels["energy_low"].to_numpy(), pixels["energy_high"].to_numpy()
        low, high = edges[pixels["channel_start"].to_numpy()], edges[pixels["channel_stop"].to_numpy()]
        return cls(bands.bins, lows, highs, low, high, product_factors if elut == "stixpy" else edge_factors)

    def factors(self, spectrum: FloatArray | None) -> list[tuple[FloatArray, FloatArray]]:
        """Factors on the first and on the last channel of every energy range, each (interval, detector, pixel).

        `spectrum` is that of the net counts, (interval, channel), for the power law.
        """
        index = peak = None
        if spectrum is not None:
            index, peak = spectral_index(spectrum / (self.high - self.low), self.low, self.high)
        edges = self.low, self.high, self.actual_low, self.actual_high
        return [self.correction(one, *edges, index, peak) for one in self.bins]
