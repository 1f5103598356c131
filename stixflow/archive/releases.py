"""Releases: named sets of what was published at one moment, which analysts pin and operators compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.catalog import Catalog
from stixflow.archive.entries import Partition
from stixflow.archive.layout import check_name
from stixflow.archive.tables import PRESENT, copy_rows
from stixflow.archive.transactions import count_rows, reading, writing
from stixflow.archive.values import from_json, from_ns
from stixflow.errors import NotFound, UsageError


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
        if _is_taken(connection, name):
            raise UsageError(
                f"the release {name} exists", expected="a new name: releases never change", advice="choose another"
            )
        counts = keep_present(connection, name, note=note, code_version=code_version)
        if not counts["partitions"]:
            raise NotFound("nothing is published", expected="an archive with partitions", advice="process it first")
    return {"name": name, **counts}


def keep_present(
    connection: sa.Connection, name: str, *, note: str, code_version: str, moves_images: bool = False
) -> dict[str, int]:
    """Keep what readers see now under a name, inside a transaction of a writer; return how much it is.

    Parameters
    ----------
    moves_images
        Give images and locations to the release and leave none: for a caller that puts others there.
    """
    now, flare, mine = tables.current, tables.flare, tables.release_partition
    values = {"name": name, "note": note, "code_version": code_version, "created": tables.now_ns()}
    connection.execute(tables.release.insert().values(**values, state="final"))
    pointers = sa.select(sa.literal(name), now.c.product, now.c.key, now.c.partition_id)
    names = ["release", "product", "key", "partition_id"]
    partitions = count_rows(connection, mine.insert().from_select(names, pointers))
    shown = flare.c.partition_id.in_(sa.select(now.c.partition_id))
    flares = copy_rows(connection, flare, PRESENT, name, shown)
    give = _move_rows if moves_images else copy_rows
    images = give(connection, tables.image, PRESENT, name)
    give(connection, tables.location, PRESENT, name)
    copy_rows(connection, tables.done, PRESENT, name)
    return {"partitions": partitions, "flares": flares, "images": images}


def _move_rows(connection: sa.Connection, table: sa.Table, source: str, target: str) -> int:
    return connection.execute(table.update().where(table.c.release == source).values(release=target)).rowcount


def free_name(connection: sa.Connection, name: str) -> str:
    """Return a name for a release, numbered where it is taken."""
    names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return next(one for one in names if not _is_taken(connection, one))


def _is_taken(connection: sa.Connection, name: str) -> bool:
    return connection.execute(sa.select(tables.release.c.name).where(tables.release.c.name == name)).first() is not None


def check_release_name(name: str) -> str:
    """Return a name that a release may have, as ``2026.1``; refuse any other."""
    check_name(name.replace(".", "-"))
    return name


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
    return [_read_release(row) for row in rows]


def _read_release(row: dict[str, Any]) -> dict[str, Any]:
    times = {name: None if row[name] is None else from_ns(row[name]) for name in ("created", "switched")}
    return row | times | {name: from_json(row[name]) for name in ("plan", "report")}


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
