"""The scheduler that a command has joined is killed in the middle: it says so, and the next run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from example_delivery import published
from running_dask import running_scheduler

from stixflow.archive import open_archive


def wait_until(condition: object, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.cluster
@pytest.mark.long
def test_a_scheduler_that_is_killed_ends_the_run_cleanly_and_the_next_resumes(
    delivery: Path, processed: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    stixflow = [str(Path(sys.executable).parent / "stixflow"), "ingest", str(delivery), "--archive", str(archive)]
    with running_scheduler(1) as (address, (scheduler, worker)):
        command = subprocess.Popen(
            [*stixflow, "--scheduler", address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: list(archive.glob("packets/*")))
        family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
        for process in family:
            process.send_signal(signal.SIGSTOP)  # so that it cannot be done before the scheduler is gone
        try:
            scheduler.kill()
            said, error = command.communicate(timeout=90)
        finally:
            for process in family:
                process.send_signal(signal.SIGCONT)
    assert command.returncode == 1, said + error
    assert "the Dask scheduler is gone" in error
    assert "run the same command again" in error
    assert "Traceback" not in error
    assert open_archive(str(archive)).catalog.runs()[0]["state"] == "failed"
    before = {path for path in archive.glob("packets/*/*/*") if path.is_file()}
    assert before

    again = subprocess.run([*stixflow, "--serial"], capture_output=True, text=True, check=False, env=os.environ)
    assert again.returncode == 0, again.stderr
    assert published(archive) == published(processed)
    assert open_archive(str(archive)).verify() == []
