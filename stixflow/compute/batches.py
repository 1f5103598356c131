"""Many items in batches: fed to a pool, accounted for one by one.

Batches keep the cost of Dask (about 1.5 ms a task) out of sight; a window of them is in flight, and each result is
released as it is yielded, so that memory does not grow with the number of items. An exception is an `Outcome`. A batch
whose worker died is split in halves; an item that is left alone is tried once more with nothing else running, and if
that kills its worker too, it is the poison and becomes an `Outcome`.
"""

from __future__ import annotations

import math
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stixflow.compute.cost import BatchUsage, Cost, forget_peak, give_back, peak_rss, this_worker, usage
from stixflow.compute.pools import Pool, WorkerLost
from stixflow.errors import UsageError

Item = TypeVar("Item")
Value = TypeVar("Value")

WINDOW = 3
"""Batches in flight for each worker thread (docs/decisions.md, "Fan-out")."""
_LEAST_SECONDS = 0.1
"""What batches take at least where there are items enough: towards the end, too, workers outlast a catalog write."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Value]):
    """What became of one item: a value, or the text of the error, never both."""

    index: int
    value: Value | None
    error: str | None
    seconds: float
    peak_rss: int
    """Bytes that its process had held at most in this batch when the item was done; 0 where the process died."""

    @property
    def ok(self) -> bool:
        return self.error is None


def map_batches(
    function: Callable[[Item], Value],
    items: Iterable[Item],
    *,
    pool: Pool,
    batch_size: int | None = None,
    batch_seconds: float = 2.0,
    window: int = WINDOW,
    tag: str = "",
    cost: Cost | None = None,
) -> Iterator[Outcome[Value]]:
    """Apply a function to every item and yield one `Outcome` for each, in the order in which they end.

    Parameters
    ----------
    function
        Importable by name on the workers; may run twice for an item whose worker died, so it must be idempotent.
    batch_size
        Items of one call; by default as many as `batch_seconds` ask for, learnt from the items that have ended.
    window
        Batches in flight for each slot of the pool.
    tag
        Name of the batches on the dashboard and in the reports of the cluster; by default that of the function.
    cost
        Where what the items take is added up.
    """
    if window < 1 or (batch_size is not None and batch_size < 1):
        raise UsageError("window and batch_size count batches and items", expected="at least 1", advice="raise them")
    tag = tag or getattr(function, "__name__", "items")
    waiting = deque(enumerate(items))
    run = _Run(function, waiting, pool, window, batch_size, batch_seconds, tag, Cost() if cost is None else cost)
    try:
        yield from run.outcomes()
    finally:
        pool.cancel()


_Numbered = tuple[int, Any]


class _Run:
    """The state of one `map_batches`: what waits, what is in flight, who is suspected."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        waiting: deque[_Numbered],
        pool: Pool,
        window: int,
        batch_size: int | None,
        batch_seconds: float,
        tag: str,
        cost: Cost,
    ) -> None:
        self.tag, self.cost = tag, cost
        self.function, self.waiting, self.pool, self.window = function, waiting, pool, window
        self.batch_size, self.batch_seconds = batch_size, batch_seconds
        self.again: deque[list[_Numbered]] = deque()
        self.suspects: deque[_Numbered] = deque()
        self.flying: dict[object, list[_Numbered]] = {}
        self.spent, self.done = 0.0, 0

    def outcomes(self) -> Iterator[Outcome[Any]]:
        while True:
            self._top_up()
            if not self.flying:
                break
            ticket, result = self.pool.wait()
            batch = self.flying.pop(ticket)
            if isinstance(result, WorkerLost):
                self._split(batch)
                continue
            ended = self._account(result)
            self._top_up()  # before the caller takes its time with them
            yield from ended
        while self.suspects:
            yield self._alone(self.suspects.popleft())

    def _top_up(self) -> None:
        limit = self.window * self.pool.slots
        while len(self.flying) < limit and (batch := self._next_batch()):
            self.flying[self._submit(batch)] = batch

    def _submit(self, batch: Sequence[_Numbered]) -> object:
        return self.pool.submit(_run_batch, self.function, batch, tag=self.tag)

    def _next_batch(self) -> list[_Numbered]:
        if self.again:
            return self.again.popleft()
        return [self.waiting.popleft() for _ in range(min(self._size(), len(self.waiting)))]

    def _size(self) -> int:
        if self.batch_size is not None:
            return self.batch_size
        if not self.done:
            return 1
        wanted = self.batch_seconds / max(self.spent / self.done, 1e-6)
        share = len(self.waiting) / (self.window * self.pool.slots)
        least = _LEAST_SECONDS / self.batch_seconds * wanted
        return max(1, min(math.floor(wanted), math.ceil(max(share, least))))

    def _account(self, batch: _Done) -> Sequence[Outcome[Any]]:
        self.spent += sum(outcome.seconds for outcome in batch.outcomes)
        self.done += len(batch.outcomes)
        self.cost.add_batch(batch.usage)
        for outcome in batch.outcomes:
            self.cost.add_item(outcome)
        return batch.outcomes

    def _split(self, batch: list[_Numbered]) -> None:
        if len(batch) == 1:
            self.suspects.append(batch[0])
            return
        middle = len(batch) // 2
        self.again.extend((batch[:middle], batch[middle:]))

    def _alone(self, numbered: _Numbered) -> Outcome[Any]:
        """Run a suspect with nothing beside it: what dies now dies of its own."""
        self._submit([numbered])
        _, result = self.pool.wait()
        if isinstance(result, WorkerLost):
            lost: Outcome[Any] = Outcome(
                numbered[0],
                None,
                f"WorkerLost: its worker was lost each time it ran, by a crash or for want of memory ({result})",
                0.0,
                0,
            )
            self.cost.add_item(lost)
            return lost
        (outcome,) = self._account(result)
        return outcome


@dataclass(frozen=True, slots=True)
class _Done:
    """What comes back of one batch."""

    outcomes: list[Outcome[Any]]
    usage: BatchUsage


def _run_batch(function: Callable[[Any], Any], batch: Sequence[_Numbered]) -> _Done:
    import dask

    before = usage()
    forget_peak()
    # On a worker, what a call reads by Dask would travel through the scheduler, block by block.
    with dask.config.set(scheduler="synchronous"):
        outcomes = [_run_item(function, index, item) for index, item in batch]
    peak = peak_rss()
    give_back()
    return _Done(outcomes, BatchUsage(this_worker(), usage() - before, peak))


def _run_item(function: Callable[[Any], Any], index: int, item: object) -> Outcome[Any]:
    started = time.perf_counter()
    value, error = None, None
    try:
        value = function(item)
    except Exception:  # whatever an item raises is its outcome; the caller decides
        error = traceback.format_exc()
    return Outcome(index, value, error, time.perf_counter() - started, peak_rss())
