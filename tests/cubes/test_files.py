from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import fsspec
import pytest
import xarray as xr
from example_cubes import make_dataset

from stixflow.cubes import files
from stixflow.cubes.store import (
    delete_store,
    is_there,
    manifest,
    open_store,
    reading,
    verify_store,
    verifying,
    write_store,
    writing,
)
from stixflow.errors import StoreError, UsageError


def test_urls_and_their_storage(tmp_path: Path) -> None:
    assert isinstance(files.open_files(tmp_path), files.LocalFiles)
    assert files.open_files(f"file://{tmp_path}").url == str(tmp_path)
    with pytest.raises(UsageError, match="scheme ftp"):
        files.open_files("ftp://host/x")


@pytest.fixture(params=["local", "remote"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> files.Files:
    if request.param == "local":
        return files.LocalFiles(tmp_path / "store")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    return files.RemoteFiles("memory://bucket/store")


class TestObjects:
    def test_what_was_put_is_there(self, place: files.Files) -> None:
        objects = {"a": b"1", "b/c/d": b"", "last": b"333"}
        place.put(objects, last="last")
        assert place.list() == {"a": 1, "b/c/d": 0, "last": 3}
        assert dict(place.get_many(list(objects))) == objects
        assert place.get("last") == b"333"
        assert place.exists("last")

    def test_nothing_there(self, place: files.Files) -> None:
        assert place.list() == {}
        assert not place.exists("a")
        with pytest.raises(FileNotFoundError):
            place.get("a")
        place.remove(first="a")

    def test_removed_is_gone(self, place: files.Files) -> None:
        place.put({"a": b"1", "last": b"3"}, last="last")
        place.remove(first="last")
        assert place.list() == {}

    def test_a_failed_put_is_a_store_error_and_no_store(self, place: files.Files) -> None:
        failing = {"local": "pathlib.Path.write_bytes", "remote": "fsspec.implementations.memory.MemoryFileSystem.pipe"}
        kind = "local" if isinstance(place, files.LocalFiles) else "remote"
        with patch(failing[kind], side_effect=OSError(5, "Input/output error")), pytest.raises(StoreError):
            place.put({"a": b"1", "last": b"3"}, last="last")
        assert not place.exists("last")


def test_a_store_in_a_bucket_behaves_as_on_disk() -> None:
    """Sharded and plain arrays, the manifest, damage and removal, on the in-memory file system of `fsspec`."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    url, dataset = "memory://bucket/run.zarr", make_dataset("sci_pixels", n_time=100, n_energy=8)

    def remote(url: str | os.PathLike[str]) -> files.Files:
        return files.RemoteFiles(os.fspath(url))

    with ExitStack() as patched:
        for module in (manifest, reading, verifying, writing):
            patched.enter_context(patch.object(module, "open_files", remote))
        record = write_store(url, [dataset])
        xr.testing.assert_identical(open_store(url, digest=record.digest).load(), dataset)
        assert verify_store(url, record.digest) == []
        memory.rm_file("/bucket/run.zarr/0/counts/c.0.0.0.0")
        with pytest.raises(StoreError, match=r"c\.0\.0\.0\.0 is missing"):
            open_store(url)
        delete_store(url)
        assert not is_there(url)
