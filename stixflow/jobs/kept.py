"""Files that the archive keeps under the digest of their content: packet sets, ephemeris files, quarantine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stixflow.archive.layout import check_path
from stixflow.cubes.files import open_files
from stixflow.errors import StoreError
from stixflow.telemetry import Quarantined


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that the archive does not take, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Bytes in quarantine: why, where they were, and where they are kept below the root."""

    reason: str
    offset: int
    n_bytes: int
    path: str


def write_rejects(root: str, entries: Iterable[Quarantined]) -> tuple[Reject, ...]:
    """Keep bytes that cannot be used in the quarantine of the archive."""
    found = [(_reject(entry), entry.data) for entry in entries]
    write_all_kept(root, {one.path: data for one, data in found})
    return tuple(one for one, _ in found)


def _reject(entry: Quarantined) -> Reject:
    path = f"quarantine/{hashlib.sha256(entry.data).hexdigest()[:32]}.bin"
    reason = f"{entry.reason}; expected {entry.expected}" if entry.expected else entry.reason
    return Reject(reason, entry.offset, len(entry.data), path)


def write_kept(root: str, path: str, blob: bytes) -> None:
    """Write a file that is named by the digest of its content; see `write_all_kept`."""
    write_all_kept(root, {path: blob})


def write_all_kept(root: str, blobs: Mapping[str, bytes]) -> None:
    """Write files that are named by the digest of their content: each whole, and all safe from a loss of power."""
    for path in blobs:
        check_path(path)
    open_files(root).keep(blobs)


def kept_of(root: str, paths: Iterable[str]) -> set[str]:
    """Return those of many paths where a file is kept: one question after the other takes long in a bucket."""
    return open_files(root).present([check_path(path) for path in paths])


def read_kept(root: str, path: str, digest: str) -> bytes:
    """Read a kept file.

    Raises
    ------
    StoreError
        If it is not there, or its content is not what was recorded.
    """
    try:
        blob = open_files(root).get(check_path(path))
    except FileNotFoundError as error:
        raise StoreError(
            f"{path} is not there", expected="a file that the archive keeps", advice="ingest the file it came in again"
        ) from error
    if hashlib.sha256(blob).hexdigest() != digest:
        raise StoreError(
            f"{path} does not have the content that was recorded",
            expected=f"SHA-256 {digest}",
            advice="restore it from a copy, or remove it and ingest the file it came in again",
        )
    return blob
