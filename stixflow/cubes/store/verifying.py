"""Reading every object of a store, and telling all that is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stixflow.cubes.files import Files, open_files
from stixflow.cubes.store.encoding import Grid
from stixflow.cubes.store.manifest import MANIFEST, missing_objects, read_manifest
from stixflow.cubes.store.reading import objects_of, read_nodes
from stixflow.errors import StoreError


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong with a store."""

    url: str
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.url}: {self.key}: {self.problem}"


def verify_store(url: str | os.PathLike[str], digest: str | None = None) -> list[Defect]:
    """Read every object of a store and report whatever differs from its manifest, its metadata or `digest`."""
    files = open_files(url)
    try:
        manifest = read_manifest(files)
    except StoreError as error:
        return [Defect(files.url, MANIFEST, error.found)]
    found = [Defect(files.url, key, problem) for key, problem in _problems(files, manifest)]
    if digest is not None and manifest["digest"] != digest:
        found.append(Defect(files.url, MANIFEST, f"the store has the digest {manifest['digest']}, not {digest}"))
    return found


def _problems(files: Files, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found = files.list()
    gone = missing_objects(found, manifest)
    yield from gone
    for key in sorted(found.keys() - manifest["objects"].keys() - {MANIFEST}):
        yield key, "is not in the manifest"
    readable = [key for key in manifest["objects"] if key not in {name for name, _ in gone}]
    for key, data in files.get_many(readable):
        if hashlib.sha256(data).hexdigest() != manifest["objects"][key][1]:
            yield key, "differs from its SHA-256"
    if "zarr.json" in readable:
        yield from _unexpected_keys(files, manifest)


def _unexpected_keys(files: Files, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Compare the objects that the metadata imply with those of the manifest."""
    try:
        nodes = read_nodes(files)
        wanted = {key for path, node in nodes.items() for key in _implied(path, node)} | {"zarr.json"}
    except (ValueError, KeyError, TypeError) as error:
        yield "zarr.json", f"is not the metadata of a store: {error!r}"
        return
    for key in sorted(wanted - manifest["objects"].keys()):
        yield key, "is implied by the metadata and not in the manifest"


def _implied(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    yield f"{path}/zarr.json"
    if node["node_type"] == "array":
        for _, key in Grid(tuple(node["shape"]), objects_of(node), None).object_keys():
            yield f"{path}/{key}"
