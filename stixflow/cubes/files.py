"""The objects of a store, on a local disk or in a bucket: the one place that knows kinds of storage."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from stixflow.errors import StoreError, UsageError

READERS = 8
"""Threads that wait for many objects at once."""


class Files(Protocol):
    """The objects below one URL."""

    url: str

    def exists(self, key: str) -> bool: ...

    def list(self) -> dict[str, int]:
        """Return every key with its length in bytes; nothing where there is no store."""

    def get(self, key: str) -> bytes: ...

    def get_many(self, keys: Sequence[str]) -> Iterator[tuple[str, bytes]]: ...

    def put(self, objects: Mapping[str, bytes], *, last: str) -> None:
        """Write all objects, `last` after the others; leave nothing that could pass for a store on failure."""

    def remove(self, *, first: str) -> None:
        """Remove everything, `first` before the rest; nothing where there is nothing."""


def open_files(url: str | os.PathLike[str]) -> Files:
    """Return the door to the objects below `url`: the one place that knows kinds of storage."""
    text = os.fspath(url)
    scheme, colon, rest = text.partition("://")
    if not colon:
        return LocalFiles(Path(text))
    if scheme == "file":
        return LocalFiles(Path("/" + rest.lstrip("/")))
    if scheme == "s3":
        return RemoteFiles(text)
    raise UsageError(f"{text} has the scheme {scheme}", expected="a local path or s3://", advice="correct the root")


class LocalFiles:
    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def exists(self, key: str) -> bool:
        return (self.path / key).is_file()

    def list(self) -> dict[str, int]:
        return dict(_walk(self.url, "")) if self.path.is_dir() else {}

    def get(self, key: str) -> bytes:
        return (self.path / key).read_bytes()

    def get_many(self, keys: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        return ((key, self.get(key)) for key in keys)

    def put(self, objects: Mapping[str, bytes], *, last: str) -> None:
        part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        try:
            _write_files(part, {key: data for key, data in objects.items() if key != last})
            _write_files(part, {last: objects[last]})
            if self.path.exists() and not self.exists(last):
                shutil.rmtree(self.path)
            part.rename(self.path)
        except OSError as error:
            raise StoreError(
                f"{self.url} could not be written: {error.strerror or error}",
                expected="room and the right to write, and no other writer of the same store",
                advice="make room or correct the rights, then run again: nothing of it is left behind",
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def remove(self, *, first: str) -> None:
        if self.path.exists():
            (self.path / first).unlink(missing_ok=True)
            shutil.rmtree(self.path)


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.stat().st_size


def _write_files(folder: Path, objects: Mapping[str, bytes]) -> None:
    for parent in {(folder / key).parent for key in objects}:
        parent.mkdir(parents=True, exist_ok=True)
    for key, data in objects.items():
        (folder / key).write_bytes(data)


class RemoteFiles:
    """Objects in a bucket, through fsspec; a store is complete when the object written last is there."""

    def __init__(self, url: str) -> None:
        import fsspec  # type: ignore[import-untyped]

        self.url = url.rstrip("/")
        self._fs, self._path = fsspec.url_to_fs(self.url)

    def exists(self, key: str) -> bool:
        self._fs.invalidate_cache()
        return bool(self._fs.exists(f"{self._path}/{key}"))

    def list(self) -> dict[str, int]:
        self._fs.invalidate_cache()
        found = self._fs.find(self._path, detail=True)
        return {name[len(self._path) + 1 :]: int(entry["size"]) for name, entry in found.items()}

    def get(self, key: str) -> bytes:
        return bytes(self._fs.cat_file(f"{self._path}/{key}"))

    def get_many(self, keys: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        with ThreadPoolExecutor(READERS) as threads:
            yield from zip(keys, threads.map(self.get, keys), strict=True)

    def put(self, objects: Mapping[str, bytes], *, last: str) -> None:
        try:
            self._fs.pipe({f"{self._path}/{key}": data for key, data in objects.items() if key != last})
            self._fs.pipe_file(f"{self._path}/{last}", objects[last])
        except OSError as error:
            raise StoreError(f"{self.url} could not be written: {error}", advice="run again") from error

    def remove(self, *, first: str) -> None:
        if self.exists(first):
            self._fs.rm_file(f"{self._path}/{first}")
        if self.list():
            self._fs.rm(self._path, recursive=True)
