"""Count rates in one byte, and the time rules of the HESSI catalog."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.ephemeris.orbit import times_of
from stixflow.errors import UsageError
from stixflow.time import Utc, to_utc

_EPOCH = np.datetime64("1979-01-01T00:00:00", "ns")


@cache
def rate_table() -> NDArray[np.int64]:
    """Counts per second of the 256 codes: 16 steps each of 1, 2, 4, ... 32768."""
    values = np.zeros(256, dtype=np.int64)
    start = 0
    for group in range(16):
        values[16 * group : 16 * group + 16] = start + np.arange(16) * (1 << group)
        start = int(values[16 * group + 15]) + (1 << group)
    values.flags.writeable = False
    return values


def decompress_rates(codes: ArrayLike) -> NDArray[np.int64]:
    """Counts per second of byte codes, any shape."""
    return np.asarray(rate_table()[np.asarray(codes, dtype=np.uint8)])


def compress_rates(rates: ArrayLike) -> NDArray[np.uint8]:
    """Byte codes of count rates, the nearest entry of the table; at most 4.2 % off.

    Raises
    ------
    UsageError
        If a rate is negative or not finite: a byte cannot say that a rate is missing.
    """
    values = np.asarray(rates, dtype=np.float64)
    if not (np.isfinite(values) & (values >= 0)).all():
        raise UsageError("a negative or missing count rate", expected="rates of 0 or more", advice="flag gaps instead")
    table = rate_table()
    middles = (table[1:] + table[:-1]) / 2
    return np.asarray(np.searchsorted(middles, values, side="right"), dtype=np.uint8)


def utc_of_ut(seconds: ArrayLike) -> Utc:
    """UTC of seconds since 1979-01-01 (ANYTIM): every day has 86400 of them, a leap second has none."""
    nanoseconds = np.rint(np.asarray(seconds, dtype=np.float64) * 1e6).astype(np.int64) * 1000
    return np.asarray(_EPOCH + nanoseconds.astype("timedelta64[ns]"))


def utc_at(seconds: float) -> np.datetime64:
    """The same for one time."""
    return to_utc(_EPOCH + np.timedelta64(round(seconds * 1e6), "us"))


def ut_of_utc(time: object) -> NDArray[np.float64]:
    """Seconds since 1979-01-01 (ANYTIM) of one time or many."""
    return np.asarray((times_of(time) - _EPOCH) / np.timedelta64(1, "us") * 1e-6)


def ccsds(seconds: float, *, zulu: bool = True) -> str:
    """Write a time as in the info structures: 1998-08-16T17:05:00.000Z; files of the flight leave out the Z."""
    text = str(np.datetime_as_string(utc_of_ut(seconds), unit="ms"))
    return text + "Z" if zulu else text
