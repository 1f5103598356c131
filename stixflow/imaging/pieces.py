"""Sums over many intervals of time at once: the bins are cut at all limits first and accumulated over the pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.imaging.bins import IntArray
from stixflow.imaging.grids import FloatArray
from stixflow.instrument import live_fraction, live_fraction_error, per_detector
from stixflow.telemetry.compression import packed_variance


def difference(running: FloatArray, first: IntArray, stop: IntArray) -> FloatArray:
    """Sums between two places of running sums, for all intervals: (interval, ...)."""
    result = running.take(stop, axis=0)
    result -= running.take(first, axis=0)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Time bins cut at all limits of the intervals, so that any interval is a run of pieces."""

    span: slice
    cuts: IntArray
    first: IntArray
    stop: IntArray

    @classmethod
    def cut(cls, time_bins: IntArray) -> Pieces:
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
        return difference(self.running(values), self.first, self.stop)


def count_variance(counts: NDArray[Any], skm: NDArray[np.uint16]) -> FloatArray:
    """Poisson plus compression variance; time on the first axis."""
    return np.asarray(counts + packed_variance(counts, skm))


def live_times(pixels: xr.Dataset, pieces: Pieces, detectors: IntArray) -> tuple[FloatArray, FloatArray]:
    """Live time of every interval and its relative variance, (interval, detector)."""
    triggers = pixels["triggers"].to_numpy()[pieces.span]
    duration = pixels["timedel"].to_numpy()[pieces.span, None]
    compression = np.sqrt(packed_variance(triggers, pixels["triggers_skm"].to_numpy()[pieces.span]))
    live = pieces.sum(live_fraction(triggers, duration) * duration)
    error = pieces.sum((live_fraction_error(triggers, compression, duration) * duration) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = error / live**2
    return per_detector(live)[:, detectors], per_detector(relative)[:, detectors]
