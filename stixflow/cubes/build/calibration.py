"""Calibration spectra of a run (SSID 41): ADC spectra of every pixel, as sent, subspectrum by subspectrum."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.assemble import assemble
from stixflow.cubes.build.books import Books
from stixflow.cubes.build.timing import run_start
from stixflow.cubes.build.values import clock_attributes, cube_values, sample_bins
from stixflow.cubes.corrections import CALIBRATION_UNITS
from stixflow.cubes.model import N_DETECTORS, N_PIXELS
from stixflow.errors import UsageError
from stixflow.telemetry import Records, consistent
from stixflow.time import ANCHOR_CLOCK, Clock

_N_SUBSPECTRA = 8
_MS, _US = 1e-3, 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """The points of all subspectra in use, one after the other."""

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    subspectrum: NDArray[np.int64]
    first: NDArray[np.int64]
    """First point of each subspectrum on this axis."""


def build_calibration(
    records: Records, *, corrections: tuple[str, ...] = (CALIBRATION_UNITS,), clock: Clock = ANCHOR_CLOCK
) -> list[xr.Dataset]:
    """Build the spectra of every calibration run in the records.

    Parameters
    ----------
    records
        Decoded packets of SSID 41, any order.
    corrections
        `CALIBRATION_UNITS` takes live time as milliseconds and quiet time as microseconds, as the team does after
        decoding; without it they are NaN, and only the numbers as sent are there.
    clock
        How onboard time becomes UTC; recorded in the attributes ``clock`` and ``clock_uncertainty_s``.

    Returns
    -------
    One Dataset of product ``cal_spectrum`` for each run, in order of time; a run is a start and a duration. Attributes:
    ``complete`` and ``missing`` say whether every spectrum that the masks promise was received, ``books`` where the
    counts went. Packets of a run whose subspectra are not those of most of its packets are unplaced.

    Raises
    ------
    UsageError
        If a correction is not known.
    """
    unknown = set(corrections) - {CALIBRATION_UNITS}
    if unknown:
        raise UsageError(f"{', '.join(sorted(unknown))} cannot be made here", expected=CALIBRATION_UNITS)
    records = records.select(np.lexsort((records.sequence_count, records.scet)))
    key = _keys(records)
    runs = np.unique(_keys(consistent(records)[0])).tolist()
    return [_run(records.select(np.flatnonzero(key == run)), corrections, clock) for run in runs]


def _keys(records: Records) -> NDArray[np.int64]:
    return np.asarray(run_start(records) << 32 | records["duration"].astype(np.int64))


def _run(records: Records, corrections: tuple[str, ...], clock: Clock) -> xr.Dataset:
    usable = _same_layout(consistent(records)[0])
    axis = _axis(usable)
    values = cube_values(usable, "counts")
    cell = _cells(usable, axis)
    first = np.unique(cell, return_index=True)[1]
    again = np.setdiff1d(np.arange(cell.size), first)
    shape = (axis.start.size, N_DETECTORS, N_PIXELS)
    counts, observed = np.zeros(shape, dtype=values.dtype), np.zeros(shape, dtype=np.bool_)
    counts.reshape(-1)[cell[first]] = values[first]
    observed.reshape(-1)[cell] = True
    total = _sum(records)
    books = Books(
        total,
        int(counts.sum(dtype=np.uint64)),
        repeated_counts=int(values[again].sum(dtype=np.uint64)),
        unplaced_counts=total - int(values.sum(dtype=np.uint64)),
        repeated_bins=again.size,
        conflicting_bins=int((counts.reshape(-1)[cell[again]] != values[again]).sum()),
        unplaced_packets=len(records) - len(usable),
    )
    missing = _missing(usable, axis, observed, books.unplaced_packets)
    attrs = {
        "corrections": list(corrections),
        "complete": not missing,
        "missing": missing,
        "books": asdict(books),
        **clock_attributes(clock, run_start(usable)[:1] << 16),
    }
    variables = {"counts": counts, "observed": observed, **_axes(axis), **_state(usable, corrections, clock)}
    return assemble("cal_spectrum", variables, attrs=attrs)


def _cells(records: Records, axis: _Axis) -> NDArray[np.int64]:
    """Place of every number in the flat cube."""
    structure = records.parents("num_points")
    point = np.arange(structure.size) - records.starts("num_points")[structure]
    subspectrum, detector, pixel = (
        records[name].astype(np.int64)[structure] for name in ("subspec_id", "detector_id", "pixel_id")
    )
    return ((axis.first[subspectrum] + point) * N_DETECTORS + detector) * N_PIXELS + pixel


def _axes(axis: _Axis) -> dict[str, NDArray[Any]]:
    return {
        "adc_start": axis.start,
        "adc_stop": axis.stop,
        "subspectrum": axis.subspectrum,
        "detector": np.arange(N_DETECTORS),
        "pixel": np.arange(N_PIXELS),
    }


def _sum(records: Records) -> int:
    return int(records.values("counts").sum(dtype=np.uint64))


def _layout_columns(records: Records) -> NDArray[np.int64]:
    """What must be the same in all packets of a run: masks, scheme and subspectra, shape (packets, numbers)."""
    names = ["detector_mask", "pixel_mask", "subspec_mask"]
    for number in range(1, _N_SUBSPECTRA + 1):
        names += [f"subspec{number}_{part}" for part in ("num_points_minus_1", "num_summed_minus_1", "lowest_channel")]
    return np.stack([*(records[name].astype(np.int64) for name in names), records.skm("counts").astype(np.int64)], 1)


def _same_layout(records: Records) -> Records:
    """Keep the packets with the subspectra that most packets of the run have."""
    values, inverse, members = np.unique(_layout_columns(records), axis=0, return_inverse=True, return_counts=True)
    if len(values) == 1:
        return records
    return records.select(np.flatnonzero(inverse.reshape(-1) == np.argmax(members)))


def _axis(records: Records) -> _Axis:
    used = int(records["subspec_mask"][0])
    start, stop, subspectrum, first, size = [], [], [], [], 0
    for number in range(_N_SUBSPECTRA):
        points, summed, lowest = (
            int(records[f"subspec{number + 1}_{part}"][0])
            for part in ("num_points_minus_1", "num_summed_minus_1", "lowest_channel")
        )
        first.append(size)
        if used >> number & 1:
            low = lowest + np.arange(points + 1) * (summed + 1)
            start.append(low)
            stop.append(low + summed + 1)
            subspectrum.append(np.full(points + 1, number))
            size += points + 1
    return _Axis(np.concatenate(start), np.concatenate(stop), np.concatenate(subspectrum), np.array(first))


def _state(records: Records, corrections: tuple[str, ...], clock: Clock) -> dict[str, NDArray[Any]]:
    """Variables of the run, from its first packet."""
    head = records.select(np.array([0]))
    live, quiet = (head[name].astype(np.float64) for name in ("live_time", "quiet_time"))
    is_corrected = CALIBRATION_UNITS in corrections
    start = run_start(head) << 16
    return {
        **sample_bins(start, head["duration"].astype(np.float64), clock),
        "live_time": live * _MS if is_corrected else np.full(1, np.nan),
        "quiet_time": quiet * _US if is_corrected else np.full(1, np.nan),
        "average_temperature": np.asarray(head.engineering("average_temperature"), dtype=np.float64),
        "live_time_raw": head["live_time"],
        "quiet_time_raw": head["quiet_time"],
        "average_temperature_raw": head["average_temperature"],
        "detector_mask": head["detector_mask"],
        "pixel_mask": head["pixel_mask"],
        "subspectrum_mask": head["subspec_mask"],
        "bit_reduction": head["bit_reduction"] if "bit_reduction" in head else np.zeros(1, dtype=np.uint8),
        "counts_skm": head.skm("counts"),
    }


def _missing(records: Records, axis: _Axis, observed: NDArray[np.bool_], unplaced: int) -> list[str]:
    """Say which spectra the masks promise that were not received, and which packets were not placed."""
    detectors = np.flatnonzero(int(records["detector_mask"][0]) >> np.arange(N_DETECTORS) & 1)
    pixels = np.flatnonzero(int(records["pixel_mask"][0]) >> np.arange(N_PIXELS) & 1)
    heads = np.flatnonzero(np.diff(axis.subspectrum, prepend=-1))
    promised = heads.size * detectors.size * pixels.size
    received = int(observed[np.ix_(heads, detectors, pixels)].sum())
    found = [f"{promised - received} of {promised} spectra"] if received < promised else []
    return found + ([f"{unplaced} packet(s) that contradict the others or themselves"] if unplaced else [])


__all__ = ["build_calibration"]
