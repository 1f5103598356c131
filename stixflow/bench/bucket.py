"""A bucket in memory that counts what it is asked: requests and bytes of any operation, the same at each run."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

ROOT = "s3://bench"


@contextmanager
def counted_bucket() -> Iterator[Counter[str]]:
    """Serve every ``s3://`` URL of this process from memory for a ``with`` block; give what was asked of it.

    Counted are `requests`, `bytes_read` and `bytes_written`, and the requests of each kind: `get`, `put`, `head`,
    `list`, `delete`.
    """
    _CountedBucket.counts = Counter()
    _CountedBucket.store = {}
    usual = fsspec.get_filesystem_class("s3")
    fsspec.register_implementation("s3", _CountedBucket, clobber=True)
    _CountedBucket.clear_instance_cache()
    try:
        yield _CountedBucket.counts
    finally:
        fsspec.register_implementation("s3", usual, clobber=True)
        _CountedBucket.store = {}


class _CountedBucket(MemoryFileSystem):  # type: ignore[misc]
    """Objects in memory under the protocol of S3."""

    protocol = ("s3", "s3a")
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    counts: ClassVar[Counter[str]] = Counter()
    _lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol("memory://" + path.removeprefix("s3://").lstrip("/")))

    def _note(self, kind: str, *, read: int = 0, written: int = 0) -> None:
        with self._lock:
            self.counts.update({"requests": 1, kind: 1, "bytes_read": read, "bytes_written": written})

    def info(self, path: str, **more: Any) -> Any:
        self._note("head")
        return super().info(path, **more)

    def find(self, path: str, *, detail: bool = False, **_: Any) -> Any:
        self._note("list")
        prefix = self._strip_protocol(path) + "/"
        found = {name: store for name, store in self.store.items() if name.startswith(prefix)}
        listed = {name: {"name": name, "size": len(held.getvalue()), "type": "file"} for name, held in found.items()}
        return listed if detail else sorted(listed)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        held = self.store.get(self._strip_protocol(path))
        if held is None:
            self._note("get")
            raise FileNotFoundError(path)
        data = bytes(held.getvalue()[start:end])
        self._note("get", read=len(data))
        return data

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        from fsspec.implementations.memory import MemoryFile

        name = self._strip_protocol(path)
        self.store[name] = MemoryFile(self, name, value)
        self._note("put", written=len(value))

    def rm_file(self, path: str) -> None:
        self._note("delete")
        self.store.pop(self._strip_protocol(path), None)

    def rm(self, path: str, recursive: bool = False, **_: Any) -> None:
        prefix = self._strip_protocol(path)
        for name in [name for name in self.store if name == prefix or (recursive and name.startswith(prefix + "/"))]:
            self.rm_file(name)
