"""The stages of a run: plan jobs from the catalog, fan them out, record what came of them.

This is the coordinating process, the only writer of the catalog. The same stages run serially, on a Dask cluster, or
each as a task of the Prefect flow; what ran, and what is still to do, is always read from the catalog, so a run that
was killed is healed by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stixflow.compute import Pool
from stixflow.stages.cubes import build_cubes
from stixflow.stages.flares import find_flares
from stixflow.stages.images import ENERGY_RANGES, METHODS, make_images
from stixflow.stages.ingest import ingest, list_files
from stixflow.stages.report import archive_status, format_report, format_status, rollback
from stixflow.stages.run import Progress, Run, open_run, timed
from stixflow.stages.science import USUAL, Science

__all__ = [
    "ENERGY_RANGES",
    "METHODS",
    "STAGES",
    "Run",
    "Science",
    "archive_status",
    "bind",
    "build_cubes",
    "find_flares",
    "format_report",
    "format_status",
    "ingest",
    "list_files",
    "make_images",
    "open_run",
    "rollback",
    "run_stages",
]

STAGES = ("ingest", "cubes", "flares", "images")
"""Every stage, in the order in which they feed each other."""


def bind(run: Run, paths: Sequence[Path]) -> dict[str, Callable[[], None]]:
    """Return every stage by name, bound to a run and timed, so that anything can call them."""
    plan: dict[str, Callable[[], None]] = {
        "ingest": lambda: ingest(run, paths),
        "cubes": lambda: build_cubes(run),
        "flares": lambda: find_flares(run),
        "images": lambda: make_images(run),
    }
    return {name: timed(run, name, plan[name]) for name in STAGES}


def run_stages(
    names: Sequence[str],
    paths: Sequence[Path],
    *,
    root: str,
    pool: Pool,
    command: str,
    catalog: str | None = None,
    progress: Progress | None = None,
    science: Science = USUAL,
) -> dict[str, Any]:
    """Run the named stages without Prefect and return the report of the run."""
    if "ingest" in names:
        list_files(paths)  # before an archive is made
    with open_run(root, pool=pool, command=command, catalog=catalog, progress=progress, science=science) as run:
        stages = bind(run, paths)
        for name in names:
            stages[name]()
    return run.report()
