"""Deployments on a work pool, run by a real worker: server and catalog on PostgreSQL, no path of the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_delivery import flare_rows
from services.prefect import Server, until

from stixflow.archive import open_archive


def _run(server: Server, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=dict(server.environment), cwd=folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def _start(server: Server, name: str) -> str:
    deployment = server.ask(f"deployments/name/{name}")
    return str(server.ask(f"deployments/{deployment['id']}/create_flow_run", {})["id"])


def _end(server: Server, run_id: str) -> str:
    state = server.ask(f"flow_runs/{run_id}")["state_type"]
    return str(state) if state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else ""


@contextmanager
def _worker(server: Server, folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "stix", "--type", "process"]
    environment = {**server.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(60)


@pytest.mark.flow
def test_a_worker_takes_a_delivery_all_the_way(
    prefect_on_postgres: Server, postgres_url: str, delivery: Path, processed: Path, tmp_path: Path
) -> None:
    server, root = prefect_on_postgres, tmp_path / "archive"
    site = ["--archive", str(root), "--catalog", postgres_url, "--inbox", str(delivery / "telemetry")]
    made = _run(
        server, tmp_path, "flows", "deploy", "--pool", "stix", "--create-pool", "--json",
        *site, "--serial", "--settle-seconds", "0.1", "--name", "here",
        "--only", "ingest", "--only", "daily", "--schedule", "ingest=off", "--schedule", "daily=off",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["deployments"] == ["ingest/here", "daily/here"]
    runs = {}
    with _worker(server, tmp_path):
        for flow in ("ingest", "daily"):
            runs[flow] = _start(server, f"{flow}/here")
            ended = until(lambda flow=flow: _end(server, runs[flow]), f"{flow} has ended")
            assert ended == "COMPLETED", (flow, server.ask(f"flow_runs/{runs[flow]}")["state"])
    archive = open_archive(root, catalog=postgres_url)
    assert flare_rows(archive)[0][1:] == flare_rows(open_archive(processed))[0][1:]
    assert archive.catalog.totals()["files"] == 4
    assert archive.catalog.totals()["images"] > 0
    assert [(run["command"], run["state"]) for run in archive.catalog.runs()] == [
        ("flow daily", "done"), ("flow ingest", "done")
    ]  # fmt: skip
    assert _report(server, runs["ingest"])["files"] == 4
    assert archive.verify() == []


def _report(server: Server, run_id: str) -> dict[str, Any]:
    """The table that a flow run has left, as values by item."""
    wanted = {"artifacts": {"type": {"any_": ["table"]}, "flow_run_id": {"any_": [run_id]}}}
    (found,) = server.ask("artifacts/filter", wanted)
    return {row["item"]: row["value"] for row in json.loads(found["data"])}


def test_without_a_server_nothing_is_deployed(prefect_on_postgres: Server, tmp_path: Path) -> None:
    nowhere = replace(prefect_on_postgres, environment={**prefect_on_postgres.environment, "PREFECT_API_URL": ""})
    told = _run(nowhere, tmp_path, "flows", "deploy", "--pool", "stix", "--create-pool", "--archive", str(tmp_path))
    assert told.returncode == 2
    assert "PREFECT_API_URL" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_pool_that_is_not_there_is_told(prefect_on_postgres: Server, tmp_path: Path) -> None:
    told = _run(prefect_on_postgres, tmp_path, "flows", "deploy", "--pool", "nobody", "--archive", str(tmp_path / "a"))
    assert told.returncode == 1
    assert "there is no work pool nobody" in told.stderr
    assert "--create-pool" in told.stderr
    assert "Traceback" not in told.stderr
