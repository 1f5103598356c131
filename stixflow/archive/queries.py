"""What the parts of the catalog have in common: its database, what it shows of it, and pieces of queries."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from stixflow.archive.tables import reading
from stixflow.archive.values import from_json, from_ns, to_ns


class Database:
    """A database and what is shown of it; each part of the catalog adds what can be done with some of its tables."""

    _engine: sa.Engine
    release: str | None
    _shown: Any
    """In place of the table `current`: the pointers that readers see."""

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with reading(self._engine) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def where(query: sa.Select[Any], table: sa.Table, **values: object) -> sa.Select[Any]:
    given = {name: value for name, value in values.items() if value is not None}
    return query.where(*(table.c[name] == value for name, value in given.items()))


def between(query: sa.Select[Any], column: sa.Column[Any], start: object, stop: object) -> sa.Select[Any]:
    if start is not None:
        query = query.where(column >= to_ns(start))
    if stop is not None:
        query = query.where(column < to_ns(stop))
    return query


def columns(value: Any) -> dict[str, Any]:
    return {item.name: getattr(value, item.name) for item in fields(value)}


def with_times(row: dict[str, Any], *names: str, **documents: bool) -> dict[str, Any]:
    times = {name: None if row[name] is None else from_ns(row[name]) for name in names}
    return row | times | {name: from_json(row[name]) for name in documents}
