"""The tables of the catalog, and how its database is opened: SQLite by default, any SQLAlchemy URL by choice.

Every time is an integer, nanoseconds since 1970-01-01 UTC: exact, and it sorts. Places are paths below the root of the
archive, so that an archive can be moved.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, Table, Text

from stixflow.errors import StoreError, UsageError, masked

SCHEMA_VERSION = 4
"""Raised by one for each change of the tables, together with the step of `_MIGRATIONS` that makes it."""

_BUSY_MS = 60_000
_RETRY_MS = 20
PRESENT = ""
"""In the column `release` of flares, images and marks: what readers see who ask for no release."""
MANY = 500
"""Values of one statement; databases have limits."""
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

# SQLite counts up only in a column of the type INTEGER.
_Id = BigInteger().with_variant(Integer(), "sqlite")
_metadata = MetaData()

meta = Table("meta", _metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

run = Table(
    "run",
    _metadata,
    Column("run_id", Text, primary_key=True),
    Column("command", Text, nullable=False),
    Column("state", Text, nullable=False),  # running, done, failed, dead
    Column("code_version", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("finished", BigInteger),
    Column("summary", Text, nullable=False),
    Column("host", Text),
    Column("pid", BigInteger),
    Column("process", Text),  # of the machine and its boot, and when it was started
    Column("seen", BigInteger),
)

file = Table(
    "file",
    _metadata,
    Column("digest", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("path", Text),
    Column("n_bytes", BigInteger, nullable=False),
    Column("packets_in", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("ingested", BigInteger, nullable=False),
    Column("attrs", Text, nullable=False),
)

packet_set = Table(
    "packet_set",
    _metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("product", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("n_packets", BigInteger, nullable=False),
    Column("file_digest", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("attrs", Text, nullable=False),
    Index("packet_set_once", "product", "key", "digest", unique=True),
)

quarantine = Table(
    "quarantine",
    _metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("run_id", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("offset", BigInteger),
    Column("n_bytes", BigInteger),
    Column("path", Text),
    Column("created", BigInteger, nullable=False),
    Index("quarantine_run", "run_id"),
)

partition = Table(
    "partition",
    _metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("run_id", Text, nullable=False),
    Column("product", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("day", Text, nullable=False),
    Column("request_id", BigInteger),
    Column("seq_control", BigInteger),
    Column("state", Text, nullable=False),  # staged, published, superseded, failed
    Column("path", Text, nullable=False, unique=True),
    Column("digest", Text, nullable=False),
    Column("input_digest", Text, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("data_model_version", Integer, nullable=False),
    Column("n_time", BigInteger, nullable=False),
    Column("boxes", Integer, nullable=False),
    Column("counts_sum", BigInteger, nullable=False),
    Column("n_bytes", BigInteger, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("stop", BigInteger, nullable=False),
    Column("structure", Text, nullable=False),
    Column("axes", Text, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("missing", Text, nullable=False),
    Column("shrink_reason", Text, nullable=False),
    Column("replaces", BigInteger),
    Column("created", BigInteger, nullable=False),
    Column("attrs", Text, nullable=False),
    Column("collected", BigInteger),  # when its store was removed; NULL while it is there
    Index("partition_key", "product", "key"),
    Index("partition_request", "request_id"),
)

current = Table(
    "current",
    _metadata,
    Column("product", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("partition_id", ForeignKey("partition.id"), nullable=False, unique=True),
    Column("revision", BigInteger, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("stop", BigInteger, nullable=False),
    Index("current_span", "product", "start", "stop"),
)

flare = Table(
    "flare",
    _metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("partition_id", ForeignKey("partition.id"), nullable=False),
    Column("flare_id", Text, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("peak", BigInteger, nullable=False),
    Column("stop", BigInteger, nullable=False),
    Column("peak_counts", sa.Float(53)),
    Column("attrs", Text, nullable=False),
    Column("release", Text, nullable=False),
    Index("flare_once", "partition_id", "release", "flare_id", unique=True),
    Index("flare_named", "release", "flare_id"),
    Index("flare_peak", "release", "peak"),
)

location = Table(
    "location",
    _metadata,
    Column("release", Text, primary_key=True),
    Column("flare_id", Text, primary_key=True),
    Column("attrs", Text, nullable=False),
)
"""Beside `flare`, because a day whose light curve is published again has new flare rows for flares already located."""

image = Table(
    "image",
    _metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("image_id", Text, nullable=False),
    Column("flare_id", Text),
    Column("method", Text, nullable=False),
    Column("energy_low", sa.Float(53), nullable=False),
    Column("energy_high", sa.Float(53), nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("stop", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("x_hpc", sa.Float(53)),
    Column("y_hpc", sa.Float(53)),
    Column("run_id", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("attrs", Text, nullable=False),
    Column("release", Text, nullable=False),
    Index("image_once", "release", "image_id", unique=True),
    Index("image_flare", "release", "flare_id"),
    Index("image_start", "release", "start"),
)

done = Table(
    "done",
    _metadata,
    Column("release", Text, primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("item", Text, primary_key=True),
    Column("input_digest", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
)

release = Table(
    "release",
    _metadata,
    Column("name", Text, primary_key=True),
    Column("note", Text, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default="final"),  # open, validated, final
    Column("plan", Text, nullable=False, server_default="{}"),
    Column("report", Text, nullable=False, server_default="{}"),
    Column("before", Text),  # the release that keeps what readers saw before this one
    Column("switched", BigInteger),  # when readers were switched to it; NULL where they see something else
)

release_partition = Table(
    "release_partition",
    _metadata,
    Column("release", ForeignKey("release.name"), primary_key=True),
    Column("product", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("partition_id", ForeignKey("partition.id"), nullable=False),
    Column("taken", Boolean, nullable=False, server_default=sa.false()),  # over from what readers see, not rebuilt
    Index("release_partition_id", "partition_id"),
)

garbage = Table(
    "garbage",
    _metadata,
    Column("path", Text, primary_key=True),
    Column("since", BigInteger, nullable=False),
)
"""What was found that nothing points to, and when it was first found so."""


def _scope_findings(connection: sa.Connection) -> None:
    from stixflow.archive.migrations import scope_findings

    scope_findings(connection)


# The step at index i brings a database of the version i + 1 to the version i + 2; tables that are new are made before.
_MIGRATIONS: tuple[tuple[str | Callable[[sa.Connection], None], ...], ...] = (
    ("ALTER TABLE partition ADD COLUMN collected BIGINT",),
    (
        "ALTER TABLE run ADD COLUMN host TEXT",
        "ALTER TABLE run ADD COLUMN pid BIGINT",
        "ALTER TABLE run ADD COLUMN process TEXT",
        "ALTER TABLE run ADD COLUMN seen BIGINT",
    ),
    (_scope_findings,),
)


def open_database(url: str) -> sa.Engine:
    """Open the database of a catalog, making or migrating its tables where needed.

    Raises
    ------
    StoreError
        If a newer stixflow made it.
    UsageError
        If the URL is none, or its driver is not installed.
    """
    engine = _engine_of(url)
    if engine.dialect.name == "sqlite":
        _tune_sqlite(engine)
    else:
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    if _found_version(engine) != SCHEMA_VERSION:
        with writing(engine) as connection:
            _metadata.create_all(connection)
            _migrate(connection)
    return engine.execution_options(stixflow_waits=engine.dialect.name != "sqlite")


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
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open one transaction in which every query sees the same moment; errors as `writing`."""
    if (joined := _joined(engine)) is not None:
        with _told():
            yield joined
        return
    with _told(), _connected(engine) as connection, connection.begin():
        yield connection


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


_shared: ContextVar[tuple[sa.Engine, sa.Connection] | None] = ContextVar("stixflow_transaction", default=None)


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


def copy_rows(
    connection: sa.Connection, table: sa.Table, source: str, target: str, *conditions: sa.ColumnElement[bool]
) -> int:
    """Copy the rows of one release (or `PRESENT`) to another inside the database; return how many."""
    names = [column.name for column in table.columns if column.name not in ("id", "release")]
    rows = sa.select(*(table.c[name] for name in names), sa.literal(target).label("release"))
    chosen = rows.where(table.c.release == source, *conditions)
    return count_rows(connection, table.insert().from_select([*names, "release"], chosen))


def count_rows(connection: sa.Connection, statement: sa.Insert | sa.Update | sa.Delete) -> int:
    """Execute a statement and return how many rows it wrote, of an insertion too."""
    return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount


def now_ns() -> int:
    """Return the present as the catalog keeps times."""
    return time.time_ns()


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


_VERSION = sa.select(meta.c.value).where(meta.c.name == "schema_version")


def _found_version(engine: sa.Engine) -> int | None:
    with reading(engine) as connection:
        found = connection.execute(_VERSION).scalar() if sa.inspect(connection).has_table("meta") else None
    return None if found is None else int(found)


def _migrate(connection: sa.Connection) -> None:
    found = connection.execute(_VERSION).scalar()
    if found is None:
        connection.execute(meta.insert().values(name="schema_version", value=str(SCHEMA_VERSION)))
        return
    if int(found) > SCHEMA_VERSION:
        raise StoreError(
            f"the catalog has the schema version {found}",
            expected=f"at most {SCHEMA_VERSION}",
            advice="use the stixflow that made it, or a later one",
        )
    for step in _MIGRATIONS[int(found) - 1 :]:
        for statement in step:
            if callable(statement):
                statement(connection)
            else:
                connection.execute(sa.text(statement))
    connection.execute(meta.update().where(meta.c.name == "schema_version").values(value=str(SCHEMA_VERSION)))
