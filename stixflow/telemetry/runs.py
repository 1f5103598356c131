"""Rows and runs of bytes: copied from where they lie to one after the other, and back.

A *row* is one of many pieces of equal length, a *run* one of pieces of any lengths; each is known by where it begins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_TINY_RUN = 8
_LONG_RUN = 1 << 16
_FEW_RUNS = 8


def gather_rows(buffer: NDArray[np.uint8], start: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Copy `size` bytes from each `start`, as rows; all of them must lie inside `buffer`."""
    if size == 0 or start.size == 0:
        return np.zeros((start.size, size), dtype=np.uint8)
    windows: NDArray[np.void] = np.ndarray((buffer.size - size + 1,), f"V{size}", buffer, strides=(1,))
    return windows[start].view(np.uint8).reshape(start.size, size)


def scatter_rows(buffer: NDArray[np.uint8], start: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
    """Write each of `rows` at its `start`: the inverse of `gather_rows`."""
    size = rows.shape[1]
    if rows.size:
        windows: NDArray[np.void] = np.ndarray((buffer.size - size + 1,), f"V{size}", buffer, strides=(1,))
        windows[start] = np.ascontiguousarray(rows).view(f"V{size}")[:, 0]


def starts_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """First position of each run when runs of these lengths follow each other."""
    return np.cumsum(lengths) - lengths


def positions_in(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each member of each run in its run, one run after the other."""
    return np.arange(int(lengths.sum())) - np.repeat(starts_of(lengths), lengths)


def _expand_runs(start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """All positions of the runs, one after the other."""
    return np.repeat(start - starts_of(length), length) + np.arange(int(length.sum()))


def take_runs(column: NDArray[Any], start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[Any]:
    """Copy runs of rows of a column, one after the other."""
    width = column.itemsize * int(np.prod(column.shape[1:], dtype=np.int64))
    data = np.ascontiguousarray(column).reshape(-1).view(np.uint8)
    return gather_runs(data, start * width, length * width).view(column.dtype).reshape(-1, *column.shape[1:])


def gather_runs(buffer: NDArray[np.uint8], start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Copy runs of bytes of any lengths, one after the other: many of equal length at once, tiny ones byte by byte."""
    total = int(length.sum())
    if total < _TINY_RUN * length.size and length.min() != length.max():
        return np.asarray(buffer[_expand_runs(start, length)])
    sizes, alike = _count_sizes(length)
    if sizes.size == 1:
        return gather_rows(buffer, start, int(sizes[0])).reshape(-1)
    out = np.empty(total, dtype=np.uint8)
    target = starts_of(length)
    for size in sizes[sizes > 0].tolist():
        rows = np.flatnonzero((length == size) & (alike > _FEW_RUNS))
        if rows.size:
            scatter_rows(out, target[rows], gather_rows(buffer, start[rows], size))
    rest = np.flatnonzero((alike <= _FEW_RUNS) & (length > 0))
    for to, at, size in zip(target[rest].tolist(), start[rest].tolist(), length[rest].tolist(), strict=True):
        out[to : to + size] = buffer[at : at + size]
    return out


def _count_sizes(length: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lengths that occur, and for each run how many are as long as it."""
    if length.max(initial=0) > _LONG_RUN:
        sizes, inverse, members = np.unique(length, return_inverse=True, return_counts=True)
        return sizes, members[inverse]
    members = np.bincount(length)
    return np.flatnonzero(members), members[length]


def scatter_runs(
    out: NDArray[np.uint8], start: NDArray[np.int64], length: NDArray[np.int64], data: NDArray[np.uint8]
) -> None:
    """Write consecutive runs of `data` to the places `start`: the inverse of `gather_runs`."""
    source = starts_of(length)
    sizes, inverse, members = np.unique(length, return_inverse=True, return_counts=True)
    for position, (size, number) in enumerate(zip(sizes.tolist(), members.tolist(), strict=True)):
        rows = np.flatnonzero(inverse == position)
        if size and number * size == data.size:
            scatter_rows(out, start[rows], data.reshape(-1, size))
        elif size:
            scatter_rows(out, start[rows], data[_expand_runs(source[rows], length[rows])].reshape(-1, size))
