"""Datasets as the objects of a store, in memory.

Objects are encoded in memory and handed over together, because `zarr` spends 2-3 ms on each array it creates and a
request has twenty: small arrays are one chunk whose bytes are made here, sharded ones are encoded by `zarr`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product as cross
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.model import PRODUCTS, Layout, Variable
from stixflow.cubes.store.manifest import as_json

EPOCH_UNITS = "nanoseconds since 1970-01-01"


def encode(datasets: Sequence[xr.Dataset], wanted: Layout | None = None) -> dict[str, bytes]:
    """Return every object of the store but the manifest."""
    objects: dict[str, bytes] = {}
    nodes: dict[str, object] = {}
    for box, dataset in enumerate(datasets):
        nodes[str(box)] = _group(_global_attrs(dataset))
        layout = wanted or PRODUCTS[dataset.attrs["product"]].layout
        for name, model in PRODUCTS[dataset.attrs["product"]].variables.items():
            values = _plain(dataset[name].values)
            grid = Grid.of(dict(zip(model.dims, values.shape, strict=True)), values.dtype, layout)
            nodes[f"{box}/{name}"] = metadata = _array_metadata(values.dtype, grid, model, layout.level)
            chunks = _shards(metadata, values) if grid.shards else _chunks(values, grid, layout.level)
            objects |= {f"{box}/{name}/{key}": data for key, data in chunks}
    objects |= {f"{path}/zarr.json": as_json(node) for path, node in nodes.items()}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": nodes}
    objects["zarr.json"] = as_json(_group({}) | {"consolidated_metadata": consolidated})
    return objects


@dataclass(frozen=True, slots=True)
class Grid:
    """How one array is cut: objects are `shards` of `chunks`, or the chunks themselves."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None

    @classmethod
    def of(cls, sizes: Mapping[str, int], dtype: np.dtype[Any], layout: Layout) -> Grid:
        shape = tuple(sizes.values())
        if math.prod(shape) * dtype.itemsize <= layout.whole_bytes:
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
            yield index, object_key(index)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values.view(np.int64) if values.dtype.kind == "M" else values)


def object_key(index: Sequence[int]) -> str:
    """Name of the object that holds the chunk or shard of that index."""
    # With dots, an array is one folder: with slashes, folders would outnumber the objects.
    return ".".join(("c", *map(str, index)))


def _chunks(values: NDArray[Any], grid: Grid, level: int) -> Iterator[tuple[str, bytes]]:
    """Encode the chunks of an array without shards, those of the edge filled up with zeros."""
    encode = _blosc(values.dtype.itemsize, level)
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
    held = {"zarr.json": prototype.buffer.from_bytes(as_json(metadata))}
    array = zarr.open_array(MemoryStore(held), mode="r+", zarr_format=3)
    array.with_config({"write_empty_chunks": True})[...] = values
    for key, data in held.items():
        if key != "zarr.json":
            yield key, data.to_bytes()


@cache
def _blosc(itemsize: int, level: int) -> Any:
    from numcodecs import blosc  # type: ignore[import-untyped]

    def encode(values: NDArray[Any]) -> bytes:
        # Threads lay down blocks in the order in which they end: equal values would get other bytes and digests.
        threads, blosc.use_threads = blosc.use_threads, False
        try:
            return bytes(blosc.compress(values, b"zstd", level, blosc.BITSHUFFLE, 0, itemsize))
        finally:
            blosc.use_threads = threads

    return encode


def is_blosc(codecs: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]) -> bool:
    """Tell whether chunks are what `_blosc` makes at any level: they are then unpacked without `zarr`."""
    return len(codecs) == 2 and codecs[0] == _bytes_metadata(dtype) and codecs[1]["name"] == "blosc"


def _blosc_metadata(dtype: np.dtype[Any], level: int) -> list[dict[str, object]]:
    configuration = {
        "typesize": dtype.itemsize,
        "cname": "zstd",
        "clevel": level,
        "shuffle": "bitshuffle",
        "blocksize": 0,
    }
    return [_bytes_metadata(dtype), {"name": "blosc", "configuration": configuration}]


def _bytes_metadata(dtype: np.dtype[Any]) -> dict[str, object]:
    return {"name": "bytes"} if dtype.itemsize == 1 else {"name": "bytes", "configuration": {"endian": "little"}}


def _array_metadata(dtype: np.dtype[Any], grid: Grid, model: Variable, level: int) -> dict[str, object]:
    codecs = _blosc_metadata(dtype, level)
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
        return {"units": EPOCH_UNITS, "calendar": "proleptic_gregorian", "long_name": model.long_name}
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
