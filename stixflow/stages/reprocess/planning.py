"""What a reprocess would do, or has left to do, and what it takes; nothing is changed."""

from __future__ import annotations

import shutil
from typing import Any

from stixflow.archive import Archive, list_releases, open_archive
from stixflow.archive.marks import IMAGED
from stixflow.archive.releases import (
    candidate_plan,
)
from stixflow.compute import Serial
from stixflow.compute.processes import core_count
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import UsageError
from stixflow.stages import estimate
from stixflow.stages.cubes import stale_partitions
from stixflow.stages.flares import plan_days
from stixflow.stages.reprocess.asked import Reprocessing, adoptable, candidate_of
from stixflow.stages.run import Run
from stixflow.stages.science import USUAL, Science


def plan_reprocess(
    root: str,
    asked: Reprocessing,
    *,
    workers: int = 0,
    catalog: str | None = None,
    science: Science = USUAL,
) -> dict[str, Any]:
    """Return what a reprocess would do, or has left to do, and what it will take; nothing is changed.

    Raises
    ------
    MissingFile
        If there is no archive.
    """
    present = open_archive(root, catalog=catalog)
    exists = _is_open(present, asked.release)
    scope = candidate_plan(present.catalog, asked.release).scope if exists else asked.scope
    pinned = open_archive(root, asked.release, catalog=catalog) if exists else present
    run = Run(pinned, Serial(), "", detector=science.finder(), clock=science.clock())
    run.candidate = candidate_of(asked.release, scope, present)
    stale = stale_partitions(run, from_nothing=asked.rebuild_all and not exists)
    ready = set() if asked.rebuild_all or not exists else set(adoptable(run, present))
    shown = present.catalog.partitions()
    adopted = {(item.product, item.key) for item in shown if item.id in ready}
    todo = {(job.product, job.key): sets for job, sets in stale if (job.product, job.key) not in adopted}
    rates = estimate.read_rates(present)
    parts = estimate.cube_parts(present, rates, todo, shown) + _finding_parts(run, present, rates, exists=exists)
    return {
        "release": asked.release,
        "scope": str(scope),
        "exists": exists,
        "ready": len([item for item in pinned.catalog.partitions() if scope.covers(item.product, item.day)]) - len(todo)
        if not exists
        else len(pinned.catalog.partitions()),
        "parts": [part.as_row() for part in parts if part.items],
        "total": estimate.total(parts, rates, workers or core_count()) | {"free_bytes": _free_bytes(root)},
        "left_out": _left_out(present),
    }


def _is_open(present: Archive, name: str) -> bool:
    states = {row["name"]: row["state"] for row in list_releases(present.catalog)}
    if states.get(name) == "final":
        raise UsageError(
            f"the release {name} exists and is final",
            expected="a new name: releases never change",
            advice="choose another",
        )
    return name in states


def _finding_parts(run: Run, present: Archive, rates: estimate.Rates, *, exists: bool) -> list[estimate.Part]:
    """Estimate searches and images by what readers see: what of it the release has not made yet."""
    assert run.candidate is not None
    scope, mine = run.candidate.scope, run.archive.catalog
    searched = {job.key for job in mine.partitions("ql_lightcurve")} if exists else set()
    left = {job.day for job, _ in plan_days(run)} if exists else set()
    days = [
        day
        for day in present.catalog.partitions("ql_lightcurve")
        if scope.covers("flares", day.day) and (day.key not in searched or day.key in left)
    ]
    imaged = mine.done(IMAGED) if exists else {}
    flares = {
        str(row["flare_id"])
        for row in present.catalog.flares()
        if scope.covers("images", row["day"]) and str(row["flare_id"]) not in imaged
    }
    images = [row for row in present.catalog.images() if row["flare_id"] in flares]
    wanted = len({row["flare_id"] for row in images}) or len(flares & set(present.catalog.done(IMAGED)))
    return estimate.finding_parts(rates, days, wanted, len(images), present.catalog.partitions("sci_pixels"))


def _left_out(present: Archive) -> dict[str, int]:
    """Count what a reprocess cannot rebuild: partitions without packets, packets of types without a cube."""
    sets = present.catalog.packet_sets()
    keys = {(item.product, item.key) for item in sets}
    orphans = sum((item.product, item.key) not in keys for item in present.catalog.partitions())
    unknown = sum(item.n_packets for item in sets if item.product not in PRODUCTS)
    found = {"partitions of which the archive has no packets": orphans, "packets of types that have no cube": unknown}
    return {name: number for name, number in found.items() if number}


def _free_bytes(root: str) -> int | None:
    """Return the room on the disc of an archive; None in a bucket."""
    return None if "://" in root else shutil.disk_usage(root).free
