"""Objects on a disk or in a bucket, those of a store or single ones: the one place that knows kinds of storage."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from stixflow.cubes.durable import survive
from stixflow.errors import StoreError, UsageError

READERS = 8
"""Threads that wait for many objects at once."""

_GLANCES = 32
"""Threads that ask whether objects are there, where each question is a round trip."""


class Files(Protocol):
    """The objects below one URL."""

    url: str

    def exists(self, key: str) -> bool: ...

    def present(self, keys: Sequence[str]) -> set[str]:
        """Return those of many keys that are there."""

    def size(self, key: str) -> int | None:
        """Return the length of an object in bytes; None where there is none."""

    def list(self) -> dict[str, int]:
        """Return every key with its length in bytes; nothing where there is no store."""

    def stamps(self) -> dict[str, tuple[int, str]]:
        """Return every key with its length and a mark that changes when it is written again."""

    def get(self, key: str) -> bytes: ...

    def get_many(self, keys: Sequence[str]) -> Iterator[tuple[str, bytes]]: ...

    def put(self, objects: Mapping[str, bytes], *, last: str) -> None:
        """Write all objects, `last` after the others; leave nothing that could pass for a store on failure.

        On return they survive a loss of power, as with `write` and `keep`.
        """

    def write(self, objects: Mapping[str, bytes]) -> None:
        """Write objects, each so that it is there whole or not at all, in place of any earlier one."""

    def keep(self, objects: Mapping[str, bytes]) -> None:
        """Write those of many objects that are not there with their length: for names that tell the content."""

    def remove(self, *, first: str) -> None:
        """Remove everything, `first` before the rest, or the one object at the URL; nothing where there is nothing."""

    def unlink(self, key: str) -> None:
        """Remove one object, or nothing where there is none."""


def open_files(url: str | os.PathLike[str]) -> Files:
    """Return the door to the objects below `url`: the one place that knows kinds of storage.

    Raises
    ------
    UsageError
        If the address is neither a path nor that of a bucket.
    """
    text = os.fspath(url)
    scheme, colon, rest = text.partition("://")
    if not colon:
        return LocalFiles(Path(text))
    if scheme == "file":
        return LocalFiles(Path("/" + rest.lstrip("/")))
    if scheme == "s3":
        return RemoteFiles(text)
    raise UsageError(f"{text} has the scheme {scheme}", expected="a local path or s3://", advice="correct the root")


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """Give the path of a file for the time of a ``with`` block: its own on a local disk, that of a copy elsewhere."""
    folder, _, name = url.rpartition("/")
    files = open_files(folder)
    if isinstance(files, LocalFiles):
        yield files.path / name
        return
    with tempfile.TemporaryDirectory(prefix="stixflow-") as place:
        path = Path(place) / name
        path.write_bytes(files.get(name))
        yield path


class LocalFiles:
    """Objects as files below a folder of a local disk."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def exists(self, key: str) -> bool:
        return (self.path / key).is_file()

    def present(self, keys: Sequence[str]) -> set[str]:
        return {key for key in keys if os.path.isfile(f"{self.url}/{key}")}

    def size(self, key: str) -> int | None:
        target = self.path / key
        return target.stat().st_size if target.is_file() else None

    def list(self) -> dict[str, int]:
        return dict(_walk(self.url, "")) if self.path.is_dir() else {}

    def stamps(self) -> dict[str, tuple[int, str]]:
        found = {}
        for key in self.list():
            with suppress(FileNotFoundError):
                stat = (self.path / key).stat()
                found[key] = (stat.st_size, f"{stat.st_mtime_ns}.{stat.st_ino}")
        return found

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
            self._survive(objects)
        except OSError as error:
            raise StoreError(
                f"{self.url} could not be written: {error.strerror or error}",
                expected="room and the right to write, and no other writer of the same store",
                advice="make room or correct the rights, then run again: nothing of it is left behind",
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _survive(self, objects: Iterable[str]) -> None:
        try:
            survive(self.path / key for key in objects)
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def write(self, objects: Mapping[str, bytes]) -> None:
        targets = [self.path / key for key in objects]
        parts = [target.with_name(f".{target.name}.{secrets.token_hex(4)}.part") for target in targets]
        try:
            for part, data in zip(parts, objects.values(), strict=True):
                part.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(data)
            # First the bytes, then the names: a name that survived without its bytes would hide what it replaced.
            survive(parts)
            for part, target in zip(parts, targets, strict=True):
                part.replace(target)
            survive(targets)
        finally:
            for part in parts:
                part.unlink(missing_ok=True)

    def keep(self, objects: Mapping[str, bytes]) -> None:
        there = {key for key, data in objects.items() if self.size(key) == len(data)}
        self.write({key: data for key, data in objects.items() if key not in there})
        survive(self.path / key for key in there)  # a run that was killed may have written them a moment ago

    def remove(self, *, first: str) -> None:
        if self.path.is_dir() and not self.path.is_symlink():  # a link goes, never what it leads to
            (self.path / first).unlink(missing_ok=True)
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)

    def unlink(self, key: str) -> None:
        (self.path / key).unlink(missing_ok=True)


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    # A writer may end, or a store be removed, while its folder is walked: what is gone is not there.
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
                continue
            with suppress(FileNotFoundError):
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
        # Listings that were kept would show what has been removed since, and hide what has been written. To read in
        # pieces at once, s3fs asks for the length of every object before it reads it: twice the requests.
        self._fs, self._path = fsspec.url_to_fs(self.url, use_listings_cache=False, max_concurrency=1)

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def present(self, keys: Sequence[str]) -> set[str]:
        return {key for key, size in zip(keys, self._sizes(keys), strict=True) if size is not None}

    def _sizes(self, keys: Iterable[str]) -> list[int | None]:
        with ThreadPoolExecutor(_GLANCES) as threads:
            return list(threads.map(self.size, keys))

    def size(self, key: str) -> int | None:
        try:
            found = self._call("info", self._name(key))
        except FileNotFoundError:
            return None
        return int(found["size"]) if found["type"] == "file" else None

    def list(self) -> dict[str, int]:
        found = self._call("find", self._path, detail=True)
        return {name[len(self._path) + 1 :]: int(entry["size"]) for name, entry in found.items()}

    def stamps(self) -> dict[str, tuple[int, str]]:
        found = self._call("find", self._path, detail=True)
        marks = {name: f"{entry.get('ETag', '')} {entry.get('LastModified', '')}" for name, entry in found.items()}
        return {name[len(self._path) + 1 :]: (int(found[name]["size"]), mark) for name, mark in marks.items()}

    def get(self, key: str) -> bytes:
        return bytes(self._call("cat_file", self._name(key)))

    def get_many(self, keys: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        with ThreadPoolExecutor(READERS) as threads:
            yield from zip(keys, threads.map(self.get, keys), strict=True)

    def put(self, objects: Mapping[str, bytes], *, last: str) -> None:
        self._send({key: data for key, data in objects.items() if key != last})
        self._send({last: objects[last]})

    def write(self, objects: Mapping[str, bytes]) -> None:
        if objects:
            self._send(objects)

    def keep(self, objects: Mapping[str, bytes]) -> None:
        sizes = dict(zip(objects, self._sizes(objects), strict=True))
        self.write({key: data for key, data in objects.items() if sizes[key] != len(data)})

    def _send(self, objects: Mapping[str, bytes]) -> None:
        try:
            self._call("pipe", {self._name(key): data for key, data in objects.items()})
        except FileNotFoundError as error:
            raise StoreError(f"{self.url} is in no bucket", expected="a bucket", advice="correct the root") from error

    def remove(self, *, first: str) -> None:
        self.unlink(first)
        if self.list():
            self._call("rm", self._path, recursive=True)

    def unlink(self, key: str) -> None:
        if self.exists(key):
            self._call("rm_file", self._name(key))

    def _name(self, key: str) -> str:
        return f"{self._path}/{key}"

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Ask the bucket; an answer that is not about the object itself is a `StoreError`."""
        try:
            return getattr(self._fs, method)(*arguments, **options)
        except FileNotFoundError:
            raise
        except Exception as error:
            if not _is_transport(error):
                raise
            raise StoreError(
                f"{self.url} cannot be reached or refuses: {str(error) or type(error).__name__}",
                expected="a bucket that answers and may be read and written",
                advice="check the network, the endpoint and the rights, then run again: nothing half written is shown",
            ) from error


def _is_transport(error: Exception) -> bool:
    """Tell errors of network, service and rights from those of the program; botocore's own are no `OSError`."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp")
