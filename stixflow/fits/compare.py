"""Two FITS files of tables compared: HDU by HDU, card by card, column by column."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NOT_COMPARED = {"CHECKSUM", "DATASUM", "HISTORY", "COMMENT", ""}
_OF_TABLES = ("TTYPE", "TFORM", "TUNIT", "TDIM", "TNULL", "TSCAL", "TZERO", "NAXIS", "TFIELDS")
_ABOUT_COLUMNS = ("format", "unit", "dim", "bzero", "null")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that two files do not have in common."""

    hdu: str
    kind: str
    """`hdus`, `card`, `order`, `rows`, `column` (in one file only), `format`, `unit`, `dim`, `null`, or `values`."""
    name: str
    """Of the card or column."""
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.hdu} {self.kind} {self.name}: {self.first} | {self.second}"


def compare_files(first: str | Path, second: str | Path) -> list[Difference]:
    """List every difference of two FITS files of binary tables.

    Left out are checksums, history and comments. NaN equals NaN; numbers must be equal, whatever their type, which is
    a difference of its own.
    """
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(first) as one, fits.open(second) as two:
            return list(_differences(one, two))


def _differences(one: Any, two: Any) -> Iterator[Difference]:
    names = [hdu.name for hdu in one], [hdu.name for hdu in two]
    if names[0] != names[1]:
        yield Difference("", "hdus", "", ", ".join(names[0]), ", ".join(names[1]))
    for name in names[0]:
        if name in names[1]:
            yield from _cards(name, one[name].header, two[name].header)
            if hasattr(one[name], "columns") and hasattr(two[name], "columns"):
                yield from _tables(name, one[name], two[name])


def _cards(hdu: str, one: Any, two: Any) -> Iterator[Difference]:
    keys = [key for key in dict.fromkeys([*one, *two]) if key not in _NOT_COMPARED and not key.startswith(_OF_TABLES)]
    for key in keys:
        values = [repr(header[key]) if key in header else "-" for header in (one, two)]
        if values[0] != values[1]:
            yield Difference(hdu, "card", key, *values)


def _tables(hdu: str, one: Any, two: Any) -> Iterator[Difference]:
    names = one.columns.names, two.columns.names
    for name in dict.fromkeys([*names[0], *names[1]]):
        if name not in names[0] or name not in names[1]:
            here = ["in the file" if name in known else "-" for known in names]
            yield Difference(hdu, "column", name, *here)
    shared = [[name for name in known if name in names[0] and name in names[1]] for known in names]
    if shared[0] != shared[1]:
        yield Difference(hdu, "order", "", ", ".join(shared[0]), ", ".join(shared[1]))
    if len(one.data) != len(two.data):
        yield Difference(hdu, "rows", "", str(len(one.data)), str(len(two.data)))
    for name in shared[0]:
        yield from _columns(hdu, name, one, two)


def _columns(hdu: str, name: str, one: Any, two: Any) -> Iterator[Difference]:
    specs = one.columns[name], two.columns[name]
    for what in _ABOUT_COLUMNS:
        values = [str(getattr(spec, what) or "-") for spec in specs]
        if values[0] != values[1]:
            yield Difference(hdu, what, name, *values)
    a, b = np.asarray(one.data[name]), np.asarray(two.data[name])
    if a.shape != b.shape:
        if a.size != b.size:
            yield Difference(hdu, "values", name, f"shape {a.shape}", f"shape {b.shape}")
            return
        a, b = a.reshape(-1), b.reshape(-1)
    unequal = _unequal(a, b)
    if unequal.any():
        where = np.argwhere(unequal)[0]
        yield Difference(hdu, "values", name, *(_shown(values, where, unequal) for values in (a, b)))


def _unequal(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    unequal = np.asarray(a != b)
    if a.dtype.kind == "f" and b.dtype.kind == "f":
        unequal &= ~(np.isnan(a) & np.isnan(b))
    return unequal


def _shown(values: NDArray[Any], where: Sequence[int] | NDArray[np.intp], unequal: NDArray[np.bool_]) -> str:
    return f"{values[tuple(where)]} ({int(unequal.sum())} of {unequal.size} differ)"


__all__ = ["Difference", "compare_files"]
