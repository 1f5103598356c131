"""One immutable Zarr v3 store per partition and run: the one gate for writing, strict opening, verification.

A store holds one group per box (``0``, ``1``, ...), consolidated metadata at its root, and ``manifest.json``: length
and SHA-256 of every object, and the digest of those lines, which is the digest of the store. The manifest is written
last, so a store without one is what a killed writer left behind. On a local disk the store appears by one rename.

Objects are encoded in memory and handed over together, because `zarr` spends 2-3 ms on each array it creates and a
request has twenty: small arrays are one chunk whose bytes are made here, sharded ones are encoded by `zarr`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product as cross
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from stixflow.cubes.check import check_dataset
from stixflow.cubes.files import READERS, Files, open_files
from stixflow.cubes.model import PRODUCTS, Layout, Variable
from stixflow.errors import SchemaError, StoreError, UsageError

if TYPE_CHECKING:
    import zarr

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1

_WHOLE_BYTES = 1 << 20
"""An array up to this size is one chunk: cutting it would cost more requests than it saves bytes."""
_EPOCH_UNITS = "nanoseconds since 1970-01-01"


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


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong with a store."""

    url: str
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.url}: {self.key}: {self.problem}"


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
    objects = _encode(datasets, layout)
    manifest = _manifest(objects)
    files = open_files(url)
    digest = str(manifest["digest"])
    if not _already_written(files, digest):
        files.put(objects | {MANIFEST: _json(manifest)}, last=MANIFEST)
    return _record(files.url, digest, objects, datasets)


def open_store(
    url: str | os.PathLike[str], box: int = 0, *, digest: str | None = None, dask: bool = False
) -> xr.Dataset:
    """Open one box of a complete store; values are read when they are used.

    Parameters
    ----------
    digest
        What the store should hold, as its `StoreRecord` said; None does not ask.
    dask
        Whether to return Dask arrays, cut as the store is; otherwise values are kept once they were read.

    Raises
    ------
    StoreError
        If the store is not there, not the one of `digest`, incomplete, or an object is missing or cut short: its
        values would read as zeros.
    UsageError
        If the store has no such box.
    """
    files = open_files(url)
    _check_complete(files, digest)
    nodes = _read_nodes(files)
    if str(box) not in nodes:
        raise UsageError(f"{files.url} has no box {box}", expected="one of its boxes", advice="choose another")
    prefix, attrs = f"{box}/", dict(nodes[str(box)]["attributes"])
    beside = set(attrs.pop("coordinates", "").split())
    variables = {
        path.removeprefix(prefix): _lazy_variable(files.url, path, node, dask=dask)
        for path, node in nodes.items()
        if path.startswith(prefix)
    }
    coords = {name for name, variable in variables.items() if name in beside or variable.dims == (name,)}
    return xr.Dataset(
        {name: variable for name, variable in variables.items() if name not in coords},
        {name: variables[name] for name in variables if name in coords},
        attrs,
    )


def open_joined(stores: Sequence[tuple[str, str | None]]) -> xr.Dataset:
    """Join the first boxes of stores in time: Dask arrays of one block a store, read when they are computed.

    Opens a year of days in the time that `open_store` and `xarray.concat` take for a month, because nothing but the
    manifests, the metadata and the times is read here.

    Parameters
    ----------
    stores
        URL and digest of each store (None does not ask), in order of time. Every variable without `time` is taken
        from the first one, and of the attributes those that all have alike.

    Raises
    ------
    StoreError
        As `open_store`, for any of them.
    """
    first = open_store(stores[0][0], digest=stores[0][1])
    with ThreadPoolExecutor(READERS) as threads:
        opened = list(threads.map(lambda store: _open_quickly(*store), stores))
    urls = tuple(url for url, _ in stores)
    nodes = [nodes for nodes, _ in opened]
    joined: dict[Hashable, xr.Variable] = {
        name: variable if "time" not in variable.dims else _joined_variable(str(name), variable, urls, nodes)
        for name, variable in first.variables.items()
    }
    joined["time"] = xr.Variable("time", np.concatenate([times for _, times in opened]), first["time"].attrs)
    axes = {name: variable.compute() for name, variable in joined.items() if "time" not in variable.dims}
    coords = {name: axes.get(name, joined[name]) for name in first.coords}
    values = {name: axes.get(name, joined[name]) for name in first.data_vars}
    return xr.Dataset(values, coords, _common_attrs(first.attrs, nodes))


def verify_store(url: str | os.PathLike[str], digest: str | None = None) -> list[Defect]:
    """Read every object of a store and report whatever differs from its manifest, its metadata or `digest`."""
    files = open_files(url)
    try:
        manifest = _read_manifest(files)
    except StoreError as error:
        return [Defect(files.url, MANIFEST, error.found)]
    found = [Defect(files.url, key, problem) for key, problem in _problems(files, manifest)]
    if digest is not None and manifest["digest"] != digest:
        found.append(Defect(files.url, MANIFEST, f"the store has the digest {manifest['digest']}, not {digest}"))
    return found


def delete_store(url: str | os.PathLike[str]) -> None:
    """Remove a store, the manifest first, so that a half removed one is no store; one that is not there is removed."""
    open_files(url).remove(first=MANIFEST)


def is_there(url: str | os.PathLike[str]) -> bool:
    """Tell whether a store was completed at `url` and its manifest is still there; nothing is read."""
    return open_files(url).exists(MANIFEST)


def which_are_there(root: str, paths: Iterable[str]) -> set[str]:
    """Return those of many paths below `root` where a store was completed; nothing is read."""
    found = open_files(root).present([f"{path}/{MANIFEST}" for path in paths])
    return {key.removesuffix(f"/{MANIFEST}") for key in found}


def count_boxes(url: str | os.PathLike[str]) -> int:
    """Return how many boxes a store holds."""
    keys = _read_manifest(open_files(url))["objects"]
    return len({key.split("/")[0] for key in keys if "/" in key})


# What comes out -------------------------------------------------------------------------------------------------------


def _check_complete(files: Files, digest: str | None) -> None:
    """Refuse a store of which an object is missing or cut short, at the cost of reading its manifest."""
    manifest = _read_manifest(files)
    problems = _missing(files.list(), manifest)
    if digest is not None and manifest["digest"] != digest:
        problems.append((MANIFEST, f"has the digest {manifest['digest']}, not {digest}"))
    if problems:
        raise StoreError(
            f"{files.url} is damaged: {'; '.join(f'{key} {what}' for key, what in problems[:5])}"
            + (f" and {len(problems) - 5} more" if len(problems) > 5 else ""),
            expected="every object of its manifest",
            advice="run `stixflow verify`, then roll back or reprocess this partition",
        )


def _read_nodes(files: Files) -> dict[str, Any]:
    """Return the metadata of every group and array by its path."""
    nodes: dict[str, Any] = json.loads(files.get("zarr.json"))["consolidated_metadata"]["metadata"]
    return nodes


def _common_attrs(attrs: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    others = [node["0"]["attributes"] for node in nodes]
    return {name: value for name, value in attrs.items() if all(other.get(name) == value for other in others)}


def _open_quickly(url: str, digest: str | None) -> tuple[dict[str, Any], NDArray[np.datetime64]]:
    files = open_files(url)
    _check_complete(files, digest)
    nodes = _read_nodes(files)
    return nodes, _read_array(files, "0/time", nodes["0/time"]).view("datetime64[ns]")


def _joined_variable(
    name: str, like: xr.Variable, urls: tuple[str, ...], nodes: Sequence[Mapping[str, Any]]
) -> xr.Variable:
    import dask.array

    mine = [node[f"0/{name}"] for node in nodes]
    is_time = like.dtype.kind == "M"
    dtype = like.dtype if is_time else np.result_type(*{node["data_type"] for node in mine})
    array = dask.array.map_blocks(
        _read_block,
        dask.array.arange(len(urls), chunks=1),
        urls=urls,
        path=f"0/{name}",
        wanted=dtype,
        dtype=dtype,
        chunks=(tuple(node["shape"][0] for node in mine), *((size,) for size in like.shape[1:])),
        new_axis=list(range(1, like.ndim)),
        meta=np.empty((0,) * like.ndim, dtype),
    )
    return xr.Variable(like.dims, array, like.attrs)


def _read_block(block: NDArray[np.int64], *, urls: Sequence[str], path: str, wanted: np.dtype[Any]) -> NDArray[Any]:
    files = open_files(urls[int(block[0])])
    with _nothing_lost(files, path):
        node = json.loads(files.get(f"{path}/zarr.json"))
    values = _read_array(files, path, node)
    return values.view(wanted) if wanted.kind == "M" else values.astype(wanted, copy=False)


class _StoredArray(BackendArray):
    """One array of a store, for xarray: holds where it is, reads what is asked for."""

    def __init__(self, url: str, path: str, node: Mapping[str, Any]) -> None:
        self.url, self.path, self.node = url, path, node
        self.shape = tuple(node["shape"])
        self.dtype = np.dtype("datetime64[ns]" if _is_time(node) else node["data_type"])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        values = np.asarray(_read_array(open_files(self.url), self.path, self.node, key))
        return values.view(self.dtype) if _is_time(self.node) else values


def _lazy_variable(url: str, path: str, node: Mapping[str, Any], *, dask: bool) -> xr.Variable:
    attrs = {name: value for name, value in node["attributes"].items() if not _is_time(node) or name == "long_name"}
    wrap: Any = indexing
    lazy = wrap.LazilyIndexedArray(_StoredArray(url, path, node))
    kept = lazy if dask else wrap.MemoryCachedArray(wrap.CopyOnWriteArray(lazy))
    variable = xr.Variable(node["dimension_names"], kept, attrs, fastpath=True)
    is_index = variable.dims == (path.rpartition("/")[2],)
    extent = _objects_of(node) if "://" in url else _chunks_of(node)
    return variable.chunk(dict(zip(variable.dims, extent, strict=True))) if dask and not is_index else variable


def _is_time(node: Mapping[str, Any]) -> bool:
    return bool(node["attributes"].get("units") == _EPOCH_UNITS)


def _chunks_of(node: Mapping[str, Any]) -> tuple[int, ...]:
    """Return what one read fetches, inside shards too."""
    first = node["codecs"][0]
    sharded = first["name"] == "sharding_indexed"
    return tuple(first["configuration"]["chunk_shape"] if sharded else _objects_of(node))


def _objects_of(node: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the extent of one object."""
    return tuple(node["chunk_grid"]["configuration"]["chunk_shape"])


def _read_array(
    files: Files, path: str, node: Mapping[str, Any], key: tuple[int | slice, ...] | None = None
) -> NDArray[Any]:
    """Read an array, or the part `key` of it: one of a single chunk here, in 0.1 ms, any other through `zarr`."""
    with _nothing_lost(files, path):
        return _read_part(files, path, node, ... if key is None else key)


@contextmanager
def _nothing_lost(files: Files, path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(
            f"{files.url} has lost an object of {path} since it was opened",
            expected="a store that nobody removes while it is read",
            advice="open it again: the archive shows what is published now",
        ) from error


def _read_part(files: Files, path: str, node: Mapping[str, Any], part: Any) -> NDArray[Any]:
    if tuple(node["shape"]) != _chunks_of(node) or node["codecs"] != _blosc_metadata(np.dtype(node["data_type"])):
        return _read_with_zarr(files, path, node, part)
    from numcodecs import blosc  # type: ignore[import-untyped]

    data = files.get(f"{path}/{_object_key([0] * len(node['shape']))}")
    values: NDArray[Any] = np.frombuffer(bytearray(blosc.decompress(data)), node["data_type"])
    return np.asarray(values.reshape(node["shape"])[part])


def _read_with_zarr(files: Files, path: str, node: Mapping[str, Any], part: Any) -> NDArray[Any]:
    import zarr
    from zarr.storage import LocalStore

    keys = [f"{path}/{key}" for key in _keys_of(node, part)]
    if "://" in files.url:
        # A shard is a few megabytes: fetching it whole is one request, where its chunks are thirty and its index one.
        held = {key.removeprefix(f"{path}/"): data for key, data in files.get_many(keys)}
        return np.asarray(_open_in_memory({"zarr.json": _json(node)} | held)[part])
    values = np.asarray(zarr.open_array(LocalStore(files.url, read_only=True), path=path, mode="r")[part])
    # Zarr gives zeros for an object that is gone; one that is there afterwards was there.
    gone = set(keys) - files.present(keys)
    if gone:
        raise FileNotFoundError(min(gone))
    return values


def _keys_of(node: Mapping[str, Any], part: Any) -> Iterator[str]:
    """Walk over the keys of the objects that a part of an array lies in."""
    extent = _objects_of(node)
    asked = part if isinstance(part, tuple) else (slice(None),) * len(extent)
    touched = []
    for size, step, one in zip(node["shape"], extent, asked, strict=True):
        wanted = np.arange(size)[one]
        touched.append(np.unique(np.atleast_1d(wanted) // step).tolist())
    yield from (_object_key(index) for index in cross(*touched))


def _open_in_memory(objects: Mapping[str, bytes]) -> zarr.Array[Any]:
    import zarr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    buffer = default_buffer_prototype().buffer
    return zarr.open_array(
        MemoryStore({key: buffer.from_bytes(data) for key, data in objects.items()}), mode="r+", zarr_format=3
    )


# What goes in ---------------------------------------------------------------------------------------------------------


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
    if _read_manifest(files)["digest"] == digest:
        return True
    raise StoreError(
        f"{files.url} exists with other content",
        expected="a new place: stores are written once",
        advice="write under a new run id",
    )


def _encode(datasets: Sequence[xr.Dataset], wanted: Layout | None = None) -> dict[str, bytes]:
    """Return every object of the store but the manifest."""
    objects: dict[str, bytes] = {}
    nodes: dict[str, object] = {}
    for box, dataset in enumerate(datasets):
        nodes[str(box)] = _group(_global_attrs(dataset))
        layout = wanted or PRODUCTS[dataset.attrs["product"]].layout
        for name, model in PRODUCTS[dataset.attrs["product"]].variables.items():
            values = _plain(dataset[name].values)
            grid = _Grid.of(dict(zip(model.dims, values.shape, strict=True)), values.dtype, layout)
            nodes[f"{box}/{name}"] = metadata = _array_metadata(values.dtype, grid, model)
            chunks = _shards(metadata, values) if grid.shards else _chunks(values, grid)
            objects |= {f"{box}/{name}/{key}": data for key, data in chunks}
    objects |= {f"{path}/zarr.json": _json(node) for path, node in nodes.items()}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": nodes}
    objects["zarr.json"] = _json(_group({}) | {"consolidated_metadata": consolidated})
    return objects


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values.view(np.int64) if values.dtype.kind == "M" else values)


@dataclass(frozen=True, slots=True)
class _Grid:
    """How one array is cut: objects are `shards` of `chunks`, or the chunks themselves."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None

    @classmethod
    def of(cls, sizes: Mapping[str, int], dtype: np.dtype[Any], layout: Layout) -> _Grid:
        shape = tuple(sizes.values())
        if math.prod(shape) * dtype.itemsize <= _WHOLE_BYTES:
            return cls(shape, shape, None)
        chunks = tuple(min(size, layout.chunks.get(name, size)) for name, size in sizes.items())
        if layout.shard_time is None:
            return cls(shape, chunks, None)
        most = {"time": layout.shard_time}
        whole = (min(size, most.get(name, size)) for name, size in sizes.items())
        return cls(shape, chunks, tuple(math.ceil(n / chunk) * chunk for n, chunk in zip(whole, chunks, strict=True)))

    @property
    def objects(self) -> tuple[int, ...]:
        """Extent of one object."""
        return self.shards or self.chunks

    def object_keys(self) -> Iterator[tuple[tuple[int, ...], str]]:
        """Walk over the index and the key of every object."""
        counts = (range(math.ceil(size / step)) for size, step in zip(self.shape, self.objects, strict=True))
        for index in cross(*counts):
            yield index, _object_key(index)


def _object_key(index: Sequence[int]) -> str:
    # With dots, an array is one folder: with slashes, folders would outnumber the objects.
    return ".".join(("c", *map(str, index)))


def _chunks(values: NDArray[Any], grid: _Grid) -> Iterator[tuple[str, bytes]]:
    """Encode the chunks of an array without shards, those of the edge filled up with zeros."""
    encode = _blosc(values.dtype.itemsize)
    for index, key in grid.object_keys():
        part = values[tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, grid.chunks, strict=True))]
        if part.shape != grid.chunks:
            part = np.pad(part, [(0, n - size) for n, size in zip(grid.chunks, part.shape, strict=True)])
        yield key, bytes(encode(np.ascontiguousarray(part)))


def _shards(metadata: Mapping[str, object], values: NDArray[Any]) -> Iterator[tuple[str, bytes]]:
    """Encode the shards of an array with `zarr`, whole ones only, in memory."""
    import zarr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    prototype = default_buffer_prototype()
    held = {"zarr.json": prototype.buffer.from_bytes(_json(metadata))}
    array = zarr.open_array(MemoryStore(held), mode="r+", zarr_format=3)
    array.with_config({"write_empty_chunks": True})[...] = values
    for key, data in held.items():
        if key != "zarr.json":
            yield key, data.to_bytes()


@cache
def _blosc(itemsize: int) -> Any:
    from numcodecs import blosc

    def encode(values: NDArray[Any]) -> bytes:
        return bytes(blosc.compress(values, b"zstd", 3, blosc.BITSHUFFLE, 0, itemsize))

    return encode


def _blosc_metadata(dtype: np.dtype[Any]) -> list[dict[str, object]]:
    configuration = {
        "typesize": dtype.itemsize,
        "cname": "zstd",
        "clevel": 3,
        "shuffle": "bitshuffle",
        "blocksize": 0,
    }
    return [_bytes_metadata(dtype), {"name": "blosc", "configuration": configuration}]


def _bytes_metadata(dtype: np.dtype[Any]) -> dict[str, object]:
    return {"name": "bytes"} if dtype.itemsize == 1 else {"name": "bytes", "configuration": {"endian": "little"}}


def _array_metadata(dtype: np.dtype[Any], grid: _Grid, model: Variable) -> dict[str, object]:
    codecs = _blosc_metadata(dtype)
    if grid.shards:
        index_codecs = [_bytes_metadata(np.dtype("u8")), {"name": "crc32c"}]
        sharding = {
            "chunk_shape": grid.chunks,
            "codecs": codecs,
            "index_codecs": index_codecs,
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": grid.shape,
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": grid.objects}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": {"b": False, "c": [0.0, 0.0]}.get(dtype.kind, 0),
        "codecs": codecs,
        "attributes": _variable_attrs(model),
        "dimension_names": model.dims,
        "storage_transformers": [],
    }


def _variable_attrs(model: Variable) -> dict[str, str]:
    if model.dtypes == ("datetime64[ns]",):
        return {"units": _EPOCH_UNITS, "calendar": "proleptic_gregorian", "long_name": model.long_name}
    return {"units": model.units, "long_name": model.long_name}


def _group(attributes: Mapping[str, object]) -> dict[str, object]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _global_attrs(dataset: xr.Dataset) -> dict[str, object]:
    attrs = plain_attrs(dataset)
    beside = [str(name) for name in dataset.coords if name not in dataset.dims]
    return attrs | ({"coordinates": " ".join(sorted(beside))} if beside else {})


def plain_attrs(dataset: xr.Dataset) -> dict[str, object]:
    """Return the global attributes with NumPy scalars as plain numbers."""
    return {
        str(name): value.item() if isinstance(value, np.generic) else value for name, value in dataset.attrs.items()
    }


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


# The books of a store -------------------------------------------------------------------------------------------------


def _manifest(objects: Mapping[str, bytes]) -> dict[str, object]:
    lines = {key: [len(data), hashlib.sha256(data).hexdigest()] for key, data in sorted(objects.items())}
    return {"version": MANIFEST_VERSION, "digest": _digest_of(lines), "objects": lines}


def _digest_of(lines: Mapping[str, Sequence[object]]) -> str:
    text = "".join(f"{key} {size} {digest}\n" for key, (size, digest) in sorted(lines.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_manifest(files: Files) -> dict[str, Any]:
    try:
        manifest = json.loads(files.get(MANIFEST))
        lines = {str(key): (int(size), str(digest)) for key, (size, digest) in manifest["objects"].items()}
        whole = manifest["version"] == MANIFEST_VERSION and manifest["digest"] == _digest_of(lines)
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


def _missing(found: Mapping[str, int], manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Compare names and lengths, without reading an object."""
    problems = []
    for key, (size, _) in manifest["objects"].items():
        if key not in found:
            problems.append((key, "is missing"))
        elif found[key] != size:
            problems.append((key, f"has {found[key]} bytes instead of {size}"))
    return problems


def _problems(files: Files, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found = files.list()
    gone = _missing(found, manifest)
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
        nodes = _read_nodes(files)
        wanted = {key for path, node in nodes.items() for key in _implied(path, node)} | {"zarr.json"}
    except (ValueError, KeyError, TypeError) as error:
        yield "zarr.json", f"is not the metadata of a store: {error!r}"
        return
    for key in sorted(wanted - manifest["objects"].keys()):
        yield key, "is implied by the metadata and not in the manifest"


def _implied(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    yield f"{path}/zarr.json"
    if node["node_type"] == "array":
        for _, key in _Grid(tuple(node["shape"]), _objects_of(node), None).object_keys():
            yield f"{path}/{key}"


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
