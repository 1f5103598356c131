"""Opening the database of a catalog with the tables of today: made where there are none, else brought up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.findings import flare_row, image_row
from stixflow.archive.tables import PRESENT
from stixflow.archive.transactions import connect, reading, waiting, writing
from stixflow.archive.values import from_json, to_ns
from stixflow.errors import StoreError

SCHEMA_VERSION = 4
"""Raised by one for each change of the tables, together with the step of `_STEPS` that makes it."""

_VERSION = sa.select(tables.meta.c.value).where(tables.meta.c.name == "schema_version")


def open_database(url: str) -> sa.Engine:
    """Open the database of a catalog, making or migrating its tables where needed.

    Raises
    ------
    StoreError
        If a newer stixflow made it.
    UsageError
        If the URL is none, or its driver is not installed.
    """
    engine = connect(url)
    if _found_version(engine) != SCHEMA_VERSION:
        with writing(engine) as connection:
            tables.metadata.create_all(connection)
            _bring_up_to_date(connection)
    return waiting(engine)


def _found_version(engine: sa.Engine) -> int | None:
    with reading(engine) as connection:
        found = connection.execute(_VERSION).scalar() if sa.inspect(connection).has_table("meta") else None
    return None if found is None else int(found)


def _bring_up_to_date(connection: sa.Connection) -> None:
    meta, found = tables.meta, connection.execute(_VERSION).scalar()
    if found is None:
        connection.execute(meta.insert().values(name="schema_version", value=str(SCHEMA_VERSION)))
        return
    if int(found) > SCHEMA_VERSION:
        raise StoreError(
            f"the catalog has the schema version {found}",
            expected=f"at most {SCHEMA_VERSION}",
            advice="use the stixflow that made it, or a later one",
        )
    for step in _STEPS[int(found) - 1 :]:
        for statement in step:
            if callable(statement):
                statement(connection)
            else:
                connection.execute(sa.text(statement))
    connection.execute(meta.update().where(meta.c.name == "schema_version").values(value=str(SCHEMA_VERSION)))


# Version 4: whose flares, images and marks they are -------------------------------------------------------------------

_ADDED = (
    (tables.release, ("state", "plan", "report", "before", "switched")),
    (tables.release_partition, ("taken",)),
)


def _scope_findings(connection: sa.Connection) -> None:
    """Give flares, locations, images and marks the release that they belong to; rows of releases become such rows."""
    for table, columns in _ADDED:
        _add_columns(connection, table, columns)
    for table in tables.FINDINGS:
        if "release" not in _columns(connection, table.name):
            _make_anew(connection, table)
    if sa.inspect(connection).has_table("release_row"):
        _unpack_rows(connection)
        connection.execute(sa.text("DROP TABLE release_row"))


def _columns(connection: sa.Connection, name: str) -> list[str]:
    return [column["name"] for column in sa.inspect(connection).get_columns(name)]


def _add_columns(connection: sa.Connection, table: sa.Table, names: Iterable[str]) -> None:
    there = _columns(connection, table.name)
    for name in names:
        if name not in there:
            definition = sa.schema.CreateColumn(table.c[name]).compile(dialect=connection.dialect)
            connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


def _make_anew(connection: sa.Connection, table: sa.Table) -> None:
    """Make a table by its present definition, with the rows it had: SQLite cannot change what is unique in place."""
    names, old = _columns(connection, table.name), f"{table.name}_before"
    for index in sa.inspect(connection).get_indexes(table.name):
        if "duplicates_constraint" not in index:
            connection.execute(sa.text(f"DROP INDEX {index['name']}"))
    connection.execute(sa.text(f"ALTER TABLE {table.name} RENAME TO {old}"))
    table.create(connection)
    before = sa.table(old, *(sa.column(name) for name in names))
    kept = [name for name in names if name != "id"]
    rows = sa.select(*(before.c[name] for name in kept), sa.literal(PRESENT).label("release"))
    if "id" in names:
        rows = rows.order_by(before.c.id)
    connection.execute(table.insert().from_select([*kept, "release"], rows))
    connection.execute(sa.text(f"DROP TABLE {old}"))


def _unpack_rows(connection: sa.Connection) -> None:
    days = {
        (row.release, row.key): row.partition_id
        for row in connection.execute(
            sa.select(tables.release_partition).where(tables.release_partition.c.product == "ql_lightcurve")
        )
    }
    for release, kind, text in connection.execute(sa.text("SELECT release, kind, attrs FROM release_row")).all():
        row = from_json(text)
        if kind == "image":
            made = row.pop("created", None)
            values = image_row(row, str(row.pop("run_id", "")))
            values |= {} if made is None else {"created": to_ns(made)}
            connection.execute(tables.image.insert().values(**values, release=release))
        elif (day := (release, str(row.pop("day", "")))) in days:
            connection.execute(tables.flare.insert().values(**_flare(days[day], row), release=release))


def _flare(partition_id: int, row: dict[str, Any]) -> dict[str, Any]:
    del row["run_id"]
    return flare_row(partition_id, row)


# The step at index i brings a database of the version i + 1 to the version i + 2; tables that are new are made before.
_STEPS: tuple[tuple[str | Callable[[sa.Connection], None], ...], ...] = (
    ("ALTER TABLE partition ADD COLUMN collected BIGINT",),
    (
        "ALTER TABLE run ADD COLUMN host TEXT",
        "ALTER TABLE run ADD COLUMN pid BIGINT",
        "ALTER TABLE run ADD COLUMN process TEXT",
        "ALTER TABLE run ADD COLUMN seen BIGINT",
    ),
    (_scope_findings,),
)
