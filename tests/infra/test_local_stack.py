"""Every command and health check of infra/compose.yaml, run as processes, and a day through the scheduled flows."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = _ROOT / "infra/local-stack"


def command(name: str, state: Path, *more: str) -> list[str]:
    return [sys.executable, str(_PROGRAM), name, "--state", str(state), *more]


def snapshot(folder: Path) -> dict[str, str]:
    """Return an environment with a copy of the code: workers of other code are refused, and somebody may edit it."""
    for package in ("stixflow", "flows"):
        shutil.copytree(_ROOT / package, folder / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    return os.environ | {"PYTHONPATH": str(folder / "code")}


def belonging_to(state: Path) -> list[int]:
    """List the processes that were started for a stack, whatever became of their parents."""
    mark = f"STIXFLOW_LOCAL_STACK={state}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    if not shutil.which("pg_ctl") or not Path("/proc/self/environ").exists():
        pytest.skip("needs PostgreSQL (initdb, pg_ctl) and Linux")
    folder = tmp_path / "stack"
    yield folder
    subprocess.run(command("down", folder), check=False, capture_output=True)


@pytest.mark.stack
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_stack_that_is_killed_is_cleaned_up_and_then_takes_a_day(state: Path) -> None:
    starting = subprocess.Popen(command("up", state), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    record, deadline = state / "processes.json", time.monotonic() + 60
    while not record.is_file() or len(json.loads(record.read_text())) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    starting.send_signal(signal.SIGKILL)
    starting.wait()
    assert belonging_to(state)
    again = subprocess.run(command("up", state), capture_output=True, text=True, check=False)
    assert (again.returncode, "it runs already" in again.stderr) == (1, True)
    services = {one["name"] for one in status(state, 1)}
    assert {"postgres", "s3", "dask-scheduler"} <= services
    ended = subprocess.run(command("down", state), capture_output=True, text=True, check=True)
    assert int(ended.stdout.split()[1]) >= 3
    assert belonging_to(state) == []
    assert status(state, 1) == []

    taking = command("run", state, "--flares", "2")
    done = subprocess.run(taking, env=snapshot(state.parent), capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr + "".join(path.read_text()[-800:] for path in (state / "logs").glob("*.log"))
    assert done.returncode == 0, said
    assert re.search(r"^passed +[1-9]\d* partitions, [1-9]\d* flares, [1-9]\d* images", done.stdout, re.MULTILINE), said
    assert re.search(r"^flows .*daily \d.*ingest \d", done.stdout, re.MULTILINE), said
    assert belonging_to(state) == []
    assert {"processes.json", "environment", "prefect", "postgres.path"}.isdisjoint(
        path.name for path in state.iterdir()
    )


def status(state: Path, code: int) -> list[dict[str, Any]]:
    done = subprocess.run(command("status", state, "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    services: list[dict[str, Any]] = json.loads(done.stdout)["services"]
    return services


@pytest.mark.stack
@pytest.mark.long
def test_an_interrupt_ends_everything(state: Path) -> None:
    running = subprocess.Popen(command("run", state), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for line in running.stdout:
        if "dask-scheduler" in line:
            break
    os.kill(running.pid, signal.SIGINT)
    _, error = running.communicate(timeout=60)
    assert (running.returncode, error) == (130, "local-stack: interrupted\n")
    assert belonging_to(state) == []


@pytest.fixture
def program() -> Any:
    """Return the program as a module."""
    from importlib.machinery import SourceFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    loader = SourceFileLoader("local_stack", str(_PROGRAM))
    spec = spec_from_loader("local_stack", loader)
    assert spec is not None
    found = module_from_spec(spec)
    sys.modules["local_stack"] = found  # dataclasses look there
    loader.exec_module(found)
    return found


def test_variables_are_put_in_as_compose_does(program: Any) -> None:
    given = {"A": "1", "EMPTY": ""}
    assert program.interpolate("${A} ${A:-2} ${B:-2} ${EMPTY:-3} ${B}.", given) == "1 1 2 3 ."
    with pytest.raises(program.StackError, match="B is not set: say it"):
        program.interpolate("${B:?say it}", given)
    placed = program._placed
    ports = {5432: 1, 8787: 2}
    assert placed("postgresql://u@postgres:5432/x", ["postgres"], ports) == "postgresql://u@127.0.0.1:1/x"
    assert placed("postgres", ["postgres"], ports) == "postgres"
    assert placed(":8787", [], ports) == "127.0.0.1:2"
    assert placed("http://localhost:8787/health54321", [], ports) == "http://127.0.0.1:2/health54321"


def test_services_run_as_the_files_say(program: Any, state: Path) -> None:
    ports = {port: port + 10_000 for port in program._PORTS}
    variables = program.read_environment(_ROOT / "infra/example.env")
    services = {one.name: one for one in program.read_services(ports, state, variables | {"WORKERS": "3"})}
    assert {"dask-worker", "dask-worker-2", "dask-worker-3"} <= set(services)
    order = list(services)
    assert order.index("postgres") < order.index("prefect-database") < order.index("prefect-server")
    worker = services["prefect-worker"]
    assert worker.environment["STIXFLOW_SCHEDULES"] == ""
    assert worker.environment["STIXFLOW_SCHEDULER"] == "tcp://127.0.0.1:18786"
    assert worker.environment["AWS_ACCESS_KEY_ID"] == "change-me-key"
    assert Path(services["s3"].command[0]).name == "moto_server"
    checks = [one.check for one in services.values() if one.name.startswith("dask-worker")]
    assert len(set(checks)) == 3  # each its own port
    assert not any("$" in part for one in services.values() for part in (*one.command, *one.environment.values()))
    assert all("4200" not in part or "14200" in part for one in services.values() for part in one.command)
