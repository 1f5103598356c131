from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import pytest
from example_calls import burn, fail_on_seven, hold, write_bytes

from stixflow.compute import Cost, Serial, map_batches
from stixflow.compute.cost import BatchUsage, Usage, give_back, this_worker, usage
from stixflow.stages import STAGES, format_report, run_stages


def test_items_batches_and_failures_are_counted() -> None:
    cost = Cost()
    list(map_batches(fail_on_seven, range(9), pool=Serial(), batch_size=2, cost=cost))
    told = cost.report()
    assert (told["items"], told["failed"], told["batches"], told["workers"]) == (9, 1, 5, 1)
    assert told["peak_worker_bytes"] > 1 << 20


def test_work_of_items_is_not_the_overhead_of_the_process_that_runs_them() -> None:
    cost = Cost()
    with cost.coordinated():
        list(map_batches(burn, [0.2] * 3, pool=Serial(), cost=cost))
    assert cost.cpu_seconds >= 0.6
    assert cost.coordinator_seconds < 0.2
    assert cost.report()["overhead_share"] < 0.25


def test_coordinating_alone_is_all_overhead() -> None:
    cost = Cost()
    with cost.coordinated():
        burn(0.1)
    assert cost.coordinator_seconds >= 0.1
    assert cost.report()["overhead_share"] == 1.0
    assert cost.report()["busy_share"] == 0.0


def test_waiting_costs_no_processor_time() -> None:
    cost = Cost()
    with cost.coordinated():
        list(map_batches(time.sleep, [0.3], pool=Serial(), cost=cost))
    assert cost.cpu_seconds < 0.1
    assert cost.item_seconds >= 0.3
    assert 0.5 < cost.report()["busy_share"] <= 1.0


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count bytes here")
def test_bytes_of_files_are_counted(tmp_path: Path) -> None:
    cost = Cost()
    paths = [str(tmp_path / name) for name in "abc"]
    list(map_batches(write_bytes, paths, pool=Serial(), batch_size=1, cost=cost))
    assert 3_000_000 <= cost.bytes_written < 3_100_000
    assert 3_000_000 <= cost.bytes_read < 3_500_000


def test_peaks_are_kept_for_each_worker_and_other_workers_are_not_this_process() -> None:
    cost = Cost()
    for worker, peak in (("a:1", 10), ("b:1", 30), ("a:1", 20)):
        cost.add_batch(BatchUsage(worker, Usage(1.0, 2, 3), peak))
    assert cost.peak_rss == {"a:1": 20, "b:1": 30}
    assert cost.report()["peak_worker_bytes"] == 30
    started = time.perf_counter()
    with cost.coordinated(slots=2):
        cost.add_batch(BatchUsage("a:1", Usage(5.0, 0, 0), 1))
        burn(0.1)
    wall = time.perf_counter() - started
    assert cost.coordinator_seconds >= 0.1  # five seconds elsewhere are no time of this process
    assert wall < cost.slot_seconds <= 2 * wall
    assert this_worker() not in cost.peak_rss


_LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell")


@_LINUX
def test_the_peak_of_a_batch_is_its_own() -> None:
    large, small = map_batches(hold, [200_000_000, 1], pool=Serial(), batch_size=1)
    assert large.peak_rss > small.peak_rss + 150_000_000


@_LINUX
def test_what_was_freed_inside_the_heap_is_given_back() -> None:
    blocks = [bytearray(b"x") * 100_000 for _ in range(2000)]
    last = blocks.pop()  # keeps the end of the heap where it is
    blocks.clear()
    before = _held()
    give_back()
    assert before - _held() > 100_000_000
    assert len(last) == 100_000


def _held() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_usage_only_grows() -> None:
    before = usage()
    burn(0.05)
    spent = usage() - before
    assert spent.cpu_seconds >= 0.05
    assert min(spent.bytes_read, spent.bytes_written) >= 0


def test_every_stage_of_a_run_tells_its_cost(delivery: Path, tmp_path: Path) -> None:
    report = run_stages(STAGES[:3], [delivery], root=str(tmp_path / "archive"), pool=Serial(), command="test")
    assert set(report["cost"]) == set(report["seconds"]) == set(STAGES[:3])
    assert json.loads(json.dumps(report["cost"])) == report["cost"]
    assert report["cost"]["flares"]["items"] == report["counts"]["days_searched"]
    for cost in report["cost"].values():
        assert cost["items"] > 0
        assert 0 < cost["cpu_seconds"] < 60
        assert 0 < cost["busy_share"] <= 1
        assert 0 < cost["overhead_share"] < 1
    assert "s CPU + " in format_report(report)
