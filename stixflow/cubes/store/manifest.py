"""The books of a store: length and SHA-256 of every object, and what of it is there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stixflow.cubes.files import Files, open_files
from stixflow.errors import StoreError

MANIFEST = "manifest.json"

_MANIFEST_VERSION = 1


def check_complete(files: Files, digest: str | None) -> dict[str, Any]:
    """Return the manifest; refuse a store of which an object is missing or cut short.

    Raises
    ------
    StoreError
        If an object is missing or cut short, or the digest is not the one asked for.
    """
    manifest = read_manifest(files)
    problems = missing_objects(files.list(), manifest)
    if digest is not None and manifest["digest"] != digest:
        problems.append((MANIFEST, f"has the digest {manifest['digest']}, not {digest}"))
    if problems:
        raise StoreError(
            f"{files.url} is damaged: {'; '.join(f'{key} {what}' for key, what in problems[:5])}"
            + (f" and {len(problems) - 5} more" if len(problems) > 5 else ""),
            expected="every object of its manifest",
            advice="run `stixflow verify`, then roll back or reprocess this partition",
        )
    return manifest


def make_manifest(objects: Mapping[str, bytes]) -> dict[str, object]:
    """Length and SHA-256 of every object, and the digest of all of them."""
    lines = {key: [len(data), hashlib.sha256(data).hexdigest()] for key, data in sorted(objects.items())}
    return {"version": _MANIFEST_VERSION, "digest": _digest_of(lines), "objects": lines}


def _digest_of(lines: Mapping[str, Sequence[object]]) -> str:
    text = "".join(f"{key} {size} {digest}\n" for key, (size, digest) in sorted(lines.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(files: Files) -> dict[str, Any]:
    """Manifest of a store, which agrees with its own digest.

    Raises
    ------
    StoreError
        If it is not there, or cannot be what was written.
    """
    try:
        manifest = json.loads(files.get(MANIFEST))
        lines = {str(key): (int(size), str(digest)) for key, (size, digest) in manifest["objects"].items()}
        whole = manifest["version"] == _MANIFEST_VERSION and manifest["digest"] == _digest_of(lines)
    except FileNotFoundError as error:
        raise StoreError(
            f"{files.url} is not there, or was never completed",
            expected=f"a store with its {MANIFEST}",
            advice="reprocess this partition; nothing half written was ever published",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{files.url} has an unreadable manifest: {error}", advice="reprocess it") from error
    if not whole:
        raise StoreError(f"{files.url} has a manifest that does not match its own digest", advice="reprocess it")
    return dict(manifest)


def missing_objects(found: Mapping[str, int], manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Compare names and lengths, without reading an object."""
    problems = []
    for key, (size, _) in manifest["objects"].items():
        if key not in found:
            problems.append((key, "is missing"))
        elif found[key] != size:
            problems.append((key, f"has {found[key]} bytes instead of {size}"))
    return problems


def as_json(document: object) -> bytes:
    """Write a document as compact JSON; NaN and infinity are refused."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def count_boxes(url: str | os.PathLike[str]) -> int:
    """Return how many boxes a store holds."""
    keys = read_manifest(open_files(url))["objects"]
    return len({key.split("/")[0] for key in keys if "/" in key})


def is_there(url: str | os.PathLike[str]) -> bool:
    """Tell whether a store was completed at `url` and its manifest is still there; nothing is read."""
    return open_files(url).exists(MANIFEST)


def which_are_there(root: str, paths: Iterable[str]) -> set[str]:
    """Return those of many paths below `root` where a store was completed; nothing is read."""
    found = open_files(root).present([f"{path}/{MANIFEST}" for path in paths])
    return {key.removesuffix(f"/{MANIFEST}") for key in found}
