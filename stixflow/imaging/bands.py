"""Energy ranges of a stack of intervals: sums of channels, and the correction of their first and last one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr

from stixflow.errors import UsageError
from stixflow.imaging.bins import IntArray
from stixflow.imaging.elut_correction import edge_factors, product_factors, spectral_index
from stixflow.imaging.grids import FloatArray
from stixflow.imaging.readout import Readout
from stixflow.instrument import actual_edges

ElutMode = Literal["power_law", "linear", "stixpy"]


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """Energy ranges as what is needed of them: the sum of their channels and, to correct the edges, first and last."""

    bins: tuple[tuple[int, int], ...]
    readout: Readout
    needs_edges: bool

    @property
    def channels(self) -> slice:
        """All channels that any range needs."""
        return slice(min(first for first, _ in self.bins), max(stop for _, stop in self.bins))

    @property
    def shifted(self) -> Bands:
        """The same, for values of `channels` only."""
        offset = self.channels.start
        return Bands(
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


class Edges(NamedTuple):
    """Nominal and actual edges of the channels, and how to correct from these to those."""

    bins: tuple[tuple[int, int], ...]
    low: FloatArray
    high: FloatArray
    actual_low: FloatArray
    """(channel, detector, pixel)"""
    actual_high: FloatArray
    correction: Callable[..., tuple[FloatArray, FloatArray]]

    @classmethod
    def of(cls, pixels: xr.Dataset, first_bin: int, bands: Bands, detectors: IntArray, elut: ElutMode) -> Edges:
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
