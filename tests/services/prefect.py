"""Prefect servers on this machine, on SQLite and on PostgreSQL, for the time of a test session; nothing leaves it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from services.postgres import Postgres, free_port

START_SECONDS = 240.0
_BUSY_TRIES = 60


@dataclass(frozen=True)
class Server:
    """What a test may ask of a Prefect server, through its API and without its client."""

    api: str
    environment: Mapping[str, str]

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return ask(self.api, path, body)

    def flow_runs(self, *states: str) -> list[dict[str, Any]]:
        return flow_runs(self.api, *states)


def ask(api: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """Send a request, GET without a body, POST with one; return what is answered, None where it is nothing."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}/{path}", data, {"Content-Type": "application/json"})
    for _ in range(_BUSY_TRIES):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:  # as SQLite is, where the machine is busy
                raise
            time.sleep(1)
    raise TimeoutError(f"{path}: the server stays busy")


def flow_runs(api: str, *states: str) -> list[dict[str, Any]]:
    """Return the flow runs in one of the states, each with the name of its flow."""
    flows = {flow["id"]: flow["name"] for flow in ask(api, "flows/filter", {})}
    wanted = {"state": {"type": {"any_": list(states)}}} if states else {}
    runs = ask(api, "flow_runs/filter", {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_ASC"})
    return [run | {"flow": flows[run["flow_id"]]} for run in runs]


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a process that shall know nothing of the Prefect of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "STIXFLOW"))}
    return kept | {
        "PREFECT_HOME": str(home),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "OPENBLAS_NUM_THREADS": "1",
        **more,
    }


@contextmanager
def serving(home: Path, database: str) -> Iterator[Server]:
    """Start a server on a database for a ``with`` block."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = clean_environment(home, PREFECT_API_DATABASE_CONNECTION_URL=database)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: _answers(api) or process.poll() is not None, "the server answers")
        assert process.poll() is None, (home / "server.log").read_text()
        yield Server(api, environment | {"PREFECT_API_URL": api})
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def _answers(api: str) -> bool:
    with suppress(OSError):
        return bool(ask(api, "health"))
    return False


def until(reached: Any, what: str, *, seconds: float = START_SECONDS) -> Any:
    """Wait until a call returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < deadline, f"in {seconds:g} s never: {what}"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="session")
def prefect_on_postgres(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a Prefect server on PostgreSQL."""
    url = postgres.new_database().replace("+psycopg", "+asyncpg")
    with serving(tmp_path_factory.mktemp("prefect"), url) as server:
        yield server
