"""What runs calls: this process, or the workers of a Dask cluster."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar
from uuid import uuid4

Value = TypeVar("Value")

_SLOTS_SECONDS = 2.0
"""How long the count of worker threads is believed: asking the scheduler costs more than sending a batch."""


class WorkerLost(Exception):
    """The process that computed a batch ended before it answered, or its answer could not travel."""


class SchedulerLost(ConnectionError):
    """Nobody is left who could compute; a run ends here, and the next one goes on where it stopped."""


class Pool(Protocol):
    """What `map_batches` needs of an engine: submit calls, wait for any to end."""

    @property
    def slots(self) -> int:
        """How many calls run at once."""

    @property
    def memory_limit(self) -> int | None:
        """Bytes that one call may need, its process included; None where nobody limits it."""

    def submit(self, call: Callable[..., Any], *arguments: object, tag: str = "") -> object:
        """Start ``call(*arguments)`` and return its ticket; `tag` names it to whoever watches."""

    def wait(self) -> tuple[object, Any]:
        """Return the ticket and the result of any call that ended; the result may be a `WorkerLost`."""

    def cancel(self) -> None:
        """Forget every call not yet returned by `wait`."""


class Serial:
    """The engine of `--serial`: calls run in this process, one after the other, when waited for."""

    slots = 1
    memory_limit: int | None = None

    def __init__(self) -> None:
        self._queue: deque[tuple[int, Callable[..., Any], tuple[object, ...]]] = deque()
        self._count = 0

    def submit(self, call: Callable[..., Any], *arguments: object, tag: str = "") -> object:  # noqa: ARG002
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
            with _told_when_gone():
                self._slots = max(1, sum(int(threads) for threads in self._client.nthreads().values()))
            self._asked = now
        return self._slots

    @property
    def memory_limit(self) -> int | None:
        """Memory of the smallest worker, divided among its threads."""
        workers = self._client.scheduler_info()["workers"].values()
        limits = [int(worker["memory_limit"]) // worker["nthreads"] for worker in workers if worker["memory_limit"]]
        return min(limits, default=None)

    def ask_workers(self, question: Callable[..., Value]) -> list[Value]:
        """Call a function on every worker, as it is (`dask_worker`), outside of all batches."""
        return list(self._client.run(question).values())

    def submit(self, call: Callable[..., Any], *arguments: object, tag: str = "") -> object:
        from distributed import span

        name = tag or getattr(call, "__name__", "call")
        with _told_when_gone(), span(name):
            # Every item of the catalog is a side effect somewhere: equal calls are never one call.
            future = self._client.submit(call, *arguments, key=f"{name}-{uuid4().hex}", pure=False)
        self._live.add(future)
        self._ended.add(future)
        return future

    def wait(self) -> tuple[object, Any]:
        from distributed import KilledWorker

        with _told_when_gone():
            future = next(self._ended)
        self._live.discard(future)
        try:
            with _told_when_gone():
                result = future.result()
        except KilledWorker as error:
            result = WorkerLost(str(error))
        except SchedulerLost:
            raise
        except (
            Exception
        ) as error:  # no worker is left, or what the call cannot catch itself: arguments or values that do not pickle
            if type(error).__name__ in _NO_WORKERS:
                raise SchedulerLost(f"{str(error).rstrip('.')}. {_AGAIN}") from error
            result = WorkerLost(f"{type(error).__name__}: {error}")
        future.release()
        return future, result

    def cancel(self) -> None:
        from distributed import as_completed

        if self._live and self._client.status == "running":
            with suppress(SchedulerLost), _told_when_gone():
                self._client.cancel(list(self._live))
        self._live.clear()
        self._ended = as_completed()


@contextmanager
def _told_when_gone() -> Iterator[None]:
    """Make of the many ways in which Dask notices that its scheduler is gone the one that people are told."""
    from distributed import client
    from distributed.comm import CommClosedError

    closed = getattr(client, "ClosedClientError", CommClosedError)  # not in older ones
    try:
        yield
    except (CommClosedError, closed, client.FutureCancelledError, StopIteration) as error:
        raise SchedulerLost(_GONE) from error


_AGAIN = (
    "What was published stays. Do: bring the workers back, then run the same command again; it goes on where this one "
    "stopped"
)
_GONE = f"the Dask scheduler is gone, and with it the batches in flight. {_AGAIN}"
_NO_WORKERS = ("NoWorkerError", "NoValidWorkerError")
