"""Spectrograms of a request, one box at a time (SSID 24)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.build.values import BoxCube, cube_values, rows_of, trigger_values
from stixflow.telemetry import Box, Records, Request


def build_spectrogram_box(request: Request, box: Box) -> BoxCube:
    """Variables of a spectrogram."""
    records = request.records
    values = cube_values(records, "counts")
    first, size = records.starts("num_energies"), records.lengths("num_energies")
    new, old = np.flatnonzero(~box.repeated), np.flatnonzero(box.repeated)
    counts = np.zeros((box.start.size, len(box.channels)), dtype=values.dtype)
    counts[box.time[new]] = rows_of(values, first, size, box.row[new])
    again = rows_of(values, first, size, box.row[old])
    conflicts = int((counts[box.time[old]] != again).any(axis=1).sum()) if old.size else 0
    variables = {"counts": counts, **_spectrogram_state(records, box)}
    return BoxCube(variables, int(again.sum(dtype=np.uint64)), int(box.repeated.sum()), conflicts)


def _spectrogram_state(records: Records, box: Box) -> dict[str, NDArray[Any]]:
    chosen = box.header
    packet, sub = records.ancestors("num_samples"), records.parents("num_samples")
    tenths = np.zeros(sub.size, dtype=np.int64)
    tenths[chosen] = box.duration
    triggers = trigger_values(records, "triggers", packet, tenths, records["detector_mask"][sub])
    return {
        "triggers": triggers[chosen],
        **{name: records[name][sub[chosen]] for name in ("rcr", "detector_mask", "pixel_mask")},
        "counts_skm": records.skm("counts")[packet[chosen]],
        "triggers_skm": records.skm("triggers")[packet[chosen]],
    }
