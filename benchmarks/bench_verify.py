"""What it costs to verify an archive: processor time of a store and of a gigabyte, and what a whole mission takes.

    python benchmarks/bench_verify.py [--days 4] [--rounds 5] [--mission-days 2500] [--gigabytes 60] [--quick] [--json]

Simulates days with every product, makes their cubes and verifies each store several times: all objects are read and
hashed, and what the store holds is compared with the catalog. Requests joined to longer ones stand for large stores.
Processor time of this process, fitted as stores + megabytes; the mission has as many stores a day as these days.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stixflow.archive import Archive, Partition, open_archive
from stixflow.archive.verifying import verify_stores
from stixflow.bench.days import deliver
from stixflow.compute import Serial
from stixflow.cubes.store import open_store, write_store
from stixflow.stages import run_stages
from stixflow.time import TICKS_PER_SECOND

FIRST = date(2022, 6, 1)
TIMES_LONGER = (4, 16, 64)
"""How often the largest request is repeated in time for a larger store."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5, help="each store so often; the least time counts")
    parser.add_argument("--mission-days", type=int, default=2500)
    parser.add_argument("--gigabytes", type=float, default=60.0, help="of cubes, in the mission")
    parser.add_argument("--quick", action="store_true", help="one day, once: correctness only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    days, rounds = (1, 1) if options.quick else (options.days, options.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        told = measure(Path(scratch), days, rounds)
    stores = round(told["stores"] / days * options.mission_days)
    told["mission"] = {"stores": stores, "gigabytes": options.gigabytes}
    told["mission"]["cpu_minutes"] = round(
        (stores * told["ms_per_store"] / 1e3 + options.gigabytes * told["s_per_gigabyte"]) / 60, 1
    )
    sys.stdout.write((json.dumps(told) if options.json else _text(told)) + "\n")


def measure(scratch: Path, days: int, rounds: int) -> dict[str, Any]:
    """Make the archive, verify its stores, and fit what they cost."""
    root = scratch / "archive"
    deliveries = [deliver(FIRST + timedelta(days=n), scratch, flares=10.0, seed=1 + n) for n in range(days)]
    paths = [path for one in deliveries for path in (one.telemetry, one.ephemeris)]
    run_stages(("ingest", "cubes"), paths, root=str(root), pool=Serial(), command="bench")
    archive = open_archive(root)
    items = archive.catalog.partitions()
    timed = [(item, _seconds(archive, item, rounds)) for item in [*items, *_longer(archive, items)]]
    megabytes = np.array([item.n_bytes / 1e6 for item, _ in timed])
    seconds = np.array([spent for _, spent in timed])
    # Errors grow with what is measured: relative residuals.
    terms = np.stack([np.ones_like(megabytes), megabytes], axis=1) / seconds[:, None]
    (store, megabyte), *_ = np.linalg.lstsq(terms, np.ones_like(seconds))
    return {
        "stores": len(items),
        "megabytes": round(sum(item.n_bytes for item in items) / 1e6, 2),
        "largest_megabytes": round(float(megabytes.max()), 2),
        "ms_per_store": round(1e3 * float(store), 2),
        "s_per_gigabyte": round(1e3 * float(megabyte), 2),
        "scatter": round(float(np.std(terms @ (store, megabyte))), 2),
    }


def _seconds(archive: Archive, item: Partition, rounds: int) -> float:
    best = np.inf
    for _ in range(rounds):
        started = time.process_time()
        defects = verify_stores(archive.catalog, archive.root, [item])
        best = min(best, time.process_time() - started)
        assert defects == [], defects
    return float(best)


def _longer(archive: Archive, items: list[Partition]) -> list[Partition]:
    """Write the largest request several times longer, as large requests are, and return it as partitions."""
    largest = max((item for item in items if item.product == "sci_pixels" and item.boxes == 1), key=lambda x: x.n_time)
    cube = open_store(archive.url(largest.path)).load()
    return [_repeated(archive, largest, cube, times) for times in TIMES_LONGER]


def _repeated(archive: Archive, item: Partition, cube: xr.Dataset, times: int) -> Partition:
    parts = [_later(cube, number, item.stop - item.start) for number in range(times)]
    path = f"bench/{times}.zarr"
    written = write_store(archive.url(path), [xr.concat(parts, "time", data_vars="minimal", combine_attrs="override")])
    return replace(
        item, path=path, digest=written.digest, n_bytes=written.n_bytes, n_time=times * item.n_time,
        counts_sum=times * item.counts_sum,
    )  # fmt: skip


def _later(cube: xr.Dataset, number: int, seconds: np.timedelta64) -> xr.Dataset:
    """Return a request moved in time, its bins in another order, so that it does not compress as a repetition."""
    order = np.random.default_rng(number).permutation(cube.sizes["time"])
    ticks = number * int(seconds / np.timedelta64(1, "s") * TICKS_PER_SECOND)
    values = {name: cube[name].values + number * seconds for name in ("time", "time_start")}
    values |= {"counts": cube["counts"].values[order], "scet": cube["scet"].values + ticks}
    return cube.assign({name: (cube[name].dims, value, cube[name].attrs) for name, value in values.items()})


def _text(told: dict[str, Any]) -> str:
    mission = told["mission"]
    return (
        f"{told['stores']} stores, {told['megabytes']} MB; beside them up to {told['largest_megabytes']} MB in one\n"
        f"{told['ms_per_store']} ms a store and {told['s_per_gigabyte']} s a GB, processor time of one core "
        f"({100 * told['scatter']:.0f} % scatter)\n"
        f"a mission of {mission['stores']} stores and {mission['gigabytes']:g} GB: {mission['cpu_minutes']} min"
    )


if __name__ == "__main__":
    main()
