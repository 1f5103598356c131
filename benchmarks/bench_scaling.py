"""Images a second of a large stack on one and on two workers, cut by `imaging.chunks` and fed by `map_batches`.

The same parts of a stack are reconstructed in this process, then on 1 and on 2 workers of a Dask cluster on this
machine, one BLAS thread each. Every result must be bit by bit that of the serial run, or the command fails. Wall time
until all maps are back in this process; the workers have imported everything and made their tables before. The
efficiency is images a second over those of one worker times the workers; "serial" beside it shows what the cluster
itself costs, and "inside" is the time in the reconstruction, summed over the workers: where it grows with their number,
they hinder each other; the rest is transport of the maps. Workers share the cores with whatever else runs, so the load
of the machine is shown too.

    python benchmarks/bench_scaling.py [--quick] [--workers 1 2] [--json]
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from stixflow.compute import Outcome, Pool, Serial, map_batches, open_cluster
from stixflow.imaging import (
    Clean,
    Gaussian,
    Grid,
    MemGE,
    chunks,
    from_arrays,
    reconstruct,
    source_visibilities,
)
from stixflow.imaging.reconstruction import Method
from stixflow.instrument import detectors, subcollimators

METHODS: dict[str, Method] = {"clean": Clean(), "mem_ge": MemGE()}
IMAGES = {"clean": 8192, "mem_ge": 1488}
"""A few seconds of serial work each."""
QUICK = {"clean": 992, "mem_ge": 248}
GRID = Grid(65, 2.0)
PART_BYTES = {"clean": 32 << 20, "mem_ge": 8 << 20}
"""About 0.1 s of work a part: far more than the cost of a task, and two workers end nearly together."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a sixth to an eighth of the images")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(QUICK if options.quick else IMAGES, options.workers)
    if options.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    sys.stdout.write("method    workers  images  seconds   inside  images/s  efficiency  load\n")
    for row in rows:
        efficiency = f"{row['efficiency']:.2f}" if row["efficiency"] is not None else ""
        sys.stdout.write(
            f"{row['method']:8} {row['workers'] or 'serial':>8} {row['images']:7d} {row['seconds']:8.2f} "
            f"{row['inside_seconds']:8.2f} {row['images_per_second']:9.0f} {efficiency:>11} {row['load']:5.1f}\n"
        )


def measure(images: dict[str, int], workers: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of every method, serial first, then on each number of workers."""
    work = {name: _parts(images[name], PART_BYTES[name]) for name in METHODS}
    rows, wanted = [], {}
    for name, parts in work.items():
        _warm(name, parts[:1], Serial())
        seconds, inside, wanted[name] = _timed(name, parts, Serial())
        rows.append(_row(name, 0, images[name], seconds, inside))
    for n_workers in workers:
        with open_cluster(n_workers) as pool:
            for name, parts in work.items():
                _warm(name, parts[:1] * 2 * n_workers, pool)
                seconds, inside, found = _timed(name, parts, pool)
                _check_identical(found, wanted[name])
                rows.append(_row(name, n_workers, images[name], seconds, inside))
    for row in rows:
        ones = [other for other in rows if other["method"] == row["method"] and other["workers"] == 1]
        if row["workers"] and ones:
            row["efficiency"] = row["images_per_second"] / (ones[0]["images_per_second"] * row["workers"])
    return sorted(rows, key=lambda row: (row["method"], row["workers"]))


def _row(name: str, n_workers: int, images: int, seconds: float, inside: float) -> dict[str, Any]:
    return {
        "method": name,
        "workers": n_workers,
        "images": images,
        "seconds": seconds,
        "inside_seconds": inside,
        "images_per_second": images / seconds,
        "efficiency": None,
        "load": os.getloadavg()[0],
    }


def _parts(n: int, part_bytes: int) -> list[xr.Dataset]:
    """A stack of two-source flares with noise, in parts; fixed seed."""
    random, k = np.random.default_rng(20221109), subcollimators()
    u, v = detectors().u[k], detectors().v[k]
    places = random.uniform(-25, 25, (64, 4))
    vis = np.stack(
        [source_visibilities([Gaussian(6.0, a, b, 14.0), Gaussian(3.0, c, d, 10.0)], u, v) for a, b, c, d in places]
    )
    noise = random.standard_normal((2, n, k.size)) * 0.3
    data = from_arrays(u, v, np.resize(vis, (n, k.size)) + noise[0] + 1j * noise[1], np.full((n, k.size), 0.3))
    return list(chunks(data, GRID, budget_bytes=part_bytes))


def _timed(name: str, parts: Sequence[xr.Dataset], pool: Pool) -> tuple[float, float, list[xr.Dataset]]:
    start = time.perf_counter()
    outcomes = list(map_batches(partial(reconstruct, grid=GRID, method=METHODS[name]), parts, pool=pool, batch_size=1))
    seconds = time.perf_counter() - start
    inside = sum(outcome.seconds for outcome in outcomes)
    return seconds, inside, [_value(outcome) for outcome in sorted(outcomes, key=lambda outcome: outcome.index)]


def _warm(name: str, parts: Sequence[xr.Dataset], pool: Pool) -> None:
    """Imports and tables of every worker: a part of two images, twice for each."""
    _timed(name, [part.isel(image=slice(0, 2)) for part in parts], pool)


def _value(outcome: Outcome[xr.Dataset]) -> xr.Dataset:
    if outcome.value is None:
        raise SystemExit(f"part {outcome.index} was not reconstructed: {outcome.error}")
    return outcome.value


def _check_identical(found: Sequence[xr.Dataset], wanted: Sequence[xr.Dataset]) -> None:
    differing = [i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if not _is_same(a, b)]
    if differing:
        raise SystemExit(f"parts {differing} are not those of the serial run")


def _is_same(found: xr.Dataset, wanted: xr.Dataset) -> bool:
    names = set(map(str, wanted.variables))
    return set(map(str, found.variables)) == names and all(
        found[name].dtype == wanted[name].dtype
        and found[name].to_numpy().tobytes() == wanted[name].to_numpy().tobytes()
        for name in names
    )


if __name__ == "__main__":
    main()
