"""The flows of a mission: ingest, daily, images, calibration, maintenance, reprocess.

Each is thin: it opens a run on the archive, calls stages, and leaves their report. Any of them may be killed and
started again at any time, since what is left to do is read from the catalog.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows import upkeep
from flows.frame import (
    Engine,
    Progress,
    Rebuild,
    as_task,
    conclude,
    only_writer,
    open_run,
    perform,
    watch_parent,
)
from flows.notify import on_trouble
from flows.passwords import with_password
from flows.silence import tell_of_silenced
from stixflow import compute, stages
from stixflow.archive import open_archive
from stixflow.calibration.table import DRIFT_LIMIT_KEV
from stixflow.errors import ArchiveBusy
from stixflow.stages import inbox as inboxes
from stixflow.stages import reprocess as rebuilds
from stixflow.stages.calibration import SHORTEST_HOURS, calibrate_runs, drift_rows
from stixflow.stages.science import USUAL, Science

_COMMON: dict[str, Any] = {
    "persist_result": False,
    "on_running": [tell_of_silenced],
    "on_failure": [on_trouble],
    "on_crashed": [on_trouble],
}
_HERE, _WORKERS, _ALL_OF_IT = Engine(serial=True), Engine(), Rebuild()


@flow(name="ingest", **_COMMON)
def ingest(
    archive: str,
    inbox: str,
    catalog: str | None = None,
    settle_seconds: float = inboxes.SETTLE_SECONDS,
    cubes: bool = True,
    retry_refused: bool = False,
    engine: Engine = _HERE,
    science: Science = USUAL,
) -> Any:
    """Take what is new and settled in a drop folder or bucket prefix into the archive, each file once.

    Parameters
    ----------
    archive
        Folder or s3:// URL.
    inbox
        Folder or s3:// prefix; nothing in it is changed.
    catalog
        SQLAlchemy URL without a password; by default SQLite in the archive.
    settle_seconds
        A file counts as whole when neither its length nor its time changed for so long.
    cubes
        Build and publish the partitions that the new packets belong to at once.
    retry_refused
        Also try files that were refused before and have not changed since.
    engine
        What computes; one delivery is small, so by default the process of the flow.
    science
        What changes the result.
    """
    catalog = with_password(catalog)
    found = _look(archive, catalog, inbox, settle_seconds, retry_refused)
    if not found.ready:
        return conclude("ingest", _quiet(archive, found), nothing="nothing new")
    try:
        with open_run("ingest", archive, catalog, engine=engine, science=science, wait_seconds=settle_seconds) as run:
            plan = {"ingest": lambda: inboxes.take_in(run, found)}
            perform(run, plan | {"cubes": lambda: stages.build_cubes(run)} if cubes else plan)
    except ArchiveBusy:
        return Completed(message=f"{len(found.ready)} new files wait: another run writes to the archive", name="Busy")
    return conclude("ingest", run.report() | {"rows": _rows(found)})


@flow(name="daily", **_COMMON)
def daily(
    archive: str,
    catalog: str | None = None,
    images: bool = True,
    previews: str | None = None,
    exports: str | None = None,
    export_products: list[str] | None = None,
    engine: Engine = _WORKERS,
    science: Science = USUAL,
) -> Any:
    """Bring everything up to date with the packets of the archive: cubes, flares, images; then what is made of them.

    Parameters
    ----------
    archive
        Folder or s3:// URL.
    catalog
        SQLAlchemy URL without a password; by default SQLite in the archive.
    images
        Locate and image flares; the flow `images` does it apart.
    previews
        Folder for the previews of flares whose images are new since theirs were written; none: no previews.
    exports
        Folder for official level-1 files of partitions published since theirs were written; none: no exports.
    export_products
        Products to export; by default every one that has level-1 files.
    engine
        What computes.
    science
        What changes the result.
    """
    catalog = with_password(catalog)
    with open_run("daily", archive, catalog, engine=engine, science=science) as run:
        plan = {"cubes": lambda: stages.build_cubes(run), "flares": lambda: stages.find_flares(run)}
        if images:
            plan["images"] = lambda: stages.make_images(run)
        if previews:
            plan["previews"] = lambda: upkeep.preview_new(run, Path(previews))
        if exports:
            plan["exports"] = lambda: upkeep.export_new(run, catalog, Path(exports), export_products)
        perform(run, plan)
    return conclude("daily", run.report())


@flow(name="images", **_COMMON)
def images(
    archive: str,
    catalog: str | None = None,
    engine: Engine = _WORKERS,
    science: Science = USUAL,
) -> Any:
    """Locate and image every flare whose maps are missing, or were made of other inputs.

    Parameters
    ----------
    archive
        Folder or s3:// URL.
    catalog
        SQLAlchemy URL without a password; by default SQLite in the archive.
    engine
        What computes.
    science
        What changes the result.
    """
    catalog = with_password(catalog)
    with open_run("images", archive, catalog, engine=engine, science=science) as run:
        perform(run, {"images": lambda: stages.make_images(run)})
    return conclude("images", run.report())


@flow(name="calibration", **_COMMON)
def calibration(
    archive: str,
    catalog: str | None = None,
    longest_gap_days: float = 3.0,
    shortest_hours: float = SHORTEST_HOURS,
    drift_limit_kev: float = DRIFT_LIMIT_KEV,
    engine: Engine = _HERE,
    science: Science = USUAL,
) -> Any:
    """Publish the spectra of the calibration runs, find gain and offset of every pixel, and say which days have none.

    Products of each run lie in the folder ``calibration`` of the archive; the report lists pixels that have drifted
    from the energy table on board, which runs there are, whether they are whole, and the gaps.

    Parameters
    ----------
    archive
        Folder or s3:// URL.
    catalog
        SQLAlchemy URL without a password; by default SQLite in the archive.
    longest_gap_days
        Longer times between two calibration runs are listed.
    shortest_hours
        Shorter runs are not calibrated.
    drift_limit_kev
        Pixels of which an edge up to 84 keV has drifted further are listed.
    engine
        What computes.
    science
        What changes the result.
    """
    catalog = with_password(catalog)
    with open_run("calibration", archive, catalog, engine=engine, science=science) as run:
        steps = {"cubes": lambda: stages.build_cubes(run)}
        steps["calibration"] = lambda: calibrate_runs(run, shortest_hours=shortest_hours, limit_kev=drift_limit_kev)
        perform(run, steps)
        rows = upkeep.calibration_coverage(run.archive, longest_gap_days) + drift_rows(run.archive)
    return conclude("calibration", run.report() | {"rows": rows})


@flow(name="maintenance", **_COMMON)
def maintenance(
    archive: str,
    catalog: str | None = None,
    verify: bool = True,
    verify_days: float = 7.0,
    grace_days: float = 7.0,
    keep_flow_runs_days: float | None = 90.0,
) -> Any:
    """Re-hash a share of the published stores, remove what nothing points to, and forget old flow runs of Prefect.

    Parameters
    ----------
    archive
        Folder or s3:// URL.
    catalog
        SQLAlchemy URL without a password; by default SQLite in the archive.
    verify
        Read published stores, those first that were read longest ago; a damaged one fails the flow.
    verify_days
        Days in which each store is read once, with one run a day; 1: every run reads all.
    grace_days
        How long what nothing points to is kept after it was first found so.
    keep_flow_runs_days
        Flow runs that ended longer ago are removed from Prefect; the catalog keeps what they did. None: all are kept.
    """
    catalog = with_password(catalog)
    with only_writer(archive, catalog) as opened:
        care = upkeep.Care(opened)
        steps = {"verify": lambda: care.verify(verify_days, Progress("maintenance"))} if verify else {}
        steps["garbage"] = lambda: care.collect(grace_days)
        if keep_flow_runs_days is not None:
            steps["flow runs"] = lambda: care.forget_flow_runs(keep_flow_runs_days)
        for name, step in steps.items():
            as_task(name, care.timed(name, step))()
    return conclude("maintenance", care.report())


@flow(name="reprocess", **_COMMON)
def reprocess(
    archive: str,
    release: str,
    catalog: str | None = None,
    start: str | None = None,
    stop: str | None = None,
    options: Rebuild = _ALL_OF_IT,
    dry_run: bool = False,
    switches: bool = False,
    engine: Engine = _WORKERS,
    science: Science = USUAL,
) -> Any:
    """Build a range or the whole mission again into a release beside what readers see, validate it, and switch to it.

    A run that was stopped is gone on with by another one of the same release.

    Parameters
    ----------
    archive
        Folder or s3:// URL.
    release
        Name of the release, as 2026.2.
    catalog
        SQLAlchemy URL without a password; by default SQLite in the archive.
    start
        First day, UTC; by default the first there is.
    stop
        Day after the last one.
    options
        Products, what to validate against, why differences are wanted, and how to go on with a release.
    dry_run
        Only say what would be done, and what it takes.
    switches
        Show the release to readers when every gate is passed; otherwise `stixflow release switch` does it.
    engine
        What computes.
    science
        What changes the result.
    """
    catalog = with_password(catalog)
    asked = rebuilds.Reprocessing(release, start=start, stop=stop, **options.asked())
    if dry_run:
        return upkeep.plan(archive, asked, catalog=catalog, workers=engine.workers or 0, science=science)
    watch_parent()
    progress = Progress("reprocess")
    with (
        compute.open_engine(**engine.model_dump()) as pool,
        rebuilds.open_reprocess(archive, asked, pool=pool, catalog=catalog, progress=progress, science=science) as made,
    ):
        steps = made.stages()
        for name in rebuilds.STAGES[:-1]:
            as_task(name, steps[name])()
        if switches and made.validation is not None and made.validation.passed:
            as_task("switch", steps["switch"])()
    return conclude("reprocess", upkeep.judged(made.report()))


def _look(archive: str, catalog: str | None, inbox: str, settle_seconds: float, retry: bool) -> inboxes.Inbox:
    opened = open_archive(archive, catalog=catalog, create=True)
    try:
        found: inboxes.Inbox = as_task(
            "look", lambda: inboxes.look(inbox, opened.catalog, settle_seconds=settle_seconds, retry=retry)
        )()
    finally:
        opened.close()
    return found


def _quiet(archive: str, found: inboxes.Inbox) -> dict[str, Any]:
    return {"archive": archive, "counts": {}, "failed": [], "rows": _rows(found)}


def _rows(found: inboxes.Inbox) -> list[tuple[str, str, Any]]:
    rows: list[tuple[str, str, Any]] = [("inbox", found.url, f"{found.taken} files taken before")]
    rows += [("waiting", name, why) for name, why in found.waiting.items()]
    return rows + [("refused before", name, why) for name, why in found.refused.items()]
