"""Garbage: what lies in an archive that nothing points to, marked first and removed after a grace time.

Pointed to are the stores that readers see, those they replaced last (a roll back shows them again), those of releases,
the packet sets and quarantine of the catalog, its images, and the joined months that are up to date. What is left over
are stores of runs that were killed or superseded, images of flares that are no longer found, half written objects.

Nothing is removed while a run is going on: each batch is removed in one writing transaction of the catalog, in which no
run can begin, after its pointers were read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.archive import Archive
from stixflow.archive.layout import DERIVED
from stixflow.archive.queries import chunks
from stixflow.archive.runs import active_runs
from stixflow.archive.transactions import reading, writing
from stixflow.cubes.files import open_files
from stixflow.cubes.model import PRODUCTS
from stixflow.cubes.store import delete_store
from stixflow.errors import UsageError

_ROOMS = frozenset({*PRODUCTS, "packets", "quarantine", "images", DERIVED})
"""Folders of the root that are the archive's own; nothing else is ever touched."""
_REMOVED_AT_ONCE = 20
"""Stores removed in one transaction: other writers wait for its end, and in a bucket each takes a second."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection found and did; every path is below the root."""

    marked: tuple[str, ...]
    """Found for the first time now."""
    waiting: tuple[str, ...]
    """Marked earlier, within their grace time, or kept because a run is going on."""
    removed: tuple[str, ...]
    active_runs: tuple[str, ...]
    """Runs that are going on, for which nothing was removed."""


def collect(archive: Archive, *, grace_days: float = 7.0, dry_run: bool = False) -> Collected:
    """Mark what nothing points to, and remove what was marked longer than the grace time ago.

    Parameters
    ----------
    grace_days
        How long a reader may keep a store open that was superseded.
    dry_run
        Only tell; mark and remove nothing.

    Raises
    ------
    UsageError
        If the grace time is negative.
    """
    if not grace_days >= 0:
        raise UsageError(f"a grace time of {grace_days} days", expected="0 or more", advice="correct it")
    engine = archive.catalog.engine
    found = _found(archive.root) - _pointed_to(engine)
    known = {path: since for path, since in _marks(engine).items() if path in found}
    now = tables.now_ns()
    # A clock that went backwards leaves marks of the future: they begin anew.
    since = {path: min(known.get(path, now), now) for path in sorted(found)}
    due = [path for path in since if path in known and since[path] <= now - round(grace_days * 86_400e9)]
    active = tuple(active_runs(engine))
    if not dry_run:
        _write_marks(engine, since)
    removed = () if dry_run or active else tuple(_remove(archive, due))
    left = known.keys() - set(removed)
    return Collected(
        marked=tuple(path for path in since if path not in known),
        waiting=tuple(path for path in since if path in left),
        removed=removed,
        active_runs=active,
    )


def _found(root: str) -> set[str]:
    """List stores, single objects and half written ones below the archive's own folders."""
    return {_unit(key) for key in open_files(root).list() if key.split("/")[0] in _ROOMS}


def _unit(key: str) -> str:
    """Return what is removed with an object: its store, its half written folder, or itself."""
    parts = key.split("/")
    ends = (index for index, part in enumerate(parts) if part.endswith((".zarr", ".part")))
    return "/".join(parts[: next(ends, len(parts) - 1) + 1])


def _pointed_to(source: sa.Engine | sa.Connection) -> set[str]:
    if isinstance(source, sa.Engine):
        with reading(source) as connection:
            return _pointed_to(connection)
    return {path for query in _pointers() for path in source.execute(query).scalars() if path}


def _pointers() -> Iterator[sa.Select[tuple[str]]]:
    table, earlier = tables.partition, tables.partition.alias()
    shown = sa.select(table.c.path).join(tables.current, tables.current.c.partition_id == table.c.id)
    yield shown
    yield (
        sa.select(earlier.c.path)
        .join(table, table.c.replaces == earlier.c.id)
        .join(tables.current, tables.current.c.partition_id == table.c.id)
    )
    yield sa.select(table.c.path).join(tables.release_partition, tables.release_partition.c.partition_id == table.c.id)
    for holder in (tables.packet_set, tables.file, tables.quarantine, tables.image):
        yield sa.select(holder.c.path)
    yield sa.select(tables.done.c.input_digest).where(tables.done.c.stage == DERIVED)


def _marks(engine: sa.Engine) -> dict[str, int]:
    with reading(engine) as connection:
        return {row.path: row.since for row in connection.execute(sa.select(tables.garbage))}


def _write_marks(engine: sa.Engine, since: dict[str, int]) -> None:
    rows = [{"path": path, "since": moment} for path, moment in since.items()]
    with writing(engine) as connection:
        connection.execute(tables.garbage.delete())
        for some in chunks(rows):
            connection.execute(tables.garbage.insert(), some)


def _remove(archive: Archive, due: Sequence[str]) -> Iterator[str]:
    for first in range(0, len(due), _REMOVED_AT_ONCE):
        with writing(archive.catalog.engine) as connection:
            if active_runs(connection):
                return
            kept = _pointed_to(connection)
            chosen = [path for path in due[first : first + _REMOVED_AT_ONCE] if path not in kept]
            for path in chosen:
                _remove_one(archive, path)
            _forget(connection, chosen)
        yield from chosen


def _remove_one(archive: Archive, path: str) -> None:
    if path.endswith((".zarr", ".part")):
        delete_store(archive.url(path))
    else:
        open_files(archive.root).unlink(path)


def _forget(connection: sa.Connection, paths: Sequence[str]) -> None:
    """Say in the catalog that the stores are gone, so that nothing is published or rolled back to them."""
    table = tables.partition
    mine = table.c.path.in_(paths)
    connection.execute(table.update().where(mine).values(collected=tables.now_ns()))
    connection.execute(table.update().where(mine, table.c.state == "staged").values(state="failed"))
    connection.execute(tables.garbage.delete().where(tables.garbage.c.path.in_(paths)))
