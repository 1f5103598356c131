"""What a stage costs: processor time, bytes and memory of its items, and what coordinating them takes."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_IO = Path("/proc/self/io")
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process had used up to some moment."""

    cpu_seconds: float
    bytes_read: int
    """Of files, as the kernel counts them: what came over the network is not in it. 0 where it does not count."""
    bytes_written: int

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu_seconds - other.cpu_seconds,
            self.bytes_read - other.bytes_read,
            self.bytes_written - other.bytes_written,
        )


@dataclass(frozen=True, slots=True)
class BatchUsage:
    """What one batch used on one worker."""

    worker: str
    used: Usage
    peak_rss: int
    """Bytes that the worker held at most during the batch."""


class _Ended(Protocol):
    @property
    def ok(self) -> bool: ...

    @property
    def seconds(self) -> float: ...


@dataclass(slots=True)
class Cost:
    """What a stage has cost so far: its items, summed over the workers, and the process that coordinates them."""

    items: int = 0
    failed: int = 0
    batches: int = 0
    item_seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    peak_rss: dict[str, int] = field(default_factory=dict)
    """Bytes held at most by each worker that ran items of the stage."""
    coordinator_seconds: float = 0.0
    """Processor time of the coordinating process without the items that ran in it."""
    slot_seconds: float = 0.0
    """Time that the workers were there for the stage."""
    _items_here: float = 0.0

    def add_batch(self, used: BatchUsage) -> None:
        """Add what one batch used."""
        self.batches += 1
        self.cpu_seconds += used.used.cpu_seconds
        self.bytes_read += used.used.bytes_read
        self.bytes_written += used.used.bytes_written
        self.peak_rss[used.worker] = max(self.peak_rss.get(used.worker, 0), used.peak_rss)
        if used.worker == this_worker():
            self._items_here += used.used.cpu_seconds

    def add_item(self, outcome: _Ended) -> None:
        """Add one item that ended."""
        self.items += 1
        self.failed += not outcome.ok
        self.item_seconds += outcome.seconds

    @contextmanager
    def coordinated(self, slots: int = 1) -> Iterator[None]:
        """Measure the stage as a whole, in the process that plans it, feeds the workers and writes the catalog."""
        started, cpu, here = time.perf_counter(), time.process_time(), self._items_here
        try:
            yield
        finally:
            self.slot_seconds += (time.perf_counter() - started) * slots
            self.coordinator_seconds += max(0.0, time.process_time() - cpu - (self._items_here - here))

    def report(self) -> dict[str, Any]:
        """Return plain values for JSON: seconds, bytes, and shares of 1."""
        all_cpu = self.cpu_seconds + self.coordinator_seconds
        return {
            "items": self.items,
            "failed": self.failed,
            "batches": self.batches,
            "cpu_seconds": round(self.cpu_seconds, 3),
            "coordinator_cpu_seconds": round(self.coordinator_seconds, 3),
            "overhead_share": round(self.coordinator_seconds / all_cpu, 4) if all_cpu else 0.0,
            "busy_share": round(min(1.0, self.item_seconds / self.slot_seconds), 4) if self.slot_seconds else 0.0,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "workers": len(self.peak_rss),
            "peak_worker_bytes": max(self.peak_rss.values(), default=0),
        }


def usage() -> Usage:
    """Return what this process has used up to now."""
    read, written = _file_bytes()
    return Usage(time.process_time(), read, written)


def peak_rss() -> int:
    """Return the bytes that this process has held at most since `forget_peak`.

    `getrusage` hands on what the parent held when it started this process, so that Linux is asked for its own figure.
    """
    try:
        status = _STATUS.read_text()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak() -> None:
    """Let `peak_rss` count from what this process holds now, where the system can (Linux)."""
    with suppress(OSError):
        _CLEAR.write_text("5")


def give_back() -> None:
    """Return to the system what was freed in the middle of the heap, where the C library can (glibc).

    Arrays of a few megabytes leave holes there: without it a worker holds more from day to day.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    import ctypes

    with suppress(OSError):
        trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
        return trim
    return None


def this_worker() -> str:
    """Name this process, as no other process of the cluster is named."""
    return f"{_host()}:{os.getpid()}"


@cache
def _host() -> str:
    return socket.gethostname()


def _file_bytes() -> tuple[int, int]:
    try:
        lines = _IO.read_text().splitlines()
    except OSError:  # not Linux, or not allowed
        return 0, 0
    counted = dict(line.split(": ") for line in lines)
    return int(counted["rchar"]), int(counted["wchar"])
