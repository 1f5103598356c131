"""Times with their spread, and where they were measured: what every benchmark shares."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stixflow.compute.processes import core_count
from stixflow.provenance import record

FORMAT = 1
"""Version of the files that `document` describes."""

_TO_SIGMA = 1.4826
"""From the median absolute deviation to the standard deviation of a normal distribution."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one time, s: the least, the median, and how far they scatter."""

    min: float
    median: float
    spread: float
    """Standard deviation by the median absolute deviation, so that one disturbed repetition does not count."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        middle = statistics.median(seconds)
        return cls(min(seconds), middle, _TO_SIGMA * statistics.median(abs(one - middle) for one in seconds))


def measure(call: Callable[[], object], *, repetitions: int = 5, warm: bool = True) -> Row:
    """Call a function several times: CPU time of this process and wall time, after one call that does not count."""
    if warm:
        call()
    cpu, wall = [], []
    for _ in range(repetitions):
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        call()
        cpu.append(time.process_time() - cpu_start)
        wall.append(time.perf_counter() - wall_start)
    return {"repetitions": repetitions, "cpu": asdict(Spread.of(cpu)), "wall": asdict(Spread.of(wall))}


def machine() -> dict[str, Any]:
    """Return the kind of machine, without a word about which one it is."""
    return {
        "cores": core_count(),
        "model": _model(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def load() -> float:
    """Return how many processes wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2)


def document(command: str, parts: Mapping[str, Callable[[], Sequence[Row]]]) -> dict[str, Any]:
    """Run the named benchmarks and return what they found, with machine, versions and load at start and end."""
    before = load()
    rows = {name: list(run()) for name, run in parts.items()}
    found = {"start": before, "end": load()}
    return {"format": FORMAT, **record(command), "machine": machine(), "load": found, "parts": rows}


def format_document(found: Mapping[str, Any]) -> str:
    """Write a document as text: one table for each benchmark."""
    here = found["machine"]
    lines = [
        f"{found['command']}  {found['created']}  code {found['code_version']}",
        f"{here['cores']} cores of {here['model']}, {here['memory_gb']} GB, "
        f"load {found['load']['start']} at the start, {found['load']['end']} at the end",
    ]
    for name, rows in found["parts"].items():
        lines += ["", name, *_table(rows)]
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("cpu", "wall", "repetitions")))
    clocks = [clock for clock in ("cpu", "wall") if any(clock in row for row in rows)]
    heads = [*columns, *(f"{clock} ms" for clock in clocks)]
    cells = [[_cell(row.get(name)) for name in columns] + [_clock(row.get(clock)) for clock in clocks] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    return [
        "  " + "  ".join(text.rjust(width) if index else text.ljust(width) for index, (text, width) in aligned).rstrip()
        for line in (heads, *cells)
        for aligned in [list(enumerate(zip(line, widths, strict=True)))]
    ]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return " x ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _clock(value: Mapping[str, float] | None) -> str:
    return (
        "" if value is None else f"{1e3 * value['min']:.2f} ({1e3 * value['median']:.2f} ± {1e3 * value['spread']:.2f})"
    )
