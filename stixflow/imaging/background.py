"""Counts of a background request, in the energy bins of the science data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from stixflow.errors import ImagingError
from stixflow.imaging.bins import IntArray
from stixflow.imaging.grids import FloatArray
from stixflow.imaging.pieces import Pieces, count_variance, live_times
from stixflow.imaging.readout import Readout, readout_of
from stixflow.imaging.states import check_states
from stixflow.instrument.elut import elut_key


@dataclass(frozen=True, slots=True, eq=False)
class Background:
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
    ) -> Background:
        everything = np.array([[0, background.sizes["time"]]])
        readout = readout_of(background, wanted.case)
        if readout.case != wanted.case or (readout.is_summed and not wanted.is_summed):
            raise ImagingError(
                f"the background was summed on board to columns of the rows {readout.case.lower()}",
                expected=f"single pixels, or what the science data are ({wanted.case.lower()})",
                advice="choose a background with single pixels",
            )
        check_states(background, everything, [group for group in groups if group], detectors, readout.case)
        pieces = Pieces.cut(everything)
        counts = readout.select(background["counts"].to_numpy(), detectors)
        variance = count_variance(counts, background["counts_skm"].to_numpy())
        total, total_variance = (_regroup(pieces.sum(values)[0], groups) for values in (counts, variance))
        if wanted.is_summed and not readout.is_summed:
            total, total_variance = readout.rows_added(total), readout.rows_added(total_variance)
        return cls(total, total_variance, *live_times(background, pieces, detectors))


def energy_groups(
    pixels: xr.Dataset, background: xr.Dataset, energy_bins: Sequence[tuple[int, int]]
) -> list[tuple[int, int] | None]:
    """The background bins that make each science bin; None, which must not be asked for, where there are none.

    Raises
    ------
    ImagingError
        If a bin of `energy_bins` has none.
    """
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


def check_same_table(pixels: xr.Dataset, background: xr.Dataset) -> None:
    """Raise ImagingError if science and background were taken with different energy tables."""
    tables = [elut_key(data["time_start"].to_numpy()[0])[0] for data in (pixels, background)]
    if tables[0] != tables[1]:
        raise ImagingError(
            f"science and background were taken with different energy tables ({tables[0]} and {tables[1]})",
            expected="one table for both",
            advice="choose a background from the same period, or elut=None",
        )
