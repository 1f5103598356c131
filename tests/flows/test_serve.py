"""One host, unattended: started by schedules on its own server (SQLite), through all that happens to a host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from example_delivery import flare_rows, published
from services.postgres import free_port
from services.prefect import ask, clean_environment, flow_runs, until

from stixflow.archive import Archive, open_archive
from stixflow.archive.turns import take_turn
from stixflow.errors import StixflowError


class Host:
    """A host that serves the flows of an archive, and what may happen to it."""

    def __init__(self, folder: Path, notify: str) -> None:
        self.folder, self.root, self.inbox = folder, folder / "archive", folder / "inbox"
        self.inbox.mkdir()
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.environment = clean_environment(self.root / "prefect", STIXFLOW_NOTIFY=notify)
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        options = ["--archive", "archive", "--inbox", "inbox", "--serial", "--settle-seconds", "0.2"]
        schedules = ["--schedule", "ingest=5s", "--schedule", "daily=6s"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows", "serve", *options, *schedules, "--only", "ingest", "--only", "daily",
             "--port", str(self.port), "--poll-seconds", "0.5"],
            env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        said = [self.process.stdout.readline() for _ in range(5)]
        assert said[0].split() == ["prefect", self.api.removesuffix("/api")], "".join(said)

    def family(self) -> list[psutil.Process]:
        assert self.process is not None
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def child(self, name: str) -> psutil.Process:
        return next(one for one in self.family() if name in one.cmdline())

    def runs(self, flow: str, *states: str) -> list[dict[str, Any]]:
        try:
            return [run for run in flow_runs(self.api, *states) if run["flow"] == flow]
        except OSError:
            return []

    def leave_schedules(self) -> None:
        """Let nothing start by itself any more, also not what waits, and what has started end."""
        for one in ask(self.api, "deployments/filter", {}):
            ask(self.api, f"deployments/{one['id']}/pause_deployment", {})
        for run in flow_runs(self.api, "SCHEDULED"):
            ask(self.api, f"flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
        until(lambda: not flow_runs(self.api, "RUNNING", "PENDING"), "what has started has ended")

    def begin(self, flow: str) -> str:
        """Start a run of a flow now, and return its id."""
        deployment = ask(self.api, f"deployments/name/{flow}/mission")
        return str(ask(self.api, f"deployments/{deployment['id']}/create_flow_run", {})["id"])

    def archive(self) -> Archive:
        return open_archive(self.root)

    def has_images(self) -> bool:
        try:
            return bool(self.archive().images().shape[0])
        except StixflowError:
            return False


@pytest.fixture
def told() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Return the address of a web server and what is posted there."""
    got: list[dict[str, str]] = []

    class _Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), _Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()
    server.server_close()


@contextmanager
def _daily_waiting(host: Host) -> Iterator[str]:
    """Keep a daily run at work for a ``with`` block, and give its id."""
    with take_turn(host.archive().catalog, wait_seconds=60):
        run_id = host.begin("daily")
        until(lambda: _state(host, run_id) == "RUNNING", "the daily run is at work")
        yield run_id


def _state(host: Host, run_id: str) -> str:
    try:
        return str(ask(host.api, f"flow_runs/{run_id}")["state_type"])
    except OSError:
        return ""


@pytest.mark.flow
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_host_that_is_left_alone(
    delivery: Path, processed: Path, tmp_path: Path, told: tuple[str, list[dict[str, str]]]
) -> None:
    address, messages = told
    host = Host(tmp_path, address)
    host.start()
    try:
        # A delivery is dropped, and taken all the way by runs that schedules have started.
        for name in ("telemetry", "ephemeris"):
            shutil.copytree(delivery / name, host.inbox / name)
        until(host.has_images, "images")
        for flow in ("ingest", "daily"):
            (run, *_) = until(lambda flow=flow: host.runs(flow, "COMPLETED"), f"{flow} is done")
            assert run["auto_scheduled"]
        assert messages == []

        # What is no telemetry fails one run, and tells once.
        host.leave_schedules()
        (host.inbox / "notes.bin").write_bytes(b"these are no packets at all")
        failed = host.begin("ingest")
        until(lambda: _state(host, failed) == "FAILED", "a bad file fails its run")
        until(lambda: messages, "somebody is told")
        assert [(one["state"], one["flow_run_id"]) for one in messages] == [("Failed", failed)]
        assert "notes.bin" in messages[0]["text"]
        assert "Traceback" not in (host.root / "prefect" / "runner.log").read_text()

        # The Prefect server dies under a run: it is started again, and the run ends as if nothing had been.
        with _daily_waiting(host) as run_id:
            host.child("_server").kill()
            until(lambda: _state(host, run_id), "the server is back")
        assert until(lambda: _state(host, run_id) not in ("", "RUNNING") and _state(host, run_id), "the run has ended")
        assert _state(host, run_id) == "COMPLETED"

        # Everything is killed in the middle of a run: nothing lives on, and the next start takes the run back.
        with _daily_waiting(host) as run_id:
            left = host.family()
            left[0].kill()
            assert psutil.wait_procs(left, timeout=30)[1] == []
        host.start()
        until(lambda: _state(host, run_id) == "CRASHED", "the run that was killed is taken back")
        assert (messages[-1]["state"], messages[-1]["flow_run_id"]) == ("Crashed", run_id)
        until(
            lambda: [run for run in host.runs("daily", "COMPLETED") if "after a stop" in run["tags"]], "it is made good"
        )

        # It is stopped: cleanly, at once, and with nothing left.
        left = host.family()
        left[0].send_signal(signal.SIGTERM)
        assert psutil.wait_procs(left, timeout=60)[1] == []
        assert host.process is not None
        assert host.process.returncode in (0, None)
    finally:
        for one in host.family() if psutil.pid_exists(host.process.pid) else []:
            one.kill()
    archive = host.archive()
    assert published(host.root) == published(processed)
    assert flare_rows(archive) == flare_rows(open_archive(processed))
    assert archive.verify() == []
    assert archive.catalog.totals()["files"] == 6


def test_a_second_one_is_refused(tmp_path: Path) -> None:
    import fcntl

    home = tmp_path / "archive" / "prefect"
    home.mkdir(parents=True)
    with (home / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = _serve(tmp_path, home)
    assert done.returncode == 1
    assert "served already" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    home = tmp_path / "archive" / "prefect"
    done = _serve(tmp_path, home, PREFECT_API_DATABASE_CONNECTION_URL="sqlite+aiosqlite:////nowhere/prefect.db")
    assert done.returncode == 1
    assert "the Prefect server did not start" in done.stderr
    assert "server.log" in done.stderr


def _serve(folder: Path, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows", "serve", "--archive", "archive"],
        env=clean_environment(home, **more), cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_nothing_of_the_users_own_prefect_is_touched(tmp_path: Path) -> None:
    """The state is in the archive, whatever there is in the home."""
    environment = clean_environment(tmp_path / "unused", HOME=str(tmp_path / "home"))
    del environment["PREFECT_HOME"]
    code = "from flows.environment import prepare; import os; prepare('archive'); print(os.environ['PREFECT_HOME'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "archive" / "prefect")
    assert not (tmp_path / "home").exists()
    assert os.path.isdir(tmp_path / "archive" / "prefect")
