"""What a run did and what an archive holds, as plain values and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stixflow.archive import Partition, list_releases, open_archive
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import masked
from stixflow.time import iso

_MOST_LINES = 20
_MANY = 4
_RUNS_SHOWN = 5
_RUN_KEYS = ("run_id", "command", "state", "started", "finished", "seen", "host", "pid")
_GAPS_SHOWN = 4


def format_report(report: Mapping[str, Any]) -> str:
    """Write the report of a run as text."""
    books = report["balance"]
    lines = [
        f"run {report['run_id']} on {report['archive']}",
        f"packets   {books['packets_in']} in = {books['used']} used + {books['duplicates']} duplicates"
        f" + {books['rejected']} rejected",
        "done      "
        + (", ".join(f"{count} {name}" for name, count in report["counts"].items() if count) or "nothing to do"),
        "seconds   " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["seconds"].items()),
    ]
    if costs := {name: cost for name, cost in report.get("cost", {}).items() if cost["items"]}:
        lines.append("cost      " + ", ".join(f"{name} {_cost(cost)}" for name, cost in costs.items()))
    files = report.get("official", {})
    if any(files.values()):
        lines.insert(
            2,
            f"level 1   {files['files']} files with {files['bins']} bins and {files['counts']} counts in; in cubes "
            f"{files['used']} bins used, {files['repeated']} repeated, {files['replaced']} replaced",
        )
    waiting = report["not_decoded_yet"]
    if waiting:
        lines.append("kept, known, not decoded yet  " + ", ".join(f"{n} of ({kind})" for kind, n in waiting.items()))
    lines += _notes("skipped", report["skipped"], "reason") + _notes("FAILED", report["failed"], "error")
    return "\n".join(lines)


def _cost(cost: Mapping[str, Any]) -> str:
    return (
        f"{cost['cpu_seconds']:.1f} s CPU + {cost['overhead_share']:.0%} overhead"
        f" (a worker at most {cost['peak_worker_bytes'] / 1e6:.0f} MB)"
    )


def _notes(title: str, notes: Sequence[Mapping[str, str]], key: str) -> list[str]:
    alike: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        alike.setdefault((note["stage"], note[key]), []).append(note["item"])
    lines = [f"{title:8s}  {stage}: {_named(items)}: {why}" for (stage, why), items in alike.items()]
    hidden = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], f"{title:8s}  and {hidden} more (--json lists all)"] if hidden > 0 else lines


def _named(items: Sequence[str]) -> str:
    """Name items of which the same is said, the first of many."""
    return ", ".join(items) if len(items) < _MANY else f"{items[0]} and {len(items) - 1} others"


def archive_status(root: str, *, catalog: str | None = None) -> dict[str, Any]:
    """Return what an archive holds: products with their spans, gaps and sizes, flares, images, releases, the last runs.

    Raises
    ------
    MissingFile
        If there is no archive.
    """
    archive = open_archive(root, catalog=catalog)
    published = archive.catalog.partitions()
    products = {}
    for name in PRODUCTS:
        mine = [item for item in published if item.product == name]
        if mine:
            products[name] = {
                "partitions": len(mine),
                "incomplete": sum(not item.complete for item in mine),
                "start": iso(min(item.start for item in mine)),
                "stop": iso(max(item.stop for item in mine)),
                "time_bins": sum(item.n_time for item in mine),
                "counts": sum(item.counts_sum for item in mine),
                "megabytes": round(sum(item.n_bytes for item in mine) / 1e6, 3),
                "gaps": _gaps(mine) if PRODUCTS[name].partition == "day" else [],
            }
    totals = archive.catalog.totals()
    runs = archive.catalog.runs()[:_RUNS_SHOWN]
    return {
        "archive": masked(archive.root),
        "catalog": archive.catalog.url,
        "products": products,
        **{name: totals[name] for name in ("files", "quarantined", "flares", "images")},
        "lost": [item.path for item in archive.lost()],
        "releases": [row["name"] for row in list_releases(archive.catalog)],
        "runs": [{key: run[key] for key in _RUN_KEYS} for run in runs],
    }


def _gaps(partitions: Sequence[Partition]) -> list[str]:
    """Return the runs of days without a partition between the first day and the last: ``2021-06-07 to 2021-06-09``."""
    days = np.unique(np.array([item.day for item in partitions], dtype="datetime64[D]"))
    before = np.flatnonzero(np.diff(days).astype(int) > 1)
    spans = zip(days[before] + 1, days[before + 1] - 1, strict=True)
    return [str(first) if first == last else f"{first} to {last}" for first, last in spans]


def format_status(status: Mapping[str, Any]) -> str:
    """Write the status of an archive as text."""
    lines = [f"archive {status['archive']}: {status['files']} files in, {status['quarantined']} pieces in quarantine"]
    if not status["catalog"].startswith("sqlite"):
        lines.append(f"catalog {status['catalog']}")
    for name, product in status["products"].items():
        lines.append(
            f"  {name:16s} {product['partitions']:5d} partitions  {product['start']} to {product['stop']}"
            f"  {product['megabytes']:9.2f} MB"
            + (f"  {product['incomplete']} incomplete" if product["incomplete"] else "")
            + (f"  without {_some(product['gaps'])}" if product["gaps"] else "")
        )
    lines.append(f"  {status['flares']} flares, {status['images']} images")
    if status["releases"]:
        lines.append(f"  releases {', '.join(status['releases'])}")
    if status["lost"]:
        lines.append(f"  LOST {_some(status['lost'])}: `stixflow process` builds them again")
    lines += [
        f"  run {run['run_id']} {run['state']:8s} {run['command']}  {_second(run['started'])}{_who(run)}"
        for run in status["runs"]
    ]
    return "\n".join(lines)


def _who(run: Mapping[str, Any]) -> str:
    """Tell of a run that has not ended by itself who ran it, and when it was last seen."""
    if run["state"] not in ("running", "dead") or run["pid"] is None:
        return ""
    return f"  process {run['pid']} on {run['host']}, last seen {_second(run['seen'])}"


def _second(time: object) -> str:
    return str(time)[:19]


def _some(texts: Sequence[str]) -> str:
    shown = ", ".join(texts[:_GAPS_SHOWN])
    return shown if len(texts) <= _GAPS_SHOWN else f"{shown} and {len(texts) - _GAPS_SHOWN} more"


def rollback(root: str, product: str, key: str, *, catalog: str | None = None) -> dict[str, Any]:
    """Make the run before the current one of a partition current again, and return which that is.

    Raises
    ------
    NotFound
        If the partition was published once or never.
    """
    earlier = open_archive(root, catalog=catalog).catalog.rollback(product, key)
    return {"product": product, "key": key, "run_id": earlier.run_id, "digest": earlier.digest}
