"""What the tables of level-1 files have in common: times, runs of equal settings, compression and its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.model import N_CHANNELS
from stixflow.errors import UsageError
from stixflow.fits._writing import Column, smallest
from stixflow.fits.origin import Origin
from stixflow.telemetry.compression import error, unpack_skm
from stixflow.time import TICKS_PER_SECOND, scet_to_utc

UNKNOWN = 0xFFFF
"""Packet numbers that are not known; marked by TNULL."""

_Array = NDArray[Any]
_NUMBERS_AT_ONCE = 1 << 20
_TABLED = 2
"""Bytes of numbers of which there are few enough for a table."""
_FINE_OF_OFFICIAL = 65535.0


@dataclass(frozen=True, slots=True)
class Span:
    """When the measurements began and ended, and each of their bins in hundredths of an onboard second since."""

    begin: np.datetime64
    end: np.datetime64
    begin_scet: int
    end_scet: int
    time: NDArray[np.uint32]
    timedel: NDArray[np.uint32]

    @classmethod
    def of(cls, dataset: xr.Dataset) -> Span:
        start, scet = dataset["time_start" if "time_start" in dataset else "time"].values, dataset["scet"].values
        seconds = dataset["timedel"].values if "timedel" in dataset else np.zeros(scet.size)
        if not start.size:
            raise UsageError("the dataset has no time bins", expected="one or more", advice="choose another span")
        begin = (start[0] + np.timedelta64(500_000, "ns")).astype("datetime64[ms]").astype("datetime64[ns]")
        end_scet = int(scet[-1]) + round(float(seconds[-1]) * TICKS_PER_SECOND)
        clock = np.diff(scet_to_utc([int(scet[0]), end_scet]))[0]
        hundredths = (scet - scet[0]) * (100 / TICKS_PER_SECOND) + seconds * 50
        return cls(
            begin=begin,
            end=begin + clock,
            begin_scet=int(scet[0]),
            end_scet=end_scet,
            time=np.rint(np.maximum(hundredths, 0)).astype(np.uint32),
            timedel=np.rint(seconds * 100).astype(np.uint32),
        )

    @property
    def middle(self) -> np.datetime64:
        return self.begin + (self.end - self.begin) // 2

    @property
    def obt(self) -> tuple[float, float]:
        """Onboard times of beginning and end, their fine part divided by 65535 as in the official files."""
        both = (divmod(ticks, TICKS_PER_SECOND) for ticks in (self.begin_scet, self.end_scet))
        first, last = (coarse + fine / _FINE_OF_OFFICIAL for coarse, fine in both)
        return first, last


def times(span: Span) -> list[Column]:
    """Columns of the times of the rows."""
    return [Column("time", span.time, "cs"), Column("timedel", span.timedel, "cs")]


def runs(*states: _Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find where any of the states changes: first rows, and the number of the run of each row."""
    changes = np.zeros(len(states[0]), dtype=bool)
    for state in states:
        changes[1:] |= state[1:] != state[:-1]
    changes[0] = True
    return np.flatnonzero(changes), np.cumsum(changes) - 1


def skm_columns(dataset: xr.Dataset, rows: NDArray[np.intp], *names: str) -> list[Column]:
    """Columns of the compression schemes of some rows, (rows, 3) each."""
    return [
        Column(f"compression_scheme_{name}_skm", np.stack(unpack_skm(dataset[f"{name}_skm"].values[rows]), axis=-1))
        for name in names
    ]


def edge_mask(dataset: xr.Dataset, n_rows: int) -> Column:
    """Column that marks the edges of the energy bins among the 33 of the science channels, the same in all rows."""
    mask = np.zeros((n_rows, N_CHANNELS + 1), dtype=np.uint8)
    mask[:, dataset["channel_start"].values] = 1
    mask[:, dataset["channel_stop"].values] = 1
    return Column("energy_bin_edge_mask", mask)


def with_error(
    name: str, values: _Array, skm: _Array, unit: str = "", *, observed: _Array | None = None
) -> list[Column]:
    """Make a column and that of its compression error, NaN where nothing was received."""
    values = smallest(values)
    errors = _by_value(values, skm) if values.dtype.itemsize <= _TABLED else _one_by_one(values, skm)
    if observed is not None and not observed.all():
        errors[~np.broadcast_to(observed, errors.shape)] = np.nan
    return [Column(name, values, unit), Column(f"{name}_comp_err", errors, unit)]


def _by_value(values: _Array, skm: _Array) -> NDArray[np.float32]:
    """Errors of small numbers, looked up."""
    numbers = np.arange(int(values.max(initial=0)) + 1)
    errors = np.empty(values.shape, dtype=np.float32)
    for scheme in np.unique(skm):
        rows = skm == scheme
        errors[rows] = error(numbers, np.full(numbers.shape, scheme)).astype(np.float32)[values[rows]]
    return errors


def _one_by_one(values: _Array, skm: _Array) -> NDArray[np.float32]:
    scheme = skm.reshape(-1, *[1] * (values.ndim - 1))
    errors = np.empty(values.shape, dtype=np.float32)
    for row in range(0, len(values), step := _rows_at_once(values)):
        errors[row : row + step] = error(values[row : row + step], scheme[row : row + step])
    return errors


def _rows_at_once(values: _Array) -> int:
    """Rows of about a million numbers."""
    return max(1, _NUMBERS_AT_ONCE // max(1, values[:1].size))


def day_packets(n: int, origin: Origin) -> list[Column]:
    """Columns of CONTROL about packets and files, for products of a day."""
    return [
        Column("index", smallest(np.arange(n))),
        Column("raw_file", np.full(n, ";".join(origin.raw_files) or " ")),
        Column("packet", np.full(n, UNKNOWN, dtype=np.int64), missing=UNKNOWN),
        Column("parent", np.full(n, ";".join(origin.parents) or " ")),
    ]
