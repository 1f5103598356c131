"""Engineering values: calibration curves, linear scales and text tables of the instrument database.

Temperatures are in degrees Celsius, as in the database; the FITS products give kelvin.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.telemetry import layouts
from stixflow.telemetry.structure import Field

_CODES = 4096


def calibrate(raw: ArrayLike, curve: str, *, straight: bool = False) -> NDArray[np.float64]:
    """Turn raw numbers into engineering values by a calibration curve of the database.

    Two points make a straight line, more a cubic spline through all of them (not-a-knot), both also outside the points:
    this reproduces the team's files.

    Parameters
    ----------
    raw
        Numbers as sent, any shape.
    curve
        Number of the curve, as ``"0024"``.
    straight
        Join the points by straight lines, the outer ones prolonged.
    """
    values = np.asarray(raw, dtype=np.float64)
    points = layouts.curve(curve)
    if straight or len(points) == 2 or values.size == 0:
        return _polyline(values, points)
    number = np.asarray(raw)
    if number.dtype.kind == "u" and number.dtype.itemsize <= 2 and number.size > _CODES:
        return np.asarray(_splined(curve, _CODES if number.max() < _CODES else 1 << 16)[number])
    return _spline_values(values, curve)


def _polyline(values: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = points.T
    piece = np.clip(np.searchsorted(x, values, side="right") - 1, 0, len(x) - 2)
    slope = np.diff(y) / np.diff(x)
    return np.asarray(y[piece] + slope[piece] * (values - x[piece]))


def _spline_values(values: NDArray[np.float64], curve: str) -> NDArray[np.float64]:
    from scipy.interpolate import splev

    return np.asarray(splev(values, _spline(curve)), dtype=np.float64)


@functools.cache
def _splined(curve: str, codes: int) -> NDArray[np.float64]:
    """Value of every number below `codes`: most parameters have twelve bits."""
    return _spline_values(np.arange(codes, dtype=np.float64), curve)


@functools.cache
def _spline(curve: str) -> Any:
    from scipy.interpolate import splrep

    x, y = layouts.curve(curve).T
    return splrep(x, y, k=3, s=0)


def text_of(raw: ArrayLike, table: str) -> NDArray[np.str_]:
    """Texts of raw numbers by a text table of the database; numbers that it does not list, as digits."""
    values = np.asarray(raw, dtype=np.int64)
    distinct, inverse = np.unique(values, return_inverse=True)
    texts = np.array([_text(int(value), table) for value in distinct] or [""])
    return np.asarray(texts[inverse.reshape(values.shape)])


def _text(value: int, table: str) -> str:
    return next((text for first, last, text in layouts.text_table(table) if first <= value <= last), str(value))


def engineering_values(
    field: Field, raw: NDArray[Any], values: NDArray[Any], *, straight: bool = False
) -> NDArray[Any]:
    """Engineering values of a field; its decompressed `values` where it has neither curve, scale nor texts.

    Parameters
    ----------
    field
        What the database says about it.
    raw, values
        Numbers as sent, and decompressed.
    straight
        As in `calibrate`.
    """
    if field.enum:
        return text_of(raw, field.enum)
    if field.curve:
        return calibrate(raw, field.curve, straight=straight)
    if field.scale:
        return np.asarray(raw * np.float64(field.scale[0]) + field.scale[1])
    if field.sign == "always":
        return np.where(_is_overflow(raw), np.nan, values)
    return values


def _is_overflow(codes: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which codes of visibility parts say only that the number was too large: a sign and nothing else."""
    return np.asarray(codes == 0x80)
