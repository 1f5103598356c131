"""Binary tables read from their bytes: what `fits.headers` has checked, without a second opinion on the sizes."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import InputFileError
from stixflow.fits.headers import Hdu, widths_of

_TYPES = {"L": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "C": ">c8", "M": ">c16"}
_NS_PER_UNIT = {"cs": 10_000_000, "s": 1_000_000_000}
_TRUE = ord("T")


@dataclass(frozen=True, slots=True)
class _Column:
    """Where one column is in a row, and how its bytes are read."""

    at: int
    kind: str
    repeat: int
    shape: tuple[int, ...]
    unit: str | None
    scale: float
    zero: float


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One binary table; columns are read when asked for."""

    file: str
    name: str
    columns: Mapping[str, _Column]
    rows: NDArray[np.uint8]
    """Its bytes, shape (rows, bytes of a row)."""

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    def unit(self, name: str) -> str | None:
        return self.columns[name].unit

    def column(self, *names: str) -> NDArray[Any]:
        """Read the first of `names` that exists, in the byte order of this machine.

        Raises
        ------
        InputFileError
            If none of them exists.
        """
        found = self.find(*names)
        if found is None:
            raise InputFileError(
                f"{self.file} has no column {' or '.join(names)} in its table {self.name}",
                expected=f"a level-1 product; the table has {', '.join(self.names)}",
                advice="check that the file is what its name says",
            )
        return found

    def find(self, *names: str) -> NDArray[Any] | None:
        """Read the first of `names` that exists, else None."""
        name = next((name for name in names if name in self.columns), None)
        return None if name is None else self._read(name, self.columns[name])

    def nanoseconds(self, name: str) -> NDArray[np.int64]:
        """Read a column of times in seconds or hundredths of it; without a unit it is that of ``time``."""
        values = self.column(name)
        unit = self.unit(name) or self.unit("time")
        if unit not in _NS_PER_UNIT:
            raise InputFileError(f"{self.file} gives {name} in {unit!r}", expected="'s' or 'cs'")
        return np.asarray(np.rint(values.astype(np.float64) * _NS_PER_UNIT[unit]), dtype=np.int64)

    def _read(self, name: str, column: _Column) -> NDArray[Any]:
        if column.kind not in _TYPES and column.kind != "A":
            what = "arrays of variable length" if column.kind in "PQ" else "single bits"
            raise InputFileError(
                f"{self.file} has {what} in its column {name}",
                expected="a column of one shape",
                advice="check that the file is what its name says",
            )
        width = column.repeat * (1 if column.kind == "A" else np.dtype(_TYPES[column.kind]).itemsize)
        data = np.array(self.rows[:, column.at : column.at + width])  # not a view: the file may go
        if column.kind == "A":
            return _texts(data, column)
        values = data.view(_TYPES[column.kind]).reshape(len(data), *column.shape)
        if column.kind == "L":
            return np.asarray(values == _TRUE)
        if sys.byteorder == "little":
            values = values.byteswap(inplace=True)
        return _scaled(values.view(values.dtype.newbyteorder("=")), column)


def _texts(data: NDArray[np.uint8], column: _Column) -> NDArray[np.str_]:
    shape = column.shape or (column.repeat,)
    size = shape[-1]
    if not size or not len(data):
        return np.zeros((len(data), *shape[:-1]), dtype="U1")
    texts = data.reshape(-1, size).view(f"S{size}").reshape(len(data), *shape[:-1])
    return np.asarray(np.char.rstrip(np.char.decode(texts, "latin-1")))


def _scaled(values: NDArray[Any], column: _Column) -> NDArray[Any]:
    """Apply TZERO and TSCAL; the zero of unsigned integers flips their first bit."""
    if column.scale == 1.0 and column.zero == 0.0:
        return values
    bits = 8 * values.dtype.itemsize
    if column.scale == 1.0 and values.dtype.kind == "i" and column.zero == 1 << bits - 1:
        unsigned = values.view(f"u{values.dtype.itemsize}")
        return np.asarray(unsigned ^ unsigned.dtype.type(1 << bits - 1))
    if column.scale == 1.0 and column.kind == "B" and column.zero == -128:
        return np.asarray((values ^ np.uint8(128)).view(np.int8))
    return np.asarray(values * column.scale + column.zero)


def read_table(file: str, hdu: Hdu, content: NDArray[np.uint8]) -> Table:
    """Return one table of a file, given all its bytes."""
    cards = hdu.cards
    row, rows = int(cards["NAXIS1"]), int(cards["NAXIS2"])
    columns, at = {}, 0
    for number, (width, repeat, kind, _) in enumerate(widths_of(file, hdu), start=1):
        name = str(cards.get(f"TTYPE{number}", f"col{number}")).strip()
        unit = cards.get(f"TUNIT{number}")
        columns[name] = _Column(
            at,
            kind,
            repeat,
            _shape(repeat, kind, str(cards.get(f"TDIM{number}", ""))),
            str(unit).strip() or None if unit is not None else None,
            _number(file, cards, f"TSCAL{number}", 1.0),
            _number(file, cards, f"TZERO{number}", 0.0),
        )
        at += width
    return Table(file, hdu.name, columns, content[hdu.at : hdu.at + row * rows].reshape(rows, row))


def _shape(repeat: int, kind: str, dims: str) -> tuple[int, ...]:
    """Shape of the values of a row, the slowest axis first."""
    shape = tuple(int(size) for size in reversed(re.findall(r"\d+", dims)))
    if shape and math.prod(shape) == repeat:
        return shape
    return () if repeat == 1 or kind == "A" else (repeat,)


def _number(file: str, cards: Mapping[str, Any], key: str, default: float) -> float:
    value = cards.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputFileError(f"{file} gives {key} as {value!r}", expected="a number", advice="fetch it again")
    return float(value)


__all__ = ["Table", "read_table"]
