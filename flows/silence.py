"""Flow runs of which nothing is heard any more: the server marks them as crashed, and the next run tells people.

A process that is killed, with its worker or its whole host, says nothing. Each flow run sends heartbeats; an automation
of the Prefect server waits for them.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events import EventTrigger, Posture, ResourceSpecification
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import get_current_settings

from flows.notify import tell, told_of
from stixflow.settings import load_settings

AUTOMATION = "stixflow: mark flow runs that have gone silent as crashed"
MISSED_HEARTBEATS = 3
"""So many heartbeats may be missed before a run counts as crashed."""
MESSAGE = "Nothing is heard of the process that ran it; what it had left to do is done by the next run."
_TAG = "stixflow"
_TOLD = "told"
_TOLD_DAYS = 30.0
_USUAL_HEARTBEAT_S = 180
_log = logging.getLogger("stixflow.flows")


def silence_seconds() -> float:
    """Return after how many seconds of silence a flow run counts as crashed, by Prefect's setting of heartbeats."""
    return MISSED_HEARTBEATS * float(get_current_settings().flows.heartbeat_frequency or _USUAL_HEARTBEAT_S)


def watch_for_silence() -> None:
    """Have the server mark silent flow runs as crashed, which also gives back their concurrency slots.

    The automation is made, or brought up to date where there is one; one that somebody has switched off stays off. A
    server that takes none keeps nothing from running.
    """
    wanted = _automation(silence_seconds())
    try:
        with get_client(sync_client=True) as client:
            found = client.read_automations_by_name(AUTOMATION)
            if found:
                client.update_automation(found[0].id, wanted.model_copy(update={"enabled": found[0].enabled}))
            else:
                client.create_automation(wanted)
    except PrefectHTTPStatusError as error:
        _log.warning("flow runs that go silent will stay Running, the server takes no automation: %s", error)


def _automation(seconds: float) -> AutomationCore:
    return AutomationCore(
        name=AUTOMATION,
        description=f"A run that began and then sent no event for {seconds:g} s has lost its process.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification({"prefect.resource.id": f"prefect.tag.{_TAG}"}),
            for_each={"prefect.resource.id"},
            after={f"prefect.flow-run.{name}" for name in ("Pending", "Running", "heartbeat")},
            # Whatever happens to it next is a sign of life, or its end.
            expect={"prefect.flow-run.*"},
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=MESSAGE, force=False)],
    )


def tell_of_silenced(_flow: Any = None, _flow_run: Any = None, _state: Any = None) -> None:
    """Tell the targets of the setting `notify` of runs that the server marked, each once; a hook of Prefect."""
    targets = load_settings().notify
    if not targets:
        return
    with get_client(sync_client=True) as client:
        for run in _silenced(client):
            name = client.read_flow(run.flow_id).name
            client.update_flow_run(run.id, tags=[*run.tags, _TOLD])
            tell(targets, told_of(name, run, "Crashed", MESSAGE))


def _silenced(client: Any) -> list[FlowRun]:
    recent = datetime.now(UTC) - timedelta(days=_TOLD_DAYS)
    wanted = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[_TAG]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.CRASHED])),
        end_time=filters.FlowRunFilterEndTime.model_validate({"after_": recent}),
    )
    found = client.read_flow_runs(flow_run_filter=wanted, limit=200)
    return [run for run in found if run.state and run.state.message == MESSAGE and _TOLD not in run.tags]
