"""How long the whole mission takes: cost of simulated days against volume, flares and workers, fitted and added up.

Processor time is measured day by day, of the workers and of the coordinating process apart, so that the figures do not
depend on what else runs on the machine. Costs of the workers are fitted as ``days + megabytes + images``, those of the
coordinator as so much for each row it writes, and its planning is measured on a catalog of the mission's size.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.bench.days import Delivery
from stixflow.compute import Pool, open_cluster
from stixflow.cubes.model import PRODUCTS
from stixflow.stages import STAGES, bind, open_run

FIRST = date(2022, 6, 1)
_BOOTSTRAPS = 300
_WARM = 2
"""Days before those that are timed together, in which every worker imports what it needs."""
_LEVELS = (16, 50, 84)
_NAMES = ("low", "middle", "high")

FEATURES: Mapping[str, tuple[str, ...]] = {
    "ingest": ("days", "megabytes"),
    "cubes": ("days", "megabytes"),
    "flares": ("days_searched",),
    "images": ("images",),
}
"""What the processor time of the workers depends on, by stage."""


@dataclass(frozen=True, slots=True)
class Mission:
    """What there is to do: the features of the whole mission."""

    days: int = 2500
    megabytes: float = 20_000.0
    flares: int = 25_000
    images: int = 200_000
    """Flares in two bands by four methods."""
    partitions: int = 2500 * 10 + 30_000

    @property
    def entries(self) -> int:
        """What the catalog is told of: files, partitions, days searched, flares imaged."""
        return 2 * self.days + self.partitions + self.days + self.flares

    @property
    def features(self) -> dict[str, float]:
        return {"days": self.days, "megabytes": self.megabytes, "days_searched": self.days, "images": self.images}


WHOLE = Mission()


# Measuring ------------------------------------------------------------------------------------------------------------


def measure_days(deliveries: Sequence[Delivery], root: Path, pool: Pool) -> list[dict[str, Any]]:
    """Process days one by one into one archive; one row a day, the first one, which imports, left out."""
    rows = [_measure_day(one, root, pool) for one in deliveries]
    return rows[1:]


def _measure_day(delivery: Delivery, root: Path, pool: Pool) -> dict[str, Any]:
    report, wall = process([delivery.telemetry, delivery.ephemeris], root, pool)
    known = {"day": str(delivery.day), "days": 1, "megabytes": delivery.n_bytes / 1e6, "flares": delivery.flares}
    return known | _counted(report) | {"wall_seconds": wall}


def _counted(report: Mapping[str, Any]) -> dict[str, Any]:
    counts, cost = report["counts"], report["cost"]
    return {
        **{name: counts.get(name, 0) for name in ("files", "days_searched", "flares_imaged", "images")},
        "partitions": sum(counts.get(name, 0) for name in PRODUCTS),
        "worker_seconds": {name: cost[name]["cpu_seconds"] for name in STAGES if name in cost},
        "coordinator_seconds": {name: cost[name]["coordinator_cpu_seconds"] for name in STAGES if name in cost},
        "bytes_read": sum(one["bytes_read"] for one in cost.values()),
        "bytes_written": sum(one["bytes_written"] for one in cost.values()),
        "items": sum(one["items"] for one in cost.values()),
        "peak_worker_bytes": max(one["peak_worker_bytes"] for one in cost.values()),
    }


def process(paths: Sequence[Path], root: Path, pool: Pool) -> tuple[dict[str, Any], float]:
    """Run all stages and return the report and the wall time."""
    started = time.perf_counter()
    with open_run(str(root), pool=pool, command="stixflow bench mission") as run:
        stages = bind(run, paths)
        for name in STAGES:
            stages[name]()
        report = run.report()
    if report["failed"]:
        raise SystemExit(f"a simulated day was not processed: {report['failed'][0]}")
    return report, time.perf_counter() - started


def measure_together(deliveries: Sequence[Delivery], root: Path, workers: int, cores: int) -> dict[str, Any]:
    """Process all days in one run on so many workers, after two days in which each of them imports.

    Workers, scheduler and coordinator share so many cores, where the system can confine them (Linux).
    """
    with _confined(cores), open_cluster(workers) as pool:
        warm, others = deliveries[:_WARM], deliveries[_WARM:]
        process(_paths(warm), root, pool)
        report, wall = process(_paths(others), root, pool)
    return {"workers": workers, "cores": cores, "days": len(others), "wall_seconds": wall} | _counted(report)


@contextmanager
def _confined(cores: int) -> Iterator[None]:
    """Let this thread, and what it starts, run on the first so many of its cores for a ``with`` block."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _paths(deliveries: Sequence[Delivery]) -> list[Path]:
    return [path for one in deliveries for path in (one.telemetry, one.ephemeris)]


_ALONE = """
import sys, time
from pathlib import Path
from stixflow.bench.mission import process
from stixflow.compute import Serial
root, n_warm, *paths = sys.argv[1:]
warm, others = paths[: int(n_warm)], paths[int(n_warm) :]
process([Path(path) for path in warm], Path(root), Serial())
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
_, wall = process([Path(path) for path in others], Path(root), Serial())
sys.stdout.write(f"{wall}\\n")
"""


def measure_ceiling(deliveries: Sequence[Delivery], folder: Path, repeats: int) -> dict[str, float]:
    """Time one and two independent processes, each with work of its own, no scheduler and no shared catalog.

    Twice the time of one over the time of two at once is the most that two workers can gain on this machine now; each
    time is the least of some repeats.
    """
    alone, both = (min(max(_independent(deliveries, folder, number)) for _ in range(repeats)) for number in (1, 2))
    return {"one_seconds": alone, "two_seconds": both, "ceiling": 2 * alone / both}


def _independent(deliveries: Sequence[Delivery], folder: Path, number: int) -> list[float]:
    n_warm = str(len(_paths(deliveries[:_WARM])))
    commands = [
        [sys.executable, "-c", _ALONE, tempfile.mkdtemp(dir=folder), n_warm, *map(str, _paths(deliveries))]
        for _ in range(number)
    ]
    running = [subprocess.Popen(one, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for one in commands]
    for one in running:
        assert one.stdout is not None
        one.stdout.readline()
    for one in running:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    return [float(one.communicate()[0].splitlines()[-1]) for one in running]


# Fitting --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Model:
    """Processor seconds of the workers by stage and feature, and draws of them by the bootstrap over days."""

    coefficients: dict[str, dict[str, float]]
    draws: dict[str, NDArray[np.float64]]
    """(draws, features) by stage."""
    residual: float
    """Relative scatter of a day about the fit."""

    def seconds(self, mission: Mission) -> NDArray[np.float64]:
        """Processor seconds of the workers for the whole mission, one value a draw."""
        parts = [
            self.draws[stage] @ np.array([mission.features[name] for name in FEATURES[stage]]) for stage in FEATURES
        ]
        return np.asarray(np.sum(parts, axis=0))


def fit(rows: Sequence[Mapping[str, Any]], *, seed: int = 1) -> Model:
    """Fit the cost of each stage by least squares with coefficients that are not negative."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(rows), (_BOOTSTRAPS, len(rows)))
    coefficients, draws = {}, {}
    total, predicted = np.zeros(len(rows)), np.zeros(len(rows))
    for stage, names in FEATURES.items():
        matrix = np.array([[float(row[name]) for name in names] for row in rows])
        cost = np.array([float(row["worker_seconds"].get(stage, 0.0)) for row in rows])
        found = _solve(matrix, cost)
        coefficients[stage] = dict(zip(names, found.tolist(), strict=True))
        draws[stage] = np.array([_solve(matrix[pick], cost[pick]) for pick in picks])
        total, predicted = total + cost, predicted + matrix @ found
    return Model(coefficients, draws, float(np.std(total / predicted - 1)))


def _solve(matrix: NDArray[np.float64], cost: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.optimize import nnls

    return np.asarray(nnls(matrix, cost)[0])


@dataclass(frozen=True, slots=True)
class SerialPart:
    """Processor seconds of the one process that plans, feeds the workers and writes the catalog."""

    planning_s: float
    """Of a run that finds everything to do, on a catalog of the mission's size; nothing else runs meanwhile."""
    per_entry_s: float
    """Of each item: fed to a worker, taken back, written to the catalog; while the workers are busy."""
    entries: int

    @property
    def writing_s(self) -> float:
        return self.per_entry_s * self.entries


def whole_mission(
    model: Model, serial: SerialPart, cores: Sequence[int], *, efficiency: float = 1.0, mission: Mission = WHOLE
) -> list[dict[str, Any]]:
    """State the time of the whole mission on some numbers of cores, one of which coordinates beside its own work.

    Planning waits for nothing and nothing runs beside it; writing the catalog goes on while the workers are busy, and
    is the limit where there are many of them. `efficiency` is that of busy cores beside each other, as measured.
    """
    seconds = model.seconds(mission)
    rows: list[dict[str, Any]] = []
    for number in cores:
        shared = (seconds + serial.writing_s) / (number * efficiency)
        wall = serial.planning_s + np.maximum(shared, serial.writing_s)
        low, middle, high = np.percentile(wall, _LEVELS) / 3600
        everything = serial.planning_s + serial.writing_s
        rows.append(
            {
                "cores": number,
                "hours": float(middle),
                "low": float(low),
                "high": float(high),
                "serial_share_of_wall": float(everything / np.median(wall)),
                "limited_by": "the coordinator" if serial.writing_s > np.median(shared) else "the workers",
            }
        )
    return rows


def put_together(
    rows: Sequence[Mapping[str, Any]],
    together: Sequence[Mapping[str, Any]],
    ceiling: Mapping[str, float] | None,
    questions: Sequence[Mapping[str, Any]],
    catalog_days: int,
    cores: Sequence[int],
) -> dict[str, Any]:
    """Fit the model and state the whole mission, with everything that it was made of."""
    model = fit(rows)
    scale = WHOLE.days / catalog_days
    planning = scale * sum(row["seconds"] for row in questions if row["what"].startswith("plan "))
    serial = SerialPart(planning, _per_entry([*rows, *together]), WHOLE.entries)
    two_workers = _fastest(together, 2, 2)
    gain = _fastest(together, 1, 2) / two_workers
    workers = np.percentile(model.seconds(WHOLE), _LEVELS)
    efficiency = 1.0 if ceiling is None else min(ceiling["ceiling"] / 2, 1.0)
    return {
        "days": list(rows),
        "together": [dict(row) for row in together],
        "ceiling": None if ceiling is None else dict(ceiling),
        "gain_of_two_workers": gain,
        "gain_of_two_cores": _fastest(together, 1, 1) / two_workers,
        "share_of_ceiling": None if ceiling is None else gain / ceiling["ceiling"],
        "questions": [dict(row) for row in questions],
        "catalog_days": catalog_days,
        "model": {"coefficients": model.coefficients, "residual": model.residual},
        "day_without_images_s": _ordinary_day(model),
        "worker_hours": {name: float(value / 3600) for name, value in zip(_NAMES, workers, strict=True)},
        "serial": asdict(serial) | {"writing_s": serial.writing_s, "share_of_cpu": _share(serial, float(workers[1]))},
        "memory": _flatness(rows),
        "mission": asdict(WHOLE),
        "efficiency": efficiency,
        "whole_mission": whole_mission(model, serial, cores, efficiency=efficiency),
    }  # fmt: skip


def _fastest(together: Sequence[Mapping[str, Any]], workers: int, cores: int) -> float:
    found = [row for row in together if (row["workers"], row["cores"]) == (workers, cores)]
    return min(float(row["wall_seconds"]) for row in found)


def _per_entry(runs: Sequence[Mapping[str, Any]]) -> float:
    """Fit what the coordinator spends on each entry of the catalog, beside what a run costs whatever it does."""
    entries = [sum(run[name] for name in ("files", "partitions", "days_searched", "flares_imaged")) for run in runs]
    seconds = [sum(run["coordinator_seconds"].values()) for run in runs]
    slope, _ = np.polyfit(entries, seconds, 1)
    return float(slope)


def _share(serial: SerialPart, workers_s: float) -> float:
    everything = serial.planning_s + serial.writing_s
    return everything / (everything + workers_s)


def _ordinary_day(model: Model) -> float:
    """Processor seconds of an average day, from telemetry to cubes and flare list, coordinator left out."""
    day = {"days": 1.0, "megabytes": WHOLE.megabytes / WHOLE.days, "days_searched": 1.0}
    stages = ("ingest", "cubes", "flares")
    return sum(model.coefficients[stage][name] * day[name] for stage in stages for name in FEATURES[stage])


def format_mission(found: Mapping[str, Any]) -> str:
    """Write what was found as text."""
    model, serial, memory = found["model"], found["serial"], found["memory"]
    lines = ["cost of the workers, processor seconds:"]
    for stage, costs in model["coefficients"].items():
        lines.append(f"  {stage:8s} " + " + ".join(f"{1e3 * value:.2f} ms x {name}" for name, value in costs.items()))
    lines += [
        f"  scatter of a day about the fit {100 * model['residual']:.0f} %, {len(found['days'])} days",
        f"an average day from telemetry to cubes and flare list: {found['day_without_images_s']:.2f} s",
        f"two workers on two cores: {found['gain_of_two_workers']:.2f} times one worker there, "
        f"{found['gain_of_two_cores']:.2f} times one on one core"
        + _ceiling(found["ceiling"]),
        f"memory of a worker: at most {memory['peak_bytes'] / 1e9:.2f} GB; over {len(found['days'])} days "
        f"{100 * memory['growth']:+.1f} % beside what their sizes explain",
        f"serial: planning {serial['planning_s']:.0f} s, {1e3 * serial['per_entry_s']:.2f} ms for each of "
        f"{serial['entries']} entries = {serial['writing_s']:.0f} s: "
        f"{100 * serial['share_of_cpu']:.1f} % of all CPU time",
        "workers: {middle:.2f} h of CPU ({low:.2f} to {high:.2f})".format(**found["worker_hours"]),
        "",
        f"planning and questions on a catalog of {found['catalog_days']} days:",
        *(f"  {row['what']:22s} {row['seconds']:8.2f} s  {row['found'] if row['found'] is not None else ''}"
          for row in found["questions"]),
        "",
        "the whole mission ({days} days, {megabytes:.0f} MB, {flares} flares, {images} images)".format(
            **found["mission"]
        )
        + f", a busy core beside others worth {found['efficiency']:.2f} of one alone, as measured on two:",
    ]  # fmt: skip
    for row in found["whole_mission"]:
        lines.append(
            f"  {row['cores']:4d} cores {row['hours']:7.3f} h ({row['low']:.3f} to {row['high']:.3f}), serial part "
            f"{100 * row['serial_share_of_wall']:.0f} % of it, limited by {row['limited_by']}"
        )
    return "\n".join(lines)


def _ceiling(found: Mapping[str, float] | None) -> str:
    return "" if found is None else f"; two processes that share nothing: {found['ceiling']:.2f}"


def _flatness(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How the peak memory of a worker goes on over days: fitted as so much, so much a megabyte, so much a day."""
    peaks = np.array([float(row["peak_worker_bytes"]) for row in rows])
    matrix = np.array([[1.0, row["megabytes"], number] for number, row in enumerate(rows)])
    (_, _, slope), *_ = np.linalg.lstsq(matrix, peaks, rcond=None)
    return {"peak_bytes": float(peaks.max()), "growth": float(slope * len(rows) / peaks.mean())}
