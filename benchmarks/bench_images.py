"""CPU seconds for the images of a flare, from stores to FITS files: one by one, and together as a run makes them.

Flares of a simulated day, four methods in two energy bands: reading the request and its background, choosing the
window, locating, coarse locator, visibilities, maps, sources, files. One core, one BLAS thread; imports and tables of
the first flare do not count. `--profile` lists the functions that take longest.

    python benchmarks/bench_images.py [--quick] [--flares N] [--methods bp clean em forward_fit] [--profile] [--json]
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import cProfile
import json
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from stixflow import jobs, open_archive
from stixflow.compute import Serial
from stixflow.simulate import random_scenario, simulate
from stixflow.stages import METHODS, bind, open_run
from stixflow.stages.images import flare_job

_DAY = date(2022, 6, 15)
_TOGETHER = 8
_MISSION_FLARES = 25_000


def main() -> int:
    """Print the figures."""
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(2.0 if options.quick else options.flares, tuple(options.methods), Path(scratch), options)
    if options.json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{name:45} {value:10.3f}\n" for name, value in result.items()))
    return 0


def measure(flares: float, methods: tuple[str, ...], folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Simulate and find the flares of a day, then image them twice over."""
    todo = _jobs(flares, methods, folder)
    jobs.image(todo[0])
    groups = [tuple(todo[start : start + _TOGETHER]) for start in range(0, len(todo), _TOGETHER)]
    alone, n_maps = _timed(lambda: [jobs.image(job) for job in todo])
    together, _ = _timed(lambda: [one for group in groups for one in jobs.image_together(group)])
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(lambda: [jobs.image_together(group) for group in groups])
        pstats.Stats(profile, stream=sys.stderr).sort_stats("cumulative").print_stats(60)
    n = len(todo)
    return {
        "flares": n,
        "maps a flare": n_maps / n,
        "CPU s a flare, one by one": alone / n,
        f"CPU s a flare, {min(_TOGETHER, n)} together": together / n,
        "CPU s a map, together": together / n_maps,
        f"hours for {_MISSION_FLARES} flares with 8 maps on 2 cores": together
        / n_maps
        * 8
        * _MISSION_FLARES
        / 2
        / 3600,
    }


def _jobs(flares: float, methods: tuple[str, ...], folder: Path) -> list[jobs.ImageJob]:
    simulate(random_scenario(_DAY, seed=7, rate=flares), folder / "delivery", container="binary")
    root = str(folder / "archive")
    with open_run(root, pool=Serial(), command="benchmark") as run:
        stages = bind(run, [folder / "delivery/telemetry", folder / "delivery/ephemeris"])
        for name in ("ingest", "cubes", "flares"):
            stages[name]()
    archive = open_archive(root)
    return [
        replace(flare_job(archive, flare_id), methods=methods, run_id="benchmark")
        for flare_id in archive.flares()["flare_id"]
    ]


def _timed(run: Callable[[], Sequence[Any]]) -> tuple[float, int]:
    started = time.process_time()
    made = run()
    seconds = time.process_time() - started
    problems = [one for one in made if not isinstance(one, jobs.Imaged)]
    if problems:
        raise SystemExit(f"not imaged: {problems[0]}")
    return seconds, sum(len(one.images) for one in made)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--flares", type=float, default=20.0, help="mean number of flares (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--quick", action="store_true", help="two flares, for correctness only")
    parser.add_argument("--profile", action="store_true", help="list the functions that take longest")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
