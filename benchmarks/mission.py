"""How long the whole mission takes, from measured days: fits of cost against volume and images, and what is serial.

Days of telemetry are simulated at several sizes (quiet to active) and processed one by one on one worker; the same days
in one run on one and two workers, beside two processes that share nothing, which is the most that two can gain here;
and a catalog of the mission's size is filled and planned on. Of the costs of the workers a model is fitted by
non-negative least squares, its uncertainty by drawing days anew; the time on 2, 32 and 256 cores follows.

    python benchmarks/mission.py [--days 17] [--catalog-days 2500] [--quick] [--json] [--output FILE] [--plot PNG]

``--plot`` draws from ``--output`` of an earlier run with ``--from FILE``. CPU times hold on a busy machine; the gain by
two workers needs a quiet one: load is told.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from stixflow.bench import mission
from stixflow.bench.days import Delivery, deliver
from stixflow.bench.measuring import load, machine
from stixflow.bench.whole_catalog import Size, fill, measure_questions
from stixflow.compute import open_cluster

RATES = (10.0, 0.0, 4.0, 20.0)
"""Flares a day, day after day: the mission has ten on average."""
CORES = (2, 32, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=17, help="days measured; the first one only imports")
    parser.add_argument("--catalog-days", type=int, default=2500, help="days of the catalog that is planned on")
    parser.add_argument("--together", type=int, default=15, help="days that are processed in one run")
    parser.add_argument("--catalog", type=Path, help="a catalog of that size that an earlier run left here, or shall")
    parser.add_argument("--quick", action="store_true", help="4 days, a catalog of 20: correctness only")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--output", type=Path, help="write JSON there, too")
    parser.add_argument("--from", dest="earlier", type=Path, help="take the figures of an earlier --output")
    parser.add_argument("--plot", type=Path, help="draw the figures")
    options = parser.parse_args()
    if options.earlier:
        _tell(json.loads(options.earlier.read_text()), options)
    else:
        days, size = (4, Size(20, 100, 8, 20)) if options.quick else (options.days, _size(options.catalog_days))
        with tempfile.TemporaryDirectory() as scratch:
            together, repeats = (3, 1) if options.quick else (options.together, 2)
            place = options.catalog or Path(scratch) / "catalog"
            _tell(run(Path(scratch), days, together, repeats, place, size), options)  # removing the files takes a while


def _tell(found: dict[str, Any], options: argparse.Namespace) -> None:
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        from stixflow.bench.mission_plot import plot

        plot(found, options.plot)
    sys.stdout.write((json.dumps(found) if options.json else mission.format_mission(found)) + "\n")


def _size(days: int) -> Size:
    return Size(days, 10 * days, 8, days)


def run(folder: Path, days: int, few: int, repeats: int, catalog: Path, size: Size) -> dict[str, Any]:
    """Measure everything and put it together."""
    begin = load()
    deliveries = [_deliver(folder, number) for number in range(days)]
    with open_cluster(1) as pool:
        rows = mission.measure_days(deliveries, folder / "one-by-one", pool)
    together = [
        mission.measure_together(deliveries[:few], Path(tempfile.mkdtemp(dir=folder)), workers, cores)
        for _ in range(repeats)
        for workers, cores in ((1, 1), (1, 2), (2, 2))
    ]
    ceiling = mission.measure_ceiling(deliveries[:few], folder, repeats)
    writes = None if catalog.exists() else fill(catalog, size)
    questions = measure_questions(catalog)
    found = mission.put_together(rows, together, ceiling, questions, size.days, CORES)
    return {"machine": machine(), "load": {"start": begin, "end": load()}, "catalog_writes": writes, **found}


def _deliver(folder: Path, number: int) -> Delivery:
    day = mission.FIRST + timedelta(days=number)
    return deliver(day, folder / "deliveries", flares=RATES[number % len(RATES)], seed=number + 1)


if __name__ == "__main__":
    main()
