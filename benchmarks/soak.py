"""A simulated month under random kills, against the same month undisturbed: what was lost, and what differs.

``python benchmarks/soak.py [--days N] [--strikes N] [--flares N] [--workers N] [--seed N] [--json]``

Every day arrives as a delivery of its own, days out of order, some of them twice or cut in two. While it is processed,
the run is struck at a random moment: a worker is killed, the coordinating process is killed, all of them are (as by a
loss of power), or the operator interrupts. Then the same delivery is processed again, until a run ends. In the end
each partition, flare and map is compared, by digest, with those of an archive that nobody disturbed.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from stixflow.archive import Archive, open_archive
from stixflow.simulate import random_scenario, simulate
from stixflow.telemetry import read_packets

FIRST_DAY = date(2022, 6, 1)
STRIKES = ("worker killed", "coordinator killed", "all killed", "interrupted")
_PATIENCE_S = 600.0
_CHILD = """
import json, sys
from pathlib import Path
from stixflow import compute, stages
if __name__ == "__main__":
    archive, workers, *paths = sys.argv[1:]
    print("begin", flush=True)
    paths = [Path(path) for path in paths]
    with compute.open_cluster(int(workers)) as pool:
        report = stages.run_stages(stages.STAGES, paths, root=archive, pool=pool, command="soak")
    print(json.dumps(report["failed"]), flush=True)
    sys.exit(bool(report["failed"]))
"""


@dataclass
class Storm:
    """What was done to the runs, and how they ended."""

    strikes: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    ended_right: int = 0
    failures: list[str] = field(default_factory=list)
    orphans: int = 0


def soak(folder: Path, *, days: int, strikes: int, workers: int, seed: int, flares: float) -> dict[str, Any]:
    """Process simulated days with and without strikes and compare the archives.

    Returns
    -------
    Counts of what was injected and published, and `different`: one line for each thing that is not the same.
    """
    deliveries = deliver(folder / "deliveries", days, seed, flares)
    started = time.perf_counter()
    calm = run(folder / "calm", deliveries, workers)
    calm_s = time.perf_counter() - started
    if calm.wait(_PATIENCE_S):
        raise SystemExit("the undisturbed run failed")
    calm_s = time.perf_counter() - started
    storm = disturb(folder / "storm", deliveries, strikes, workers, seed, calm_s / len(deliveries))
    one, other = contents(folder / "calm"), contents(folder / "storm")
    with closing(open_archive(str(folder / "storm"))) as archive:
        defects = [str(defect) for defect in archive.verify()]
    return {
        "days": days,
        "deliveries": len(deliveries),
        "runs": storm.runs,
        "strikes": dict(storm.strikes),
        "runs_that_ended_right": storm.ended_right,
        "failures": storm.failures,
        "orphans": storm.orphans,
        "published": {kind: len(values) for kind, values in other.items()},
        "different": differences(one, other),
        "defects": defects,
    }


def deliver(folder: Path, days: int, seed: int, flares: float) -> list[Path]:
    """Simulate days as deliveries in a random order, some again, some in two overlapping pieces."""
    dice = random.Random(seed)
    deliveries: list[Path] = []
    for number in range(days):
        day = FIRST_DAY + timedelta(days=number)
        place = folder / day.isoformat()
        simulate(random_scenario(day, seed=seed + number, rate=flares), place)
        if dice.random() < 0.3:
            deliveries += _cut(place, dice)
        else:
            deliveries += [place] * (1 + (dice.random() < 0.2))
    dice.shuffle(deliveries)
    return deliveries


def _cut(place: Path, dice: random.Random) -> list[Path]:
    """Write the packets of a delivery as two pieces that share some of them; the ephemeris goes with the first."""
    packets = read_packets(place / "telemetry")
    first, second = sorted(dice.sample(range(1, len(packets)), 2))
    pieces = []
    for name, rows in (("a", slice(0, second)), ("b", slice(first, len(packets)))):
        piece = place.with_name(f"{place.name}-{name}")
        (piece / "telemetry").mkdir(parents=True)
        (piece / "telemetry" / "packets.bin").write_bytes(packets.select(range(len(packets))[rows]).to_bytes())
        pieces.append(piece)
    (place / "ephemeris").rename(pieces[0] / "ephemeris")
    return pieces


def run(root: Path, deliveries: Sequence[Path], workers: int) -> subprocess.Popen[str]:
    """Start a run on its own session of processes, so that all of them can be found and killed."""
    command = [sys.executable, "-c", _CHILD, str(root), str(workers), *map(str, dict.fromkeys(deliveries))]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )


def disturb(root: Path, deliveries: Sequence[Path], strikes: int, workers: int, seed: int, usual_s: float) -> Storm:
    """Process each delivery until a run of it ends by itself, with strikes spread over all of them."""
    dice, storm = random.Random(seed + 1), Storm()
    targets = Counter(dice.choices(range(len(deliveries)), k=strikes))
    for number, delivery in enumerate(deliveries):
        left = targets[number]
        while True:
            process = run(root, [delivery], workers)
            storm.runs += 1
            if left > 0:
                _strike(process, dice, storm, usual_s)
            if process.wait(_PATIENCE_S) == 0:
                storm.ended_right += 1
            storm.orphans += end_session(process.pid)
            left -= 1
            if process.returncode == 0 and left <= 0:
                break
            if process.returncode == 1 and left < -3:
                storm.failures.append(f"{delivery.name}: {process.stdout.read() if process.stdout else ''}")
                break
    return storm


def _strike(process: subprocess.Popen[str], dice: random.Random, storm: Storm, usual_s: float) -> None:
    """Wait for a random moment of a run, then do one of `STRIKES` to it."""
    assert process.stdout is not None
    process.stdout.readline()
    with suppress(subprocess.TimeoutExpired):
        process.wait(dice.uniform(0.5, 1.5 + 1.5 * usual_s))
    kind = dice.choice(STRIKES)
    if process.poll() is not None:
        kind = "struck after its end"
    elif kind == "worker killed":
        workers = [pid for pid in members(process.pid) if pid != process.pid]
        _kill(dice.choice(workers) if workers else process.pid)
    elif kind == "coordinator killed":
        _kill(process.pid)
    elif kind == "all killed":
        end_session(process.pid, patience_s=0.0)
    else:
        process.send_signal(signal.SIGINT)
    storm.strikes[kind] += 1


def members(session: int) -> list[int]:
    """List the processes of a session that are alive."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            state, _, _, its_session = (place / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                found.append(int(place.name))
    return found


def end_session(session: int, patience_s: float = 15.0) -> int:
    """Kill what is left of a session; return how many processes would not have ended by themselves."""
    deadline = time.monotonic() + patience_s
    while (left := members(session)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        _kill(pid)
    return len(left)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def contents(root: Path) -> dict[str, dict[str, str]]:
    """Return what readers of an archive see, each thing with its digest."""
    with closing(open_archive(str(root))) as archive:
        return {
            "partitions": {f"{p.product} {p.key}": p.digest for p in archive.catalog.partitions()},
            "flares": _rows(archive.catalog.flares(), "flare_id"),
            "images": {row["image_id"]: _map_digest(archive, row) for row in archive.catalog.images()},
        }


def _rows(rows: Sequence[dict[str, Any]], name: str) -> dict[str, str]:
    return {str(row[name]): _digest(row) for row in rows}


def _digest(row: dict[str, Any]) -> str:
    same = {name: value for name, value in row.items() if name != "run_id"}
    return hashlib.sha256(json.dumps(same, default=str, sort_keys=True).encode()).hexdigest()


def _map_digest(archive: Archive, row: dict[str, Any]) -> str:
    found = hashlib.sha256((Path(archive.root) / row["path"]).read_bytes()).hexdigest()
    return found if found == row["digest"] else f"{found}, but the catalog says {row['digest']}"


def differences(one: dict[str, dict[str, str]], other: dict[str, dict[str, str]]) -> list[str]:
    """List what is not the same in two archives."""
    lines = []
    for kind, values in one.items():
        for key in sorted(values.keys() | other[kind].keys()):
            before, after = values.get(key), other[kind].get(key)
            if before != after:
                lines.append(f"{kind} {key}: {before or 'nothing'} undisturbed, {after or 'nothing'} disturbed")
    return lines


def main() -> int:
    """Print what was injected and what was lost; exit 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--strikes", type=int, default=60)
    parser.add_argument("--flares", type=float, default=1.0, help="mean number a day (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two days and three strikes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    days, strikes = (2, 3) if options.quick else (options.days, options.strikes)
    with tempfile.TemporaryDirectory() as scratch:
        result = soak(
            Path(scratch), days=days, strikes=strikes, workers=options.workers, seed=options.seed, flares=options.flares
        )
    sys.stdout.write((json.dumps(result, indent=2) if options.json else _table(result)) + "\n")
    return int(bool(result["different"] or result["defects"] or result["failures"]))


def _table(result: dict[str, Any]) -> str:
    return "\n".join(f"{name.replace('_', ' '):24s} {_shown(value)}" for name, value in result.items())


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return "none" if value == [] else str(value)


if __name__ == "__main__":
    sys.exit(main())
