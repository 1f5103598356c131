"""The database of a catalog, whichever it is: SQLite by default, any SQLAlchemy URL by choice, and its transactions.

A reader sees one moment. Writers take turns, and what they have committed survives a loss of power.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import sqlalchemy as sa

from stixflow.errors import StoreError, UsageError, masked

_BUSY_MS = 60_000
_RETRY_MS = 20
_RESTART_S = 30.0
"""How long a server that was there before is waited for: it may be starting again."""
_WRITER_LOCK = 0x53544958
"""Key of the PostgreSQL lock that writers take in turn, as SQLite's do by `BEGIN IMMEDIATE`."""
_DURABLE = sa.func.current_setting("synchronous_commit")
_TURN_OF_WRITERS = sa.select(
    sa.func.pg_advisory_xact_lock(_WRITER_LOCK),
    sa.func.set_config("synchronous_commit", sa.case((_DURABLE == "off", "on"), else_=_DURABLE), True),
)
"""Waits for that lock; what is committed then survives a loss of power, whatever is usual at that server."""

_shared: ContextVar[tuple[sa.Engine, sa.Connection] | None] = ContextVar("stixflow_transaction", default=None)


def connect(url: str) -> sa.Engine:
    """Return a database set up for the transactions of this module; a server is reached at the first of them.

    Raises
    ------
    UsageError
        If the URL is none, or its driver is not installed.
    """
    engine = _engine_of(url)
    if engine.dialect.name != "sqlite":
        return engine.execution_options(isolation_level="REPEATABLE READ")
    _tune_sqlite(engine)
    return engine


def waiting(engine: sa.Engine) -> sa.Engine:
    """Return a database that did answer, whose server is waited for from now on if it restarts."""
    return engine.execution_options(stixflow_waits=engine.dialect.name != "sqlite")


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open one transaction in which every query sees the same moment; errors as `writing`."""
    if (joined := _joined(engine)) is not None:
        with _told():
            yield joined
        return
    with _told(), _connected(engine) as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open one transaction that may write: committed at the end of the block, or not at all; one at a time.

    Inside of a block of `together` it is a part of that one, which alone is taken back if it fails.

    Raises
    ------
    StoreError
        If the database stays locked, cannot be reached, or has no room.
    """
    if (joined := _joined(engine)) is not None:
        with _told(), joined.begin_nested():
            yield joined
        return
    with _told(), _connected(engine) as connection:
        connection = connection.execution_options(stixflow_writes=True)
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(_TURN_OF_WRITERS)
            yield connection


@contextmanager
def together(engine: sa.Engine) -> Iterator[None]:
    """Make all that this thread reads and writes in a ``with`` block one transaction: one commit, one wait for a disk.

    Other writers wait for its end, so nothing slow belongs into it.
    """
    with writing(engine) as connection:
        token = _shared.set((engine, connection))
        try:
            yield
        finally:
            _shared.reset(token)


def count_rows(connection: sa.Connection, statement: sa.Insert | sa.Update | sa.Delete) -> int:
    """Execute a statement and return how many rows it wrote, of an insertion too."""
    return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount


def _joined(engine: sa.Engine) -> sa.Connection | None:
    found = _shared.get()
    return found[1] if found is not None and found[0] is engine else None


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        raise StoreError(
            f"the catalog does not answer: {str(error.orig).strip().splitlines()[0]}",
            expected="a database that can be reached and is not locked for a minute",
            advice="look for the process that holds it, for room on its disk, and at its URL; then run again",
        ) from error


def _connected(engine: sa.Engine) -> sa.Connection:
    """Connect; a server that does not answer now, and did when the catalog was opened, is asked again for a while."""
    deadline = time.monotonic() + (_RESTART_S if engine.get_execution_options().get("stixflow_waits") else 0.0)
    while True:
        try:
            return engine.connect()
        except sa.exc.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(10 * _RETRY_MS / 1000)


def _engine_of(url: str) -> sa.Engine:
    # The errors of the library repeat the URL, password and all.
    try:
        place = sa.make_url(url)
        if place.drivername in ("postgresql", "postgres"):
            place = place.set(drivername="postgresql+psycopg")
        return sa.create_engine(place, pool_pre_ping=place.get_backend_name() != "sqlite")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the catalog at {masked(url)} needs {error.name}",
            expected="its driver to be installed",
            advice='pip install "stixflow[postgres]"',
        ) from None
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError(
            f"{masked(url)} is not the URL of a database",
            expected="sqlite:////PATH or postgresql+psycopg://USER@HOST/NAME",
            advice="correct --catalog, STIXFLOW_CATALOG or stixflow.toml",
        ) from None


def _tune_sqlite(engine: sa.Engine) -> None:
    # The driver's own transactions begin late and deferred: two readers that turn writers fail at once, whatever the
    # timeout. With them off, a writer begins IMMEDIATE and waits for its turn.
    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        _switch_to_wal(connection)
        # What was committed stays so after a loss of power: garbage is removed for good on the strength of it.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("stixflow_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _switch_to_wal(connection: Any) -> None:
    """Turn write-ahead logging on; the one step for which SQLite does not wait for its turn by itself."""
    for _ in range(_BUSY_MS // _RETRY_MS):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(_RETRY_MS / 1000)
    raise StoreError("the catalog stays locked", expected="a writer that ends", advice="end the process that holds it")
