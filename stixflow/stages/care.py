"""Looking after an archive: soundness, releases and garbage, as plain values and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stixflow.archive import (
    Archive,
    Catalog,
    PacketSet,
    collect,
    compare_releases,
    create_release,
    list_releases,
    open_archive,
)
from stixflow.archive.months import joined_months
from stixflow.archive.verifying import verify_months
from stixflow.cubes.store import delete_store
from stixflow.errors import StoreError
from stixflow.jobs.kept import read_kept
from stixflow.provenance import code_version
from stixflow.stages.validate import format_validation

CURRENT = "current"
"""In place of a release: what is published now."""


def make_release(root: str, name: str, *, note: str = "", catalog: str | None = None) -> dict[str, Any]:
    """Give a name to what is published now, after a look at whether it is all there.

    Raises
    ------
    StoreError
        If a published store is lost: a release would promise what is not there.
    """
    archive = open_archive(root, catalog=catalog)
    lost = archive.lost()
    if lost:
        raise StoreError(
            f"{len(lost)} published stores are not there, the first: {lost[0].path}",
            expected="an archive that is whole",
            advice="run `stixflow process` to build them again, then make the release",
        )
    return create_release(archive.catalog, name, note=note, code_version=code_version())


def releases(root: str, *, catalog: str | None = None) -> dict[str, Any]:
    """Return every release, the latest first."""
    rows = list_releases(open_archive(root, catalog=catalog).catalog)
    return {"releases": [_release_row(row) for row in rows]}


def _release_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a release as plain values, without its report, which `show_release` has."""
    times = {name: row[name] and str(row[name]) for name in ("created", "switched")}
    return {name: value for name, value in row.items() if name != "report"} | times


def show_release(root: str, name: str, *, catalog: str | None = None) -> dict[str, Any]:
    """Return what a release holds: products with their spans and sizes, flares, images."""
    pinned = open_archive(root, release=name, catalog=catalog).catalog
    totals = pinned.totals()
    products = [
        {key: str(value) if key in ("start", "stop") else value for key, value in row.items()}
        for row in pinned.coverage()
    ]
    row = next(row for row in list_releases(pinned) if row["name"] == name)
    about = {key: row[key] for key in ("state", "note", "plan", "report")}
    return {"name": name, **about, "products": products, "flares": totals["flares"], "images": totals["images"]}


def compare(root: str, before: str, after: str, *, catalog: str | None = None) -> dict[str, Any]:
    """Compare two releases partition by partition; ``current`` stands for what is published now."""
    one, two = (_at(root, name, catalog) for name in (before, after))
    rows = compare_releases(one, two)
    return {"before": before, "after": after, "changes": dict(Counter(row["change"] for row in rows)), "rows": rows}


def _at(root: str, name: str, catalog: str | None) -> Catalog:
    return open_archive(root, release=None if name == CURRENT else name, catalog=catalog).catalog


def collect_garbage(root: str, *, grace_days: float, dry_run: bool, catalog: str | None = None) -> dict[str, Any]:
    """Mark and remove what nothing points to; see `stixflow.archive.collect`."""
    found = collect(open_archive(root, catalog=catalog), grace_days=grace_days, dry_run=dry_run)
    return {name: list(getattr(found, name)) for name in ("marked", "waiting", "removed", "active_runs")}


def format_garbage(payload: Mapping[str, Any]) -> str:
    """Write what a collection did as text."""
    lines = [f"removed {path}" for path in payload["removed"]] + [f"marked {path}" for path in payload["marked"]]
    counts = ", ".join(f"{len(payload[name])} {name}" for name in ("removed", "marked", "waiting"))
    if payload["active_runs"]:
        lines.append(f"nothing was removed: a run goes on, {', '.join(payload['active_runs'])}")
    return "\n".join([*lines, counts])


def format_release(payload: Mapping[str, Any]) -> str:
    """Write what a release holds as text."""
    lines = [
        f"  {row['product']:16s} {row['partitions']:5d} partitions  {row['start']} to {row['stop']}"
        for row in payload["products"]
    ]
    head = f"release {payload['name']}, {payload['state']}"
    found = f"  {payload['flares']} flares, {payload['images']} images"
    report = [format_validation(payload["report"])] if payload["report"] else []
    return "\n".join([head, *lines, found, *report])


def format_releases(payload: Mapping[str, Any]) -> str:
    """Write the list of releases as text."""
    rows = payload["releases"]
    lines = [
        f"{row['name']:16s} {row['created']:.19}  {'shown' if row['switched'] else row['state']:9s}"
        f" {row['partitions']:6d} partitions  {row['note']}"
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines) or "no release was made yet"


def format_comparison(payload: Mapping[str, Any]) -> str:
    """Write how two releases differ as text."""
    lines = [f"{row['change']:8s} {row['product']:16s} {row['key']}{_sizes(row)}" for row in payload["rows"]]
    counts = ", ".join(f"{number} {change}" for change, number in payload["changes"].items())
    return "\n".join([*lines, counts or f"{payload['before']} and {payload['after']} are the same"])


def _sizes(row: Mapping[str, Any]) -> str:
    if row["change"] != "changed":
        return ""
    return (
        f"  {row['n_time_before']} to {row['n_time_after']} time bins"
        f", {row['counts_sum_before']} to {row['counts_sum_after']} counts"
    )


def check(
    root: str,
    *,
    remove_damaged: bool = False,
    catalog: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Read every published store and report every defect; on demand, remove the damaged stores that can be built again.

    A store can be built again where every packet set of its partition is kept, with the content that was recorded.
    """
    archive = open_archive(root, catalog=catalog)
    items = archive.catalog.partitions()
    defects = verify_months(archive.catalog, archive.root)
    for done, item in enumerate(items, start=1):
        defects += archive.verify([item])
        if progress:
            progress("verify", done, len(items))
    removed: list[str] = []
    if remove_damaged:
        damaged = {defect.url for defect in defects}
        removed = [path for path in _rebuildable(archive) if archive.url(path) in damaged]
        for path in removed:
            delete_store(archive.url(path))
    read = {"stores": len(items), "bytes": sum(item.n_bytes for item in items)}
    return {"defects": [str(defect) for defect in defects], "removed": removed, **read}


def _rebuildable(archive: Archive) -> Iterator[str]:
    yield from joined_months(archive.catalog)
    for item in archive.catalog.partitions():
        sets = archive.catalog.packet_sets(item.product, item.key)
        if sets and all(_is_whole(archive.root, one) for one in sets):
            yield item.path


def _is_whole(root: str, item: PacketSet) -> bool:
    try:
        read_kept(root, item.path, item.digest)
    except StoreError:
        return False
    return True


def format_check(payload: Mapping[str, Any]) -> str:
    """Write what a check found as text."""
    lines = [*payload["defects"], *(f"removed {path}" for path in payload["removed"])]
    if payload["removed"]:
        lines.append("run `stixflow process` to build them again")
    return "\n".join(lines) or f"no defects in {payload['stores']} stores, {payload['bytes'] / 1e6:.1f} MB"
