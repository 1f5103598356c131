"""How reconstruction scales over the cores: a Dask cluster against plain processes that share nothing.

A large stack of visibilities is cut into parts. Workers reconstruct them and write the maps into one file
(`imaging.MapFile`); for comparison the maps also travel back to this process. The measure is the same work done by as
many plain processes, each with its own parts and nothing to say to anybody: whatever else runs on the machine slows
both alike, so the ratio is fair on a busy one too. All run in turns, some rounds of them, and the efficiency is the
median over the rounds of the time of plain processes over that of the cluster. One BLAS thread each; imports and tables
are made before. Every map must be bit by bit that of the serial run, or the command fails.

    python benchmarks/bench_scaling.py [--quick] [--workers 2] [--rounds 5] [--json]
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stixflow.compute import Pool, map_batches, open_cluster
from stixflow.imaging import Clean, Gaussian, Grid, MapFile, MemGE, from_arrays, reconstruct, source_visibilities
from stixflow.imaging.map_file import Part
from stixflow.imaging.reconstruction import Method
from stixflow.instrument import detectors, subcollimators

METHODS: dict[str, Method] = {"clean": Clean(), "mem_ge": MemGE()}
IMAGES = {"clean": 8192, "mem_ge": 1488}
"""A few seconds of serial work each."""
QUICK = {"clean": 992, "mem_ge": 248}
GRID = Grid(65, 2.0)
PART_BYTES = {"clean": 32 << 20, "mem_ge": 8 << 20}
"""About 0.1 s of work a part: far more than the cost of a task, and the workers end nearly together."""


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a sixth to an eighth of the images")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, help="default 5, or 2 with --quick")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    images, rounds = (QUICK, 2) if options.quick else (IMAGES, 5)
    rows = measure(images, options.workers, options.rounds or rounds)
    if options.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    sys.stdout.write("images/s:                plain processes   cluster to a file    cluster, maps sent\n")
    sys.stdout.write("method   images        1 process     all     all  efficiency     all  efficiency    load\n")
    for row in rows:
        sys.stdout.write(
            f"{row['method']:8} {row['images']:6d}  {row['one']:15.0f} {row['plain']:7.0f} {row['file']:7.0f} "
            f"{row['file_efficiency']:11.2f} {row['sent']:7.0f} {row['sent_efficiency']:11.2f} {row['load']:7.1f}\n"
        )


def measure(images: dict[str, int], n_workers: int, rounds: int) -> list[dict[str, Any]]:
    """Images a second of every method, in every way."""
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pool = stack.enter_context(open_cluster(n_workers))
        plain = [stack.enter_context(get_context("spawn").Pool(1)) for _ in range(n_workers)]
        for name, method in METHODS.items():
            data = _data(images[name])
            maps = MapFile.create(folder / f"{name}.npy", data, GRID, method)
            parts = list(maps.parts(data, budget_bytes=PART_BYTES[name]))
            wanted = [reconstruct(part, GRID, method) for _, part in parts]
            _check(maps.open([maps.fill(part) for part in parts]), wanted, np.float32)
            ways = {
                "one": partial(_plain, plain[:1], method, parts),
                "plain": partial(_plain, plain, method, parts),
                "file": partial(_to_file, pool, maps, parts),
                "sent": partial(_sent, pool, method, parts),
            }
            for run in ways.values():  # imports and tables
                run(part_images=2)
            seconds = {way: np.array([_timed(run) for _ in range(1)]) for way, run in ways.items()}
            for _ in range(rounds - 1):
                seconds = {way: np.append(seconds[way], _timed(run)) for way, run in ways.items()}
            _check(ways["file"](), wanted, np.float32)
            _check(ways["sent"](), wanted, np.float64)
            rows.append(_row(name, images[name], seconds))
    return rows


def _row(name: str, n_images: int, seconds: dict[str, Any]) -> dict[str, Any]:
    speeds = {way: n_images / float(np.median(values)) for way, values in seconds.items()}
    return {
        "method": name,
        "images": n_images,
        **speeds,
        **{f"{way}_efficiency": float(np.median(seconds["plain"] / seconds[way])) for way in ("file", "sent")},
        "plain_speedup": float(np.median(seconds["one"] / seconds["plain"])),
        "load": os.getloadavg()[0],
    }


def _data(n: int) -> xr.Dataset:
    """A stack of two-source flares with noise; fixed seed."""
    random, k = np.random.default_rng(20221109), subcollimators()
    u, v = detectors().u[k], detectors().v[k]
    places = random.uniform(-25, 25, (64, 4))
    vis = np.stack(
        [source_visibilities([Gaussian(6.0, a, b, 14.0), Gaussian(3.0, c, d, 10.0)], u, v) for a, b, c, d in places]
    )
    noise = random.standard_normal((2, n, k.size)) * 0.3
    return from_arrays(u, v, np.resize(vis, (n, k.size)) + noise[0] + 1j * noise[1], np.full((n, k.size), 0.3))


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _cut(parts: Sequence[Part], part_images: int | None) -> list[Part]:
    return [(start, part.isel(image=slice(0, part_images))) for start, part in parts]


def _plain(processes: Sequence[Any], method: Method, parts: Sequence[Part], part_images: int | None = None) -> None:
    """Every process gets its share beforehand and keeps its maps to itself."""
    shares = [_cut(parts[i :: len(processes)], part_images) for i in range(len(processes))]
    waiting = [one.apply_async(_alone, (method, share)) for one, share in zip(processes, shares, strict=True)]
    for one in waiting:
        one.get()


def _alone(method: Method, share: Sequence[Part]) -> int:
    return sum(reconstruct(part, GRID, method).sizes["image"] for _, part in share)


def _to_file(pool: Pool, maps: MapFile, parts: Sequence[Part], part_images: int | None = None) -> Any:
    done = _values(pool, maps.fill, _cut(parts, part_images))
    return maps.open(done) if part_images is None else None


def _sent(pool: Pool, method: Method, parts: Sequence[Part], part_images: int | None = None) -> Any:
    items = [part for _, part in _cut(parts, part_images)]
    return _values(pool, partial(reconstruct, grid=GRID, method=method), items)


def _values(pool: Pool, function: Callable[[Any], xr.Dataset], items: Sequence[Any]) -> list[xr.Dataset]:
    outcomes = sorted(map_batches(function, items, pool=pool, batch_size=1), key=lambda outcome: outcome.index)
    failed = [outcome for outcome in outcomes if outcome.value is None]
    if failed:
        raise SystemExit(f"part {failed[0].index} was not reconstructed: {failed[0].error}")
    return [outcome.value for outcome in outcomes if outcome.value is not None]


def _check(found: Any, wanted: Sequence[xr.Dataset], kind: type) -> None:
    """Compare maps with those of the serial run, bit by bit."""
    maps = found["image"].to_numpy() if isinstance(found, xr.Dataset) else [part["image"].to_numpy() for part in found]
    if not isinstance(found, xr.Dataset):
        maps = np.concatenate(maps)
    if (
        maps.astype(kind).tobytes()
        != np.concatenate([part["image"].to_numpy() for part in wanted]).astype(kind).tobytes()
    ):
        raise SystemExit("the maps are not those of the serial run")


if __name__ == "__main__":
    main()
