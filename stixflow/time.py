"""Onboard clock to UTC and back, half-open time ranges, UTC-day partitions.

The onboard time SCET is one integer, ``coarse << 16 | fine`` (fine = 1/65536 s), counted from 2000-01-01T00:00:00 UTC
on a clock that drifts. Without a SPICE clock kernel it is turned into UTC by the anchor table of the public
level products (header pairs and the clock kernel of 2020-09), linear in between, last rate beyond the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import UsageError

Scet: TypeAlias = NDArray[np.int64]
Utc: TypeAlias = NDArray[np.datetime64]

TICKS_PER_SECOND = 65536
SYNC_LOST_BIT = 1 << 31
"""Set in the coarse time of a packet whose clock was not synchronised: such a time dates nothing."""

_ZONE = re.compile(r"[T ].*[^\d:.\s]")
"""A clock with more than numbers: a time zone, or what is none, of which numpy warns before it refuses it."""
_EPOCH = np.datetime64("2000-01-01T00:00:00", "ns")
_ANCHORS = np.array(
    [
        (0.0000, 0.0000),
        (634694399.8840, 0.1165),
        (635268599.0050, 0.9953),
        (636335997.2780, 2.7219),
        (639055579.3870, 7.2646),
        (640346435.6910, 9.4538),
        (643280288.4740, 14.4180),
        (645187529.5310, 17.6345),
        (648194600.6980, 22.6684),
        (650993072.7530, 27.2466),
        (654082042.7290, 32.2299),
        (660096003.6412, 41.9830),
        (664156750.9001, 48.4619),
        (666581954.1004, 52.8696),
        (676271921.9004, 69.1066),
        (677774249.0000, 71.6090),
        (692380776.0000, 96.4140),
        (697670528.3000, 105.3960),
        (715140164.3000, 135.5120),
        (721269748.8000, 146.3120),
        (721522711.7000, 146.7440),
        (732563538.5000, 166.0230),
        (763241734.3000, 220.9290),
        (778463751.2533, 248.7467),
        (781055746.4248, 253.5752),
        (783734487.6997, 258.5623),
        (794271634.0000, 277.9120),
        (794358034.0000, 278.0720),
    ]
)
_KNOT_SCET, _KNOT_OFFSET = _ANCHORS.T
# Without an anchor in reach the rate may have changed: leaving one out moves the middle of 200 days by 0.07 s, of 270
# days by 0.17 s.
_UNCERTAIN_SINCE = np.array([0.0, 654_082_000.0, 697_670_528.0, 732_563_538.0, 763_241_734.0])
_UNCERTAINTY = np.array([0.06, 0.1, 0.2, 0.3, 0.1])
# Seconds for each second beyond what is known; kernels that were made three months apart differ by a third of it.
_GROWTH = 1 / (91 * 86400.0)
# Kernels agree to a microsecond where both have records; the correlations they are made of are good to a millisecond.
_KERNEL_UNCERTAINTY = 0.001
_LAST_RATE = (_KNOT_OFFSET[-1] - _KNOT_OFFSET[-2]) / (_KNOT_SCET[-1] - _KNOT_SCET[-2])


def scet_from_coarse_fine(coarse: ArrayLike, fine: ArrayLike) -> Scet:
    """Join the two parts of an onboard time into one integer, dropping the sync bit of `coarse`."""
    seconds = np.asarray(coarse, dtype=np.int64) & (SYNC_LOST_BIT - 1)
    return np.asarray((seconds << 16) | np.asarray(fine, dtype=np.int64), dtype=np.int64)


def scet_from_seconds(seconds: ArrayLike) -> Scet:
    """Onboard seconds as the nearest integer onboard time (ticks of 1/65536 s)."""
    return np.asarray(np.rint(np.asarray(seconds, dtype=np.float64) * TICKS_PER_SECOND), dtype=np.int64)


def scet_to_utc(scet: ArrayLike) -> Utc:
    """Onboard time as UTC.

    Parameters
    ----------
    scet
        Integers ``coarse << 16 | fine``, any shape.

    Returns
    -------
    datetime64[ns], same shape; rounded to the nanosecond, uncertain by `clock_uncertainty`.
    """
    ticks = np.asarray(scet, dtype=np.int64)
    whole, part = ticks >> 16, ticks & 0xFFFF
    nanoseconds = whole * 1_000_000_000 + ((part * 1_000_000_000 + 32768) >> 16)
    offset = np.rint(_clock_offset(ticks / TICKS_PER_SECOND) * 1e9).astype(np.int64)
    return np.asarray(_EPOCH + (nanoseconds + offset).astype("timedelta64[ns]"))


def utc_to_scet(utc: ArrayLike) -> Scet:
    """UTC as the nearest onboard time: the inverse of `scet_to_utc` to one tick."""
    nanoseconds = (np.asarray(utc, dtype="datetime64[ns]") - _EPOCH).astype(np.int64)
    seconds = nanoseconds / 1e9
    offset = _clock_offset(seconds)
    for _ in range(3):
        offset = _clock_offset(seconds - offset)
    onboard = nanoseconds - np.rint(offset * 1e9).astype(np.int64)
    whole, part = np.divmod(onboard, 1_000_000_000)
    return np.asarray((whole << 16) + ((part * TICKS_PER_SECOND + 500_000_000) // 1_000_000_000), dtype=np.int64)


def clock_uncertainty(scet: ArrayLike) -> NDArray[np.float64]:
    """How far `scet_to_utc` may be off, in seconds, where no SPICE clock kernel is used."""
    seconds = np.asarray(scet, dtype=np.int64) / TICKS_PER_SECOND
    values = _UNCERTAINTY[np.clip(np.searchsorted(_UNCERTAIN_SINCE, seconds, side="right") - 1, 0, None)]
    beyond = np.maximum(seconds - _KNOT_SCET[-1], 0.0)
    return np.asarray(values + beyond * _GROWTH)


def _clock_offset(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.interp(seconds, _KNOT_SCET, _KNOT_OFFSET)
    return np.asarray(inside + np.maximum(seconds - _KNOT_SCET[-1], 0.0) * _LAST_RATE)


@dataclass(frozen=True, slots=True)
class Clock:
    """How onboard time becomes UTC: by the anchor table, or by the records of a SPICE clock kernel."""

    name: str = "anchor table"
    """What it was made of; for kernels, their file names."""
    records: tuple[tuple[int, int, float], ...] = ()
    """Of a kernel: onboard time, UTC in nanoseconds since 2000, seconds of UTC for an onboard second from there on."""

    def utc(self, scet: ArrayLike) -> Utc:
        """Onboard time as UTC, as `scet_to_utc`."""
        if not self.records:
            return scet_to_utc(scet)
        ticks = np.asarray(scet, dtype=np.int64)
        starts, utc, rates = (np.array(column) for column in zip(*self.records, strict=True))
        row = np.clip(np.searchsorted(starts, ticks, side="right") - 1, 0, None)
        elapsed = ticks - starts[row]
        whole, part = elapsed >> 16, elapsed & 0xFFFF
        onboard = whole * 1_000_000_000 + ((part * 1_000_000_000 + 32768) >> 16)
        drift = np.rint(elapsed * ((rates[row] - 1.0) * (1e9 / TICKS_PER_SECOND))).astype(np.int64)
        return np.asarray(_EPOCH + (utc[row] + onboard + drift).astype("timedelta64[ns]"))

    def uncertainty(self, scet: ArrayLike) -> NDArray[np.float64]:
        """How far `utc` may be off, in seconds; a kernel grows uncertain after its last record, as the table does."""
        if not self.records:
            return clock_uncertainty(scet)
        beyond = np.maximum(np.asarray(scet, dtype=np.int64) - self.records[-1][0], 0) / TICKS_PER_SECOND
        return np.asarray(_KERNEL_UNCERTAINTY + beyond * _GROWTH)


ANCHOR_CLOCK = Clock()
"""The clock where no kernel is given."""


@dataclass(frozen=True, slots=True, order=True)
class TimeRange:
    """A half-open span of UTC, ``start <= t < stop``."""

    start: np.datetime64
    stop: np.datetime64

    def __post_init__(self) -> None:
        if not self.start < self.stop:
            raise UsageError(
                f"the time range {self.start} to {self.stop} is empty",
                expected="a start before the stop",
                advice="swap or correct the two times",
            )

    @classmethod
    def parse(cls, text: str) -> TimeRange:
        """Read ``A/B``, two ISO 8601 times in UTC, as ``2022-11-09T00:50:00/2022-11-09T00:51:00``."""
        first, slash, second = text.partition("/")
        if not slash:
            raise UsageError(f"{text!r} is one time", expected="START/STOP", advice="write both, with a slash between")
        return cls(to_utc(first), to_utc(second))

    @classmethod
    def of_day(cls, day: date) -> TimeRange:
        """Return the UTC day as a range."""
        start = np.datetime64(day, "ns")
        return cls(start, start + np.timedelta64(1, "D"))

    @property
    def seconds(self) -> float:
        return float((self.stop - self.start) / np.timedelta64(1, "ns")) * 1e-9

    @property
    def middle(self) -> np.datetime64:
        return self.start + (self.stop - self.start) / 2

    def covers(self, times: Utc) -> NDArray[np.bool_]:
        """Tell which of `times` lie inside."""
        return np.asarray((times >= self.start) & (times < self.stop))

    def days(self) -> list[date]:
        """List the UTC days that the range touches."""
        first = self.start.astype("datetime64[D]")
        last = (self.stop - np.timedelta64(1, "ns")).astype("datetime64[D]")
        return [day.astype(date) for day in np.arange(first, last + 1)]

    def __str__(self) -> str:
        return f"{iso(self.start)}/{iso(self.stop)}"


def to_utc(value: object) -> np.datetime64:
    """One UTC time as datetime64[ns] from text, datetime, pandas, or astropy time; what names a time zone is converted.

    Raises
    ------
    UsageError
        If the value cannot be read as a time.
    """
    plain = getattr(value, "datetime64", value)
    if hasattr(plain, "to_datetime64"):  # pandas: through datetime it would lose its nanoseconds
        plain = plain.to_datetime64()
    if isinstance(plain, str):
        plain = plain.strip().removesuffix("Z")
    try:
        time = np.datetime64(_without_zone(plain), "ns")  # type: ignore[call-overload]
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{value!r} is not a time", expected="UTC such as 2022-11-09T00:50:20.013", advice="correct the text"
        ) from error
    if np.isnat(time):
        raise UsageError(f"{value!r} is not a time", expected="UTC, not NaT", advice="give a time")
    return np.datetime64(time, "ns")


def _without_zone(time: object) -> object:
    if isinstance(time, str) and _ZONE.search(time):
        time = datetime.fromisoformat(time)
    return time.astimezone(UTC).replace(tzinfo=None) if isinstance(time, datetime) and time.tzinfo else time


def iso(time: np.datetime64) -> str:
    """Write a time as ISO 8601 UTC with milliseconds."""
    return str(np.datetime_as_string(time, unit="ms"))
