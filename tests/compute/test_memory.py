"""Jobs declare what they need, and no worker is given what it cannot hold."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from held_memory import peak_memory
from hypothesis import given
from hypothesis import strategies as st

from stixflow import jobs
from stixflow.archive import open_archive
from stixflow.compute import Serial, refuse_too_large
from stixflow.compute.memory import RESERVED_BYTES
from stixflow.stages import STAGES, run_stages
from stixflow.stages.cubes import stale_partitions
from stixflow.stages.run import open_run

_IDLE = """
from stixflow import jobs, stages
import astropy.io.fits, pandas, scipy.optimize, scipy.sparse, xarray, zarr, distributed, s3fs
from stixflow import fits, flares, imaging
from stixflow.compute.cost import peak_rss
print(peak_rss())
"""


@dataclass(frozen=True)
class Needs:
    estimated_bytes: int


class Limited(Serial):
    def __init__(self, limit: int | None) -> None:
        super().__init__()
        self.memory_limit = limit


@given(st.lists(st.integers(0, 10**10)), st.integers(10**9, 10**10))
def test_what_fits_is_kept_in_order_and_the_rest_is_told(needs: list[int], limit: int) -> None:
    items = [Needs(need) for need in needs]
    fitting, refused = refuse_too_large(items, Limited(limit))
    assert Counter([*fitting, *(item for item, _ in refused)]) == Counter(items)
    assert list(fitting) == [item for item in items if item in set(fitting)]
    for item in fitting:
        assert item.estimated_bytes == 0 or item.estimated_bytes + RESERVED_BYTES <= 0.8 * limit
    for item, reason in refused:
        assert f"{(item.estimated_bytes + RESERVED_BYTES) / 1e9:.1f} GB" in reason
        assert "--memory-limit" in reason


def test_the_size_that_is_advised_would_do() -> None:
    ((_, reason),) = refuse_too_large([Needs(2_000_000_000)], Limited(10**9))[1]
    advised = float(reason.partition("--memory-limit ")[2].partition("GB")[0])
    assert refuse_too_large([Needs(2_000_000_000)], Limited(int((advised + 0.05) * 1e9)))[1] == []


def test_nobody_is_refused_without_a_limit_or_a_declaration() -> None:
    assert refuse_too_large([Needs(10**15)], Limited(None)) == ([Needs(10**15)], [])
    assert refuse_too_large(["an item"], Limited(1)) == (["an item"], [])


def test_what_is_reserved_holds_an_idle_worker() -> None:
    done = subprocess.run([sys.executable, "-c", _IDLE], capture_output=True, text=True, check=True)
    assert RESERVED_BYTES / 3 < int(done.stdout) < RESERVED_BYTES


def test_building_takes_what_it_declares_at_most(delivery: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "archive")
    run_stages(("ingest",), [delivery], root=root, pool=Serial(), command="test")
    with open_run(root, pool=Serial(), command="test") as run:
        declared = [job for job, _ in stale_partitions(run) if job.estimated_bytes]
    assert {job.product for job in declared} == {"ql_lightcurve", "sci_pixels", "sci_spectrogram"}
    jobs.build(declared[0])  # tables are made once
    for job in declared:
        anew = replace(job, run_id="01BX5ZZKBKACTAV9WEVGEMMVRZ")
        assert peak_memory(partial(jobs.build, anew)) < job.estimated_bytes, job


def test_framing_takes_what_it_declares_at_most(delivery: Path, tmp_path: Path) -> None:
    files = sorted((delivery / "telemetry").iterdir())
    for path in files[:3]:
        job = jobs.FrameJob(str(path), str(tmp_path))
        assert peak_memory(partial(jobs.frame, job)) < job.estimated_bytes, path
    assert jobs.FrameJob("s3://elsewhere/file", str(tmp_path)).estimated_bytes == 0


def test_a_file_that_no_worker_can_hold_is_told_and_the_rest_is_done(delivery: Path, tmp_path: Path) -> None:
    """Sparse zeros as long as a batch stand for a long file; nothing of it is read."""
    huge = tmp_path / "huge.bin"
    with huge.open("wb") as stream:
        stream.truncate(64_000_000)
    root = str(tmp_path / "archive")
    report = run_stages(STAGES[:1], [delivery, huge], root=root, pool=Limited(1_000_000_000), command="test")
    (failed,) = report["failed"]
    assert (failed["item"], failed["kind"]) == ("huge.bin", "MemoryRefused")
    assert "needs up to 1.0 GB" in failed["error"]
    assert report["counts"]["files"] > 5
    assert open_archive(root).catalog.runs()[0]["state"] == "failed"
