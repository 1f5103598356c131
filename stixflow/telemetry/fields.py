"""Rows of bytes to the numbers of a field, and back: most significant bit first, as packets have them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry.structure import Field

Column: TypeAlias = NDArray[Any]


def read_field(rows: NDArray[np.uint8], one: Field) -> Column:
    """Numbers of a field in rows of bytes (rows, bytes of its block): (rows,), or (rows, repeat) where it repeats."""
    first, last = one.at // 8, (one.at + one.bits - 1) // 8
    if one.repeat and one.bits == 8:
        return rows[:, first : first + one.repeat].copy()
    if one.repeat:
        size = one.bits // 8
        parts = [_join_bytes(rows[:, first + n * size : first + (n + 1) * size], one) for n in range(one.repeat)]
        return np.stack(parts, axis=1)
    value = _join_bytes(rows[:, first : last + 1], one)
    spare = (last + 1) * 8 - one.at - one.bits
    if spare or one.at % 8:
        value = (value >> spare & ((1 << one.bits) - 1)).astype(one.dtype)
    if one.signed and one.bits not in (8, 16, 32, 64):
        value = np.where(value >> one.bits - 1 & 1, value.astype(np.int64) - (1 << one.bits), value).astype(one.dtype)
    return value


def _join_bytes(rows: NDArray[np.uint8], one: Field) -> Column:
    """Rows of big-endian bytes as numbers just wide enough for the bytes."""
    width = rows.shape[1]
    if width == 1:
        return rows[:, 0].astype(one.dtype) if one.bits == 8 else rows[:, 0].copy()
    dtype = np.dtype(np.uint16 if width == 2 else np.uint32 if width <= 4 else np.uint64)
    value: Column = rows[:, 0].astype(dtype)
    for byte in range(1, width):
        value = value << 8 | rows[:, byte]
    return value.astype(one.dtype) if one.at % 8 == 0 and one.bits == width * 8 else value


def pack_field(rows: NDArray[np.uint8], one: Field, column: Column) -> None:
    """Write the numbers of a field into rows of bytes, whose bits there are 0: the inverse of `read_field`."""
    if one.repeat and one.bits == 8:
        rows[:, one.at // 8 : one.at // 8 + one.repeat] = column.view(np.uint8)
        return
    for number in range(max(one.repeat, 1)):
        values = column[:, number] if one.repeat else column
        _pack_number(rows, one.at + number * one.bits, one.bits, values)


def _pack_number(rows: NDArray[np.uint8], at: int, bits: int, values: Column) -> None:
    first, last = at // 8, (at + bits - 1) // 8
    spare = (last + 1) * 8 - at - bits
    wide = values.astype(np.int64).astype(np.uint64)
    wide = (wide & np.uint64((1 << bits) - 1)) << np.uint64(spare)
    for byte in range(last, first - 1, -1):
        rows[:, byte] |= (wide & np.uint64(0xFF)).astype(np.uint8)
        wide = wide >> np.uint64(8)
