"""Two FITS files of tables compared: HDU by HDU, card by card, column by column."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
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
    """`hdus`, `card`, `order`, `rows`, `values`; of a column `column` (in one file only), `name`, `format`, `unit`,
    `dim`, `bzero`, `null`."""
    name: str
    """Of the card or column."""
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.hdu} {self.kind} {self.name}: {self.first} | {self.second}"


def compare_files(
    first: str | Path, second: str | Path, *, renamed: Mapping[str, str] | None = None
) -> list[Difference]:
    """List every difference of two FITS files of binary tables.

    Left out are checksums, history and comments. NaN equals NaN; numbers must be equal, whatever their type, which is
    a difference of its own.

    Parameters
    ----------
    renamed
        Columns that have another name in the second file: a difference, but their values are compared all the same.
    """
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(first) as one, fits.open(second) as two:
            return list(_differences(one, two, renamed or {}))


def _differences(one: Any, two: Any, renamed: Mapping[str, str]) -> Iterator[Difference]:
    names = [hdu.name for hdu in one], [hdu.name for hdu in two]
    if names[0] != names[1]:
        yield Difference("", "hdus", "", ", ".join(names[0]), ", ".join(names[1]))
    for name in names[0]:
        if name in names[1]:
            yield from _cards(name, one[name].header, two[name].header)
            if hasattr(one[name], "columns") and hasattr(two[name], "columns"):
                yield from _tables(name, one[name], two[name], renamed)


def _cards(hdu: str, one: Any, two: Any) -> Iterator[Difference]:
    keys = [key for key in dict.fromkeys([*one, *two]) if key not in _NOT_COMPARED and not key.startswith(_OF_TABLES)]
    for key in keys:
        values = [repr(header[key]) if key in header else "-" for header in (one, two)]
        if values[0] != values[1]:
            yield Difference(hdu, "card", key, *values)


def _tables(hdu: str, one: Any, two: Any, renamed: Mapping[str, str]) -> Iterator[Difference]:
    there = two.columns.names
    names = [_name_there(name, there, renamed) for name in one.columns.names]
    for name, other in zip(one.columns.names, names, strict=True):
        if other not in there:
            yield Difference(hdu, "column", name, "in the file", "-")
        elif other != name:
            yield Difference(hdu, "name", name, name, other)
    for name in there:
        if name not in names:
            yield Difference(hdu, "column", name, "-", "in the file")
    shared = [name for name in names if name in there], [name for name in there if name in names]
    if shared[0] != shared[1]:
        yield Difference(hdu, "order", "", ", ".join(shared[0]), ", ".join(shared[1]))
    if len(one.data) != len(two.data):
        yield Difference(hdu, "rows", "", str(len(one.data)), str(len(two.data)))
    for name, other in zip(one.columns.names, names, strict=True):
        if other in there:
            yield from _columns(hdu, (one, two), (name, other))


def _name_there(name: str, there: Sequence[str], renamed: Mapping[str, str]) -> str:
    return name if name in there else renamed.get(name, name)


def _columns(hdu: str, tables: tuple[Any, Any], names: tuple[str, str]) -> Iterator[Difference]:
    specs = [table.columns[name] for table, name in zip(tables, names, strict=True)]
    for what in _ABOUT_COLUMNS:
        values = [str(getattr(spec, what) or "-").strip() for spec in specs]
        if values[0] != values[1]:
            yield Difference(hdu, what, names[0], *values)
    a, b = (np.asarray(table.data[name]) for table, name in zip(tables, names, strict=True))
    if a.size != b.size:
        yield Difference(hdu, "values", names[0], f"shape {a.shape}", f"shape {b.shape}")
        return
    unequal = _unequal(a.reshape(-1), b.reshape(-1))
    if unequal.any():
        where = int(np.argmax(unequal))
        texts = [f"{v.reshape(-1)[where]} ({int(unequal.sum())} of {unequal.size} differ)" for v in (a, b)]
        yield Difference(hdu, "values", names[0], *texts)


def _unequal(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    unequal = np.asarray(a != b)
    if a.dtype.kind == "f" and b.dtype.kind == "f":
        unequal &= ~(np.isnan(a) & np.isnan(b))
    return unequal


__all__ = ["Difference", "compare_files"]
