"""Reprocess an archive in processes that are killed again and again, until one ends; run by `test_reprocess.py`.

Each attempt is forked, and ends itself by SIGKILL after a random number of commits to the catalog or of files written.
Prints one JSON line for each attempt: how many it was let do, and whether it ended.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from stixflow.compute import Serial
from stixflow.cubes.files import LocalFiles
from stixflow.stages.reprocess import Reprocessing, run_reprocess


def watch(event: Callable[[], None]) -> None:
    """Call `event` before each commit of what was written to the catalog and each write of files."""
    sa.event.listen(sa.Engine, "commit", lambda connection: _if_writing(connection, event))
    for name in ("put", "write"):
        setattr(LocalFiles, name, _before(getattr(LocalFiles, name), event))


def _if_writing(connection: sa.Connection, event: Callable[[], None]) -> None:
    if connection.get_execution_options().get("stixflow_writes"):
        event()


def _before(function: Any, event: Callable[[], None]) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        event()
        return function(*arguments, **options)

    return call


def attempt(root: str, last: int) -> bool:
    """Reprocess in a process of its own that ends at event number `last`; return whether it came to its own end."""
    child = os.fork()
    if child == 0:
        numbers = iter(range(1, 10**6))

        def event() -> None:
            if next(numbers) == last:
                os.kill(os.getpid(), signal.SIGKILL)

        watch(event)
        report = run_reprocess(root, Reprocessing("2026.2", rebuild_all=True), pool=Serial(), switches=True)
        os._exit(0 if report["switched"] else 5)
    return os.waitpid(child, 0)[1] == 0


def main(root: str, seed: int) -> None:
    choice = random.Random(seed)
    for _ in range(40):
        last = choice.randint(4, 16)
        ended = attempt(root, last)
        sys.stdout.write(json.dumps({"events": last, "ended": ended}) + "\n")
        if ended:
            return
    raise SystemExit("it never ended")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
