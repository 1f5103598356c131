"""Pixel counts of many intervals at once: selection, live time, background, energy correction.

The sequence is that of the ground software: whole bins that cover the request; the background subtracted with the ratio
of live times; then the first and the last channel corrected from their actual edges (ELUT) to the nominal ones;
then the sum to columns. The counts are cut at all interval limits first and accumulated over the pieces and the
channels, so that every further interval costs a few look-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import ImagingError
from stixflow.imaging.background import Background, check_same_table, energy_groups
from stixflow.imaging.bands import Bands, Edges, ElutMode
from stixflow.imaging.bins import BinRule, IntArray, choose_bins, with_energy_shift
from stixflow.imaging.grids import FloatArray
from stixflow.imaging.pieces import Pieces, count_variance, difference, live_times
from stixflow.imaging.readout import readout_of
from stixflow.imaging.states import check_states
from stixflow.instrument import SumCase
from stixflow.time import TimeRange

_BLOCK = 128
"""Time ranges worked on together: what they need stays in the cache of a core."""


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
    check_states(pixels, time_bins, energy_bins, detectors, readout.case)
    pieces = Pieces.cut(time_bins)
    bands = Bands(tuple(energy_bins), readout, needs_edges=elut is not None)
    live, live_error = live_times(pixels, pieces, detectors)
    if not np.isfinite(live).all() or (live <= 0).any():
        raise ImagingError(
            "the triggers leave no live time in some interval", expected="live detectors", advice="leave it out"
        )
    other = None
    if background is not None:
        if elut is not None:
            check_same_table(pixels, background)
        groups = energy_groups(pixels, background, energy_bins)
        other = Background.measure(background, groups, detectors, readout)
    running = _Running.of(pixels, pieces, bands, detectors, needs_spectrum=elut == "power_law")
    edges = None if elut is None else Edges.of(pixels, int(time_bins[0, 0]), bands, detectors, elut)
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
    """What the intervals hold; net counts and variance as the parts of a `Bands`."""

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

    def without(self, other: Background, bands: Bands) -> _Measured:
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
        cls, pixels: xr.Dataset, pieces: Pieces, bands: Bands, detectors: IntArray, *, needs_spectrum: bool
    ) -> _Running:
        counts = bands.readout.select(pixels["counts"][pieces.span].to_numpy(), detectors)
        skm = pixels["counts_skm"].to_numpy()[pieces.span]
        large = counts[..., bands.readout.is_large] if needs_spectrum else None
        return cls(
            pieces.running(counts, bands.parts),
            pieces.running(count_variance(counts[:, bands.channels], skm), bands.shifted.parts),
            None if large is None else pieces.running(large.sum(axis=(-1, -2))),
        )

    def between(self, first: IntArray, stop: IntArray, live: FloatArray, live_error: FloatArray) -> _Measured:
        counts = difference(self.counts, first, stop)
        raw = Bands.totals(counts)
        spectrum = None if self.spectrum is None else difference(self.spectrum, first, stop)
        variance = difference(self.variance, first, stop)
        return _Measured(counts, variance, raw, np.zeros(raw.shape), spectrum, live, live_error)
