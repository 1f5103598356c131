"""A table written down: as text for people, and as CSV, JSON, FITS or Parquet for other programs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd

from stixflow.errors import UsageError

FORMATS = ("table", "csv", "json", "fits", "parquet")
_BINARY = ("fits", "parquet")


def write_table(frame: pd.DataFrame, kind: str, path: Path | None = None) -> str:
    """Write a table in one of `FORMATS`; return its text, or where it was written.

    Raises
    ------
    UsageError
        If there is no such format, a binary one has no path, or Parquet is asked for without `pyarrow`.
    """
    if kind not in FORMATS:
        raise UsageError(f"{kind!r} is not a format", expected=", ".join(FORMATS), advice="correct it")
    if kind in _BINARY:
        _write_binary(frame, kind, path)
        return str(path)
    text = _as_text(frame, kind)
    if path is None:
        return text
    path.write_text(text + "\n")
    return str(path)


def for_people(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table as it is printed: times to the second, lists as their length, digests by their first digits."""
    return frame.assign(**{str(name): _shown(str(name), column) for name, column in frame.items()})


def _as_text(frame: pd.DataFrame, kind: str) -> str:
    if kind == "csv":
        return frame.to_csv(index=False, date_format="%Y-%m-%dT%H:%M:%S.%f").rstrip("\n")
    if kind == "json":
        return str(frame.to_json(orient="records", date_format="iso", date_unit="ms"))
    return for_people(frame).to_string(index=False) if len(frame) else "nothing"


def _shown(name: str, column: Any) -> Any:
    if column.dtype.kind == "M":
        return column.dt.round("s").dt.strftime("%Y-%m-%d %H:%M:%S").fillna("")
    if name == "digest":
        return column.str[:12]
    return column.map(lambda value: len(value) if isinstance(value, list) else value)


def _write_binary(frame: pd.DataFrame, kind: str, path: Path | None) -> None:
    if path is None:
        raise UsageError(f"{kind} is not text", expected="a file to write to", advice="give --output FILE")
    if kind == "fits":
        _write_fits(frame, path)
        return
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed",
            expected="the extra `parquet`",
            advice='pip install "stixflow[parquet]", or choose fits or csv',
        )
    frame.map(_plain_cell).to_parquet(path, index=False, engine="pyarrow")


def _write_fits(frame: pd.DataFrame, path: Path) -> None:
    from astropy.table import Table

    table = Table({str(name): _fits_column(frame[name]) for name in frame.columns})
    table.write(path, format="fits", overwrite=True)


def _fits_column(column: pd.Series) -> Any:
    """Times as ISO text, numbers as numbers, everything else as text; what is missing is NaN or empty."""
    if pd.api.types.is_datetime64_any_dtype(column):
        text = column.dt.strftime("%Y-%m-%dT%H:%M:%S.%f").str[:-3]
        return text.fillna("").to_numpy(dtype=str)
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy()
    numbers = pd.to_numeric(column, errors="coerce")
    if len(column) and (numbers.notna() | column.isna()).all():
        return numbers.to_numpy(dtype=float)
    return column.map(lambda value: "" if _is_missing(value) else str(value)).to_numpy(dtype=str)


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NaT or (isinstance(value, float) and value != value)


def _plain_cell(value: object) -> object:
    return str(value) if isinstance(value, dict | list) else value
