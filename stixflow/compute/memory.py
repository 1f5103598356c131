"""Will it fit? Jobs declare what they need at most, and what does not fit is refused before it runs.

The rule is that of cubed: what a process holds before it works, plus what the job declares, must stay below what a
worker may hold. A worker beyond its limit is killed by Dask, and the batch with it, so that asking first is cheaper.
"""

from __future__ import annotations

from typing import Any

RESERVED_BYTES = 400_000_000
"""What a worker holds with everything imported that jobs use (`tests/compute/test_memory.py`)."""
_USABLE = 0.8
"""Dask stops giving work to a worker beyond this share of its limit."""


def needed_memory(item: Any) -> int:
    """Return the bytes that an item declares to need at most (`estimated_bytes`), its process included."""
    return RESERVED_BYTES + int(getattr(item, "estimated_bytes", 0))


def usable_memory(limit: int | None) -> float:
    """Return the bytes that a call may use of a worker with this limit; infinite without one."""
    return float("inf") if limit is None else _USABLE * limit
