"""What flows do beside the stages of a run: previews and exports of what is new, coverage, care, old flow runs."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from flows.frame import conclude, is_transport
from stixflow.archive import Archive, collect
from stixflow.errors import StixflowError
from stixflow.stages.reprocess import Reprocessing
from stixflow.stages.run import Run
from stixflow.stages.science import Science
from stixflow.stages.verifying import stores_due, verify_share

_PREVIEWS_A_RUN = 100
_EXPORTS_A_RUN = 2000
"""So that a folder which is named for a mission that is there already does not keep others waiting for a day."""
_DELETED_AT_ONCE = 100
_DAY = np.timedelta64(1, "D")


def preview_new(run: Run, output: Path) -> None:
    """Write the previews of flares whose images are not those of their preview; one that cannot be drawn is skipped."""
    from stixflow.stages.previews import write_previews

    def write(flare_id: str) -> None:
        write_previews(run.archive, flare_id, output / flare_id)
        run.counts["previews"] += 1

    _write_new(run, f"previews {output}", _imaged(run.archive), _PREVIEWS_A_RUN, write, run.skip)


def export_new(run: Run, catalog: str | None, output: Path, products: Sequence[str] | None) -> None:
    """Write official level-1 files of partitions that were published since theirs were written."""
    from stixflow.fits import EXPORTED
    from stixflow.stages.exporting import export_files

    wanted = set(EXPORTED if products is None else products)
    found = {f"{item.product} {item.key}": item for item in run.archive.catalog.partitions() if item.product in wanted}

    def write(name: str) -> None:
        item = found[name]
        told = export_files(
            run.archive.root,
            output,
            catalog=catalog,
            product=item.product,
            start=str(item.start),
            stop=str(item.stop),
            request_id=item.request_id,
        )
        run.counts["exports"] += len(told["files"])

    newest = sorted(found, key=lambda name: found[name].start, reverse=True)
    _write_new(run, f"exports {output}", {name: found[name].run_id for name in newest}, _EXPORTS_A_RUN, write, run.fail)


def _write_new(
    run: Run,
    stage: str,
    wanted: Mapping[str, str],
    at_most: int,
    write: Callable[[str], None],
    note: Callable[[str, str, str], None],
) -> None:
    """Write what was made of something else than `wanted` says, or never, in this order; the catalog remembers it.

    What bad data keep from being written is noted, and tried again when it is made of something else.
    """
    catalog, name = run.archive.catalog, stage.split()[0]
    written = catalog.done(stage)
    due = [item for item, digest in wanted.items() if written.get(item) != digest]
    for done, item in enumerate(due[:at_most], start=1):
        try:
            write(item)
        except StixflowError as error:
            if is_transport(error):
                raise
            note(name, item, str(error))
        catalog.mark_done(stage, {item: wanted[item]}, run_id=run.run_id)
        run.progress(name, done, len(due[:at_most]))
    if len(due) > at_most:
        run.skip(name, f"{len(due) - at_most} more", f"{at_most} are written in a run, the newest first")


def _imaged(archive: Archive) -> dict[str, str]:
    """Return what the images of each flare were made of, the newest flare first."""
    found: dict[str, list[str]] = defaultdict(list)
    for image in archive.catalog.images():
        if image["flare_id"]:
            found[str(image["flare_id"])].append(f"{image['image_id']} {image['digest']}")
    return {
        flare_id: hashlib.sha256("\n".join(sorted(found[flare_id])).encode()).hexdigest()
        for flare_id in sorted(found, reverse=True)
    }


def calibration_coverage(archive: Archive, longest_gap_days: float) -> list[tuple[str, str, Any]]:
    """Return rows that say which calibration runs there are, which are not whole, and where there are none."""
    runs = sorted(archive.catalog.partitions("cal_spectrum"), key=lambda item: item.start)
    if not runs:
        return [("calibration", "runs", 0)]
    rows: list[tuple[str, str, Any]] = [
        ("calibration", "runs", len(runs)),
        ("calibration", "first", str(runs[0].start)),
        ("calibration", "last", str(runs[-1].stop)),
        ("calibration", "counts", sum(item.counts_sum for item in runs)),
    ]
    rows += [("calibration incomplete", item.key, item.missing) for item in runs if not item.complete]
    limit = longest_gap_days * _DAY.astype("timedelta64[s]")
    for one, other in pairwise(runs):
        if other.start - one.stop > limit:
            rows.append(
                ("without calibration", f"{one.stop} to {other.start}", f"{(other.start - one.stop) / _DAY:.1f} days")
            )
    return rows


def plan(archive: str, asked: Reprocessing, *, catalog: str | None, workers: int, science: Science) -> Any:
    """Leave as a table what a reprocess would do and what it takes, and return the end state."""
    from stixflow.stages.estimate import format_plan
    from stixflow.stages.reprocess import plan_reprocess

    told = plan_reprocess(archive, asked, workers=workers, catalog=catalog, science=science)
    lines = format_plan(told).splitlines()
    rows = [("plan", str(number), line) for number, line in enumerate(lines, start=1)]
    return conclude("reprocess", {"archive": archive, "rows": rows}, nothing=lines[0])


def judged(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report of a reprocess in which each gate that was not passed is a failure."""
    checked, switched = report["validation"] or {}, report["switched"]
    refused = [] if checked.get("passed") else [gate for gate in checked.get("gates", ()) if not gate["passed"]]
    failed = [
        {"stage": "validate", "item": gate["name"], "error": f"found {gate['found']}, allowed {gate['allowed']}"}
        for gate in refused
    ]
    rows = [("gate", gate["name"], f"{gate['found']} of {gate['allowed']}") for gate in checked.get("gates", ())]
    rows.append(("readers see it", report["release"], "yes" if switched else "no"))
    return {**report, "failed": [*report["failed"], *failed], "rows": rows}


class Care:
    """The steps of the upkeep of an archive, and what they found."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._counts: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._failed: list[dict[str, str]] = []
        self._rows: list[tuple[str, str, Any]] = []

    def timed(self, name: str, step: Callable[[], None]) -> Callable[[], None]:
        """Return a step with its seconds noted."""

        def call() -> None:
            started = time.perf_counter()
            try:
                step()
            finally:
                self._seconds[name] = round(time.perf_counter() - started, 3)

        return call

    def verify(self, every_days: float, shown: Callable[[str, int, int], None]) -> None:
        """Re-hash the stores that were read longest ago, so that each is within so many days; defects are failures."""
        due = stores_due(self._archive, every_days)
        self._counts["stores"] = len(due)
        self._rows.append(
            ("verified", f"{len(due)} of {len(self._archive.catalog.partitions())} stores", "longest ago")
        )
        self._failed = [
            {"stage": "verify", "item": defect.url, "error": str(defect)}
            for defect in verify_share(self._archive, every_days, shown)
        ]

    def collect(self, grace_days: float) -> None:
        """Mark and remove what nothing points to."""
        found = collect(self._archive, grace_days=grace_days)
        for name in ("marked", "waiting", "removed"):
            self._counts[name] = len(getattr(found, name))
        self._rows += [("garbage removed", path, "") for path in found.removed]
        self._rows += [("garbage kept", run_id, "this run goes on") for run_id in found.active_runs]

    def forget_flow_runs(self, keep_days: float) -> None:
        """Remove the flow runs that ended so long ago from Prefect."""
        self._counts["flow runs forgotten"] = sum(_forget_flow_runs(datetime.now(UTC) - timedelta(days=keep_days)))

    def report(self) -> dict[str, Any]:
        """Return what was done as plain values."""
        return {
            "archive": self._archive.root,
            "counts": self._counts,
            "seconds": self._seconds,
            "failed": self._failed,
            "rows": self._rows,
        }


def _forget_flow_runs(before: datetime) -> Iterator[int]:
    from prefect import get_client
    from prefect.client.schemas import filters

    old = filters.FlowRunFilter(end_time=filters.FlowRunFilterEndTime.model_validate({"before_": before}))
    with get_client(sync_client=True) as client:
        while found := client.read_flow_runs(flow_run_filter=old, limit=_DELETED_AT_ONCE):
            for one in found:
                client.delete_flow_run(one.id)
            yield len(found)
