"""The flow that takes telemetry all the way: ingest, flares, images, each stage one Prefect task.

Prefect decides and records; the work of a stage is fanned out over Dask by `stixflow.compute.map_batches`, and the
catalog of the archive is the record of what was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.environment import prepare
from stixflow import compute, stages
from stixflow.stages.run import Progress
from stixflow.stages.science import USUAL, Science


def run_process(
    paths: list[str],
    *,
    archive: str,
    catalog: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    science: Science = USUAL,
    engine: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the flow in this process and return its report; `engine` are arguments of `compute.open_engine`.

    Without ``PREFECT_API_URL`` Prefect starts a server of its own for the time of the flow; its database is kept in
    ``prefect/`` of the archive, never in the user's home.
    """
    stages.list_files([Path(path) for path in paths])  # before anything is started
    prepare(archive)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # The heartbeat thread costs every flow a second; a run in the foreground needs none.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        report: dict[str, Any] = _process_flow(catalog)(
            paths, archive, {"workers": workers, **(engine or {})}, progress, science
        )
    return report


def _process_flow(catalog: str | None) -> Any:
    """Return the Prefect flow ``process(paths, archive, engine, progress, science)`` on a catalog.

    The URL of the catalog may have a password, and Prefect keeps the parameters of flows: it is none.
    """
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE

    @flow(name="process", validate_parameters=False, persist_result=False)
    def process(
        paths: list[str],
        archive: str,
        engine: Mapping[str, Any],
        progress: Progress | None,
        science: Science,
    ) -> dict[str, Any]:
        with (
            compute.open_engine(**engine) as pool,
            stages.open_run(
                archive, pool=pool, catalog=catalog, progress=progress, command="stixflow process", science=science
            ) as run,
        ):
            for name, stage in stages.bind(run, [Path(path) for path in paths]).items():
                # A stage is bound to its run: Prefect sees no argument that it would have to hash or store.
                task(name=name, cache_policy=NO_CACHE, persist_result=False)(stage)()
        return run.report()

    return process
