"""Tables of the catalog for people and other programs, as text, CSV, JSON, FITS or Parquet."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stixflow.archive.archive import Archive
from stixflow.errors import UsageError
from stixflow.time import to_utc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stixflow.archive.entries import PacketSet

FORMATS = ("table", "csv", "json", "fits", "parquet")
_BINARY = ("fits", "parquet")
_PRODUCT_COLUMNS = (
    "product", "key", "day", "start", "stop", "n_time", "boxes", "counts_sum", "n_bytes", "complete", "missing",
    "run_id", "code_version", "data_model_version", "digest", "path",
)  # fmt: skip


def list_table(archive: Archive, name: str, start: object = None, stop: object = None) -> pd.DataFrame:
    """Return one table of the catalog, the rows that overlap ``[start, stop)``.

    Parameters
    ----------
    name
        ``files``: the input files with their packets and the days they hold; ``packets``: how many are kept of each
        product and day, request or, where they have no cube, type; ``products``: every partition that readers
        see, the catalog of the whole mission; ``flares``; ``images``; ``requests``; ``quarantine``; ``runs``.

    Raises
    ------
    UsageError
        If there is no such table.
    """
    if name not in TABLES:
        raise UsageError(f"there is no table {name!r}", expected=", ".join(TABLES), advice="correct it")
    return TABLES[name](archive, start, stop)


def _files(archive: Archive, start: object, stop: object) -> pd.DataFrame:
    spans = _spans(archive.catalog.packet_sets())
    frame = archive.files().drop(columns=["attrs"], errors="ignore")
    frame["first_day"] = [spans.get(digest, (None, None))[0] for digest in frame["digest"]]
    frame["last_day"] = [spans.get(digest, (None, None))[1] for digest in frame["digest"]]
    frame = frame.astype({"first_day": "datetime64[ns]", "last_day": "datetime64[ns]"})
    if start is not None:
        frame = frame[frame["last_day"] >= _day(start)]
    if stop is not None:
        frame = frame[frame["first_day"] < pd.Timestamp(to_utc(stop))]
    return frame.reset_index(drop=True)


def _day(time: object) -> pd.Timestamp:
    return pd.Timestamp(to_utc(time)).floor("D")


def _spans(sets: Iterable[PacketSet]) -> Mapping[str, tuple[str, str]]:
    """Return the first and the last day of which each file brought packets."""
    days: dict[str, list[str]] = {}
    for item in sets:
        if _is_day(item.key):
            days.setdefault(item.file_digest, []).append(item.key)
    return {digest: (min(keys), max(keys)) for digest, keys in days.items()}


def _is_day(key: str) -> bool:
    year, dash, rest = key.partition("-")
    return len(key) == 10 and len(year) == 4 and bool(dash) and rest[2:3] == "-"


def _products(archive: Archive, start: object, stop: object) -> pd.DataFrame:
    found = archive.catalog.partitions(start=start, stop=stop)
    rows = [[getattr(item, name) for name in _PRODUCT_COLUMNS] for item in found]
    frame = pd.DataFrame(rows, columns=list(_PRODUCT_COLUMNS))
    return frame.astype({"start": "datetime64[ns]", "stop": "datetime64[ns]", "day": "str"})


def _during(frame: pd.DataFrame, column: str, start: object, stop: object) -> pd.DataFrame:
    """Return the rows of which a moment lies in ``[start, stop)``."""
    if start is not None:
        frame = frame[frame[column] >= pd.Timestamp(to_utc(start))]
    if stop is not None:
        frame = frame[frame[column] < pd.Timestamp(to_utc(stop))]
    return frame.reset_index(drop=True)


def _packets(archive: Archive, start: object, stop: object) -> pd.DataFrame:
    rows = [
        {"product": item.product, "key": item.key, "packets": item.n_packets, "sets": 1}
        for item in archive.catalog.packet_sets()
        if not _is_day(item.key) or _is_within(item.key, start, stop)
    ]
    frame = pd.DataFrame(rows, columns=["product", "key", "packets", "sets"])
    return frame.groupby(["product", "key"], as_index=False).sum()


def _is_within(day: str, start: object, stop: object) -> bool:
    moment = pd.Timestamp(day)
    return (start is None or moment >= _day(start)) and (stop is None or moment < pd.Timestamp(to_utc(stop)))


TABLES: Mapping[str, Callable[[Archive, Any, Any], pd.DataFrame]] = {
    "files": _files,
    "packets": _packets,
    "products": _products,
    "flares": lambda archive, start, stop: archive.flares(start, stop),
    "images": lambda archive, start, stop: archive.images(start=start, stop=stop),
    "requests": lambda archive, start, stop: archive.requests(start, stop),
    "quarantine": lambda archive, start, stop: _during(archive.quarantine(), "created", start, stop),
    "runs": lambda archive, start, stop: _during(archive.runs(), "started", start, stop).drop(columns="summary"),
}
"""How each table is asked for; what has no time of its data is chosen by when it was recorded."""


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


def _as_text(frame: pd.DataFrame, kind: str) -> str:
    if kind == "csv":
        return frame.to_csv(index=False, date_format="%Y-%m-%dT%H:%M:%S.%f").rstrip("\n")
    if kind == "json":
        return str(frame.to_json(orient="records", date_format="iso", date_unit="ms"))
    return for_people(frame).to_string(index=False) if len(frame) else "nothing"


def for_people(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table as it is printed: times to the second, lists as their length, digests by their first digits."""
    return frame.assign(**{str(name): _shown(str(name), column) for name, column in frame.items()})


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
