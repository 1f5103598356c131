"""The tables of the catalog.

Every time is an integer, nanoseconds since 1970-01-01 UTC: exact, and it sorts. Places are paths below the root of the
archive, so that an archive can be moved.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, Table, Text

from stixflow.archive.transactions import count_rows

PRESENT = ""
"""In the column `release` of flares, images and marks: what readers see who ask for no release."""
MANY = 500
"""Values of one statement; databases have limits."""

# SQLite counts up only in a column of the type INTEGER.
_Id = BigInteger().with_variant(Integer(), "sqlite")
metadata = MetaData()

meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

run = Table(
    "run",
    metadata,
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
    metadata,
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
    metadata,
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
    metadata,
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
    metadata,
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
    metadata,
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
    metadata,
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
    metadata,
    Column("release", Text, primary_key=True),
    Column("flare_id", Text, primary_key=True),
    Column("attrs", Text, nullable=False),
)
"""Beside `flare`, because a day whose light curve is published again has new flare rows for flares already located."""

image = Table(
    "image",
    metadata,
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
    metadata,
    Column("release", Text, primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("item", Text, primary_key=True),
    Column("input_digest", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
)

release = Table(
    "release",
    metadata,
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
    metadata,
    Column("release", ForeignKey("release.name"), primary_key=True),
    Column("product", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("partition_id", ForeignKey("partition.id"), nullable=False),
    Column("taken", Boolean, nullable=False, server_default=sa.false()),  # over from what readers see, not rebuilt
    Index("release_partition_id", "partition_id"),
)

garbage = Table(
    "garbage",
    metadata,
    Column("path", Text, primary_key=True),
    Column("since", BigInteger, nullable=False),
)
"""What was found that nothing points to, and when it was first found so."""

FINDINGS = (flare, location, image, done)
"""Tables whose rows belong to a release, or to `PRESENT`."""


def now_ns() -> int:
    """Return the present as the catalog keeps times."""
    return time.time_ns()


def copy_rows(
    connection: sa.Connection, table: sa.Table, source: str, target: str, *conditions: sa.ColumnElement[bool]
) -> int:
    """Copy the rows of one release (or `PRESENT`) to another inside the database; return how many."""
    names = [column.name for column in table.columns if column.name not in ("id", "release")]
    rows = sa.select(*(table.c[name] for name in names), sa.literal(target).label("release"))
    chosen = rows.where(table.c.release == source, *conditions)
    return count_rows(connection, table.insert().from_select([*names, "release"], chosen))


def move_rows(connection: sa.Connection, table: sa.Table, source: str, target: str) -> int:
    """Give the rows of one release (or `PRESENT`) to another; return how many."""
    return connection.execute(table.update().where(table.c.release == source).values(release=target)).rowcount


def delete_rows(connection: sa.Connection, table: sa.Table, release: str) -> int:
    """Delete the rows of a release (or `PRESENT`); return how many."""
    return connection.execute(table.delete().where(table.c.release == release)).rowcount
