"""What Prefect and the catalog add to the processing of a day: the same days by stages alone, and through the flows.

Both are run serially in one process; the Prefect server is a process of its own on SQLite. What a flow takes more than
its stages does not depend on how much they do: it is measured with nothing to do, many times. CPU seconds count, so
that other work on the machine does not. The start of the process that each scheduled flow run is, is measured apart.

    python benchmarks/bench_flow.py [--days 3] [--flares 10] [--repeats 10] [--quick] [--json]
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import psutil

from flows.environment import prepare
from stixflow.archive import Catalog, open_archive
from stixflow.compute import Serial
from stixflow.simulate import random_scenario, simulate
from stixflow.stages import build_cubes, find_flares, make_images, open_run
from stixflow.stages.inbox import look, take_in

FLOWS = ("ingest", "daily")
_DAY = date(2022, 6, 15)
_SETTLE_S = 0.05
_RECORD_S = 3.0
"""How long the server may write after the last flow; it writes task runs late."""
_IDLE_S = 5.0


def measure(days: int, flares: float, repeats: int, folder: Path) -> dict[str, Any]:
    """Process a small day for the imports, then the days that count, then nothing, several times."""
    stages, flows = str(folder / "stages"), str(folder / "flows")
    with _server(folder) as server:
        work = 0.0
        for number in range(days + 1):
            inbox = folder / f"inbox{number}"
            day = _DAY + timedelta(days=number)
            simulate(random_scenario(day, seed=number, rate=flares if number else 2.0), inbox, container="binary")
            (inbox / "truth.json").unlink()
            _by_flows(flows, inbox)
            with _counted_catalog(counts=number > 0):
                spent = _cpu(lambda inbox=inbox: _by_stages(stages, inbox))
            work += spent if number else 0.0
        time.sleep(_RECORD_S)
        figures = _overhead(stages, flows, inbox, server, repeats)
    images = len(open_archive(flows).catalog.images())
    equal = _content(stages) == _content(flows)
    return {"days": days, "images": images, "equal": equal} | _figures(work / days, days, figures)


def _overhead(stages: str, flows: str, inbox: Path, server: psutil.Process, repeats: int) -> dict[str, float]:
    """Return what a flow takes more than its stages, where there is nothing to do, of this process and the server."""
    idle = _idle(server)
    client, before, started = 0.0, _cpu_of(server), time.monotonic()
    for _ in range(repeats):
        client -= _cpu(lambda: _by_stages(stages, inbox))
        client += _cpu(lambda: _by_flows(flows, inbox))
    time.sleep(_RECORD_S)
    served = _cpu_of(server) - before - idle * (time.monotonic() - started)
    number = repeats * len(FLOWS)
    return {
        "prefect_client_cpu_s_per_flow": client / number,
        "prefect_server_cpu_s_per_flow": served / number,
        "prefect_server_idle_cpu_s_per_hour": idle * 3600,
        "process_start_cpu_s_per_flow": _start_of_a_run(),
    }


def _figures(work: float, days: int, measured: dict[str, float]) -> dict[str, float]:
    per_flow = measured["prefect_client_cpu_s_per_flow"] + measured["prefect_server_cpu_s_per_flow"]
    prefect, catalog = per_flow * len(FLOWS), _CATALOG["seconds"] / days
    started = prefect + measured["process_start_cpu_s_per_flow"] * len(FLOWS)
    return measured | {
        "stages_cpu_s_per_day": work,
        "catalog_cpu_s_per_day": catalog,
        "catalog_calls_per_day": _CATALOG["calls"] / days,
        "share_of_prefect": prefect / (work + prefect),
        "share_of_prefect_2_days_a_run": prefect / (2 * work + prefect),
        "share_of_prefect_30_days_a_run": prefect / (30 * work + prefect),
        "share_of_prefect_and_catalog": (prefect + catalog) / (work + prefect),
        "share_with_process_starts": (started + catalog) / (work + started),
    }


def _idle(server: psutil.Process) -> float:
    """Return the CPU seconds a second of a server without work, whose start is over."""
    time.sleep(_IDLE_S)
    before = _cpu_of(server)
    time.sleep(_IDLE_S)
    return (_cpu_of(server) - before) / _IDLE_S


def _by_stages(root: str, inbox: Path) -> None:
    archive = open_archive(root, create=True)
    found = look(str(inbox), archive.catalog, settle_seconds=_SETTLE_S)
    archive.close()
    if found.ready:
        with open_run(root, pool=Serial(), command="benchmark") as run:
            take_in(run, found)
    with open_run(root, pool=Serial(), command="benchmark") as run:
        for stage in (build_cubes, find_flares, make_images):
            stage(run)
    if run.failed:
        raise SystemExit(f"the day was not processed: {run.failed}")


def _by_flows(root: str, inbox: Path) -> None:
    from flows.mission import daily, ingest

    engine = {"serial": True}
    taken = ingest(archive=root, inbox=str(inbox), settle_seconds=_SETTLE_S, cubes=False, return_state=True)
    done = daily(archive=root, engine=engine, return_state=True)
    if not (taken.is_completed() and done.is_completed()):
        raise SystemExit(f"the day was not processed: {taken.message}; {done.message}")


_CATALOG = {"seconds": 0.0, "calls": 0}


@contextmanager
def _counted_catalog(counts: bool) -> Iterator[None]:
    """Add up the CPU time of all that the catalog is asked, for a ``with`` block."""
    depth, usual = [0], {}

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            depth[0] += 1
            started = time.thread_time()
            try:
                return method(*arguments, **options)
            finally:
                depth[0] -= 1
                if counts and not depth[0]:
                    _CATALOG["seconds"] += time.thread_time() - started
                    _CATALOG["calls"] += 1

        return call

    names = [name for name in dir(Catalog) if not name.startswith("_") and name != "kept_alive"]
    for name in [name for name in names if callable(getattr(Catalog, name))]:
        usual[name] = Catalog.__dict__.get(name)
        setattr(Catalog, name, counted(getattr(Catalog, name)))
    try:
        yield
    finally:
        for name, method in usual.items():
            if method is None:
                delattr(Catalog, name)
            else:
                setattr(Catalog, name, method)


@contextmanager
def _server(folder: Path) -> Iterator[psutil.Process]:
    """Run a Prefect server of this benchmark for a ``with`` block, and make this process its client."""
    for name in [name for name in os.environ if name.startswith("PREFECT")]:
        del os.environ[name]
    prepare(str(folder))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    try:
        _wait_for(os.environ["PREFECT_API_URL"], process)
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        # The heartbeat makes every flow wait a second for its thread; it takes no CPU time.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit("the Prefect server did not start")


def _cpu(call: Callable[[], None]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _start_of_a_run() -> float:
    """Return the CPU seconds of a process that has imported what a flow run needs; the better of two."""
    found = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import prefect.engine, flows.mission"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(found)


def _content(root: str) -> dict[str, str]:
    return {f"{item.product} {item.key}": item.digest for item in open_archive(root).catalog.partitions()}


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--flares", type=float, default=10.0, help="mean number of flares a day (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=10, help="runs with nothing to do (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one day of two flares, for correctness only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sizes = (1, 2.0, 2) if options.quick else (options.days, options.flares, options.repeats)
        figures = measure(*sizes, Path(scratch))
    if options.json:
        text = json.dumps(figures, indent=2)
    else:
        text = "\n".join(f"{name:34s} {round(value, 4)}" for name, value in figures.items())
    sys.stdout.write(text + "\n")
    return 0 if figures["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
