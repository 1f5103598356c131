"""The flow on a real Prefect server and real worker processes: the same archive as without either."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from example_delivery import assert_balanced, flare_rows, published

from flows.process import run_process
from stixflow.archive import open_archive
from stixflow.compute import open_cluster
from stixflow.errors import MissingFile
from stixflow.stages import STAGES, run_stages

_FLOW = """
import json, sys
from flows.process import run_process
if __name__ == "__main__":
    print(json.dumps(run_process(sys.argv[2:], archive=sys.argv[1], workers=2), default=str))
"""


def assert_same(root: Path, processed: Path) -> None:
    one, other = open_archive(root), open_archive(processed)
    assert published(root) == published(processed)
    assert flare_rows(one) == flare_rows(other)
    columns = ["image_id", "start", "stop", "total_flux", "x_hpc", "y_hpc", "counts"]
    assert one.images()[columns].equals(other.images()[columns])
    assert one.verify() == []


@pytest.mark.flow
@pytest.mark.cluster
def test_the_flow_gives_what_the_serial_run_gives(delivery: Path, processed: Path, tmp_path: Path) -> None:
    root = tmp_path / "archive"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    done = subprocess.run(
        [sys.executable, "-c", _FLOW, str(root), str(delivery / "telemetry"), str(delivery / "ephemeris")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert report["failed"] == []
    assert_balanced(report["balance"])
    assert set(report["seconds"]) == set(STAGES)
    assert_same(root, processed)
    (run,) = open_archive(root).catalog.runs()
    assert (run["command"], run["state"]) == ("stixflow process", "done")
    (database,) = (root / "prefect").glob("prefect.db")
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        flows = connection.execute("select state_type from flow_run").fetchall()
        # Prefect writes its task history late: what it has must be right.
        tasks = connection.execute("select name, state_type from task_run").fetchall()
    assert flows == [("COMPLETED",)]
    assert {state for _, state in tasks} <= {"COMPLETED", "RUNNING", "PENDING"}
    assert {name.rsplit("-", 1)[0] for name, _ in tasks} <= set(STAGES)


@pytest.mark.cluster
def test_a_worker_that_dies_does_not_change_the_result(delivery: Path, processed: Path, tmp_path: Path) -> None:
    root, killed = tmp_path / "archive", []

    with open_cluster(2) as pool:

        def kill_one(name: str, done: int, total: int) -> None:
            if name == "cubes" and not killed and 0 < done < total:
                victim = next(iter(pool._client.run(os.getpid).values()))  # type: ignore[attr-defined]
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

        report = run_stages(STAGES, [delivery], root=str(root), pool=pool, command="test", progress=kill_one)
    assert killed
    assert report["failed"] == []
    assert_balanced(report["balance"])
    assert_same(root, processed)


def test_a_path_that_does_not_exist_is_told_as_without_the_flow(tmp_path: Path) -> None:
    """Before anything is started."""
    with pytest.raises(MissingFile, match="nowhere does not exist"):
        run_process([str(tmp_path / "nowhere")], archive=str(tmp_path / "archive"), workers=1)
    assert not (tmp_path / "archive").exists()
