from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from example_calls import die_on_13_and_29, fail_on_seven, square, sum_of_blocks, unpicklable_on_3
from hypothesis import given
from hypothesis import strategies as st

from stixflow.compute import Outcome, Pool, Serial, WorkerLost, map_batches, open_cluster
from stixflow.errors import UsageError


@pytest.fixture(scope="module")
def cluster() -> Iterator[Pool]:
    with open_cluster(2, memory_limit="1GB") as pool:
        yield pool


class FlakyPool(Serial):
    """A pool in one process: counts what is in flight, and loses batches as it is told."""

    def __init__(self, slots: int = 2, lose: Callable[[list[int], int], bool] = lambda *_: False) -> None:
        super().__init__()
        self.slots = slots
        self.lose, self.in_flight, self.peak, self.calls = lose, 0, 0, 0
        self.batches: list[list[int]] = []

    def submit(self, call: Callable[..., object], *arguments: object, tag: str = "") -> object:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        return super().submit(call, *arguments, tag=tag)

    def wait(self) -> tuple[object, object]:
        indices = [index for index, _ in self._queue[0][2][1]]
        self.in_flight -= 1
        self.calls += 1
        self.batches.append(indices)
        if self.lose(indices, self.calls):
            return self._queue.popleft()[0], WorkerLost("gone")
        return super().wait()


def _values(outcomes: list[Outcome[int]]) -> dict[int, int | None]:
    assert Counter(outcome.index for outcome in outcomes).most_common(1)[0][1] == 1
    return {outcome.index: outcome.value for outcome in outcomes if outcome.ok}


@given(st.integers(1, 200), st.integers(1, 30), st.integers(1, 5), st.integers(1, 4))
def test_every_item_has_one_outcome_and_the_window_holds(items: int, size: int, slots: int, window: int) -> None:
    pool = FlakyPool(slots)
    outcomes = list(map_batches(square, range(items), pool=pool, batch_size=size, window=window))
    assert _values(outcomes) == {index: index * index for index in range(items)}
    assert pool.peak <= slots * window
    assert max(map(len, pool.batches)) <= size


@given(st.integers(1, 60), st.integers(1, 16), st.sets(st.integers(0, 59)))
def test_only_the_poison_is_lost(items: int, size: int, poison: set[int]) -> None:
    pool = FlakyPool(lose=lambda indices, _: bool(poison & set(indices)))
    outcomes = list(map_batches(square, range(items), pool=pool, batch_size=size))
    lost = {outcome.index for outcome in outcomes if not outcome.ok}
    assert lost == poison & set(range(items))
    assert _values(outcomes) == {index: index * index for index in range(items) if index not in poison}


@given(st.sets(st.integers(1, 12), max_size=6))
def test_a_worker_lost_by_chance_costs_no_item(accidents: set[int]) -> None:
    """A single item whose worker died runs once more, alone, before it is called poison."""
    pool = FlakyPool(lose=lambda _, call: call in accidents)
    outcomes = list(map_batches(square, range(40), pool=pool, batch_size=4))
    assert _values(outcomes) == {index: index * index for index in range(40)}


def test_batches_grow_with_what_was_learnt() -> None:
    pool = FlakyPool(slots=1)
    list(map_batches(square, range(5000), pool=pool))
    assert len(pool.batches[0]) == 1
    assert max(map(len, pool.batches)) > 500


def test_an_exception_is_an_outcome() -> None:
    outcomes = list(map_batches(fail_on_seven, range(9), pool=Serial()))
    failed = [outcome for outcome in outcomes if not outcome.ok]
    assert [outcome.index for outcome in failed] == [7]
    assert failed[0].value is None
    assert "seven is not welcome" in str(failed[0].error)
    assert "fail_on_seven" in str(failed[0].error)
    assert all(outcome.peak_rss > 1 << 20 and outcome.seconds >= 0 for outcome in outcomes)


def test_no_item_is_no_outcome() -> None:
    assert list(map_batches(square, [], pool=Serial())) == []


def test_stopping_early_forgets_the_rest() -> None:
    pool = FlakyPool()
    stream = map_batches(square, range(100), pool=pool, batch_size=1)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not pool._queue
    assert pool.calls == 1


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"window": 0}])
def test_nonsense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        list(map_batches(square, range(3), pool=Serial(), **wrong))


@pytest.mark.cluster
class TestCluster:
    def test_it_computes_what_serial_does(self, cluster: Pool) -> None:
        assert cluster.slots == 2
        there = _values(list(map_batches(square, range(300), pool=cluster, batch_size=7)))
        assert there == _values(list(map_batches(square, range(300), pool=Serial())))

    def test_poison_kills_only_itself(self, cluster: Pool) -> None:
        outcomes = list(map_batches(die_on_13_and_29, range(48), pool=cluster, batch_size=8))
        lost = {outcome.index: outcome for outcome in outcomes if not outcome.ok}
        assert set(lost) == {13, 29}
        assert "its worker was lost" in str(lost[13].error)
        assert _values(outcomes) == {index: index for index in range(48) if index not in (13, 29)}

    def test_a_value_that_cannot_travel_is_an_outcome(self, cluster: Pool) -> None:
        outcomes = list(map_batches(unpicklable_on_3, range(8), pool=cluster, batch_size=4))
        assert [outcome.index for outcome in outcomes if not outcome.ok] == [3]

    def test_what_an_item_reads_by_dask_is_computed_where_it_runs(self, cluster: Pool) -> None:
        from distributed import get_task_stream

        with get_task_stream(client=cluster._client) as stream:  # type: ignore[attr-defined]
            values = _values(list(map_batches(sum_of_blocks, range(6), pool=cluster, batch_size=2)))
        assert values == {number: 10 * number for number in range(6)}
        assert len(stream.data) == 3

    def test_a_running_scheduler_is_joined(self, cluster: Pool) -> None:
        cluster._client.wait_for_workers(2)  # type: ignore[attr-defined]
        address = cluster._client.scheduler.address  # type: ignore[attr-defined]
        with open_cluster(scheduler=address) as pool:
            assert pool.slots == 2
            assert _values(list(map_batches(square, range(20), pool=pool))) == {i: i * i for i in range(20)}

    def test_nothing_stays_on_the_cluster(self, cluster: Pool) -> None:
        stream = map_batches(square, range(500), pool=cluster, batch_size=1)
        for _ in range(20):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert not cluster._live  # type: ignore[attr-defined]
        assert len(list(map_batches(square, range(10), pool=cluster))) == 10
