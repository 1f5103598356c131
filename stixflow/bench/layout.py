"""Chunks, shards and packing of a product against what is asked of it: requests, bytes, time; the cheapest wins.

The cost of a layout is the time of writing once and of a declared mix of queries, each the processor time of this
process, its requests at the latency of the storage and its bytes at the speed of the storage.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stixflow.bench.bucket import ROOT, counted_bucket
from stixflow.bench.measuring import Row
from stixflow.compute.cost import usage
from stixflow.cubes.model import PRODUCTS, Layout
from stixflow.cubes.store import open_store, write_store
from stixflow.errors import UsageError
from stixflow.tuning import Tuning


@dataclass(frozen=True, slots=True)
class _Storage:
    """What the storage adds: seconds for a request, bytes a second."""

    latency_s: float
    bytes_per_s: float


_STORAGES: Mapping[str, _Storage] = {"local": _Storage(5e-5, 1e9), "bucket": _Storage(0.03, 1e8)}
"""A disk with its cache, and a bucket in the same region; the answers of a bucket come eight at a time."""
_AT_ONCE = {"local": 1, "bucket": 8}

_Query = Callable[[xr.Dataset], object]


def _minute(cube: xr.Dataset) -> object:
    middle = cube.sizes["time"] // 2
    return cube["counts"].isel(time=slice(middle, middle + 15)).values


_QUERIES: Mapping[str, tuple[float, _Query]] = {
    "image cut": (8.0, _minute),
    "light curve": (2.0, lambda cube: cube["counts"].isel(energy=cube.sizes["energy"] // 3).values),
    "spectrogram": (1.0, lambda cube: cube["counts"].values.sum(axis=(2, 3))),
    "one detector": (0.5, lambda cube: cube["counts"].isel(detector=10).values),
}
"""What is asked of a pixel cube and how often for each time that it is written: 15 bins of all energies for images in
two bands by four methods, one energy of all times, everything summed over pixels, one detector of all."""

TIMES, ENERGIES, SHARDS, LEVELS = (60, 120, 300, 3600), (4, 8, 32), (None, 3600), (1, 3, 6)
_WHOLE_BYTES = (4 << 20, 16 << 20)


def candidates(product: str, *, quick: bool = False) -> list[Layout]:
    """List layouts to try, the present one first."""
    now = PRODUCTS[product].layout
    tried = [
        replace(now, chunks={"time": times, "energy": energies}, shard_time=shard)
        for times in TIMES
        for energies in ENERGIES
        for shard in SHARDS
        if shard is None or times < shard
    ]
    tried += [replace(now, level=level) for level in LEVELS if level != now.level]
    tried = [*(replace(now, whole_bytes=size) for size in _WHOLE_BYTES if size != now.whole_bytes), *tried]
    return [now, *(one for one in (tried[:3] if quick else tried) if one != now)]


def simulated(*, quick: bool = False) -> list[xr.Dataset]:
    """Return pixel cubes of a simulated day: those of its flares and its quiet one."""
    from stixflow.bench.days import pixel_requests

    return pixel_requests(2 if quick else 8)


def _from_archive(root: str, product: str, *, most: int = 12) -> list[xr.Dataset]:
    """Read cubes of an archive, the largest first."""
    from stixflow.archive import open_archive

    archive = open_archive(root)
    found = sorted(archive.catalog.partitions(product), key=lambda item: -item.n_bytes)[:most]
    return [open_store(archive.url(item.path), 0, digest=item.digest).load() for item in found]


def measure_layouts(
    cubes: Sequence[xr.Dataset], layouts: Sequence[Layout], *, storage: str = "local", repetitions: int = 3
) -> list[Row]:
    """Write the cubes in every layout and ask the queries: one row a layout, the cheapest first."""
    rows = [_measure(cubes, layout, storage, repetitions) for layout in layouts]
    return sorted(rows, key=lambda row: row["cost_s"])


def _measure(cubes: Sequence[xr.Dataset], layout: Layout, storage: str, repetitions: int) -> Row:
    row: Row = {"what": describe(layout), "layout": layout, "cubes": len(cubes)}
    with _place(storage) as (root, counts):
        written = [write_store(f"{root}/{i}.zarr", [cube], layout=layout) for i, cube in enumerate(cubes)]
        row |= {
            "kB": round(sum(one.n_bytes for one in written) / 1e3),
            "objects": sum(one.n_objects for one in written),
        }
        again = [f"{root}/again-{n}" for n in range(repetitions)]
        cost = row["write_ms"] = _time(lambda: _write(cubes, layout, again.pop()), repetitions)
        for name, (weight, query) in _QUERIES.items():
            milliseconds, requests, n_bytes = _ask(len(cubes), root, query, counts, repetitions)
            row |= {f"{name}, ms": milliseconds, f"{name}, requests": requests, f"{name}, kB": round(n_bytes / 1e3)}
            kind = _STORAGES[storage]
            waiting = requests * kind.latency_s / _AT_ONCE[storage] + n_bytes / kind.bytes_per_s
            cost += weight * (milliseconds + 1e3 * waiting)
    row["cost_s"] = cost / 1e3
    return row


def _write(cubes: Sequence[xr.Dataset], layout: Layout, root: str) -> None:
    for index, cube in enumerate(cubes):
        write_store(f"{root}/{index}.zarr", [cube], layout=layout)


def _ask(n: int, root: str, query: _Query, counts: Counter[str] | None, repetitions: int) -> tuple[float, int, int]:
    def ask() -> None:
        for index in range(n):
            query(open_store(f"{root}/{index}.zarr"))

    ask()
    before, used = Counter(counts or {}), usage()
    ask()
    read = usage().bytes_read - used.bytes_read
    requests = 0 if counts is None else counts["requests"] - before["requests"]
    n_bytes = read if counts is None else counts["bytes_read"] - before["bytes_read"]
    return _time(ask, repetitions), requests, n_bytes


@contextmanager
def _place(storage: str) -> Iterator[tuple[str, Counter[str] | None]]:
    if storage == "bucket":
        with counted_bucket() as counts:
            yield ROOT, counts
        return
    with tempfile.TemporaryDirectory(prefix="stixflow-bench-") as folder:
        yield str(Path(folder)), None


def _time(call: Callable[[], object], repetitions: int) -> float:
    """Least CPU time of some calls, ms."""
    seconds = []
    for _ in range(repetitions):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    return 1e3 * float(np.min(seconds))


def describe(layout: Layout) -> str:
    """Write a layout in a few words: ``120 x 8 in shards of 3600, whole up to 1 MiB, zstd-3``."""
    cut = " x ".join(str(size) for size in layout.chunks.values())
    shards = f"in shards of {layout.shard_time}" if layout.shard_time else "no shards"
    whole = f"whole up to {layout.whole_bytes / 2**20:g} MiB"
    return f"{cut} {shards}, {whole}, zstd-{layout.level}"


def choose(rows: Sequence[Row], product: str, *, least_gain: float = 0.15) -> Tuning:
    """Return the cheapest layout as a profile; the present one where that gains less than `least_gain`."""
    now = describe(PRODUCTS[product].layout)
    present = next(row for row in rows if row["what"] == now)
    best = rows[0] if rows[0]["cost_s"] < (1 - least_gain) * present["cost_s"] else present
    return Tuning("", {product: best["layout"]})


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows without what JSON cannot hold."""
    return [{name: value for name, value in row.items() if name != "layout"} for row in rows]


def sweep_layouts(
    product: str, *, storage: str = "local", archive: str | None = None, quick: bool = False
) -> list[Row]:
    """Measure every candidate on cubes of an archive, or on simulated ones.

    Raises
    ------
    UsageError
        If the product has no pixels, which is what the queries ask for.
    """
    if product not in ("sci_pixels", "sci_pixel_sums"):
        raise UsageError(f"{product} has no pixel cube", expected="sci_pixels", advice="only those are cut in chunks")
    cubes = _from_archive(archive, product) if archive else simulated(quick=quick)
    return measure_layouts(cubes, candidates(product, quick=quick), storage=storage, repetitions=1 if quick else 3)


def merge_tunings(before: Tuning, found: Sequence[Tuning]) -> Tuning:
    """Join what several benchmarks have derived: layouts of one, batches of the other."""
    layouts, batches = dict(before.layouts), before
    for one in found:
        layouts |= one.layouts
        batches = batches if one.layouts else one
    return Tuning("", layouts, batches.batch_seconds, batches.window)
