from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from stixflow.cubes import durable
from stixflow.cubes.files import LocalFiles
from stixflow.errors import StoreError

OBJECTS = {"0/a/c": b"1", "0/a/zarr.json": b"2", "manifest.json": b"3"}


@pytest.fixture(autouse=True)
def _forget() -> Any:
    durable._sync_all.cache_clear()
    yield
    durable._sync_all.cache_clear()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the places that are synced one by one, as on systems that cannot do better."""
    places: list[str] = []
    original = durable._sync

    def note(path: Path) -> None:
        places.append(str(path))
        original(path)

    monkeypatch.setattr(durable.sys, "platform", "darwin")
    monkeypatch.setattr(durable, "_sync", note)
    return places


def test_every_file_and_every_folder_above_it(tmp_path: Path, synced: list[str]) -> None:
    store = LocalFiles(tmp_path / "ql/v1/2022/11/09/R.zarr")
    store.put(OBJECTS, last="manifest.json")
    wanted = {store.path / key for key in OBJECTS} | {store.path / "0/a", store.path / "0", store.path}
    assert {str(path) for path in wanted} | {str(above) for above in store.path.parents} == set(synced)
    assert len(synced) == len(set(synced))


def test_one_pass_for_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if durable._sync_all() is None:
        pytest.skip("needs Linux 5.8")
    passes: list[int] = []
    monkeypatch.setattr(durable, "_sync_all", lambda: passes.append)
    LocalFiles(tmp_path / "R.zarr").put(OBJECTS, last="manifest.json")
    assert len(passes) == 1
    LocalFiles(tmp_path).write({"packets/a": b"1", "packets/b": b"2"})
    assert len(passes) == 3  # the bytes, then the names


def test_what_is_kept_already_is_synced_all_the_same(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "a").write_bytes(b"1")
    before = (tmp_path / "a").stat().st_mtime_ns
    LocalFiles(tmp_path).keep({"a": b"1"})
    assert (tmp_path / "a").stat().st_mtime_ns == before
    assert str(tmp_path / "a") in synced


def test_a_disk_that_does_not_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that could not be synced is none: the next run writes it again."""

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(durable, "_sync_all", lambda: failing)
    store = LocalFiles(tmp_path / "R.zarr")
    with pytest.raises(StoreError, match="Input/output error"):
        store.put(OBJECTS, last="manifest.json")
    (tmp_path / "kept").write_bytes(b"before")
    with pytest.raises(OSError, match="Input/output error"):
        LocalFiles(tmp_path).write({"kept": b"after"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"kept": b"before"}


def test_the_error_of_the_system_is_told() -> None:
    sync_all = durable._sync_all()
    if sync_all is None:
        pytest.skip("needs Linux 5.8")
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        sync_all(-1)


@pytest.mark.parametrize(("release", "expected"), [("5.7.19-generic", False), ("5.8.0-1", True), ("6.18.44-x", True)])
def test_only_where_errors_are_told(monkeypatch: pytest.MonkeyPatch, release: str, expected: bool) -> None:
    if not hasattr(ctypes.CDLL(None), "syncfs"):
        pytest.skip("needs syncfs")
    monkeypatch.setattr(durable.sys, "platform", "linux")
    monkeypatch.setattr(durable.os, "uname", lambda: os.uname_result(("", "", release, "", "")))
    assert (durable._sync_all() is not None) is expected
