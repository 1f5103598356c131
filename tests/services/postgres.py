"""A PostgreSQL server on this machine, for the time of a test session."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_made = iter(range(10_000))


@dataclass(frozen=True)
class Postgres:
    """A server, its databases, and what may happen to it."""

    url: str
    _control: Callable[..., None]

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        import psycopg

        name = f"stix{next(_made)}"
        with psycopg.connect(self.url.replace("+psycopg", "") + "/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"{self.url}/{name}"

    def start(self) -> None:
        self._control("start")

    def stop(self) -> None:
        """End every connection, as when the host goes down."""
        self._control("stop", "-m", "immediate")

    def restart(self) -> None:
        self.stop()
        self.start()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Start a server on this machine, which need not outlive a crash of it."""
    with serving("fsync=off") as server:
        yield server


@contextmanager
def serving(*settings: str) -> Iterator[Postgres]:
    """Start a server on this machine for a ``with`` block; skip where that cannot be."""
    tools = {name: shutil.which(name) for name in ("initdb", "pg_ctl")}
    if not all(tools.values()):
        pytest.skip("needs PostgreSQL: initdb and pg_ctl")
    pytest.importorskip("psycopg", reason="needs psycopg")
    user = _unprivileged()
    # A short path: the name of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        data = Path(folder) / "data"
        data.mkdir(mode=0o700)
        if user:
            for path in (Path(folder), data):
                os.chown(path, user["user"], user["group"])
        port = free_port()
        _run([tools["initdb"], "-D", data, "-U", "stix", "-A", "trust", "--no-sync", "-E", "UTF8"], user)
        named = " ".join(f"-c {setting}" for setting in ("listen_addresses=127.0.0.1", *settings))
        options = f"-p {port} -k {folder} {named}"

        def control(action: str, *more: str) -> None:
            _run([tools["pg_ctl"], "-D", data, "-o", options, "-l", f"{folder}/log", "-w", *more, action], user)

        server = Postgres(f"postgresql+psycopg://stix@127.0.0.1:{port}", control)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """Return the URL of a fresh database."""
    return postgres.new_database()


def _run(command: list[Any], user: dict[str, Any]) -> None:
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/", **user
    )
    assert done.returncode == 0, done.stderr


def _unprivileged() -> dict[str, Any]:
    """Say as whom to run: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    pytest.skip("needs an unprivileged user for PostgreSQL")


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
