"""Values on their way into the catalog and out of it: times as exact integers, everything else as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from stixflow.errors import UsageError
from stixflow.time import to_utc

_TIME = "ns since 1970"
_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def to_ns(value: object) -> int:
    """Return a UTC time of any kind as nanoseconds since 1970."""
    return int(to_utc(value).astype(np.int64))


def from_ns(value: int) -> np.datetime64:
    """Return nanoseconds since 1970 as a time."""
    return np.datetime64(value, "ns")


def to_json(values: Mapping[str, object]) -> str:
    """Write values of any column as JSON; what is missing (NaN, NaT, None) is null, times stay exact."""
    try:
        return _WRITE(dict(values))
    except ValueError:  # a NaN somewhere, which the fast way cannot make null
        return json.dumps(_plain(values), allow_nan=False)


def from_json(text: str) -> dict[str, Any]:
    """Read what `to_json` wrote; times come back as pandas Timestamps."""
    found: dict[str, Any] = json.loads(text, object_hook=_revive)
    return found


def rows_of(table: pd.DataFrame | Iterable[Mapping[str, object]]) -> list[dict[str, Any]]:
    """Return the rows of a DataFrame, or of any iterable of mappings, as dictionaries."""
    if isinstance(table, pd.DataFrame):
        return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    return [dict(row) for row in table]


def take(row: dict[str, Any], *names: str) -> list[Any]:
    """Remove the named columns from a row and return their values."""
    absent = [name for name in names if name not in row or row[name] is None]
    if absent:
        raise UsageError(
            f"a row lacks {', '.join(absent)}: it has {', '.join(row)}",
            expected=f"the columns {', '.join(names)}",
            advice="add them",
        )
    return [row.pop(name) for name in names]


def number(value: object) -> float | None:
    """Return a number as the database keeps it, None where it is missing or not finite."""
    plain = _plain(value)
    return float(plain) if isinstance(plain, (int, float)) else None


def _shallow(value: Any) -> Any:
    """Return what JSON has no word for as something that it has one for, or that has parts."""
    return value.tolist() if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" else _plain(value)


_WRITE = json.JSONEncoder(allow_nan=False, default=_shallow).encode


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (np.ndarray, list, tuple)):
        return [_plain(part) for part in value]
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, (np.datetime64, datetime, date)):
        return None if pd.isna(value) else {_TIME: to_ns(value)}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, (bool, int, str)):
        return value
    raise UsageError(f"the catalog cannot keep a {type(value).__name__}", expected="numbers, text, times, lists")


def _revive(found: dict[str, Any]) -> Any:
    return pd.Timestamp(found[_TIME]) if found.keys() == {_TIME} else found
