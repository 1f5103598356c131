"""Files that the archive keeps under the digest of their content: packet sets, ephemeris files, quarantine."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from stixflow.archive.layout import join_url
from stixflow.errors import StoreError
from stixflow.telemetry import Quarantined


@dataclass(frozen=True, slots=True)
class Reject:
    """Bytes in quarantine: why, where they were, and where they are kept below the root."""

    reason: str
    offset: int
    n_bytes: int
    path: str


def write_reject(root: str, entry: Quarantined) -> Reject:
    """Keep bytes that cannot be used in the quarantine of the archive."""
    path = f"quarantine/{hashlib.sha256(entry.data).hexdigest()[:32]}.bin"
    write_kept(root, path, entry.data)
    reason = f"{entry.reason}; expected {entry.expected}" if entry.expected else entry.reason
    return Reject(reason, entry.offset, len(entry.data), path)


def write_kept(root: str, path: str, blob: bytes) -> None:
    """Write a file that is named by the digest of its content, so that it is there whole or not at all."""
    target = Path(join_url(root, path))
    if target.exists() and target.stat().st_size == len(blob):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as stream:
            stream.write(blob)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def is_kept(root: str, path: str) -> bool:
    """Tell whether a file is where it was kept."""
    return Path(join_url(root, path)).is_file()


def read_kept(root: str, path: str, digest: str) -> bytes:
    """Read a kept file.

    Raises
    ------
    StoreError
        If it is not there, or its content is not what was recorded.
    """
    try:
        blob = Path(join_url(root, path)).read_bytes()
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
