"""Pixel data of a request, one box at a time: single pixels (SSID 20, 21) and sums of pixel sets (SSID 22)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.build.values import BoxCube, bits_of, cube_values, or_reduce, rows_of, trigger_values
from stixflow.cubes.model import N_DETECTORS, N_PIXELS
from stixflow.telemetry import Box, Records, Request
from stixflow.telemetry.compression import join_count_bytes
from stixflow.telemetry.runs import positions_in

_ROWS_AT_ONCE = 8192


def build_pixel_box(request: Request, box: Box) -> BoxCube:
    """Variables of a cube of single pixels, of compressed counts."""
    records = request.records
    pixel_mask = or_reduce(records["pixel_mask"], records.lengths("num_pixel_sets"))

    def cells(detectors: int, pixels: int) -> NDArray[np.intp]:
        return (bits_of(detectors, N_DETECTORS)[:, None] * N_PIXELS + bits_of(pixels, N_PIXELS)).reshape(-1)

    placed = _place_rows(records, box, pixel_mask.astype(np.int64), cells, N_PIXELS)
    return placed.with_variables(pixel_state(records, box, pixel_mask, N_PIXELS))


def build_pixel_sum_box(request: Request, box: Box) -> BoxCube:
    """Variables of a cube of pixel sums: the pixel axis counts the sets in the order sent."""
    records = request.records
    sets = records.lengths("num_pixel_sets")
    n_sets = int(sets.max(initial=0))

    def cells(detectors: int, number: int) -> NDArray[np.intp]:
        return (bits_of(detectors, N_DETECTORS)[:, None] * n_sets + np.arange(number)).reshape(-1)

    placed = _place_rows(records, box, sets, cells, n_sets)
    masks = np.zeros((sets.size, n_sets), dtype=np.uint16)
    number = positions_in(sets)
    masks[records.parents("num_pixel_sets"), number] = records["pixel_mask"]
    state = pixel_state(records, box, or_reduce(records["pixel_mask"], sets), n_sets)
    return placed.with_variables(state | {"pixel_set": masks[box.header]})


def build_raw_box(request: Request, box: Box) -> BoxCube:
    """Variables of a cube of single pixels, of counts sent one by one: what was not sent is zero.

    Where packets are missing, a time bin is known from its lowest to its highest energy with counts.
    """
    records = request.records
    values = join_count_bytes(records["num_count_bytes"], records["count_byte"])
    time_of_sub = np.full(records.levels["num_substructures"].size, -1, dtype=np.int64)
    time_of_sub[box.row] = box.time
    time = time_of_sub[records.parents("num_samples")]
    used = np.flatnonzero(time >= 0)
    place = (records[name][used].astype(np.int64) for name in ("energy_id", "detector_id", "pixel_id"))
    energy, detector, pixel = place
    energy -= int(box.channels[0, 0])
    shape = (box.start.size, len(box.channels), N_DETECTORS, N_PIXELS)
    cell = np.ravel_multi_index((time[used], energy, detector, pixel), shape)
    first = np.unique(cell, return_index=True)[1]
    again = np.setdiff1d(np.arange(cell.size), first)
    counts = np.zeros(shape, dtype=np.uint32)
    flat = counts.reshape(-1)
    flat[cell[first]] = values[used[first]]
    repeated = values[used[again]]
    observed = np.ones(shape[:2], dtype=np.bool_)
    if not request.complete:
        seen = np.asarray(counts.any(axis=(2, 3)))
        from_below = np.maximum.accumulate(seen, axis=1)
        from_above = np.maximum.accumulate(seen[:, ::-1], axis=1)
        observed = from_below & from_above[:, ::-1]
    variables = {"counts": counts, "observed": observed, **pixel_state(records, box, records["pixel_mask"], N_PIXELS)}
    differ = int((flat[cell[again]] != repeated).sum())
    return BoxCube(variables, int(repeated.sum(dtype=np.uint64)), again.size, differ)


def count_raw(records: Records) -> int:
    """Sum of all counts of raw pixel data."""
    return int(join_count_bytes(records["num_count_bytes"], records["count_byte"]).sum(dtype=np.uint64))


def _place_rows(
    records: Records,
    box: Box,
    pixels: NDArray[np.int64],
    cells_of: Callable[[int, int], NDArray[np.intp]],
    n_pixels: int,
) -> BoxCube:
    """Put rows of counts in their cells, rows with the same detectors and `pixels` together."""
    values = cube_values(records, "counts")
    first, size = records.starts("num_data"), records.lengths("num_data")
    counts = np.zeros((box.start.size, len(box.channels), N_DETECTORS, n_pixels), dtype=values.dtype)
    observed = np.zeros(counts.shape[:2], dtype=np.bool_)
    observed[box.time, box.energy] = True
    sub = records.parents("num_energy_groups")[box.row]
    patterns = np.stack([records["detector_mask"][sub].astype(np.int64), pixels[sub]], axis=1)
    flat = counts.reshape(*observed.shape, -1)
    again: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]] = []
    for pattern, rows in _groups(patterns):
        cells = cells_of(*pattern)
        for piece in np.split(rows, range(_ROWS_AT_ONCE, rows.size, _ROWS_AT_ONCE)):
            new, old = piece[~box.repeated[piece]], piece[box.repeated[piece]]
            _place(flat, box.time[new], box.energy[new], cells, rows_of(values, first, size, box.row[new]))
            again.append((old, cells, rows_of(values, first, size, box.row[old])))
    repeated = sum(int(numbers.sum(dtype=np.uint64)) for _, _, numbers in again)
    conflicts = sum(_differing(flat, box.time[old], box.energy[old], cells, rows) for old, cells, rows in again)
    return BoxCube({"counts": counts, "observed": observed}, repeated, int(box.repeated.sum()), conflicts)


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


def pixel_state(records: Records, box: Box, pixel_mask: NDArray[np.uint16], n_pixels: int) -> dict[str, NDArray[Any]]:
    """Variables of each time bin, from the first substructure that has it."""
    packet = records.parents("num_substructures")
    tenths = records["integration_time"].astype(np.int64)
    chosen = box.header
    triggers = trigger_values(records, "trigger", packet, tenths, records["detector_mask"])
    return {
        "detector": np.arange(N_DETECTORS, dtype=np.uint8),
        "pixel": np.arange(n_pixels, dtype=np.uint8),
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
