"""The pointers that readers resolve through, moved inside one transaction of a writer, with the guards before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import date
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.entries import Partition
from stixflow.archive.queries import chunks
from stixflow.archive.values import from_json, from_ns, to_ns
from stixflow.errors import BalanceError, NotFound, PublishConflict, SchemaError, UsageError

Key = tuple[str, str]
"""Product and key of a partition."""
Move = tuple[Partition, int | None]
"""A partition that is to be shown, and the id of the one whose place it takes."""


def read_partition(connection: sa.Connection, partition_id: int) -> Partition:
    return read_partitions(connection, [partition_id])[partition_id]


def read_partitions(connection: sa.Connection, partition_ids: Iterable[int]) -> dict[int, Partition]:
    """Return partitions, whatever their state, by id."""
    table, wanted = tables.partition, sorted(set(partition_ids))
    found: dict[int, Partition] = {}
    for some in chunks(wanted):
        rows = connection.execute(sa.select(table).where(table.c.id.in_(some))).mappings()
        found |= {row["id"]: partition_of(dict(row)) for row in rows}
    for partition_id in wanted:
        if partition_id not in found:
            raise NotFound(f"there is no partition {partition_id}", advice="stage it first")
    return found


def partition_of(row: dict[str, Any]) -> Partition:
    values = {item.name: row[item.name] for item in fields(Partition)}
    times = {name: from_ns(row[name]) for name in ("start", "stop", "created")}
    return Partition(**values | times | {"day": date.fromisoformat(row["day"]), "attrs": from_json(row["attrs"])})


def pointers(connection: sa.Connection, keys: Iterable[Key], release: str | None = None) -> dict[Key, int]:
    """Return the ids that products and keys point to now; one that points nowhere is left out."""
    table, mine = _pointers_of(release)
    found: dict[Key, int] = {}
    for some in chunks(sorted(set(keys))):
        query = sa.select(table.c.product, table.c.key, table.c.partition_id).where(*mine, _named(table).in_(some))
        found |= {(row.product, row.key): row.partition_id for row in connection.execute(query)}
    return found


def _pointers_of(release: str | None) -> tuple[sa.Table, list[sa.ColumnElement[bool]]]:
    if release is None:
        return tables.current, []
    return tables.release_partition, [tables.release_partition.c.release == release]


def _named(table: sa.Table) -> sa.Tuple:
    return sa.tuple_(table.c.product, table.c.key)


def current(connection: sa.Connection, product: str, key: str) -> Partition:
    found = pointers(connection, [(product, key)])
    if not found:
        raise NotFound(f"nothing is published for {product} {key}", advice="see what is with `stixflow status`")
    return read_partition(connection, found[product, key])


def check_staged(new: Partition) -> None:
    if new.state != "staged":
        raise UsageError(f"partition {new.id} is {new.state}", expected="a staged one", advice="stage a new run")


def check_publishable(new: Partition, old: Partition | None, shrink_reason: str) -> None:
    check_staged(new)
    if old is None:
        return
    if new.n_time < old.n_time and not shrink_reason:
        raise BalanceError(
            f"{new.product} {new.key} would shrink from {old.n_time} to {new.n_time} time bins",
            expected="at least as many as the published run",
            advice="find what was lost, or publish with --allow-shrink and the reason",
        )
    if new.structure != old.structure and new.data_model_version == old.data_model_version:
        raise SchemaError(
            f"{new.product} {new.key} has other variables or dimensions than the published run",
            expected=f"the structure of data model {old.data_model_version}",
            advice="raise DATA_MODEL_VERSION with the change that made it",
        )


def check_moves(connection: sa.Connection, moves: Sequence[Move], release: str | None = None) -> None:
    """Raise where a pointer is not, or will not be when its turn comes, where a move expects it."""
    shown = pointers(connection, [(new.product, new.key) for new, _ in moves], release)
    for new, expected in moves:
        found = shown.get((new.product, new.key))
        if found != expected:
            raise PublishConflict(
                f"{new.product} {new.key} now has the partition {found}",
                expected=f"partition {expected}, as when this run began",
                advice="run again: it starts from what is published now",
            )
        shown[new.product, new.key] = new.id


def flip(connection: sa.Connection, moves: Sequence[Move], *, keep_replaces: bool = False) -> None:
    """Move the pointers of keys, once `check_moves` has passed in the same transaction."""
    table = tables.current
    first = [_target(new) | {"product": new.product, "key": new.key} for new, expected in moves if expected is None]
    if first:
        connection.execute(table.insert().values(revision=1), first)
    set_values(connection, [new.id for new, _ in moves], state="published")
    later = [_target(new, "new_") | {"old": expected} for new, expected in moves if expected is not None]
    if later:
        names = ("partition_id", "start", "stop")
        values: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in names}
        change = table.update().where(table.c.partition_id == sa.bindparam("old"))
        connection.execute(change.values(**values, revision=table.c.revision + 1), later)
        set_values(connection, [row["old"] for row in later], state="superseded")
    if not keep_replaces:
        _keep(connection, moves)


def _target(new: Partition, prefix: str = "") -> dict[str, Any]:
    values = {"partition_id": new.id, "start": to_ns(new.start), "stop": to_ns(new.stop)}
    return {f"{prefix}{name}": value for name, value in values.items()}


def _keep(connection: sa.Connection, moves: Sequence[Move]) -> None:
    """Note what partitions have replaced where that is not what it was when they were staged."""
    table = tables.partition
    change = table.update().where(table.c.id == sa.bindparam("one")).values(replaces=sa.bindparam("other"))
    other = [{"one": new.id, "other": expected} for new, expected in moves if new.replaces != expected]
    if other:
        connection.execute(change, other)


def point(connection: sa.Connection, release: str, moves: Sequence[Move]) -> None:
    """Move the pointers of an open release, once `check_moves` has passed in the same transaction."""
    table = tables.release_partition
    mine = {(new.product, new.key): new.id for new, _ in moves}
    for some in chunks(sorted(mine)):
        connection.execute(table.delete().where(table.c.release == release, _named(table).in_(some)))
    rows = [
        {"release": release, "product": product, "key": key, "partition_id": partition_id, "taken": False}
        for (product, key), partition_id in mine.items()
    ]
    connection.execute(table.insert(), rows)


def set_values(connection: sa.Connection, partition_ids: Sequence[int], **values: object) -> None:
    for some in chunks(partition_ids):
        connection.execute(tables.partition.update().where(tables.partition.c.id.in_(some)).values(**values))
