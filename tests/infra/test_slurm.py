"""The batch scripts of infra/slurm, run by a SLURM of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from example_delivery import published

from stixflow.archive import open_archive

_ROOT = Path(__file__).resolve().parents[2]
_FAKE = _ROOT / "tests/compute/fake_slurm"

Submit = Callable[..., Path]


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Submit]:
    """Return what submits a script of infra/slurm and yields the file of what it prints."""
    state = tmp_path / "jobs"
    state.mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join([str(_FAKE), str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("FAKE_SLURM_STATE", str(state))
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("WORKER_MEMORY", "1GB")
    monkeypatch.chdir(tmp_path)

    def submit(script: str, *arguments: object) -> Path:
        command = ["sbatch", str(_ROOT / "infra/slurm" / script), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return state / f"{done.stdout.split()[-1]}.log"

    yield submit
    for pid in state.glob("*.pid"):
        subprocess.run(["scancel", pid.stem], check=False)


def wait_until(condition: Callable[[], bool], log: Path, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


def has_ended(log: Path) -> bool:
    group = int(log.with_suffix(".pid").read_text())
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.cluster
@pytest.mark.long
def test_one_allocation_computes_with_its_own_workers(
    sbatch: Submit, delivery: Path, processed: Path, tmp_path: Path
) -> None:
    """Ended as before its limit, then submitted again: it goes on, and leaves neither process nor file."""
    archive = tmp_path / "archive"
    arguments = (
        "one-allocation.sbatch",
        "ingest",
        delivery / "telemetry",
        delivery / "ephemeris",
        "--archive",
        archive,
    )
    log = sbatch(*arguments)
    wait_until(lambda: bool(list(archive.glob("packets/*"))), log)
    os.kill(int(log.with_suffix(".pid").read_text()), signal.SIGINT)  # --signal=B:INT@600
    wait_until(lambda: has_ended(log), log)
    assert list(tmp_path.glob("dask-*.json")) == []
    log = sbatch(*arguments)
    wait_until(lambda: has_ended(log), log)
    assert "0 rejected" in log.read_text(), log.read_text()
    found = open_archive(str(archive))
    assert found.verify() == []
    assert found.catalog.runs()[0]["state"] == "done"
    assert published(archive) == published(processed)


def test_reprocessing_is_planned_by_its_script(
    sbatch: Submit, processed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STIXFLOW_ARCHIVE", str(processed))
    monkeypatch.setenv("STIXFLOW_CLUSTER", str(_ROOT / "infra/clusters/slurm.toml"))
    log = sbatch("reprocess.sbatch", "--release", "2026.1", "--dry-run")
    wait_until(lambda: has_ended(log), log)
    assert "2026.1" in log.read_text(), log.read_text()


def test_reprocessing_without_an_archive_is_refused(sbatch: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STIXFLOW_ARCHIVE", raising=False)
    log = sbatch("reprocess.sbatch", "--release", "2026.1")
    wait_until(lambda: has_ended(log), log)
    assert "STIXFLOW_ARCHIVE: the root of the archive" in log.read_text()
