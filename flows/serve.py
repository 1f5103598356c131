"""Everything on one host: a Prefect server, unless there is one, and the process that runs the flows.

Both are children of one small process that imports neither, starts each again when it ends by itself, and ends both,
with all that they have started, when it is told to stop. Where it is killed itself, they end by themselves.
"""

from __future__ import annotations

import fcntl
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flows.deployments import Deployment, Site, schedule_of
from flows.environment import prepare
from flows.parent import end_with_parent
from stixflow.errors import ArchiveBusy, StixflowError

START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_GLANCE_S = 0.2
_LONGEST_PAUSE_S = 60.0
_STEADY_S = 60.0
"""A child that has lived so long is started again at once."""
_HANDOVER_S = 3.0
"""How long the server of a killed predecessor may take to end."""

Say = Callable[[str, str], None]


class StartFailed(StixflowError, RuntimeError):
    """A server or a runner that did not start."""


@dataclass(slots=True)
class Child:
    """A process that is kept running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    pause: float = field(default=1.0)

    def start(self) -> None:
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.started = time.monotonic()

    def ended(self) -> int | None:
        """Return the exit code of a child that has ended."""
        return None if self.process is None else self.process.poll()

    def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Ask it to end, wait, then end it and everything it has started."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


def serve(site: Site, deployments: Sequence[Deployment], *, port: int, poll_seconds: float, say: Say) -> int:
    """Run a server, if none is configured, and the flows, until SIGTERM or SIGINT; return the exit code.

    Raises
    ------
    ArchiveBusy
        If the same archive is served already.
    StartFailed
        If the server does not answer in time; the message names its log.
    """
    state = prepare(site.archive)
    with _alone(state), _signals() as told_to_stop:
        children: list[Child] = []
        try:
            if not os.environ.get("PREFECT_API_URL"):
                server, url = _server(state, port)
                server.start()
                children.append(server)
                os.environ["PREFECT_API_URL"] = url
                _wait_until_healthy(url, server, told_to_stop)
            say("prefect", os.environ["PREFECT_API_URL"].removesuffix("/api"))
            ready = state / "ready"
            ready.unlink(missing_ok=True)
            runner = _runner(state, site, deployments, poll_seconds)
            runner.start()
            children.append(runner)
            say("archive", site.archive)
            say("inbox", site.inbox or "none: nothing is ingested")
            say("logs", "  ".join(str(child.log) for child in children))
            _watch(children, lambda: told_to_stop() or ready.exists(), say)
            if ready.exists():
                say("flows", ", ".join(f"{one.flow}/{site.name} {schedule_of(one, site)}" for one in deployments))
            _watch(children, told_to_stop, say)
        finally:
            for child in reversed(children):
                child.stop()
    say("flows", "stopped")
    return 0


def _server(state: Path, port: int) -> tuple[Child, str]:
    port = port if _is_free(port, _HANDOVER_S) else _any_port()
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "flows", "_server", "--host", "127.0.0.1", "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    # The pages of the server ask the browser's own address for data.
    environment["PREFECT_UI_API_URL"] = url
    return Child("server", command, environment, state / "server.log"), url


def _runner(state: Path, site: Site, deployments: Sequence[Deployment], poll_seconds: float) -> Child:
    names = [one.flow for one in deployments]
    told = json.dumps(
        {"site": asdict(site), "flows": names, "poll_seconds": poll_seconds, "ready": str(state / "ready")}
    )
    return Child("runner", [sys.executable, "-m", "flows", "_runner", told], dict(os.environ), state / "runner.log")


def _watch(children: Sequence[Child], is_over: Callable[[], bool], say: Say) -> None:
    """Start again what ends by itself, each time after a longer pause, until it is over."""
    while not is_over():
        now = time.monotonic()
        for child in children:
            code = child.ended()
            if code is not None:
                say(child.name, f"ended with code {code}; it is started again in {child.pause:g} s; see {child.log}")
                child.stop(0)
                child.due = now + child.pause
                child.pause = min(2 * child.pause, _LONGEST_PAUSE_S)
            elif child.process is None and now >= child.due:
                child.start()
            elif now - child.started > _STEADY_S:
                child.pause = 1.0
        time.sleep(_GLANCE_S)


def _wait_until_healthy(url: str, server: Child, told_to_stop: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_healthy(url):
        if told_to_stop():
            return
        if server.ended() is not None or time.monotonic() > deadline:
            raise StartFailed(
                f"the Prefect server did not start: {_last_line(server.log)}",
                expected=f"an answer from {url}/health within {START_SECONDS:g} s",
                advice=f"see {server.log}",
            )
        time.sleep(_GLANCE_S)


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.is_file() else []
    return lines[-1].strip() if lines else "it said nothing"


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Refuse a second one for the same archive on this host."""
    with (state / "serve.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArchiveBusy(
                f"the flows of this archive are served already ({state})",
                expected="one `serve`",
                advice="stop it first",
            ) from None
        yield


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM and SIGINT for a ``with`` block in place of dying of them."""
    noted: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: noted.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_free(port: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_GLANCE_S)


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def be_runner(told: str) -> None:
    """Be the runner that `serve` has started with what it was told."""
    from flows.deployments import DEPLOYMENTS
    from flows.runner import run_deployments

    end_with_parent()
    given: dict[str, Any] = json.loads(told)
    wanted = [one for one in DEPLOYMENTS if one.flow in given["flows"]]
    ready = Path(given["ready"])
    run_deployments(Site(**given["site"]), wanted, poll_seconds=given["poll_seconds"], when_ready=ready.touch)


def be_server(*options: str) -> None:
    """Be the Prefect server that `serve` has started."""
    end_with_parent()
    sys.argv = ["prefect", "server", "start", *options]
    runpy.run_module("prefect", run_name="__main__")
