"""Binary tables as those of the official files are: types, units, shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.fits.hdus import binary_table, hdu_bytes

_UNSIGNED = ("u2", "u4", "u8")
_CODES = {
    "b1": "L",
    "u1": "B",
    "u2": "I",
    "u4": "J",
    "u8": "K",
    "i2": "I",
    "i4": "J",
    "i8": "K",
    "f4": "E",
    "f8": "D",
    "c16": "M",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: values with the rows first, of the type that is written."""

    name: str
    values: NDArray[Any]
    unit: str = ""
    missing: int | None = None
    """The value that stands for "not known"."""


def smallest(values: ArrayLike) -> NDArray[Any]:
    """Return whole numbers from 0 as the smallest unsigned integers that hold them all, 8 bits at least."""
    array = np.asarray(values)
    return array.astype(np.min_scalar_type(int(array.max(initial=0))), copy=False)


def unfold(masks: ArrayLike, size: int) -> NDArray[np.uint8]:
    """Return numbers as zeros and ones along a new last axis, bit 0 first."""
    return np.asarray(np.asarray(masks).astype(np.int64)[..., None] >> np.arange(size) & 1, dtype=np.uint8)


def table_hdu(name: str, columns: Sequence[Column]) -> bytes:
    """Make the HDU of a binary table."""
    return binary_table(name, [(_stored(column.values), _described(column)) for column in columns])


def _described(column: Column) -> dict[str, Any]:
    """Cards of one column, without its number."""
    values, shape = column.values, column.values.shape[1:]
    zero = None
    if values.dtype.kind == "U":
        size = max(values.dtype.itemsize // 4, 1)
        shape, form = (*shape, size) if shape else (), f"{size}A"
    else:
        kind = f"{values.dtype.kind}{values.dtype.itemsize}"
        count = int(np.prod(shape))
        form = _CODES[kind] if count == 1 else f"{count}{_CODES[kind]}"
        zero = 1 << 8 * values.dtype.itemsize - 1 if kind in _UNSIGNED else None
    return {
        "TTYPE": column.name,
        "TFORM": form,
        "TUNIT": column.unit or " ",
        **({} if column.missing is None else {"TNULL": column.missing - (zero or 0)}),
        **({} if zero is None else {"TSCAL": 1, "TZERO": zero}),
        **({"TDIM": f"({','.join(str(n) for n in reversed(shape))})"} if shape else {}),
    }


def _stored(values: NDArray[Any]) -> NDArray[Any]:
    """Values as their bytes stand in a file: first byte first, unsigned integers with their first bit flipped."""
    kind = f"{values.dtype.kind}{values.dtype.itemsize}"
    if values.dtype.kind == "U":
        return np.char.encode(values, "ascii", "replace").astype(f"S{max(values.dtype.itemsize // 4, 1)}")
    if kind == "b1":
        return np.where(values, b"T", b"F").astype("S1")
    if kind in _UNSIGNED:
        values = values ^ values.dtype.type(1 << 8 * values.dtype.itemsize - 1)
    return values.astype(values.dtype.newbyteorder(">"))


def primary_hdu(cards: Mapping[str, tuple[Any, str]], *, history: Sequence[str], comments: Sequence[str]) -> bytes:
    """Make the primary HDU; long lines of history and comments are broken."""
    about = {
        "SIMPLE": (True, "conforms to FITS standard"),
        "BITPIX": (8, "array data type"),
        "NAXIS": (0, "number of array dimensions"),
        "EXTEND": True,
    }
    return hdu_bytes(about, cards, b"", history=history, comments=comments)
