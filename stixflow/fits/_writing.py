"""Binary tables and files as the official ones are: types, units, shapes, checksums, one write or none."""

from __future__ import annotations

import gzip
import io
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GZIP_LEVEL = 6
_CARD = 80
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


def table_hdu(name: str, columns: Sequence[Column]) -> Any:
    """Make the HDU of a binary table."""
    from astropy.io import fits

    return fits.BinTableHDU.from_columns([_fits_column(column) for column in columns], name=name)


def _fits_column(column: Column) -> Any:
    from astropy.io import fits

    values = column.values
    shape = values.shape[1:]
    zero = None
    if values.dtype.kind == "U":
        code, size = "A", max(values.dtype.itemsize // 4, 1)
        shape = (*shape, size) if shape else ()
        form = f"{size}A"
    else:
        kind = f"{values.dtype.kind}{values.dtype.itemsize}"
        code = _CODES[kind]
        form = code if not shape or int(np.prod(shape)) == 1 else f"{int(np.prod(shape))}{code}"
        zero = 1 << 8 * values.dtype.itemsize - 1 if kind in ("u2", "u4", "u8") else None
    null = None if column.missing is None else column.missing - (zero or 0)
    dim = f"({','.join(str(n) for n in reversed(shape))})" if shape else None
    return fits.Column(
        name=column.name,
        format=form,
        unit=column.unit or " ",
        null=null,
        bscale=1 if zero else None,
        bzero=zero,
        dim=dim,
        array=values,
    )


def write_hdus(path: Path, hdus: Sequence[Any]) -> None:
    """Write a file with checksums, whole or not at all, gzipped where its name ends in ``.gz``."""
    from astropy.io import fits

    buffer = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(buffer, checksum=True)
    content = buffer.getbuffer()
    data = gzip.compress(content, _GZIP_LEVEL, mtime=0) if path.suffix == ".gz" else content
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def primary_hdu(cards: Mapping[str, tuple[Any, str]], *, history: Sequence[str], comments: Sequence[str]) -> Any:
    """Make the primary HDU; long lines of history and comments are broken."""
    from astropy.io import fits

    header = fits.Header()
    for key, (value, comment) in cards.items():
        header.append((key, value, comment[: _room(key, value)]), end=True)
    for line in history:
        header.add_history(line)
    for line in comments:
        header.add_comment(line)
    return fits.PrimaryHDU(header=header)


def _room(key: str, value: Any) -> int | None:
    """Length that is left for the comment of a card; None where the card goes on in others."""
    from astropy.io import fits

    image = fits.Card(key, value).image
    return max(0, len(image) - len(image.rstrip()) - 3) if len(image) == _CARD else None
