from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.telemetry.runs import gather_rows, gather_runs, scatter_rows, scatter_runs


@settings(deadline=None)
@given(st.lists(st.integers(0, 90), max_size=20), st.integers(1, 9))
def test_rows_scatter_back(starts: list[int], size: int) -> None:
    rng = np.random.default_rng(1)
    buffer = rng.integers(0, 256, 100, dtype=np.uint8)
    start = np.array(starts, dtype=np.int64)
    rows = gather_rows(buffer, start, size)
    assert rows.shape == (len(starts), size)
    copy = buffer.copy()
    scatter_rows(copy, start, rows)
    assert np.array_equal(copy, buffer)
    assert all(np.array_equal(row, buffer[at : at + size]) for at, row in zip(starts, rows, strict=True))


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 2**32 - 1))
def test_runs_are_gathered_in_order(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    buffer = rng.integers(0, 256, 100, dtype=np.uint8)
    length = np.array(lengths, dtype=np.int64)
    start = rng.integers(0, 70, length.size)
    pieces = [buffer[at : at + size] for at, size in zip(start, lengths, strict=True)]
    assert np.array_equal(gather_runs(buffer, start, length), np.concatenate([np.empty(0, np.uint8), *pieces]))


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), max_size=30))
def test_runs_are_scattered_to_their_places(lengths: list[int]) -> None:
    length = np.array(lengths, dtype=np.int64)
    total = int(length.sum())
    data = np.arange(total, dtype=np.int64).astype(np.uint8)
    start = np.cumsum(length[::-1])[::-1] - length
    out = np.zeros(total, dtype=np.uint8)
    scatter_runs(out, start, length, data)
    pieces = np.split(data, np.cumsum(length)[:-1]) if lengths else []
    assert np.array_equal(out, np.concatenate([np.empty(0, np.uint8), *reversed(pieces)]))
