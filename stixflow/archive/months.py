"""Months joined of days: what makes a year open at once, made again when a day changes.

A joined month is a store like any other, of one object a variable. Its name is the digest of the days it was made of,
so that a stale one is never mistaken for the present, and a release finds its own as long as it is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from stixflow.archive.catalog import Catalog
from stixflow.archive.entries import Partition
from stixflow.archive.layout import DERIVED
from stixflow.cubes.model import DATA_MODEL_VERSION, Layout
from stixflow.cubes.store import which_are_there

_JOINED = ("ql_lightcurve", "ql_background", "ephemeris")
"""Products that are asked for by the year."""
LAYOUT = Layout(chunks={})
"""One object a variable: a month of light curves is 13 MB, 2 MB in the store."""

_REFUSED = "refused "
"""In front of the path that a month would have whose days cannot be joined."""
_FEWEST_DAYS = 8
"""Of a month, for joining them to pay, and of a span, for looking for months."""


@dataclass(frozen=True, slots=True)
class Month:
    """The days of a month that are published, and where their joined store is, or shall be."""

    product: str
    month: np.datetime64
    days: tuple[Partition, ...]
    path: str

    @property
    def label(self) -> str:
        """Name of the month in the catalog, ``ql_lightcurve 2021-06``."""
        return f"{self.product} {self.month}"


def stale_months(catalog: Catalog, root: str) -> list[Month]:
    """Return the months whose joined store is not that of the days published now, or is lost."""
    months = [month for month in _months_of(catalog.partitions(_JOINED)) if _worth_joining(month)]
    done = catalog.done(DERIVED)
    there = which_are_there(root, [month.path for month in months])
    return [
        month
        for month in months
        if done.get(month.label) != _refused(month) and (done.get(month.label) != month.path or month.path not in there)
    ]


def keep_month(catalog: Catalog, month: Month, *, joined: bool, run_id: str) -> None:
    """Record that a month was joined, or that its days cannot be, so that it is not tried at each run."""
    kept = month.path if joined else _refused(month)
    catalog.mark_done(DERIVED, {month.label: kept}, run_id=run_id)


def joined_months(catalog: Catalog) -> list[str]:
    """Return the paths of the months that were joined, below the root."""
    return [path for path in catalog.done(DERIVED).values() if not path.startswith(_REFUSED)]


def stores_of(catalog: Catalog, root: str, found: Sequence[Partition]) -> list[tuple[str, str | None]]:
    """Return path and digest of the fewest stores that hold these partitions: joined months where there are any."""
    if len(found) < _FEWEST_DAYS or found[0].product not in _JOINED:
        return [(item.path, item.digest) for item in found]
    whole = _whole_months(catalog, found)
    there = which_are_there(root, [month.path for month in whole.values()])
    stores: list[tuple[str, str | None]] = []
    for part in _months_of(found):
        month = whole[part.month]
        if month.path in there and len(part.days) >= _FEWEST_DAYS:
            stores.append((month.path, None))
        else:
            stores += [(item.path, item.digest) for item in part.days]
    return stores


def _whole_months(catalog: Catalog, found: Sequence[Partition]) -> dict[np.datetime64, Month]:
    """Return the whole months of which some days were found, those days as they were found."""
    known = {item.key: item for item in found}
    first, last = (np.datetime64(item.day, "M") for item in (found[0], found[-1]))
    around = catalog.partitions(found[0].product, start=first, stop=last + 1)
    days = known | {item.key: item for item in around if item.key not in known and first <= _of(item) <= last}
    return {month.month: month for month in _months_of(days.values())}


def _of(item: Partition) -> np.datetime64:
    return np.datetime64(item.day, "M")


def _months_of(partitions: Iterable[Partition]) -> list[Month]:
    """Group day partitions, sorted by time, by product and month."""
    ordered = sorted(partitions, key=lambda item: (item.product, item.day))
    groups = groupby(ordered, key=lambda item: (item.product, np.datetime64(item.day, "M")))
    return [_month(product, month, list(days)) for (product, month), days in groups]


def _month(product: str, month: np.datetime64, days: Sequence[Partition]) -> Month:
    lines = "\n".join(f"{day.key} {day.digest}" for day in days)
    name = hashlib.sha256(lines.encode()).hexdigest()[:26]
    place = str(month).replace("-", "/")
    path = f"{DERIVED}/{product}/v{DATA_MODEL_VERSION}/{place}/{name}.zarr"
    return Month(product, month, tuple(days), path)


def _worth_joining(month: Month) -> bool:
    """Tell whether a month has days enough, and days that can be joined."""
    return len(month.days) >= _FEWEST_DAYS and len({(day.axes, day.structure) for day in month.days}) == 1


def _refused(month: Month) -> str:
    return f"{_REFUSED}{month.path}"
