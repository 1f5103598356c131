"""Releases: named sets of what was published at one moment, which analysts pin and operators compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.catalog import Catalog
from stixflow.archive.entries import Partition
from stixflow.archive.layout import check_name
from stixflow.archive.tables import now_ns, reading, writing
from stixflow.archive.values import from_ns, to_json
from stixflow.errors import NotFound, UsageError

_CHUNK = 500


def create_release(catalog: Catalog, name: str, *, note: str = "", code_version: str) -> dict[str, Any]:
    """Give a name to what is published now, with its flares and images, in one transaction.

    Raises
    ------
    UsageError
        If the name is taken, or cannot be part of a path.
    NotFound
        If nothing is published.
    """
    check_release_name(name)
    with writing(catalog._engine) as connection:
        if connection.execute(sa.select(tables.release.c.name).where(tables.release.c.name == name)).first():
            raise UsageError(
                f"the release {name} exists", expected="a new name: releases never change", advice="choose another"
            )
        pointers = connection.execute(
            sa.select(tables.current.c.product, tables.current.c.key, tables.current.c.partition_id)
        ).mappings()
        items = [dict(row) | {"release": name} for row in pointers]
        if not items:
            raise NotFound("nothing is published", expected="an archive with partitions", advice="process it first")
        # Other writers wait, so that what the catalog shows on its own connection is what the pointers are.
        rows = _rows_of(name, catalog)
        connection.execute(
            tables.release.insert().values(name=name, note=note, code_version=code_version, created=now_ns())
        )
        for table, values in ((tables.release_partition, items), (tables.release_row, rows)):
            for first in range(0, len(values), _CHUNK):
                connection.execute(table.insert(), values[first : first + _CHUNK])
    return {"name": name, "partitions": len(items), "flares": _count(rows, "flare"), "images": _count(rows, "image")}


def check_release_name(name: str) -> str:
    """Return a name that a release may have, as ``2026.1``; refuse any other."""
    check_name(name.replace(".", "-"))
    return name


def _rows_of(name: str, catalog: Catalog) -> list[dict[str, Any]]:
    found = {"flare": catalog.flares(), "image": catalog.images()}
    return [
        {"release": name, "kind": kind, "item": str(row[f"{kind}_id"]), "attrs": to_json(row)}
        for kind, rows in found.items()
        for row in rows
    ]


def _count(rows: list[dict[str, Any]], kind: str) -> int:
    return sum(row["kind"] == kind for row in rows)


def list_releases(catalog: Catalog) -> list[dict[str, Any]]:
    """Return every release with its moment, its note and its number of partitions, the latest first."""
    table, items = tables.release, tables.release_partition
    query = (
        sa.select(table, sa.func.count(items.c.partition_id).label("partitions"))
        .join(items, items.c.release == table.c.name, isouter=True)
        .group_by(*table.c)
        .order_by(table.c.created.desc(), table.c.name.desc())
    )
    with reading(catalog._engine) as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    return [row | {"created": from_ns(row["created"])} for row in rows]


def compare_releases(before: Catalog, after: Catalog) -> list[dict[str, Any]]:
    """Compare what two catalogs show, partition by partition.

    Returns
    -------
    One row for each partition that is not the same in both: `product`, `key`, `change` (``added``, ``removed``,
    ``changed``: other values; ``rebuilt``: another run with the same values), and of each side run, digest, time bins
    and counts.
    """
    old, new = _by_key(before), _by_key(after)
    rows = []
    for key in sorted(old.keys() | new.keys()):
        change = _change(old.get(key), new.get(key))
        if change:
            rows.append(dict(zip(("product", "key"), key, strict=True)) | {"change": change} | _sides(old, new, key))
    return rows


def _by_key(catalog: Catalog) -> dict[tuple[str, str], Partition]:
    return {(item.product, item.key): item for item in catalog.partitions()}


def _change(old: Partition | None, new: Partition | None) -> str:
    if old is None or new is None:
        return "added" if old is None else "removed"
    if old.digest != new.digest:
        return "changed"
    return "" if old.id == new.id else "rebuilt"


def _sides(old: Mapping[Any, Partition], new: Mapping[Any, Partition], key: object) -> dict[str, Any]:
    names = ("run_id", "digest", "n_time", "counts_sum")
    sides = {"before": old.get(key), "after": new.get(key)}
    return {f"{name}_{side}": getattr(item, name, None) for name in names for side, item in sides.items()}
