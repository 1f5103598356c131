"""A worker is killed with its flow run: the server marks the run and frees its slot, the next run tells people."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from services.prefect import Server, until

from stixflow.archive import open_archive
from stixflow.archive.turns import take_turn

_ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@contextmanager
def _worker(environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "silent", "--type", "process"]
    with (folder / "worker.log").open("ab") as log:
        worker = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        yield worker
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def _state(server: Server, run_id: str) -> dict[str, Any]:
    state: dict[str, Any] = server.ask(f"flow_runs/{run_id}")["state"]
    return state


def _slots(server: Server, deployment: str) -> int:
    limit = server.ask(f"deployments/name/{deployment}")["global_concurrency_limit"]
    return int(limit["active_slots"])


@pytest.mark.flow
@pytest.mark.long
def test_a_killed_worker_leaves_no_run_that_goes_on_for_ever(
    prefect_on_postgres: Server, archive_copy: Path, tmp_path: Path
) -> None:
    server, name = prefect_on_postgres, "daily/silent"
    environment = {
        **server.environment,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "STIXFLOW_NOTIFY": f"file:{tmp_path}/told",
    }
    site = [
        "--archive",
        str(archive_copy),
        "--serial",
        "--name",
        "silent",
        "--only",
        "daily",
        "--schedule",
        "daily=off",
    ]
    command = [sys.executable, "-m", "flows", "deploy", "--pool", "silent", "--create-pool", *site]
    for _ in range(2):  # the second time finds what the first one made
        subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=240)
    start = f"deployments/{server.ask(f'deployments/name/{name}')['id']}/create_flow_run"

    lost = str(server.ask(start, {})["id"])
    with take_turn(open_archive(archive_copy).catalog):
        with _worker(environment, tmp_path) as worker:
            until(lambda: _state(server, lost)["type"] == "RUNNING", "the run waits for its turn")
            assert _slots(server, name) == 1
            os.killpg(worker.pid, signal.SIGKILL)
        until(lambda: _state(server, lost)["type"] in _ENDED, "the run has ended")
    state = _state(server, lost)
    assert (state["type"], state["name"]) == ("CRASHED", "Crashed")
    assert state["message"].startswith("Nothing is heard of the process")
    until(lambda: _slots(server, name) == 0, "its slot is free")

    with _worker(environment, tmp_path):
        for _ in range(2):  # it is told once
            run = str(server.ask(start, {})["id"])
            until(lambda run=run: _state(server, run)["type"] in _ENDED, "the next run has ended")
            assert _state(server, run)["type"] == "COMPLETED"
    (message,) = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert (message["flow"], message["flow_run_id"], message["state"]) == ("daily", lost, "Crashed")


@pytest.mark.flow
@pytest.mark.usefixtures("client")
def test_the_automation_is_one_and_what_somebody_changed_stays(prefect_on_postgres: Server) -> None:
    from flows.silence import AUTOMATION, watch_for_silence

    def found() -> list[dict[str, Any]]:
        return [one for one in prefect_on_postgres.ask("automations/filter", {}) if one["name"] == AUTOMATION]

    watch_for_silence()
    (made,) = found()
    assert made["enabled"]
    assert made["trigger"]["within"] == 540.0, "three of the heartbeats that Prefect sends by itself"
    _switch(prefect_on_postgres, made["id"], on=False)
    watch_for_silence()
    assert [(one["id"], one["enabled"]) for one in found()] == [(made["id"], False)]
    _switch(prefect_on_postgres, made["id"], on=True)


def _switch(server: Server, automation: str, *, on: bool) -> None:
    asked = urllib.request.Request(
        f"{server.api}/automations/{automation}", json.dumps({"enabled": on}).encode(),
        {"Content-Type": "application/json"}, method="PATCH",
    )  # fmt: skip
    urllib.request.urlopen(asked, timeout=60).close()


@pytest.mark.usefixtures("client")
def test_a_server_without_automations_keeps_nothing_from_running(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    from flows import silence

    def refuse(**_: object) -> None:
        asked = httpx.Request("POST", "http://prefect/api/automations")
        raise PrefectHTTPStatusError("403", request=asked, response=httpx.Response(403, request=asked))

    monkeypatch.setattr(silence, "get_client", refuse)
    silence.watch_for_silence()
    assert "will stay Running" in caplog.text
