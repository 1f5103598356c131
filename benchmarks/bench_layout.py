"""Measure chunks, shards and codecs of a pixel cube, and the size of stores beside the official files.

    python benchmarks/bench_layout.py FITS... [--quick] [--json]

FITS are official level-1 pixel files (xray-cpd) or light curves. First the size of the store that `stixflow` writes
beside the file and its gzip, and the CPU time to open it and read its counts, beside astropy and, where it is there,
stixpy; and the wall time to write it without syncing, synced in one pass as `stixflow` does, and object by object.
Then each cube is written by Zarr in memory with every layout and codec: size, CPU time to write, to read all,
to read a minute of all energies and one energy of all times, and the objects that it takes. Best of three.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import xarray as xr
import zarr
from astropy.io import fits
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.storage import MemoryStore

from stixflow.cubes import durable
from stixflow.cubes import files as store_files
from stixflow.cubes.store import open_store, write_store
from stixflow.fits import read_level1

CODECS: dict[str, Any] = {
    "blosc zstd-3 bitshuffle": BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=4),
    "blosc zstd-1 bitshuffle": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=4),
    "blosc zstd-5 bitshuffle": BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=4),
    "blosc zstd-3 shuffle": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=4),
    "blosc lz4-5 bitshuffle": BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=4),
    "zstd-3": ZstdCodec(level=3),
    "gzip-5": GzipCodec(level=5),
}
LAYOUTS: dict[str, tuple[int, int, int | None]] = {
    "120 x 8 in shards of 3600": (120, 8, 3600),
    "120 x 8, no shards": (120, 8, None),
    "60 x 32, no shards": (60, 32, None),
    "60 x 8 in shards of 3600": (60, 8, 3600),
    "300 x 8 in shards of 3600": (300, 8, 3600),
    "300 x 4 in shards of 3600": (300, 4, 3600),
    "all x 1 in shards of 3600": (3600, 1, 3600),
}
CHOSEN = "120 x 8 in shards of 3600", "blosc zstd-3 bitshuffle"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="official level-1 files (default: the flare of 2020-06-07)")
    parser.add_argument("--quick", action="store_true", help="the chosen codec and layout, and two others of each")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    files = options.files or sorted(
        (Path(__file__).parents[2] / "shared/data/flare_20200607").glob("solo_L1*2137*.fits")
    )
    rows = [row for path in files for row in _measure(path, 3 if options.quick else 99)]
    if options.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    for row in rows:
        sys.stdout.write("  ".join(f"{name} {value}" for name, value in row.items()) + "\n")


def _measure(path: Path, most: int) -> Iterator[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = read_level1(path)
    yield _sizes(path, dataset)
    counts = np.ascontiguousarray(dataset["counts"].to_numpy())
    if counts.ndim != 4:
        return
    for codec in list(CODECS)[:most]:
        yield {"layout": CHOSEN[0], "codec": codec} | _try(counts, CHOSEN[0], codec)
    for layout in list(LAYOUTS)[1:most]:
        yield {"layout": layout, "codec": CHOSEN[1]} | _try(counts, layout, CHOSEN[1])


def _sizes(path: Path, dataset: xr.Dataset) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "a.zarr"
        record = write_store(place, [dataset])
        seconds = {"store_ms": _best(lambda: open_store(place)["counts"].values)} | _syncing(Path(folder), dataset)
    seconds["astropy_ms"] = _best(lambda: _read_astropy(path))
    if importlib.util.find_spec("stixpy"):
        seconds["stixpy_ms"] = _best(lambda: _read_stixpy(path))
    raw = path.read_bytes()
    return {
        "file": path.name,
        "shape": dataset["counts"].shape,
        "fits_kB": round(len(raw) / 1e3),
        "fits_gz_kB": round(len(gzip.compress(raw, 6)) / 1e3),
        "store_kB": round(record.n_bytes / 1e3),
        "objects": record.n_objects,
        **seconds,
    }


def _syncing(folder: Path, dataset: xr.Dataset) -> dict[str, float]:
    """Return what it costs that a store survives a loss of power: wall time, medians, in turns."""
    ways: dict[str, Callable[[list[Path]], object]] = {
        "wall_ms_written": lambda _: None,
        "wall_ms_synced": durable.survive,
        "wall_ms_each_synced": durable._sync_each,
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(15):
        for name, way in ways.items():
            with patch.object(store_files, "survive", lambda paths, way=way: way(list(paths))):
                started = time.perf_counter()
                write_store(folder / f"{name}{number}.zarr", [dataset])
                took[name].append((time.perf_counter() - started) * 1e3)
    return {name: round(float(np.median(values)), 1) for name, values in took.items()}


def _read_astropy(path: Path) -> object:
    with fits.open(path, memmap=False) as hdus:
        return np.asarray(hdus["DATA"].data["counts"]).sum()


def _read_stixpy(path: Path) -> object:
    from stixpy.product import Product

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Product(path)


def _try(counts: NDArray[Any], layout: str, codec: str) -> dict[str, Any]:
    times, energies, shard = LAYOUTS[layout]
    chunks = tuple(min(n, m) for n, m in zip(counts.shape, (times, energies, 32, 12), strict=True))
    whole = (min(shard or times, counts.shape[0]), counts.shape[1], *counts.shape[2:])
    shards = tuple(-(-n // c) * c for n, c in zip(whole, chunks, strict=True)) if shard else None

    def write() -> dict[str, Any]:
        held: dict[str, Any] = {}
        array = zarr.create_array(
            MemoryStore(held),
            shape=counts.shape,
            chunks=chunks,
            shards=shards,
            dtype=counts.dtype,
            compressors=[CODECS[codec]],
            config={"write_empty_chunks": True},
        )
        array[...] = counts
        return held

    held = write()
    array = zarr.open_array(MemoryStore(held), mode="r")
    minute = slice(counts.shape[0] // 2, counts.shape[0] // 2 + 60)
    energy = counts.shape[1] // 3
    return {
        "kB": round(sum(len(data.to_bytes()) for data in held.values()) / 1e3),
        "objects": len(held),
        "write_ms": _best(write),
        "read_ms": _best(lambda: array[...]),
        "minute_ms": _best(lambda: array[minute]),
        "energy_ms": _best(lambda: array[:, energy]),
    }


def _best(function: Callable[[], object]) -> float:
    return round(min(_cpu(function) for _ in range(3)) * 1e3, 1)


def _cpu(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


if __name__ == "__main__":
    main()
