"""What the catalog knows as the DataFrames that analysts see: columns in a fixed order, typed even without a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stixflow.archive.entries import Partition
from stixflow.errors import UsageError
from stixflow.instrument import energy_edges

_KINDS = {
    "pixels": "sci_pixels",
    "pixel_sums": "sci_pixel_sums",
    "visibilities": "sci_visibilities",
    "spectrogram": "sci_spectrogram",
}
"""Kinds of requests, with the product that answers each."""
_TIME, _TEXT, _WHOLE, _REAL, _CLAIM = "datetime64[ns]", "object", "int64", "float64", "bool"
_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "requests": {
        "request_id": _WHOLE,
        "seq_control": _WHOLE,
        "kind": _TEXT,
        "start": _TIME,
        "stop": _TIME,
        "n_time": _WHOLE,
        "boxes": _WHOLE,
        "counts": _WHOLE,
        "complete": _CLAIM,
        "missing": _TEXT,
        "n_bytes": _WHOLE,
        "run_id": _TEXT,
        "energy_low": _REAL,
        "energy_high": _REAL,
        "duration_s": _REAL,
        "rcr_max": _REAL,
    },
    "flares": {"flare_id": _TEXT, "start": _TIME, "peak": _TIME, "stop": _TIME, "peak_counts": _REAL},
    "images": {
        "image_id": _TEXT,
        "flare_id": _TEXT,
        "method": _TEXT,
        "energy_low": _REAL,
        "energy_high": _REAL,
        "start": _TIME,
        "stop": _TIME,
        "x_hpc": _REAL,
        "y_hpc": _REAL,
        "path": _TEXT,
    },
    "calibrations": {
        "key": _TEXT,
        "start": _TIME,
        "stop": _TIME,
        "counts": _WHOLE,
        "complete": _CLAIM,
        "missing": _TEXT,
        "n_bytes": _WHOLE,
        "run_id": _TEXT,
    },
    "runs": {
        "run_id": _TEXT,
        "command": _TEXT,
        "state": _TEXT,
        "started": _TIME,
        "finished": _TIME,
        "seen": _TIME,
        "host": _TEXT,
        "pid": "Int64",
    },
    "files": {
        "name": _TEXT,
        "kind": _TEXT,
        "packets_in": _WHOLE,
        "used": _WHOLE,
        "duplicates": _WHOLE,
        "rejected": _WHOLE,
        "n_bytes": _WHOLE,
        "ingested": _TIME,
        "digest": _TEXT,
    },
    "coverage": {
        "product": _TEXT,
        "partitions": _WHOLE,
        "start": _TIME,
        "stop": _TIME,
        "n_bytes": _WHOLE,
        "n_time": _WHOLE,
        "incomplete": _WHOLE,
    },
    "moment": {
        "what": _TEXT,
        "name": _TEXT,
        "start": _TIME,
        "stop": _TIME,
        "detail": _TEXT,
        "opened_by": _TEXT,
    },
    "quarantine": {"file": _TEXT, "reason": _TEXT, "offset": _REAL, "n_bytes": _REAL, "path": _TEXT},
}
"""Columns in front of each table, with their types; whatever else rows have comes after them."""


def frame_of(table: str, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as one of the tables that `Archive` gives out: ``flares``, ``images``, ``runs``, ``files`` ..."""
    columns = _COLUMNS[table]
    rest = dict.fromkeys(name for row in rows for name in row if name not in columns)
    frame = pd.DataFrame.from_records([dict(row) for row in rows], columns=[*columns, *rest])
    types = dict.fromkeys(_time_columns(rows), _TIME) | {name: kind for name, kind in columns.items() if kind != _TEXT}
    return frame.astype(types)


def requests_frame(found: Iterable[Partition]) -> pd.DataFrame:
    """Return partitions of requests, one row each."""
    return frame_of("requests", [_request_row(item) for item in found])


def calibrations_frame(found: Iterable[Partition]) -> pd.DataFrame:
    """Return partitions of calibration runs, one row each."""
    return frame_of("calibrations", [_calibration_row(item) for item in found])


def products_of(kind: str | None) -> list[str]:
    """Return the products of a kind of request, as ``pixels``; those of all kinds for None.

    Raises
    ------
    UsageError
        If there is no such kind.
    """
    if kind is not None and kind not in _KINDS and kind not in _KINDS.values():
        raise UsageError(f"{kind!r} is not a kind of request", expected=" or ".join(_KINDS), advice="correct it")
    return list(_KINDS.values()) if kind is None else [_KINDS.get(kind, kind)]


def _request_row(item: Partition) -> dict[str, object]:
    kind = next(kind for kind, product in _KINDS.items() if product == item.product)
    same = ("request_id", "seq_control", "start", "stop", "n_time", "boxes", "complete", "missing", "n_bytes", "run_id")
    return {name: getattr(item, name) for name in same} | {
        "kind": kind,
        "counts": item.counts_sum,
        "duration_s": item.attrs.get("duration_s", (item.stop - item.start) / np.timedelta64(1, "s")),
        "rcr_max": item.attrs.get("rcr_max"),
        **_energies(item),
    }


def _energies(item: Partition) -> dict[str, float]:
    first, last = (item.attrs.get(name) for name in ("channel_start", "channel_stop"))
    if first is None or last is None:
        return {}
    edges = energy_edges(item.start)
    return {"energy_low": float(edges[int(str(first))]), "energy_high": float(edges[int(str(last))])}


def _calibration_row(item: Partition) -> dict[str, object]:
    same = ("key", "start", "stop", "complete", "missing", "n_bytes", "run_id")
    return {name: getattr(item, name) for name in same} | {"counts": item.counts_sum}


def _time_columns(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {name for row in rows for name, value in row.items() if isinstance(value, (pd.Timestamp, np.datetime64))}
