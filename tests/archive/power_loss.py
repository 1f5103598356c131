"""Process a delivery and look, at each commit of the catalog, what a loss of power at that moment would take.

Run by `test_durability.py`, in a process of its own, because nothing takes an audit hook away again. What is written is
followed by the calls that this process makes: bytes are safe once their file was synced, a name once its folder was.
Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from example_delivery import process

from stixflow.archive import garbage
from stixflow.cubes import durable, files

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Disk:
    """What is not on the disk yet: bytes of files, and names in folders."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.data, self.names = set[str](), set[str]()
        self.written = self.synced = 0

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and (arguments[2] or 0) & _WRITES:
            if self.is_mine(arguments[0]):
                self.data.add(arguments[0])
                self.names.add(arguments[0])
                self.written += 1
        elif event == "os.mkdir" and self.is_mine(os.fspath(arguments[0])):
            self.names.add(os.fspath(arguments[0]))
        elif event == "os.rename":
            self.rename(os.fspath(arguments[0]), os.fspath(arguments[1]))

    def is_mine(self, path: str) -> bool:
        return path.startswith(f"{self.root}/") and "catalog.sqlite" not in path

    def rename(self, before: str, after: str) -> None:
        def moved(path: str) -> str:
            return after + path[len(before) :] if path == before or path.startswith(f"{before}/") else path

        self.data, self.names = {moved(path) for path in self.data}, {moved(path) for path in self.names} | {after}

    def sync_all(self, _: int) -> None:
        self.data.clear()
        self.names.clear()
        self.synced += 1

    def sync(self, path: Path) -> None:
        self.data.discard(str(path))
        self.names -= {name for name in self.names if os.path.dirname(name) == str(path)}
        self.synced += 1

    def lost(self, pointed_to: Iterable[str]) -> list[str]:
        """Return what of these paths would be lost: itself, something inside it, or a folder above it."""
        unsafe = self.data | self.names
        places = [f"{self.root}/{path}" for path in pointed_to]
        return [
            path
            for path in sorted(unsafe)
            if any(path == p or path.startswith(f"{p}/") or p.startswith(f"{path}/") for p in places)
        ]


def main(delivery: str, root: str, kind: str) -> None:
    disk = Disk(root)
    if kind == "all at once":
        durable._sync_all = lambda: disk.sync_all
    elif kind == "each":
        durable._sync_all, durable._sync = (lambda: None), disk.sync
    else:
        files.survive = lambda paths: list(paths)
    sys.addaudithook(disk.hook)
    found: dict[str, Any] = {"commits": 0, "pointers": 0, "lost": []}
    sa.event.listen(sa.Engine, "commit", _looking(disk, found))
    report = process(Path(root), Path(delivery))
    json.dump(found | {"written": disk.written, "synced": disk.synced, "failed": report["failed"]}, sys.stdout)


def _looking(disk: Disk, found: dict[str, Any]) -> Callable[[sa.Connection], None]:
    def look(connection: sa.Connection) -> None:
        if not connection.get_execution_options().get("stixflow_writes"):
            return
        if not sa.inspect(connection).has_table("partition"):
            return
        staged = connection.execute(sa.text("SELECT path FROM partition WHERE collected IS NULL")).scalars()
        paths = {*garbage._pointed_to(connection), *staged}
        found["commits"] += 1
        found["pointers"] = max(found["pointers"], len(paths))
        found["lost"] += [path.removeprefix(f"{disk.root}/") for path in disk.lost(paths)]

    return look


if __name__ == "__main__":
    main(*sys.argv[1:])
