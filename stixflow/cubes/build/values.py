"""Numbers of the records as numbers of the cubes: decompressed, wide enough, on their clock and energies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.cubes.assemble import energy_arrays
from stixflow.instrument import energy_edges
from stixflow.telemetry import Records
from stixflow.telemetry.bin_times import TICKS_PER_TENTH
from stixflow.telemetry.compression import DEFAULT_SCALE, SCALED, dtype_of, pack_skm, scheme_of, unscale_triggers
from stixflow.telemetry.runs import gather_rows, starts_of
from stixflow.time import TICKS_PER_SECOND, Clock

TRIGGER_DETECTORS = (
    (0, 1),
    (5, 6),
    (4, 10),
    (11, 12),
    (13, 14),
    (9, 15),
    (7, 8),
    (2, 3),
    (30, 31),
    (25, 26),
    (21, 27),
    (19, 20),
    (17, 18),
    (16, 22),
    (23, 24),
    (28, 29),
)
"""The two detector indices whose triggers each accumulator counts."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxCube:
    """The variables of one box of a request, and what the records hold beyond them."""

    variables: Mapping[str, NDArray[Any]]
    repeated_counts: int
    repeated_bins: int
    conflicting_bins: int
    """Repeated bins that are not equal to those placed."""

    def with_variables(self, more: Mapping[str, NDArray[Any]]) -> BoxCube:
        """Add variables."""
        return replace(self, variables={**self.variables, **more})


def cube_values(records: Records, name: str) -> NDArray[Any]:
    """Decompressed values, 64 bits wide where a scheme of the records can exceed 32."""
    values = records.values(name)
    present = np.unique(records.skm(name)).tolist()
    widest = np.result_type(np.uint32, *[dtype_of(scheme_of(packed)) for packed in present])
    return values.astype(np.uint64 if widest.itemsize == 8 else np.uint32, copy=False)


def trigger_values(
    records: Records,
    name: str,
    packet: NDArray[np.intp],
    tenths: NDArray[np.int64],
    detector_mask: NDArray[np.uint32],
) -> NDArray[Any]:
    """Decompressed triggers; where they were scaled on board, the estimate of TELEMETRY 3."""
    values = cube_values(records, name)
    scaled = (records.skm(name) == pack_skm(*SCALED))[packet]
    if not scaled.any():
        return values
    active = _active_accumulators(detector_mask[scaled])
    if values.ndim == 2:
        estimate = unscale_triggers(values[scaled], tenths[scaled, None], active, factor=DEFAULT_SCALE)[0]
    else:
        estimate = unscale_triggers(values[scaled], tenths[scaled], active.sum(axis=1), factor=DEFAULT_SCALE)[0]
    values = values.copy()
    values[scaled] = estimate.astype(values.dtype)
    return values


def _active_accumulators(detector_mask: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Tell which accumulators have at least one active detector, shape (rows, 16)."""
    pairs = np.array([1 << first | 1 << second for first, second in TRIGGER_DETECTORS], dtype=np.uint32)
    return np.asarray((detector_mask[:, None] & pairs) != 0)


def bin_times(start: NDArray[np.int64], tenths: NDArray[np.int64], clock: Clock) -> dict[str, NDArray[Any]]:
    """Centre, start (UTC) and length (s) of time bins from their onboard start and their length in 0.1 s."""
    half = np.rint(tenths * (TICKS_PER_TENTH / 2)).astype(np.int64)
    return {"time": clock.utc(start + half), "time_start": clock.utc(start), "timedel": tenths / 10.0}


def clock_attributes(clock: Clock, scet: NDArray[np.int64]) -> dict[str, Any]:
    """What a cube says of its clock: what it is, and how far its times may be off."""
    return {"clock": clock.name, "clock_uncertainty_s": round(float(clock.uncertainty(scet).max()), 6)}


def sample_bins(start: NDArray[np.int64], seconds: NDArray[np.float64], clock: Clock) -> dict[str, NDArray[Any]]:
    """Times of samples that last the given seconds; for instants, of zero seconds, `time` is when they were."""
    half = np.rint(seconds * (TICKS_PER_SECOND / 2)).astype(np.int64)
    return {
        "time": clock.utc(start + half),
        "time_start": clock.utc(start),
        "timedel": seconds,
        "scet": start,
    }


def energy_bins(
    channels: NDArray[np.uint8], edges: ArrayLike | None, start: NDArray[np.int64], clock: Clock
) -> dict[str, NDArray[Any]]:
    """Energies (keV) and channels of bins, from the first channel and the one after the last, shape (energies, 2).

    `edges` are those of the 33 science channels; None takes the nominal ones of the first `start`.
    """
    bounds = np.asarray(energy_edges(clock.utc(start[0])) if edges is None else edges, dtype=np.float64)
    return energy_arrays(channels[:, 0], channels[:, 1], bounds)


def bits_of(mask: int, size: int) -> NDArray[np.intp]:
    """Positions of the bits that are set in a mask of `size` bits."""
    return np.flatnonzero(mask >> np.arange(size) & 1)


def or_reduce(masks: NDArray[np.uint16], lengths: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Masks of each of many runs of them, joined: (runs,); 0 where a run is empty."""
    out = np.zeros(lengths.size, dtype=np.uint16)
    filled = lengths > 0
    if masks.size:
        out[filled] = np.bitwise_or.reduceat(masks, starts_of(lengths)[filled])
    return out


def rows_of(
    values: NDArray[Any], first: NDArray[np.int64], size: NDArray[np.int64], rows: NDArray[np.intp]
) -> NDArray[Any]:
    """Counts of rows that all have the same number of them, shape (rows, numbers)."""
    width = int(size[rows[0]]) if rows.size else 0
    step = values.itemsize
    data = gather_rows(values.view(np.uint8), first[rows] * step, width * step)
    return data.view(values.dtype) if width else np.zeros((rows.size, 0), dtype=values.dtype)
