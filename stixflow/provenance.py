"""What made this: the version of the code, the digest of its inputs, the run, without a word about the machine."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

import stixflow

_PACKAGES = ("numpy", "scipy", "xarray", "zarr", "numcodecs", "astropy", "pandas", "dask", "sqlalchemy")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SUFFIXES = {".py", ".json", ".csv", ".npz"}


@cache
def code_version() -> str:
    """Return ``version+digest``: equal for equal sources and tables of the package, wherever it is installed."""
    root = Path(stixflow.__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*"), key=lambda found: found.relative_to(root).as_posix()):
        if path.suffix in _SUFFIXES and path.is_file():
            total.update(path.relative_to(root).as_posix().encode() + b"\0")
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{stixflow.__version__}+{total.hexdigest()[:12]}"


def input_digest(digests: Iterable[str]) -> str:
    """Return one digest for a set of input digests, whatever their order and repetition."""
    return hashlib.sha256("\n".join(sorted(set(digests))).encode()).hexdigest()


def new_run_id() -> str:
    """Return 26 characters that sort by the time they were made (a ULID: 48 bits of ms, 80 random bits)."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def record(command: str) -> dict[str, object]:
    """Return what a product says of its making: command, time, code and package versions; no host, no path."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"command": command, "created": now, "code_version": code_version(), "packages": dict(_package_versions())}


@cache
def _package_versions() -> tuple[tuple[str, str], ...]:
    return tuple((name, metadata.version(name)) for name in _PACKAGES)
