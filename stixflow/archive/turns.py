"""Turns: of those who build and publish in an archive, one at a time, on whatever machine they run.

The catalog is safe without: two runs that build the same partition end in a `PublishConflict` of the later one. A turn
spares that work, and ends by itself with the process that has it: it is a lock of the operating system beside a
SQLite catalog, which is on one machine anyway, and a session lock of PostgreSQL.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from stixflow.archive.catalog import Catalog
from stixflow.errors import ArchiveBusy

_TURN = 0x5354495854
"""Key of the PostgreSQL lock."""
_GLANCE_S = 0.2

_Try = Callable[[], bool]


@contextmanager
def take_turn(catalog: Catalog, *, wait_seconds: float = 0.0, release: str = "") -> Iterator[None]:
    """Be the only one with the turn for a ``with`` block, after waiting for it so long.

    Parameters
    ----------
    release
        An open release, of which one process builds at a time while others publish; none: what readers see.

    Raises
    ------
    ArchiveBusy
        If somebody else has it all that time.
    """
    engine = catalog.engine
    lock = (_postgres_lock if engine.dialect.name == "postgresql" else _file_lock)(engine, release)
    what = f"builds the release {release} now" if release else "builds and publishes in this archive"
    deadline = time.monotonic() + wait_seconds
    with lock as try_it:
        while not try_it():
            if time.monotonic() >= deadline:
                raise ArchiveBusy(
                    f"another run {what}",
                    expected=f"the end of it within {wait_seconds:g} s",
                    advice="wait for it: what is left to do then is found in the catalog",
                )
            time.sleep(_GLANCE_S)
        yield


@contextmanager
def _file_lock(engine: sa.Engine, release: str) -> Iterator[_Try]:
    import fcntl

    name = engine.url.database
    if not name or name == ":memory:":
        yield lambda: True
        return
    with Path(f"{name}.turn" if not release else f"{name}.{_key(release):016x}.turn").open("w") as stream:

        def try_it() -> bool:
            with suppress(BlockingIOError):
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        yield try_it


@contextmanager
def _postgres_lock(engine: sa.Engine, release: str) -> Iterator[_Try]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # closed in place of being kept: the lock ends with its session
        key = _key(release) if release else _TURN
        yield lambda: bool(connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar())


def _key(release: str) -> int:
    """Return a number for a release, of the size that PostgreSQL takes."""
    return int.from_bytes(hashlib.sha256(f"release {release}".encode()).digest()[:8]) >> 1
