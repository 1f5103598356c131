"""Will it fit? Jobs declare what they need at most, and what does not fit is refused before it runs.

The rule is that of cubed: what a process holds before it works, plus what the job declares, must stay below what a
worker may hold. A worker beyond its limit is killed by Dask, and the batch with it, so that asking first is cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

from stixflow.compute.pools import Pool

Item = TypeVar("Item")

RESERVED_BYTES = 400_000_000
"""What a worker holds with everything imported that jobs use (`tests/compute/test_memory.py`)."""
_USABLE = 0.8
"""Dask stops giving work to a worker beyond this share of its limit."""


@runtime_checkable
class _Declares(Protocol):
    """An item that says what it needs."""

    @property
    def estimated_bytes(self) -> int:
        """Bytes that the item needs at most, beyond those of an idle worker; 0: not known."""


def refuse_too_large(items: Sequence[Item], pool: Pool) -> tuple[Sequence[Item], list[tuple[Item, str]]]:
    """Split items into those that a worker of the pool can hold, and the others with what to do about them.

    Items that declare nothing are never refused.
    """
    declared = [item.estimated_bytes if isinstance(item, _Declares) else 0 for item in items]
    limit = pool.memory_limit if any(declared) else None
    if limit is None:
        return items, []
    usable = _USABLE * limit
    too_large = [need > 0 and need + RESERVED_BYTES > usable for need in declared]
    fitting = [item for item, refused in zip(items, too_large, strict=True) if not refused]
    refused = [
        (item, _advice(need + RESERVED_BYTES, limit))
        for item, need, is_refused in zip(items, declared, too_large, strict=True)
        if is_refused
    ]
    return fitting, refused


def _advice(needed: int, limit: int) -> str:
    return (
        f"needs up to {_gigabytes(needed)} of memory, and a worker may use {_gigabytes(_USABLE * limit)} of its "
        f"{_gigabytes(limit)}. Expected: workers that hold one item. Do: run again with fewer, larger workers "
        f"(--memory-limit {needed / _USABLE / 1e9:.1f}GB, or `memory` of the cluster profile), or --serial"
    )


def _gigabytes(amount: float) -> str:
    return f"{amount / 1e9:.1f} GB"
