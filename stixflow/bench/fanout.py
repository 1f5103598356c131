"""What sending work to workers costs, and the size of batches and the window that follow."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from stixflow.bench.measuring import Row
from stixflow.compute import Cost, Pool, map_batches, open_cluster
from stixflow.tuning import Tuning

_EFFICIENCY = 0.95
_ITEM_S = 0.002
_BATCHES = (1, 2, 5, 20, 100)
_WINDOWS = (1, 2, 3, 4)
_TOLERANCE = 0.01
"""A window counts as good as the best one if the workers are busy for as much of the time, but for this."""


def _spin(seconds: float) -> int:
    """Work for so long in processor time, as an item does."""
    started, turns = time.process_time(), 0
    while time.process_time() - started < seconds:
        turns += 1
    return turns


def measure_fanout(*, quick: bool = False, pool: Pool | None = None) -> list[Row]:
    """Measure processor time by batches, and how busy the workers are by window, on two workers of this machine.

    The time of the coordinating process and of the workers is fitted as ``overhead x batches + cost x items``.
    """
    if pool is None:
        with open_cluster(2) as opened:
            return measure_fanout(quick=quick, pool=opened)
    items = 100 if quick else 400
    _send(pool, 20, 5, 3)  # imports
    rows = [_send(pool, items, size, 3) for size in _BATCHES]
    rows += [_send(pool, items, 20, window) for window in _WINDOWS]
    return rows


def _send(pool: Pool, items: int, batch_size: int, window: int) -> Row:
    cost = Cost()
    with cost.coordinated(pool.slots):
        for outcome in map_batches(
            _spin, [_ITEM_S] * items, pool=pool, batch_size=batch_size, window=window, cost=cost
        ):
            assert outcome.ok, outcome.error
    found = cost.report()
    return {
        "what": f"{items} items in batches of {batch_size}, window {window}",
        "items": items,
        "batch_size": batch_size,
        "window": window,
        "tasks": found["batches"],
        "cpu_seconds": cost.cpu_seconds + cost.coordinator_seconds,
        "busy_share": found["busy_share"],
    }


def fit_fanout(rows: Sequence[Row]) -> dict[str, float]:
    """Fit the overhead of a batch (s) and the cost of an item (s) to what `measure_fanout` found."""
    matrix = np.array([[row["tasks"], row["items"]] for row in rows], dtype=float)
    seconds = np.array([row["cpu_seconds"] for row in rows])
    (overhead, item), *_ = np.linalg.lstsq(matrix, seconds, rcond=None)
    return {"overhead_s": float(max(overhead, 1e-5)), "item_s": float(item)}


def derive(rows: Sequence[Row], *, efficiency: float = _EFFICIENCY) -> Tuning:
    """Derive how long a batch should take so that its overhead is 1 - `efficiency` of all, and the smallest window."""
    overhead = fit_fanout(rows)["overhead_s"]
    seconds = overhead * efficiency / (1 - efficiency)
    busy = {row["window"]: row["busy_share"] for row in rows[len(_BATCHES) :]}
    window = min(number for number, share in busy.items() if share >= max(busy.values()) - _TOLERANCE)
    return Tuning("", {}, batch_seconds=math.ceil(100 * seconds) / 100, window=window)


def described(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the fit and what was derived, as plain values."""
    tuning = derive(rows)
    return {**fit_fanout(rows), "batch_seconds": tuning.batch_seconds, "window": tuning.window}
