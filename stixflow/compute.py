"""Many items, many processes: `open_cluster` starts workers, `map_batches` feeds them and accounts for every item.

Batches keep the cost of Dask (about 1.5 ms a task) out of sight; a window of them is in flight, and each result is
released as it is yielded, so that memory does not grow with the number of items. An exception is an `Outcome`. A batch
whose worker died is split in halves; an item that is left alone is tried once more with nothing else running, and if
that kills its worker too, it is the poison and becomes an `Outcome`.
"""

from __future__ import annotations

import logging
import math
import os
import resource
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from stixflow.errors import UsageError

Item = TypeVar("Item")
Value = TypeVar("Value")

WINDOW = 3
"""Batches in flight for each worker thread (docs/decisions.md, "Fan-out")."""

_SLOTS_SECONDS = 2.0
"""How long the count of worker threads is believed: asking the scheduler costs more than sending a batch."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Value]):
    """What became of one item: a value, or the text of the error, never both."""

    index: int
    value: Value | None
    error: str | None
    seconds: float
    peak_rss: int
    """Bytes that its process had held at most when the item was done; 0 where the process died."""

    @property
    def ok(self) -> bool:
        return self.error is None


class WorkerLost(Exception):
    """The process that computed a batch ended before it answered, or its answer could not travel."""


class Pool(Protocol):
    """What `map_batches` needs of an engine: submit calls, wait for any to end."""

    @property
    def slots(self) -> int:
        """How many calls run at once."""

    def submit(self, call: Callable[..., Any], *arguments: object) -> object:
        """Start ``call(*arguments)`` and return its ticket."""

    def wait(self) -> tuple[object, Any]:
        """Return the ticket and the result of any call that ended; the result may be a `WorkerLost`."""

    def cancel(self) -> None:
        """Forget every call not yet returned by `wait`."""


class Serial:
    """The engine of `--serial`: calls run in this process, one after the other, when waited for."""

    slots = 1

    def __init__(self) -> None:
        self._queue: deque[tuple[int, Callable[..., Any], tuple[object, ...]]] = deque()
        self._count = 0

    def submit(self, call: Callable[..., Any], *arguments: object) -> object:
        self._count += 1
        self._queue.append((self._count, call, arguments))
        return self._count

    def wait(self) -> tuple[object, Any]:
        ticket, call, arguments = self._queue.popleft()
        return ticket, call(*arguments)

    def cancel(self) -> None:
        self._queue.clear()


class Cluster:
    """The engine on a Dask cluster, through a `distributed.Client`."""

    def __init__(self, client: Any) -> None:
        from distributed import as_completed

        self._client = client
        self._ended = as_completed()
        self._live: set[Any] = set()
        self._slots, self._asked = 1, -math.inf

    @property
    def slots(self) -> int:
        now = time.monotonic()
        if now - self._asked > _SLOTS_SECONDS:
            self._slots = max(1, sum(int(threads) for threads in self._client.nthreads().values()))
            self._asked = now
        return self._slots

    def submit(self, call: Callable[..., Any], *arguments: object) -> object:
        # Every item of the catalog is a side effect somewhere: equal calls are never one call.
        future = self._client.submit(call, *arguments, pure=False)
        self._live.add(future)
        self._ended.add(future)
        return future

    def wait(self) -> tuple[object, Any]:
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        future = next(self._ended)
        self._live.discard(future)
        try:
            result = future.result()
        except KilledWorker as error:
            result = WorkerLost(str(error))
        except FutureCancelledError as error:
            raise ConnectionError("the Dask scheduler is gone, and with it the batches in flight") from error
        except Exception as error:  # what `_run_batch` cannot catch: arguments or values that do not pickle
            result = WorkerLost(f"{type(error).__name__}: {error}")
        future.release()
        return future, result

    def cancel(self) -> None:
        from distributed import as_completed

        if self._live:
            self._client.cancel(list(self._live))
        self._live.clear()
        self._ended = as_completed()


@contextmanager
def open_cluster(
    n_workers: int | None = None, *, memory_limit: str | int = "auto", scheduler: str | None = None
) -> Iterator[Pool]:
    """Start worker processes of one thread each on this machine, or join a running `scheduler`, for a ``with`` block.

    Parameters
    ----------
    n_workers
        By default (None or 0) one for each core that this process may use.
    memory_limit
        Of one worker, as ``"2GB"`` or bytes; a worker beyond 95 % of it is killed and its batch split.
    scheduler
        Address of a running Dask scheduler, as ``tcp://host:8786``; the other arguments are then not used.
    """
    import dask
    from distributed import Client, LocalCluster

    _quiet()
    with dask.config.set(_dask_settings()):
        if scheduler is not None:
            with Client(scheduler, timeout="30s") as client:
                yield Cluster(client)
            return
        with (
            LocalCluster(
                n_workers=n_workers or _cores(),
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                memory_limit=memory_limit,
                silence_logs=logging.CRITICAL,
            ) as local,
            Client(local) as client,
        ):
            yield Cluster(client)


def map_batches(
    function: Callable[[Item], Value],
    items: Iterable[Item],
    *,
    pool: Pool,
    batch_size: int | None = None,
    batch_seconds: float = 2.0,
    window: int = WINDOW,
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
    """
    if window < 1 or (batch_size is not None and batch_size < 1):
        raise UsageError("window and batch_size count batches and items", expected="at least 1", advice="raise them")
    run = _Run(function, deque(enumerate(items)), pool, window, batch_size, batch_seconds)
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
    ) -> None:
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
            else:
                self._learn(result)
                yield from result
        while self.suspects:
            yield self._alone(self.suspects.popleft())

    def _top_up(self) -> None:
        limit = self.window * self.pool.slots
        while len(self.flying) < limit and (batch := self._next_batch()):
            self.flying[self.pool.submit(_run_batch, self.function, batch)] = batch

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
        return max(1, min(math.floor(wanted), math.ceil(share)))

    def _learn(self, outcomes: Sequence[Outcome[Any]]) -> None:
        self.spent += sum(outcome.seconds for outcome in outcomes)
        self.done += len(outcomes)

    def _split(self, batch: list[_Numbered]) -> None:
        if len(batch) == 1:
            self.suspects.append(batch[0])
            return
        middle = len(batch) // 2
        self.again.extend((batch[:middle], batch[middle:]))

    def _alone(self, numbered: _Numbered) -> Outcome[Any]:
        """Run a suspect with nothing beside it: what dies now dies of its own."""
        self.pool.submit(_run_batch, self.function, [numbered])
        _, result = self.pool.wait()
        if isinstance(result, WorkerLost):
            return Outcome(numbered[0], None, f"its worker was lost each time it ran: {result}", 0.0, 0)
        outcome: Outcome[Any] = result[0]
        return outcome


def _run_batch(function: Callable[[Any], Any], batch: Sequence[_Numbered]) -> list[Outcome[Any]]:
    return [_run_item(function, index, item) for index, item in batch]


def _run_item(function: Callable[[Any], Any], index: int, item: object) -> Outcome[Any]:
    started = time.perf_counter()
    value, error = None, None
    try:
        value = function(item)
    except Exception:  # whatever an item raises is its outcome; the caller decides
        error = traceback.format_exc()
    return Outcome(index, value, error, time.perf_counter() - started, _peak_rss())


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _dask_settings() -> dict[str, Any]:
    """Return what differs from Dask's defaults, each for a reason given in docs/decisions.md, "Fan-out"."""
    return {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.work-stealing": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.target": False,
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(_THREAD_VARIABLES, "1")
        # Trimming alone freezes the threshold of mmap at 128 kB: every large temporary would be faulted in anew.
        | {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "33554432"},
        "distributed.admin.log-format": "%(name)s %(levelname)s %(message)s",
        "distributed.logging": {"distributed": "critical"},
    }


def _quiet() -> None:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
