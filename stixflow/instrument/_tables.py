"""Reading of the small text tables that describe the instrument.

The numbers are those of the public calibration tables of the ground software and its Python successor: sub-collimator
parameters, measured grids (orientation, pitch and thickness, layers averaged), grid transmission, phases, on-board
energy tables with their dates, and the transmission of the materials in front of the detectors.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Scalar = TypeVar("_Scalar", bound=np.generic)


@cache
def text_columns(name: str) -> dict[str, list[str]]:
    """Read a table of this package as columns of text, by name of the column."""
    with (resources.files(__package__) / "tables" / f"{name}.csv").open(encoding="ascii") as lines:
        header, *rows = csv.reader(lines)
    return {column: list(values) for column, values in zip(header, zip(*rows, strict=True), strict=True)}


def numbers(name: str, column: str) -> NDArray[np.float64]:
    """Read one numeric column, as an array that cannot be written to."""
    return frozen(np.array(text_columns(name)[column], dtype=np.float64))


def integers(name: str, column: str) -> NDArray[np.intp]:
    """Read one column of integers, as an array that cannot be written to."""
    return frozen(np.array(text_columns(name)[column], dtype=np.intp))


def frozen(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Return `array` marked read-only: what a cache hands out must not change."""
    array.flags.writeable = False
    return array
