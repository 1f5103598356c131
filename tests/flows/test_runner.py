"""What the process that runs the flows finds when it starts: runs that were cut, missed, or stopped with their host."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from services.prefect import Server

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("client")]


async def _make(name: str) -> tuple[Any, Any]:
    """Make two deployments, and in one of them a run of every kind."""
    from prefect import get_client
    from prefect.states import Cancelled, Completed, Running, Scheduled

    from flows.deployments import DEPLOYMENTS, Site, build

    site = Site("/archive", schedules={"daily": "off", "images": "off"}, name=name)
    wanted = {one.flow: one for one in DEPLOYMENTS}
    ids = {flow: await (await asyncio.to_thread(build, wanted[flow], site)).aapply() for flow in ("daily", "images")}
    now = datetime.now(UTC)
    states = {
        "cut": Running(),
        "missed": Scheduled(scheduled_time=now - timedelta(hours=2)),
        "missed too": Scheduled(scheduled_time=now - timedelta(hours=1)),
        "due": Scheduled(scheduled_time=now + timedelta(hours=1)),
        "done": Completed(),
    }
    async with get_client() as client:
        for kind, state in states.items():
            made = await client.create_flow_run_from_deployment(ids["daily"], name=kind, state=Scheduled())
            await client.set_flow_run_state(made.id, state, force=True)
        made = await client.create_flow_run_from_deployment(ids["images"], name="stopped", state=Running())
        await client.set_flow_run_state(made.id, Running(), force=True)
        await client.set_flow_run_state(made.id, Cancelled(message="Runner is shutting down."), force=True)
    return ids["daily"], ids["images"]


def _runs(server: Server, deployment: Any) -> dict[str, str]:
    found = server.flow_runs()
    return {run["name"]: run["state_type"] for run in found if run["deployment_id"] == str(deployment)}


def test_what_was_cut_missed_or_stopped_is_made_good_once(
    prefect_on_postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.runner import recover

    monkeypatch.setenv("STIXFLOW_NOTIFY", f"file:{tmp_path}/told")

    async def story() -> tuple[Any, Any, dict[str, int], dict[str, int]]:
        daily, images = await _make("story")
        names = {daily: "daily", images: "images"}
        began = datetime.now(UTC)
        return daily, images, await recover(names, before=began), await recover({daily: "daily"}, before=began)

    daily, images, first, second = asyncio.run(story())
    assert first == {"crashed": 1, "missed": 2, "started": 2}
    found = _runs(prefect_on_postgres, daily)
    assert (found["cut"], found["done"], found["due"]) == ("CRASHED", "COMPLETED", "SCHEDULED")
    assert "missed" not in found
    assert "missed too" not in found
    assert "SCHEDULED" in _runs(prefect_on_postgres, images).values()
    (message,) = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert (message["flow"], message["state"], message["archive"]) == ("daily", "Crashed", "/archive")
    # What it has started itself was not missed.
    assert second == {"crashed": 0, "missed": 0, "started": 0}


def test_what_the_server_has_marked_before_the_runner_was_back_is_started_again(prefect_on_postgres: Server) -> None:
    from prefect import get_client
    from prefect.states import Crashed, Running, Scheduled

    from flows.deployments import DEPLOYMENTS, Site, build
    from flows.runner import recover
    from flows.silence import MESSAGE

    async def story() -> tuple[Any, dict[str, int]]:
        one = next(one for one in DEPLOYMENTS if one.flow == "images")
        site = Site("/archive", schedules={"images": "off"}, name="silent")
        deployment = await (await asyncio.to_thread(build, one, site)).aapply()
        async with get_client() as client:
            run = await client.create_flow_run_from_deployment(deployment, name="silent", state=Scheduled())
            for state in (Running(), Crashed(message=MESSAGE)):
                await client.set_flow_run_state(run.id, state, force=True)
        return deployment, await recover({deployment: "images"}, before=datetime.now(UTC))

    deployment, done = asyncio.run(story())
    assert done == {"crashed": 0, "missed": 0, "started": 1}
    assert sorted(_runs(prefect_on_postgres, deployment).values()) == ["CRASHED", "SCHEDULED"]
