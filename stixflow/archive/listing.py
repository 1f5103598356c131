"""Tables of the whole catalog by name and time, as operators list them: files, packets, products, flares, runs ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from stixflow.archive.archive import Archive
from stixflow.archive.layout import is_day_key
from stixflow.errors import UsageError
from stixflow.time import to_utc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stixflow.archive.entries import PacketSet

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
        if is_day_key(item.key):
            days.setdefault(item.file_digest, []).append(item.key)
    return {digest: (min(keys), max(keys)) for digest, keys in days.items()}


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
        if not is_day_key(item.key) or _is_within(item.key, start, stop)
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
