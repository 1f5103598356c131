"""How long detection takes, beside the plain formula of the SNIP envelope; and what it finds in simulated months.

One day of 4 s bins (21 600), and a stack of days. The plain formula is the definition written down per window with
whole-array NumPy. One core, CPU time, best of several rounds.

    python benchmarks/bench_flares.py [--days 4] [--rounds 5] [--json]
    python benchmarks/bench_flares.py --months 3 [--quiet-days 300] [--json]
    python benchmarks/bench_flares.py --parallel-days 60 [--workers 2] [--method poisson] [--json]

The third form searches days of an archive side by side, as a run does, and says how long ten years would take. The
second form prints completeness and purity of both detectors against the significance of the peaks, and false
alarms on days without flares. ``--months 0.1 --quiet-days 3`` takes a few seconds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.flares import detect, model_background, quiet_statistics, smooth, snip_envelope

BINS = 21600
QUIET = (250.0, 50.0, 67.0, 850.0, 460.0)
EDGES = np.array([4.0, 10.0, 15.0, 25.0, 50.0, 84.0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--months", type=float, help="simulate so many months instead of measuring time")
    parser.add_argument("--quiet-days", type=int, default=100, help="days without flares beside the months")
    parser.add_argument("--parallel-days", type=int, help="search so many simulated days in worker processes instead")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--method", choices=("poisson", "snip"), default="poisson")
    parser.add_argument("--quick", action="store_true", help="one round, one day")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.days = options.rounds = 1
    if options.months:
        report_months(options.months, options.quiet_days, as_json=options.json)
        return
    if options.parallel_days:
        parallel = measure_parallel(options.parallel_days, options.workers, options.method)
        text = json.dumps(parallel) if options.json else "\n".join(f"{k:24} {v}" for k, v in parallel.items())
        sys.stdout.write(text + "\n")
        return
    result = measure(options.days, options.rounds)
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for row in result["rows"]:
        sys.stdout.write(f"{row['what']:44} {1e3 * row['seconds_per_day']:9.2f} ms a day\n")
    sys.stdout.write(f"largest relative difference of the envelopes  {result['difference']:.1e}\n")


def report_months(months: float, quiet_days: int, *, as_json: bool) -> None:
    """Print what both detectors find in simulated months and on days without flares."""
    from flare_months import false_alarms, format_tables, measure

    result = {"months": measure(max(round(30 * months), 1)), "false_alarms_per_day": false_alarms(quiet_days)}
    sys.stdout.write(json.dumps(result) + "\n" if as_json else format_tables(result))


def measure_parallel(days: int, workers: int, method: str) -> dict[str, object]:
    """Time the search of days as the stage does it: each with its neighbours, from stores, by `map_batches`."""
    from stixflow import jobs
    from stixflow.compute import map_batches, open_cluster

    with tempfile.TemporaryDirectory() as scratch:
        urls = _write_days(Path(scratch), days)
        keys = list(urls)
        items = [
            jobs.DetectJob(
                key,
                number,
                urls[key],
                0.7,
                method,
                tuple(urls[k] for k in keys[max(number - 1, 0) : number + 2] if k != key),
            )
            for number, key in enumerate(keys)
        ]
        with open_cluster(workers) as pool:
            list(map_batches(jobs.detect, items[:workers], pool=pool, batch_size=1))  # workers import
            started = time.perf_counter()
            outcomes = list(map_batches(jobs.detect, items, pool=pool))
            seconds = time.perf_counter() - started
    found = sum(len(outcome.value.flares) for outcome in outcomes if outcome.ok and outcome.value is not None)
    per_second = days / seconds
    return {
        "method": method,
        "days": days,
        "workers": workers,
        "failed": sum(not outcome.ok for outcome in outcomes),
        "flares": found,
        "seconds": round(seconds, 2),
        "fastest_day_seconds": round(min(outcome.seconds for outcome in outcomes), 3),
        "median_day_seconds": round(float(np.median([outcome.seconds for outcome in outcomes])), 3),
        "days_per_second": round(per_second, 1),
        "minutes_for_ten_years": round(3652.5 / per_second / 60, 2),
        "largest_worker_MB": round(max(outcome.peak_rss for outcome in outcomes) / 1e6),
    }


def _write_days(folder: Path, days: int) -> dict[str, str]:
    """Simulate days with a dozen flares each and write one store a day."""
    from flare_months import CHUNK_DAYS, simulate_days

    from stixflow.cubes.store import write_store

    urls: dict[str, str] = {}
    first = np.datetime64("2022-03-01", "ns")
    for at in range(0, days, CHUNK_DAYS):
        start = first + at * np.timedelta64(1, "D")
        curve = simulate_days(start, min(CHUNK_DAYS, days - at), seed=at).curve
        day_of = curve["time"].to_numpy().astype("datetime64[D]")
        for day in np.unique(day_of)[: min(CHUNK_DAYS, days - at)]:
            url = str(folder / f"{day}.zarr")
            write_store(url, [curve.isel(time=np.flatnonzero(day_of == day))])
            urls[str(day)] = url
    return urls


def measure(days: int, rounds: int) -> dict[str, object]:
    """Time everything on the same curves."""
    curve = day_with_flares(seed=1)
    counts = np.array([day_with_flares(seed=seed)["counts"].to_numpy()[:, 0] for seed in range(days)], dtype=float)
    smoothed = smooth(counts)
    detect(curve)
    detect(curve, "snip")
    work: dict[str, tuple[int, Callable[[], object]]] = {
        "envelope, plain formula": (1, lambda: plain_envelope(smoothed[0])),
        "envelope, stixflow": (1, lambda: snip_envelope(smoothed[0])),
        f"envelope, stixflow, {days} days stacked": (days, lambda: snip_envelope(smoothed)),
        "smoothing of five bands": (1, lambda: smooth(curve["counts"].to_numpy().T)),
        "quiet hours": (1, lambda: quiet_statistics(curve)),
        f"snip, {len(detect(curve, 'snip'))} flares, all columns": (1, lambda: detect(curve, "snip", distance_au=0.5)),
        "modelled background": (1, lambda: model_background(curve)),
        f"poisson, {len(detect(curve))} flares, all columns": (1, lambda: detect(curve, distance_au=0.5)),
    }
    rows = [{"what": what, "seconds_per_day": best(run, rounds) / share} for what, (share, run) in work.items()]
    plain, ours = plain_envelope(smoothed[0]), snip_envelope(smoothed[0])
    return {"bins": BINS, "days": days, "rows": rows, "difference": float(np.abs(ours / plain - 1).max())}


def best(run: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def day_with_flares(*, seed: int) -> xr.Dataset:
    """Make a quiet day with a dozen flares."""
    rng = np.random.default_rng(seed)
    rates = np.tile(QUIET, (BINS, 1))
    for peak in rng.integers(600, BINS - 600, 12):
        offset = np.arange(BINS) - peak
        shape = np.where(offset < 0, np.exp(np.minimum(offset, 0) / 20), np.exp(-np.maximum(offset, 0) / 60))
        rates[:, 0] += 10 ** rng.uniform(2, 4.5) * shape
    start = np.datetime64("2022-03-01", "ns") + np.arange(BINS) * np.timedelta64(4, "s")
    return xr.Dataset(
        {
            "time_start": ("time", start),
            "timedel": ("time", np.full(BINS, 4.0)),
            "energy_low": ("energy", EDGES[:-1]),
            "energy_high": ("energy", EDGES[1:]),
            "counts": (("time", "energy"), rng.poisson(rates).astype(np.uint32)),
            "rcr": ("time", np.zeros(BINS, np.uint8)),
        },
        coords={"time": start + np.timedelta64(2, "s")},
    )


def plain_envelope(smoothed: NDArray[np.float64], iterations: int = 900) -> NDArray[np.float64]:
    """The definition as it is written, one whole-array expression per estimate."""
    w = smoothed.copy()
    size = len(w)
    for p in range(min((size - 1) // 2, iterations), 0, -1):
        mean = np.empty(size)
        mean[1:-1] = (w[:-2] + w[1:-1] + w[2:]) / 3
        mean[0], mean[-1] = (w[0] + w[1]) / 2, (w[-1] + w[-2]) / 2

        def at(k: int, mean: NDArray[np.float64] = mean, p: int = p) -> NDArray[np.float64]:
            return mean[p + k : size - p + k]

        q, r = p // 2, p // 3
        order2 = (at(-p) + at(p)) / 2
        order4 = (-at(-2 * q) + 4 * at(-q) + 4 * at(q) - at(2 * q)) / 6
        order6 = (at(-3 * r) - 6 * at(-2 * r) + 15 * at(-r) + 15 * at(r) - 6 * at(2 * r) + at(3 * r)) / 20
        best_estimate = np.maximum(np.maximum(order2, order4), order6)
        inside = w[p : size - p]
        w[p : size - p] = np.where(best_estimate < inside * (1 - 1e-12), best_estimate, at(0))
    return w


if __name__ == "__main__":
    main()
