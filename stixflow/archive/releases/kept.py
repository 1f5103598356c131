"""Releases: named sets of what was published at one moment, which analysts pin; made, listed, dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.catalog import Catalog
from stixflow.archive.layout import check_name
from stixflow.archive.tables import PRESENT, copy_rows, delete_rows, move_rows
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
    with writing(catalog.engine) as connection:
        if known_release(connection, name):
            raise UsageError(
                f"the release {name} exists", expected="a new name: releases never change", advice="choose another"
            )
        counts = keep_present(connection, name, note=note, code_version=code_version)
        if not counts["partitions"]:
            raise NotFound("nothing is published", expected="an archive with partitions", advice="process it first")
    return {"name": name, **counts}


def list_releases(catalog: Catalog) -> list[dict[str, Any]]:
    """Return every release with its moment, its note and its number of partitions, the latest first."""
    table, items = tables.release, tables.release_partition
    query = (
        sa.select(table, sa.func.count(items.c.partition_id).label("partitions"))
        .join(items, items.c.release == table.c.name, isouter=True)
        .group_by(*table.c)
        .order_by(table.c.created.desc(), table.c.name.desc())
    )
    with reading(catalog.engine) as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    return [_read_release(row) for row in rows]


def _read_release(row: dict[str, Any]) -> dict[str, Any]:
    times = {name: None if row[name] is None else from_ns(row[name]) for name in ("created", "switched")}
    return row | times | {name: from_json(row[name]) for name in ("plan", "report")}


def drop_release(catalog: Catalog, name: str, *, force: bool = False) -> dict[str, int]:
    """Forget a release; what only it pointed to becomes garbage.

    Raises
    ------
    UsageError
        If it is final, unless `force` is given: analysts may have named it in papers.
    """
    with writing(catalog.engine) as connection:
        state = find_release(connection, name)["state"]
        if state == "final" and not force:
            raise UsageError(
                f"the release {name} is final: analysts may have pinned it",
                expected="a release that is open",
                advice="give --force if nobody needs it any more",
            )
        mine = tables.release_partition
        held = sa.select(mine.c.partition_id).where(mine.c.release != name)
        only = sa.select(mine.c.partition_id).where(mine.c.release == name, mine.c.partition_id.not_in(held))
        table = tables.partition
        connection.execute(table.update().where(table.c.id.in_(only), table.c.state == "staged").values(state="failed"))
        gone = {kept.name: delete_rows(connection, kept, name) for kept in (mine, *tables.FINDINGS)}
        connection.execute(tables.release.update().where(tables.release.c.before == name).values(before=None))
        connection.execute(tables.release.delete().where(tables.release.c.name == name))
    return {"partitions": gone["release_partition"], "flares": gone["flare"], "images": gone["image"]}


# Pieces, inside a transaction of a writer -----------------------------------------------------------------------------


def keep_present(
    connection: sa.Connection, name: str, *, note: str, code_version: str, moves_images: bool = False
) -> dict[str, int]:
    """Keep what readers see now under a name; return how much it is.

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
    give = move_rows if moves_images else copy_rows
    images = give(connection, tables.image, PRESENT, name)
    give(connection, tables.location, PRESENT, name)
    copy_rows(connection, tables.done, PRESENT, name)
    return {"partitions": partitions, "flares": flares, "images": images}


def known_release(connection: sa.Connection, name: str) -> dict[str, Any] | None:
    """Return the row of a release, None where there is none."""
    found = connection.execute(sa.select(tables.release).where(tables.release.c.name == name)).mappings().first()
    return None if found is None else dict(found)


def find_release(connection: sa.Connection, name: str) -> dict[str, Any]:
    """Return the row of a release, or raise where there is none."""
    found = known_release(connection, name)
    if found is None:
        raise NotFound(f"there is no release {name!r}", advice="see `stixflow release list`")
    return found


def change_release(connection: sa.Connection, name: str, **values: object) -> None:
    """Write some columns of the row of a release."""
    connection.execute(tables.release.update().where(tables.release.c.name == name).values(**values))


def check_state(name: str, state: str, allowed: Sequence[str]) -> None:
    """Refuse what can only be done to a release in some states."""
    if state not in allowed:
        raise UsageError(
            f"the release {name} is {state}",
            expected=" or ".join(allowed),
            advice="see its report: `stixflow release show`" if state == "open" else "make a new release",
        )


def check_release_name(name: str) -> str:
    """Return a name that a release may have, as ``2026.1``; refuse any other."""
    check_name(name.replace(".", "-"))
    return name


def free_name(connection: sa.Connection, name: str) -> str:
    """Return a name for a release, numbered where it is taken."""
    names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return next(one for one in names if known_release(connection, one) is None)
