"""Writing a store, once, and removing it; what the catalog is told of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from stixflow.cubes.check import check_dataset
from stixflow.cubes.files import Files, open_files
from stixflow.cubes.model import Layout
from stixflow.cubes.store.encoding import encode, plain_attrs
from stixflow.cubes.store.manifest import MANIFEST, as_json, make_manifest, read_manifest
from stixflow.errors import SchemaError, StoreError, UsageError


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """What was written: enough for the catalog, without opening the store again."""

    url: str
    digest: str
    """SHA-256 of the manifest's lines: equal for equal content."""
    n_bytes: int
    n_objects: int
    counts_sum: int
    """Sum of `counts` over all boxes; 0 for a product without counts."""
    n_time: int
    """Time bins of all boxes."""
    boxes: int
    start: np.datetime64
    stop: np.datetime64
    structure: str
    """Digest of the variables and their dimensions, box by box."""
    axes: str
    """Digest of every variable without `time`: equal where two partitions can be joined in time."""
    attrs: Mapping[str, object]
    """Global attributes of the first box."""


def write_store(
    url: str | os.PathLike[str], datasets: Sequence[xr.Dataset], *, layout: Layout | None = None
) -> StoreRecord:
    """Check the boxes of one partition and write them as one store that nobody will write again.

    Parameters
    ----------
    url
        Where the store shall be: a local path ending in ``.zarr``, or an ``s3://`` URL.
    datasets
        One Dataset for each box, all of one product, in the order of their group names.
    layout
        How arrays are cut; by default as the data model says for the product.

    Raises
    ------
    SchemaError
        If a Dataset does not follow the data model, or the boxes do not belong together.
    StoreError
        If a store with other content exists at `url`, or the objects cannot be written. A store with equal content is
        left as it is: a task that ran twice has written once.
    """
    _check_boxes(datasets)
    objects = encode(datasets, layout)
    manifest = make_manifest(objects)
    files = open_files(url)
    digest = str(manifest["digest"])
    if not _already_written(files, digest):
        files.put(objects | {MANIFEST: as_json(manifest)}, last=MANIFEST)
    return _record(files.url, digest, objects, datasets)


def delete_store(url: str | os.PathLike[str]) -> None:
    """Remove a store, the manifest first, so that a half removed one is no store; one that is not there is removed."""
    open_files(url).remove(first=MANIFEST)


def _check_boxes(datasets: Sequence[xr.Dataset]) -> None:
    if not datasets:
        raise UsageError("no Dataset to write", expected="one for each box", advice="do not write empty partitions")
    for dataset in datasets:
        check_dataset(dataset)
    for name in ("product", "request_id", "seq_control", "ssid"):
        values = {dataset.attrs.get(name) for dataset in datasets}
        if len(values) > 1:
            raise SchemaError(
                f"the boxes differ in {name}: {sorted(map(str, values))}",
                expected="the boxes of one request",
                advice="write one store for each request",
            )


def _already_written(files: Files, digest: str) -> bool:
    if not files.exists(MANIFEST):
        return False
    if read_manifest(files)["digest"] == digest:
        return True
    raise StoreError(
        f"{files.url} exists with other content",
        expected="a new place: stores are written once",
        advice="write under a new run id",
    )


def _record(url: str, digest: str, objects: Mapping[str, bytes], datasets: Sequence[xr.Dataset]) -> StoreRecord:
    spans = [_span(dataset) for dataset in datasets]
    return StoreRecord(
        url=url,
        digest=digest,
        n_bytes=sum(map(len, objects.values())),
        n_objects=len(objects),
        counts_sum=sum(int(d["counts"].values.sum(dtype=np.uint64)) for d in datasets if "counts" in d),
        n_time=sum(dataset.sizes["time"] for dataset in datasets),
        boxes=len(datasets),
        start=min(start for start, _ in spans),
        stop=max(stop for _, stop in spans),
        structure=_structure(datasets[0]),
        axes=_axes(datasets),
        attrs=plain_attrs(datasets[0]),
    )


def _span(dataset: xr.Dataset) -> tuple[np.datetime64, np.datetime64]:
    """Return the start of the first bin and the end of the last; of samples, the nanosecond after the last."""
    times = dataset["time"].values
    if "timedel" not in dataset:
        return times[0], times[-1] + np.timedelta64(1, "ns")
    stops = dataset["time_start"].values + np.rint(dataset["timedel"].values * 1e9).astype("timedelta64[ns]")
    return dataset["time_start"].values.min(), stops.max()


def _structure(dataset: xr.Dataset) -> str:
    lines = sorted(f"{name} {variable.dims}" for name, variable in dataset.variables.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _axes(datasets: Iterable[xr.Dataset]) -> str:
    total = hashlib.sha256()
    for dataset in datasets:
        for name in sorted(str(name) for name, variable in dataset.variables.items() if "time" not in variable.dims):
            total.update(f"{name} {dataset[name].dtype} {dataset[name].shape}\n".encode())
            total.update(np.ascontiguousarray(dataset[name].values).tobytes())
    return total.hexdigest()[:16]
