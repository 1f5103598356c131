"""What the parts of the catalog have in common: its database, what it shows of it, and pieces of queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, TypeVar

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.tables import PRESENT
from stixflow.archive.transactions import reading, writing
from stixflow.archive.values import from_json, from_ns, to_ns
from stixflow.errors import UsageError

Value = TypeVar("Value")


class Database:
    """A database and what is shown of it; each part of the catalog adds what can be done with some of its tables."""

    engine: sa.Engine
    """The database, for the parts of the archive that have tables of their own."""
    release: str | None
    _shown: Any
    """In place of the table `current`: the pointers that readers see."""

    @property
    def _scope(self) -> str:
        """Whose flares, images and marks are read and written: those of the present, or of a release."""
        return PRESENT if self.release is None else self.release

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """Open a transaction that may write what is shown; that of a release only while it is open."""
        with writing(self.engine) as connection:
            if self.release is not None:
                reopen(connection, self.release)
            yield connection

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with reading(self.engine) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def reopen(connection: sa.Connection, release: str) -> None:
    """Take back the validation of a release that is about to be changed, or refuse where it is final."""
    table = tables.release
    mine = sa.and_(table.c.name == release, table.c.state.in_(("open", "validated")))
    if not connection.execute(table.update().where(mine).values(state="open")).rowcount:
        raise UsageError(
            f"the release {release} is final, or was dropped",
            expected="an open release, or what is published now",
            advice="releases never change: make a new one",
        )


def where(query: sa.Select[Any], table: sa.Table, **values: object) -> sa.Select[Any]:
    given = {name: value for name, value in values.items() if value is not None}
    return query.where(*(table.c[name] == value for name, value in given.items()))


def between(query: sa.Select[Any], column: sa.Column[Any], start: object, stop: object) -> sa.Select[Any]:
    if start is not None:
        query = query.where(column >= to_ns(start))
    if stop is not None:
        query = query.where(column < to_ns(stop))
    return query


def covering(query: sa.Select[Any], table: sa.Table, moment: object) -> sa.Select[Any]:
    """Choose the rows whose ``[start, stop)`` holds a moment; all of them where it is None."""
    if moment is None:
        return query
    return query.where(table.c.start <= to_ns(moment), table.c.stop > to_ns(moment))


def chunks(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """Yield so many values at a time as one statement may have."""
    for first in range(0, len(values), tables.MANY):
        yield values[first : first + tables.MANY]


def columns(value: Any) -> dict[str, Any]:
    return {item.name: getattr(value, item.name) for item in fields(value)}


def with_times(row: dict[str, Any], *names: str, **documents: bool) -> dict[str, Any]:
    times = {name: None if row[name] is None else from_ns(row[name]) for name in names}
    return row | times | {name: from_json(row[name]) for name in documents}
