"""Opening stores strictly: what is lost is an error before a value is read, never a zero."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product as cross
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from stixflow.cubes.files import READERS, Files, open_files
from stixflow.cubes.store.encoding import EPOCH_UNITS, is_blosc, object_key
from stixflow.cubes.store.manifest import as_json, check_complete
from stixflow.errors import SchemaError, StoreError, UsageError

if TYPE_CHECKING:
    import zarr


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
    check_complete(files, digest)
    nodes = read_nodes(files)
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
        from the first one, and of the attributes those that all have alike. What stores of another data model do not
        have is left out; the attribute `left_out` names it.

    Raises
    ------
    StoreError
        As `open_store`, for any of them.
    SchemaError
        If data models differ in the dimensions, units or axes of what they both have.
    """
    first = open_store(stores[0][0], digest=stores[0][1])
    with ThreadPoolExecutor(READERS) as threads:
        opened = list(threads.map(lambda store: _open_quickly(*store), stores))
    urls = tuple(url for url, _ in stores)
    nodes = [one.nodes for one in opened]
    left_out = _left_out(opened)
    first = first.drop_vars([name for name in left_out if name in first.variables])
    joined: dict[Hashable, xr.Variable] = {
        name: variable if "time" not in variable.dims else _joined_variable(str(name), variable, urls, nodes)
        for name, variable in first.variables.items()
    }
    joined["time"] = xr.Variable("time", np.concatenate([one.times for one in opened]), first["time"].attrs)
    axes = {name: variable.compute() for name, variable in joined.items() if "time" not in variable.dims}
    coords = {name: axes.get(name, joined[name]) for name in first.coords}
    values = {name: axes.get(name, joined[name]) for name in first.data_vars}
    attrs = _common_attrs(first.attrs, nodes)
    return xr.Dataset(values, coords, attrs | ({"left_out": left_out} if left_out else {}))


def _left_out(opened: Sequence[_Opened]) -> list[str]:
    """Return the variables that not all stores have; refuse stores where one means something else."""
    first, *others = opened
    for other in others:
        if other.meaning != first.meaning:
            _check_means_the_same(first, other)
    names = [set(one.meaning) for one in opened]
    return sorted(set[str]().union(*names) - set[str].intersection(*names))


def _check_means_the_same(one: _Opened, other: _Opened) -> None:
    both = sorted(one.meaning.keys() & other.meaning.keys())
    changed = [name for name in both if one.meaning[name] != other.meaning[name]]
    differing = [name for name in changed if not one.has_same(name, other)]
    if differing:
        raise SchemaError(
            f"{', '.join(differing)} of {other.url} are not what they are in {one.url}",
            expected="a span of one data model",
            advice="ask for the spans apart, or build the older one again: `stixflow reprocess`",
        )


def read_nodes(files: Files) -> dict[str, Any]:
    """Return the metadata of every group and array by its path."""
    nodes: dict[str, Any] = json.loads(files.get("zarr.json"))["consolidated_metadata"]["metadata"]
    return nodes


def _common_attrs(attrs: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    others = [node["0"]["attributes"] for node in nodes]
    return {name: value for name, value in attrs.items() if all(other.get(name) == value for other in others)}


@dataclass(frozen=True, slots=True)
class _Opened:
    """A store of which manifest, metadata and times were read."""

    url: str
    nodes: Mapping[str, Any]
    times: NDArray[np.datetime64]
    meaning: Mapping[str, tuple[object, ...]]
    """Of each variable: dimensions and units, and the digests of its objects where it has no `time`."""

    def has_same(self, name: str, other: _Opened) -> bool:
        """Tell whether a variable means the same; the same axis may have been packed in another way."""
        if self.meaning[name][:2] != other.meaning[name][:2]:
            return False
        return np.array_equal(self.whole(name), other.whole(name))

    def whole(self, name: str) -> NDArray[Any]:
        return _read_array(open_files(self.url), f"0/{name}", self.nodes[f"0/{name}"])


def _open_quickly(url: str, digest: str | None) -> _Opened:
    files = open_files(url)
    lines = check_complete(files, digest)["objects"]
    nodes = read_nodes(files)
    meaning = {}
    for path, node in nodes.items():
        if path.startswith("0/"):
            dims = tuple(node["dimension_names"])
            keys = () if "time" in dims else _keys_of(node, ...)
            digests = tuple(lines[f"{path}/{key}"][1] for key in keys)
            meaning[path.removeprefix("0/")] = (dims, node["attributes"].get("units"), digests)
    times = _read_array(files, "0/time", nodes["0/time"]).view("datetime64[ns]")
    return _Opened(url, nodes, times, meaning)


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
    extent = objects_of(node) if "://" in url else _chunks_of(node)
    return variable.chunk(dict(zip(variable.dims, extent, strict=True))) if dask and not is_index else variable


def _is_time(node: Mapping[str, Any]) -> bool:
    return bool(node["attributes"].get("units") == EPOCH_UNITS)


def _chunks_of(node: Mapping[str, Any]) -> tuple[int, ...]:
    """Return what one read fetches, inside shards too."""
    first = node["codecs"][0]
    sharded = first["name"] == "sharding_indexed"
    return tuple(first["configuration"]["chunk_shape"] if sharded else objects_of(node))


def objects_of(node: Mapping[str, Any]) -> tuple[int, ...]:
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
    if tuple(node["shape"]) != _chunks_of(node) or not is_blosc(node["codecs"], np.dtype(node["data_type"])):
        return _read_with_zarr(files, path, node, part)
    from numcodecs import blosc  # type: ignore[import-untyped]

    data = files.get(f"{path}/{object_key([0] * len(node['shape']))}")
    values: NDArray[Any] = np.frombuffer(bytearray(blosc.decompress(data)), node["data_type"])
    return np.asarray(values.reshape(node["shape"])[part])


def _read_with_zarr(files: Files, path: str, node: Mapping[str, Any], part: Any) -> NDArray[Any]:
    import zarr
    from zarr.storage import LocalStore

    keys = [f"{path}/{key}" for key in _keys_of(node, part)]
    if "://" in files.url:
        # A shard is a few megabytes: fetching it whole is one request, where its chunks are thirty and its index one.
        held = {key.removeprefix(f"{path}/"): data for key, data in files.get_many(keys)}
        return np.asarray(_open_in_memory({"zarr.json": as_json(node)} | held)[part])
    values = np.asarray(zarr.open_array(LocalStore(files.url, read_only=True), path=path, mode="r")[part])
    # Zarr gives zeros for an object that is gone; one that is there afterwards was there.
    gone = set(keys) - files.present(keys)
    if gone:
        raise FileNotFoundError(min(gone))
    return values


def _keys_of(node: Mapping[str, Any], part: Any) -> Iterator[str]:
    """Walk over the keys of the objects that a part of an array lies in."""
    extent = objects_of(node)
    asked = part if isinstance(part, tuple) else (slice(None),) * len(extent)
    touched = []
    for size, step, one in zip(node["shape"], extent, asked, strict=True):
        wanted = np.arange(size)[one]
        touched.append(np.unique(np.atleast_1d(wanted) // step).tolist())
    yield from (object_key(index) for index in cross(*touched))


def _open_in_memory(objects: Mapping[str, bytes]) -> zarr.Array[Any]:
    import zarr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    buffer = default_buffer_prototype().buffer
    return zarr.open_array(
        MemoryStore({key: buffer.from_bytes(data) for key, data in objects.items()}), mode="r+", zarr_format=3
    )
