"""Binary tables and files as the official ones are: types, units, shapes, checksums, one write or none."""

from __future__ import annotations

import gzip
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GZIP_LEVEL = 6
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
    from stixflow.imaging.fits_bytes import hdu_bytes

    stored = [_stored(column.values) for column in columns]
    rows = np.empty(len(stored[0]), [(f"f{n}", one.dtype, one.shape[1:]) for n, one in enumerate(stored)])
    for number, values in enumerate(stored):
        rows[f"f{number}"] = values
    about: dict[str, Any] = {
        "XTENSION": ("BINTABLE", "binary table extension"),
        "BITPIX": (8, "array data type"),
        "NAXIS": (2, "number of array dimensions"),
        "NAXIS1": (rows.dtype.itemsize, "length of dimension 1"),
        "NAXIS2": (len(rows), "length of dimension 2"),
        "PCOUNT": (0, "number of group parameters"),
        "GCOUNT": (1, "number of groups"),
        "TFIELDS": (len(columns), "number of table fields"),
    }
    for number, column in enumerate(columns, start=1):
        about |= {f"{key}{number}": value for key, value in _described(column).items()}
    return hdu_bytes(about, {"EXTNAME": (name, "extension name")}, rows.tobytes())


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


def write_hdus(path: Path, hdus: Sequence[bytes]) -> None:
    """Write a file whole or not at all, gzipped where its name ends in ``.gz``."""
    content = b"".join(hdus)
    data = gzip.compress(content, _GZIP_LEVEL, mtime=0) if path.suffix == ".gz" else content
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def primary_hdu(cards: Mapping[str, tuple[Any, str]], *, history: Sequence[str], comments: Sequence[str]) -> bytes:
    """Make the primary HDU; long lines of history and comments are broken."""
    from stixflow.imaging.fits_bytes import hdu_bytes

    about = {
        "SIMPLE": (True, "conforms to FITS standard"),
        "BITPIX": (8, "array data type"),
        "NAXIS": (0, "number of array dimensions"),
        "EXTEND": True,
    }
    return hdu_bytes(about, cards, b"", history=history, comments=comments)
