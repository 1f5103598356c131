"""What every scheduled flow shares: one run on the archive, its stages as Prefect tasks, progress, report, end state.

Prefect decides and records; the stages compute and plan from the catalog, which is the record of what was done. What
Prefect is told of a run (tasks, progress, the table) never changes the run: where its server does not answer, the work
goes on.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from prefect import task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from flows.parent import end_with_parent
from stixflow import compute, stages
from stixflow.archive import Archive, open_archive
from stixflow.archive.turns import take_turn
from stixflow.errors import StixflowError
from stixflow.stages.run import timed

PROGRESS_SECONDS = 5.0
"""The least time between two updates of the progress that Prefect shows."""
TRANSPORT_DELAYS = [10.0, 60.0]
"""Seconds before a stage is tried again whose storage or database did not answer."""
_WAIT_SECONDS = 6 * 3600.0
"""How long a flow waits for another one that writes to the same archive."""
_MOST_ROWS = 200
_TRANSPORT_MODULES = ("botocore", "aiobotocore", "aiohttp")

_log = logging.getLogger("stixflow.flows")


class SomeFailed(StixflowError, RuntimeError):
    """Items of a run that failed; the rest is done, and `report` says what."""

    report: Mapping[str, Any] = {}


class Engine(BaseModel):
    """What computes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    serial: bool = Field(default=False, description="compute in the process of the flow, without a cluster")
    workers: int | None = Field(default=None, description="worker processes; by default as the cluster profile says")
    cluster: str = Field(
        default="local", description="where workers run: a cluster profile by name, or the path of a .toml"
    )
    scheduler: str | None = Field(default=None, description="address of a running Dask scheduler, as tcp://host:8786")
    memory_limit: str | None = Field(default=None, description="of one worker, as 2GB; by default as the profile says")


class Rebuild(BaseModel):
    """What a reprocess is asked for, beside release and span."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    products: list[str] = Field(default_factory=list, description="products, flares and images; by default all")
    against: str = Field(default="current", description="what it is validated against: current, or a release")
    accept: str = Field(default="", description="why differences beyond the gates are wanted")
    note: str = Field(default="", description="what the release is for")
    restart: bool = Field(
        default=False, description="go on with another code, clock or detector than it was begun with"
    )
    rebuild_all: bool = Field(default=False, description="build also what is already as this code would make it")

    def asked(self) -> dict[str, Any]:
        """Return it as arguments of `stages.reprocess.Reprocessing`."""
        return self.model_dump() | {"products": tuple(self.products)}


@contextmanager
def open_run(
    name: str,
    archive: str,
    catalog: str | None,
    *,
    engine: Engine,
    science: stages.Science,
    wait_seconds: float = _WAIT_SECONDS,
) -> Iterator[stages.Run]:
    """Open a run on the archive as its only writer, with workers and progress, for a ``with`` block.

    Raises
    ------
    ArchiveBusy
        If another run builds in the archive for all of `wait_seconds`.
    """
    with (
        only_writer(archive, catalog, wait_seconds),
        compute.open_engine(**engine.model_dump()) as pool,
        stages.open_run(
            archive,
            pool=pool,
            command=f"flow {name}",
            catalog=catalog,
            progress=Progress(name),
            science=science,
        ) as run,
    ):
        yield run


@contextmanager
def only_writer(archive: str, catalog: str | None, wait_seconds: float = _WAIT_SECONDS) -> Iterator[Archive]:
    """Have the turn of the archive, which is made where there is none, for a ``with`` block."""
    watch_parent()
    opened = open_archive(archive, catalog=catalog, create=True)
    try:
        with take_turn(opened.catalog, wait_seconds=wait_seconds):
            yield opened
    finally:
        opened.close()


def watch_parent() -> None:
    """End with the runner or worker that has started this process for a flow run, if one has."""
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        end_with_parent()


def perform(run: stages.Run, plan: Mapping[str, Callable[[], None]]) -> None:
    """Call the stages one after the other, each timed and as a task of the flow."""
    for name, stage in plan.items():
        as_task(name, timed(run, name, stage))()


def as_task(name: str, call: Callable[[], Any]) -> Any:
    """Make a call a Prefect task that is tried again only where storage or database did not answer."""
    # A stage is bound to its run: Prefect sees no argument that it would have to hash or store.
    return task(
        name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(TRANSPORT_DELAYS),
        retry_delay_seconds=TRANSPORT_DELAYS,
        retry_condition_fn=_is_worth_another_try,
    )(call)


def conclude(name: str, report: Mapping[str, Any], *, nothing: str = "nothing to do") -> Any:
    """Leave the table of a run as an artifact and return the end state: failed if any item failed."""
    write_table(name, report)
    failed = report.get("failed", ())
    if failed:
        first = failed[0]
        # What to do is said by the error of the item; the report of the run lists all of them.
        text = f"{len(failed)} failed, the first: {first['stage']}: {first['item']}: {first['error']}"
        error = SomeFailed(text)
        error.report = dict(report)
        logging.getLogger("prefect.flow_runs").addFilter(_without_trace_of_failed)
        return Failed(message=text, data=error)
    done = ", ".join(f"{count} {what}" for what, count in report.get("counts", {}).items() if count)
    return Completed(message=done or nothing, data=dict(report))


def _without_trace_of_failed(record: logging.LogRecord) -> bool:
    """Let items that failed be one line of the log: where in Prefect that was raised tells nobody anything."""
    if record.exc_info and isinstance(record.exc_info[1], SomeFailed):
        record.msg, record.args, record.exc_info = str(record.exc_info[1]), (), None
    return True


def is_transport(error: BaseException | None) -> bool:
    """Tell errors of network, storage and database, which may pass, from those of data and program."""
    if isinstance(error, StixflowError):
        # Errors of the package name their cause where it lies outside of it.
        return is_transport(error.__cause__)
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    if isinstance(error, OSError):
        return True
    module, name = type(error).__module__.split(".")[0], type(error).__name__
    return module in _TRANSPORT_MODULES or (module, name) == ("sqlalchemy", "OperationalError")


def _is_worth_another_try(_task: Any, _run: Any, state: Any) -> bool:
    return is_transport(state.data if isinstance(state.data, BaseException) else getattr(state.data, "result", None))


class Progress:
    """Shows outcomes of the stage at work as a progress artifact, at most every few seconds."""

    def __init__(self, name: str) -> None:
        self._name, self._stage = name, ""
        self._artifact: Any = None
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last < PROGRESS_SECONDS:
            return
        self._last = now
        text = f"{stage}: {done} of {total}"
        with told():
            if self._artifact is None or stage != self._stage:
                self._artifact = create_progress_artifact(
                    100.0 * done / total, key=f"{self._name}-progress", description=text
                )
                self._stage = stage
            else:
                update_progress_artifact(self._artifact, 100.0 * done / total, description=text)


def write_table(name: str, report: Mapping[str, Any]) -> None:
    """Leave the report of a run as a table, failures first."""
    with told():
        create_table_artifact(rows_of(report), key=f"{name}-report", description=_headline(report))


def _headline(report: Mapping[str, Any]) -> str:
    """Say in one line what a run did."""
    run = f"run {report['run_id']} on {report['archive']}" if "run_id" in report else str(report.get("archive", ""))
    return f"{run}: {len(report.get('failed', ()))} failed, {len(report.get('skipped', ()))} skipped"


def rows_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a report as rows of ``what``, ``item`` and ``value``."""
    rows = [_row("FAILED", f"{note['stage']}: {note['item']}", note["error"]) for note in report.get("failed", ())]
    for section in ("balance", "counts", "seconds", "not_decoded_yet"):
        rows += [_row(section, item, value) for item, value in report.get(section, {}).items()]
    rows += [_row("cost", stage, _cost_text(cost)) for stage, cost in report.get("cost", {}).items()]
    rows += [_row("skipped", f"{note['stage']}: {note['item']}", note["reason"]) for note in report.get("skipped", ())]
    rows += [_row(*row) for row in report.get("rows", ())]
    if len(rows) > _MOST_ROWS:
        rows = [
            *rows[: _MOST_ROWS - 1],
            _row("and", f"{len(rows) - _MOST_ROWS + 1} more", "see `stixflow status --json`"),
        ]
    return rows


def _cost_text(cost: Mapping[str, Any]) -> str:
    """Say what a stage took: processor time, bytes of files, memory."""
    text = f"{cost['cpu_seconds']:.1f} s CPU of workers, {cost['coordinator_cpu_seconds']:.1f} s of the coordinator"
    if not cost["workers"]:
        return text
    megabytes = {name: cost[name] / 1e6 for name in ("bytes_read", "bytes_written", "peak_worker_bytes")}
    return (
        f"{text}, {megabytes['bytes_read']:.1f} MB read, {megabytes['bytes_written']:.1f} MB written, "
        f"a worker at most {megabytes['peak_worker_bytes']:.0f} MB"
    )


def _row(what: str, item: str, value: Any) -> dict[str, Any]:
    return {"what": what, "item": item, "value": value}


@contextmanager
def told() -> Iterator[None]:
    """Tell Prefect something in a ``with`` block; that it cannot be told is a line of the log and nothing else."""
    try:
        yield
    except Exception as error:  # whatever the client raises where the server is gone
        with suppress(Exception):
            _log.warning("Prefect could not be told: %s: %s", type(error).__name__, error)
