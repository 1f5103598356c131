"""Two files of `stixflow bench` side by side: what is faster, what is slower, what is noise, what else has changed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stixflow.bench.measuring import FORMAT
from stixflow.errors import InputFileError, MissingFile

_LEAST_CHANGE = 0.05
"""Changes of a time below this are never told: the clock of a core varies by as much."""
_SIGMAS = 3.0

_CLOCKS = ("cpu", "wall")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one number of one row has changed."""

    part: str
    what: str
    number: str
    before: float
    after: float
    change: float
    """After over before, less one."""
    noise: float | None
    """Relative standard deviation of the change; None for a number that is counted, not measured."""
    verdict: str
    """faster, slower or same for times; same or changed for what is counted."""


def read_document(path: str | Path) -> dict[str, Any]:
    """Read a file that `stixflow bench --output` wrote.

    Raises
    ------
    MissingFile
        If it is not there.
    InputFileError
        If it is something else.
    """
    if not Path(path).is_file():
        raise MissingFile(f"there is no file {path}", expected="a file of `stixflow bench`", advice="correct the name")
    try:
        found: dict[str, Any] = json.loads(Path(path).read_text())
        known = found["format"] == FORMAT and isinstance(found["parts"], dict)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise InputFileError(
            f"{path} is not a file of `stixflow bench`", expected=f"format {FORMAT}", advice="measure again"
        )
    return found


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two documents row by row.

    A time has changed if its least value did by more than 5 % and by more than three standard deviations of both
    medians; a number that is counted has changed if it differs at all. Times of different machines are compared, with
    a word of caution.
    """
    rows = [asdict(one) for part in before["parts"] if part in after["parts"] for one in _part(part, before, after)]
    cautions = [
        f"{name} differs: {before['machine'].get(name)} and {after['machine'].get(name)}"
        for name in before["machine"]
        if before["machine"].get(name) != after["machine"].get(name)
    ]
    for label, one in (("before", before), ("after", after)):
        if max(one["load"].values()) > one["machine"]["cores"]:
            cautions.append(
                f"{label}: more processes than cores (load {max(one['load'].values())}): trust no wall time"
            )
    lost = sorted(_names(before) ^ _names(after))
    return {"rows": rows, "cautions": cautions, "in_one_only": [" ".join(name) for name in lost]}


def _names(found: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(part, row["what"]) for part, rows in found["parts"].items() for row in rows}


def _part(part: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Verdict]:
    others = {row["what"]: row for row in after["parts"][part]}
    for row in before["parts"][part]:
        other = others.get(row["what"])
        if other is None:
            continue
        for clock in _CLOCKS:
            if clock in row and clock in other:
                yield _timed(part, row["what"], clock, row, other)
        for name in _counted(row, other):
            old, new = float(row[name]), float(other[name])
            change = new / old - 1 if old else math.inf if new else 0.0
            verdict = "same" if old == new else "changed"
            yield Verdict(part, row["what"], name, old, new, change, None, verdict)


def _timed(part: str, what: str, clock: str, row: Mapping[str, Any], other: Mapping[str, Any]) -> Verdict:
    old, new = row[clock], other[clock]
    change = new["min"] / old["min"] - 1 if old["min"] else 0.0
    noise = math.hypot(*(_relative(one, n["repetitions"]) for one, n in ((old, row), (new, other))))
    moved = abs(change) > max(_LEAST_CHANGE, _SIGMAS * noise)
    verdict = ("slower" if change > 0 else "faster") if moved else "same"
    return Verdict(part, what, clock, old["min"], new["min"], change, noise, verdict)


def _relative(clock: Mapping[str, float], repetitions: int) -> float:
    return clock["spread"] / clock["median"] / math.sqrt(repetitions) if clock["median"] else 0.0


def _counted(row: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """Name the whole numbers of both rows: what is measured with a clock is a float."""
    for name, value in row.items():
        if name != "repetitions" and type(value) is int and type(other.get(name)) is int:
            yield name


def format_comparison(found: Mapping[str, Any]) -> str:
    """Write a comparison as text, what has changed first."""
    order = {"slower": 0, "changed": 1, "faster": 2, "same": 3}
    lines = [f"caution: {text}" for text in found["cautions"]]
    lines += [f"only in one of them: {name}" for name in found["in_one_only"]]
    for row in sorted(found["rows"], key=lambda row: order[row["verdict"]]):
        noise = f" ± {100 * row['noise']:.1f}" if row["noise"] is not None else ""
        lines.append(
            f"{row['verdict']:8s} {row['part']:12s} {row['what']:44s} {row['number']:10s} "
            f"{row['before']:12.6g} {row['after']:12.6g}  {100 * row['change']:+.1f}{noise} %"
        )
    return "\n".join(lines) or "nothing to compare"
