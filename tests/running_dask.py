"""A Dask scheduler and workers, started as an operator would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TESTS = Path(__file__).resolve().parent


def plain_environment() -> dict[str, str]:
    """Return the environment without what the test runner has set for Dask and numerical libraries."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("DASK", "OMP", "OPENBLAS", "MKL"))
    }
    return kept | {"PYTHONPATH": str(_TESTS)}


@contextmanager
def running_scheduler(workers: int, **environment: str) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """Start `dask scheduler` and workers as an operator would; yield the address and the processes."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> str:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "dask"), *arguments, "--dashboard-address", "127.0.0.1:0"],
            env={**plain_environment(), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stderr is not None
        return next(m[1] for line in process.stderr if (m := re.search(r"(?:at|to): +(tcp://\S+:\d+)", line)))

    try:
        address = start("scheduler", "--host", "127.0.0.1", "--port", "0")
        for _ in range(workers):
            start("worker", address, "--nthreads", "1", "--host", "127.0.0.1", "--memory-limit", "1GB")
        yield address, processes
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
