"""Publish a second run of a day again and again, killed before each thing it does; run by `test_faults.py`.

Each attempt is a process of its own that ends by `os._exit`, as if it were killed. The parent then looks at what
readers see, and publishes again, as the next run does. Prints one JSON line for each attempt.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from example_archive import DAYS, add, day_of

from stixflow.archive import Archive, open_archive

KEY = DAYS[0].isoformat()
FLARE = {"flare_id": "f", "start": KEY, "peak": KEY, "stop": KEY, "peak_counts": 1.0}


def publish(archive: Archive, run_id: str, seed: int) -> None:
    """Do what a run does for one day: write the store, stage it, publish it, note its flares."""
    archive.catalog.begin_run(run_id, "process", code_version="1")
    made = add(archive, [day_of(DAYS[0], n_time=4, seed=seed)], DAYS[0], run_id)
    archive.catalog.replace_flares(made.id, [FLARE])
    archive.catalog.mark_done("flares", {str(made.id): "x"}, run_id=run_id)
    archive.catalog.finish_run(run_id)


def watch(event: Callable[[str], None], stride: int) -> None:
    """Call `event` before each write to the catalog, each rename, and some of the many other writes to the disk."""
    for name, every in (("write_bytes", stride), ("mkdir", stride), ("rename", 1)):
        setattr(Path, name, _before(getattr(Path, name), _each(every, lambda name=name: event(f"file {name}"))))
    sa.event.listen(sa.Engine, "before_cursor_execute", lambda *a: _if_writing(a[2].split()[0].lower(), event))
    sa.event.listen(sa.Engine, "commit", lambda *_: event("sql commit"))


def _each(every: int, event: Callable[[], None]) -> Callable[[], None]:
    numbers = itertools.count()
    return lambda: None if next(numbers) % every else event()


def _if_writing(word: str, event: Callable[[str], None]) -> None:
    if word in ("insert", "update", "delete"):
        event(f"sql {word}")


def _before(function: Any, event: Callable[[], None]) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        event()
        return function(*arguments, **options)

    return call


def attempt(root: str, url: str, run_id: str, at: int, stride: int) -> tuple[str, bool]:
    """Publish in a process of its own, killed before event number `at`; return the event and whether it was killed."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        numbers = iter(range(10**6))

        def event(name: str) -> None:
            if next(numbers) == at:
                os.write(tell, name.encode())
                os._exit(9)

        archive = open_archive(root, catalog=url)
        watch(event, stride)
        publish(archive, run_id, seed=100 + at)
        os._exit(0)
    os.close(tell)
    name = os.read(told, 100).decode()
    os.close(told)
    return name, os.waitpid(child, 0)[1] != 0


def without_room(root: str, url: str, run_id: str, limit: int) -> int:
    """Publish in a process that may write no file above `limit` bytes; return its exit code."""
    child = os.fork()
    if child == 0:
        archive = open_archive(root, catalog=url)
        archive.catalog.begin_run(run_id, "process", code_version="1")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            add(archive, [day_of(DAYS[0], n_time=400, seed=5)], DAYS[0], run_id)
        except Exception as error:
            os._exit(3 if "could not be written" in str(error) or "does not answer" in str(error) else 4)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def look(root: str, url: str) -> dict[str, Any]:
    """Return what readers see and whether it is whole."""
    archive = open_archive(root, catalog=url)
    day = archive.catalog.current("ql_lightcurve", KEY)
    assert day is not None
    cube = archive.lightcurves(KEY, DAYS[1])
    found = {
        "run": day.run_id,
        "state": day.state,
        "defects": [str(defect) for defect in archive.verify()],
        "sum_is_right": int(cube["counts"].sum(dtype="u8")) == day.counts_sum,
        "flares": len(archive.flares()),
        "states": [item.state for item in archive.catalog.history("ql_lightcurve", KEY)],
    }
    archive.close()
    return found


def main(root: str, url: str, stride: int) -> None:
    archive = open_archive(root, catalog=url, create=True)
    publish(archive, "R0", seed=0)
    archive.close()
    before, at = "R0", 0
    while True:
        run_id = f"K{at}"
        event, killed = attempt(root, url, run_id, at, stride)
        seen = look(root, url)
        healed = open_archive(root, catalog=url)
        publish(healed, f"H{at}", seed=1000 + at)
        healed.close()
        say({"at": at, "event": event, "killed": killed, "before": before, "mine": run_id, "seen": seen,
                          "healed": look(root, url)})  # fmt: skip
        before = f"H{at}"
        if not killed:
            break
        at += 1
    for limit in (0, 100, 900):
        code = without_room(root, url, f"F{limit}", limit)
        say({"limit": limit, "code": code, "before": before, "seen": look(root, url)})


def say(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
