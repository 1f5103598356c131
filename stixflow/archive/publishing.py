"""The pointers that readers resolve through, moved inside one transaction of a writer, with the guards before it."""

from __future__ import annotations

from dataclasses import fields
from datetime import date
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.entries import Partition
from stixflow.archive.queries import where
from stixflow.archive.values import from_json, from_ns, to_ns
from stixflow.errors import BalanceError, NotFound, PublishConflict, SchemaError, UsageError


def read_partition(connection: sa.Connection, partition_id: int) -> Partition:
    query = sa.select(tables.partition).where(tables.partition.c.id == partition_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFound(f"there is no partition {partition_id}", advice="stage it first")
    return partition_of(dict(row))


def partition_of(row: dict[str, Any]) -> Partition:
    values = {item.name: row[item.name] for item in fields(Partition)}
    times = {name: from_ns(row[name]) for name in ("start", "stop", "created")}
    return Partition(**values | times | {"day": date.fromisoformat(row["day"]), "attrs": from_json(row["attrs"])})


def pointer(connection: sa.Connection, product: str, key: str, release: str | None = None) -> int | None:
    table = tables.current if release is None else tables.release_partition
    named = {} if release is None else {"release": release}
    query = where(sa.select(table.c.partition_id), table, product=product, key=key, **named)
    found: int | None = connection.execute(query).scalar()
    return found


def current(connection: sa.Connection, product: str, key: str) -> Partition:
    found = pointer(connection, product, key)
    if found is None:
        raise NotFound(f"nothing is published for {product} {key}", advice="see what is with `stixflow status`")
    return read_partition(connection, found)


def check_staged(new: Partition) -> None:
    if new.state != "staged":
        raise UsageError(f"partition {new.id} is {new.state}", expected="a staged one", advice="stage a new run")


def check_publishable(connection: sa.Connection, new: Partition, expected: int | None, shrink_reason: str) -> None:
    check_staged(new)
    if expected is None:
        return
    old = read_partition(connection, expected)
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


def flip(connection: sa.Connection, new: Partition, expected: int | None, *, keep_replaces: bool = False) -> None:
    """Move the pointer of a key from `expected` to `new`, or raise if it points elsewhere."""
    table, mine = tables.current, {"product": new.product, "key": new.key}
    span = {"partition_id": new.id, "start": to_ns(new.start), "stop": to_ns(new.stop)}
    if expected is None and pointer(connection, new.product, new.key) is None:
        connection.execute(table.insert().values(**mine, **span, revision=1))
    else:
        here = sa.and_(table.c.product == new.product, table.c.key == new.key, table.c.partition_id == expected)
        change = table.update().where(here).values(**span, revision=table.c.revision + 1)
        if expected is None or not connection.execute(change).rowcount:
            raise _moved(new, pointer(connection, **mine), expected)
        set_values(connection, expected, state="superseded")
    set_values(connection, new.id, state="published", **({} if keep_replaces else {"replaces": expected}))


def point(connection: sa.Connection, release: str, new: Partition, expected: int | None) -> None:
    """Move the pointer of a key of an open release from `expected` to `new`, or raise if it points elsewhere."""
    table, found = tables.release_partition, pointer(connection, new.product, new.key, release)
    if found != expected:
        raise _moved(new, found, expected)
    mine = {"release": release, "product": new.product, "key": new.key}
    connection.execute(table.delete().where(*(table.c[name] == value for name, value in mine.items())))
    connection.execute(table.insert().values(**mine, partition_id=new.id, taken=False))


def _moved(new: Partition, found: int | None, expected: int | None) -> PublishConflict:
    return PublishConflict(
        f"{new.product} {new.key} now has the partition {found}",
        expected=f"partition {expected}, as when this run began",
        advice="run again: it starts from what is published now",
    )


def set_values(connection: sa.Connection, partition_id: int, **values: object) -> None:
    connection.execute(tables.partition.update().where(tables.partition.c.id == partition_id).values(**values))
