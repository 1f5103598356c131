"""Pixel data of a request, one box at a time (SSID 21)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.build.values import bits_of, cube_values, or_reduce, rows_of, trigger_values
from stixflow.cubes.model import N_DETECTORS, N_PIXELS
from stixflow.telemetry import Records
from stixflow.telemetry.requests import Box

_ROWS_AT_ONCE = 8192


def build_pixel_box(records: Records, box: Box) -> tuple[dict[str, NDArray[Any]], int, int]:
    """Variables of a pixel cube, the counts of repeated rows, and how many of those differ from the first."""
    values = cube_values(records, "counts")
    pixel_mask = or_reduce(records["pixel_mask"], records.lengths("num_pixel_sets"))
    first, size = records.starts("num_data"), records.lengths("num_data")
    counts = np.zeros((box.start.size, len(box.channels), N_DETECTORS, N_PIXELS), dtype=values.dtype)
    observed = np.zeros(counts.shape[:2], dtype=np.bool_)
    observed[box.time, box.energy] = True
    sub = records.parents("num_energy_groups")[box.row]
    patterns = np.stack([records["detector_mask"][sub].astype(np.int64), pixel_mask[sub].astype(np.int64)], axis=1)
    flat = counts.reshape(*observed.shape, -1)
    again: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]] = []
    for (detectors, pixels), rows in _groups(patterns):
        cells = (bits_of(detectors, N_DETECTORS)[:, None] * N_PIXELS + bits_of(pixels, N_PIXELS)).reshape(-1)
        for piece in np.split(rows, range(_ROWS_AT_ONCE, rows.size, _ROWS_AT_ONCE)):
            new, old = piece[~box.repeated[piece]], piece[box.repeated[piece]]
            _place(flat, box.time[new], box.energy[new], cells, rows_of(values, first, size, box.row[new]))
            again.append((old, cells, rows_of(values, first, size, box.row[old])))
    repeated = sum(int(numbers.sum(dtype=np.uint64)) for _, _, numbers in again)
    conflicts = sum(_differing(flat, box.time[old], box.energy[old], cells, rows) for old, cells, rows in again)
    return {"counts": counts, "observed": observed, **_pixel_state(records, box, pixel_mask)}, repeated, conflicts


def _place(
    flat: NDArray[Any],
    time: NDArray[np.intp],
    energy: NDArray[np.intp],
    cells: NDArray[np.intp],
    rows: NDArray[Any],
) -> None:
    if cells.size == flat.shape[2]:
        flat[time, energy] = rows
    elif time.size:
        flat[time[:, None], energy[:, None], cells] = rows


def _differing(
    flat: NDArray[Any],
    time: NDArray[np.intp],
    energy: NDArray[np.intp],
    cells: NDArray[np.intp],
    rows: NDArray[Any],
) -> int:
    """Count the repeated rows whose counts are not those that were placed."""
    if not time.size:
        return 0
    return int((flat[time[:, None], energy[:, None], cells] != rows).any(axis=1).sum())


def _pixel_state(records: Records, box: Box, pixel_mask: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
    """Variables of each time bin, from the first substructure that has it."""
    packet = records.parents("num_substructures")
    tenths = records["integration_time"].astype(np.int64)
    chosen = box.header
    triggers = trigger_values(records, "trigger", packet, tenths, records["detector_mask"])
    return {
        "detector": np.arange(N_DETECTORS, dtype=np.uint8),
        "pixel": np.arange(N_PIXELS, dtype=np.uint8),
        "triggers": triggers[chosen],
        "rcr": records["rcr"][chosen],
        "detector_mask": records["detector_mask"][chosen],
        "pixel_mask": pixel_mask[chosen],
        "counts_skm": records.skm("counts")[packet[chosen]],
        "triggers_skm": records.skm("trigger")[packet[chosen]],
    }


def _groups(patterns: NDArray[np.int64]) -> list[tuple[tuple[int, int], NDArray[np.intp]]]:
    values, inverse = np.unique(patterns, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    return [((int(a), int(b)), np.flatnonzero(inverse == number)) for number, (a, b) in enumerate(values)]
