"""The mission built again beside what readers see: resumed after any end, validated, switched to, taken back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from example_delivery import DAYS, flare_rows, pick, process, published, telemetry, write

from stixflow import cli
from stixflow.archive import Archive, Catalog, collect, open_archive
from stixflow.compute import Serial
from stixflow.errors import PublishConflict, UsageError
from stixflow.stages.reprocess import (
    STAGES,
    Reprocessing,
    open_reprocess,
    plan_reprocess,
    return_release,
    run_reprocess,
    switch_release,
)

NAME = "2026.2"
ALL = Reprocessing(NAME, rebuild_all=True)


def reprocess(root: Path, asked: Reprocessing = ALL, *, switches: bool = False) -> dict[str, Any]:
    """Reprocess in this process."""
    return run_reprocess(str(root), asked, pool=Serial(), switches=switches)


def seen(root: Path, release: str | None = None) -> dict[str, Any]:
    """What readers see: digests of partitions and images, flares with their places."""
    archive = open_archive(root, release)
    found = {
        "partitions": {f"{p.product} {p.key}": p.digest for p in archive.catalog.partitions()},
        "flares": flare_rows(archive),
        "places": archive.flares()[["x_hpc", "y_hpc", "goes_class"]].to_numpy().tolist(),
        "images": {row["image_id"]: row["digest"] for row in archive.catalog.images()},
    }
    archive.close()
    return found


def runs_of(root: Path, release: str | None = None) -> set[str]:
    """Runs that made what readers see."""
    archive = open_archive(root, release)
    found = {item.run_id for item in archive.catalog.partitions()} | {row["run_id"] for row in archive.catalog.images()}
    archive.close()
    return found


def test_readers_see_the_old_until_the_switch_and_all_of_the_new_after_it(archive_copy: Path) -> None:
    before, old = seen(archive_copy), runs_of(archive_copy)
    report = reprocess(archive_copy)
    assert report["validation"]["passed"]
    assert (runs_of(archive_copy), seen(archive_copy)) == (old, before)
    # By the same code of the same packets: the same, digest for digest, images too.
    assert seen(archive_copy, NAME) == before
    told = switch_release(str(archive_copy), NAME)
    assert (told["moved"], told["added"], told["removed"], told["kept"]) == (7, 0, 0, 0)
    assert runs_of(archive_copy) == {report["run_id"]}
    assert seen(archive_copy) == seen(archive_copy, f"{NAME}-before") == before
    assert process(archive_copy)["counts"] == {}
    assert open_archive(archive_copy).verify() == []
    return_release(str(archive_copy), NAME)
    assert (runs_of(archive_copy), seen(archive_copy)) == (old, before)
    assert process(archive_copy)["counts"] == {}
