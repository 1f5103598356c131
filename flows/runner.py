"""The process that runs the flows of one host: takes back what an earlier one left, then starts what is due."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.states import Crashed

from flows.deployments import Deployment, Site, build
from flows.notify import tell, told_of
from flows.silence import MESSAGE as SILENT
from flows.silence import watch_for_silence
from stixflow.settings import load_settings

_STOPPED = "Runner is shutting down."
_GOING = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
_PAGE = 200


def run_deployments(
    site: Site, deployments: Sequence[Deployment], *, poll_seconds: float, when_ready: Callable[[], None]
) -> None:
    """Register the deployments, call `when_ready`, and run what is due, until the process is told to stop."""
    logging.getLogger("prefect.runner.state_proposer").addFilter(_without_trace_of_withdrawn)
    asyncio.run(_serve(site, deployments, poll_seconds, when_ready))


def _without_trace_of_withdrawn(record: logging.LogRecord) -> bool:
    """Let a scheduled run that was deleted just before it began, as when its schedule is paused, be one line."""
    if record.exc_info and isinstance(record.exc_info[1], ObjectNotFound):
        record.msg, record.exc_info = f"{record.msg}: it is no longer scheduled", None
    return True


async def _serve(
    site: Site, deployments: Sequence[Deployment], poll_seconds: float, when_ready: Callable[[], None]
) -> None:
    runner = _Runner(name=site.name, query_seconds=poll_seconds, pause_on_shutdown=False, prefetch_seconds=0)
    began = datetime.now(UTC)
    names: dict[UUID, str] = {}
    for one in deployments:
        names[await runner.aadd_deployment(await _built(one, site))] = one.flow
    await recover(names, before=began)
    await asyncio.to_thread(watch_for_silence)
    when_ready()
    await runner.start()


async def _built(one: Deployment, site: Site) -> Any:
    # Prefect's own functions answer differently inside an event loop.
    return await asyncio.to_thread(build, one, site)


class _Runner(Runner):
    """A runner whose SIGTERM ends its flow runs, and says so to the server, before it ends itself."""

    def handle_sigterm(self, *_args: Any, **_options: Any) -> None:
        self._stopping = asyncio.get_running_loop().create_task(self.astop())


async def recover(deployments: Mapping[UUID, str], *, before: datetime) -> dict[str, int]:
    """Mark runs whose process is gone as crashed, drop runs that were due `before`, and start one in place of either.

    Only the runner that has these deployments may call it: it takes every run of them that goes on for dead.

    Returns
    -------
    How many runs were marked crashed, how many were missed, how many were started now.
    """
    dead = await _runs(deployments, _GOING)
    stopped = [run for run in await _last_runs(deployments) if run.state and run.state.message in (_STOPPED, SILENT)]
    late = [run for run in await _runs(deployments, (StateType.SCHEDULED,)) if _is_due(run, before)]
    async with get_client() as client:
        for run in dead:
            message = "The process that ran it is gone; what it had left to do is done by the next run."
            await client.set_flow_run_state(run.id, Crashed(message=message), force=True)
            flow = deployments.get(run.deployment_id, "") if run.deployment_id else ""
            tell(load_settings().notify, told_of(flow, run, "Crashed", message))
        for run in late:
            await client.delete_flow_run(run.id)
        again = sorted({run.deployment_id for run in (*dead, *stopped, *late) if run.deployment_id}, key=str)
        for deployment_id in again:
            await client.create_flow_run_from_deployment(deployment_id, tags=["after a stop"])
    return {"crashed": len(dead), "missed": len(late), "started": len(again)}


async def _runs(deployments: Mapping[UUID, str], states: Sequence[StateType]) -> list[FlowRun]:
    wanted = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=list(deployments)),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=list(states))),
    )
    found: list[FlowRun] = []
    async with get_client() as client:
        while page := await client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE, offset=len(found)):
            found += page
    return found


async def _last_runs(deployments: Mapping[UUID, str]) -> list[FlowRun]:
    from prefect.client.schemas.sorting import FlowRunSort

    last: dict[UUID, list[FlowRun]] = defaultdict(list)
    async with get_client() as client:
        for deployment_id in deployments:
            last[deployment_id] = await client.read_flow_runs(
                flow_run_filter=filters.FlowRunFilter(
                    deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment_id]),
                    end_time=filters.FlowRunFilterEndTime(is_null_=False),
                ),
                sort=FlowRunSort.END_TIME_DESC,
                limit=1,
            )
    return [run for runs in last.values() for run in runs]


def _is_due(run: FlowRun, before: datetime) -> bool:
    due = run.next_scheduled_start_time or run.expected_start_time
    return due is not None and due < before
