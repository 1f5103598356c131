"""One simulated day, telemetry to cubes, flares and images: CPU seconds of each stage on one core.

``python benchmarks/bench_day.py [--flares N] [--json]``
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from stixflow.bench.days import deliver
from stixflow.bench.end_to_end import process_day

_DAY = date(2022, 6, 15)


def measure(flares: float, folder: Path) -> dict[str, Any]:
    """Simulate and process a day; the second of two runs counts, so that imports do not."""
    process_day(deliver(_DAY, folder / "warm-up", flares=2.0, seed=7), f"{folder}/warm-up/archive")
    started = time.process_time()
    day = deliver(_DAY, folder / "day", flares=flares, seed=7)
    simulated = time.process_time() - started
    report = process_day(day, f"{folder}/day/archive")
    seconds = report["cpu_seconds"]
    return {
        "megabytes_of_packets": day.n_bytes / 1e6,
        "packets": report["balance"]["packets_in"],
        "flares_simulated": day.flares,
        "flares_found": report["counts"].get("flares", 0),
        "images": report["counts"].get("images", 0),
        "cpu_seconds": {"simulate": simulated, **seconds, "process": sum(seconds.values())},
    }


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flares", type=float, default=10.0, help="mean number of flares (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a day of two flares, for correctness only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(2.0 if options.quick else options.flares, Path(scratch))
    if options.json:
        text = json.dumps(result, indent=2)
    else:
        flat = {**result, **{f"CPU s, {name}": round(s, 2) for name, s in result.pop("cpu_seconds").items()}}
        flat.pop("cpu_seconds", None)
        text = "\n".join(f"{name:24s} {value}" for name, value in flat.items())
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
