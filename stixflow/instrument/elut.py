"""The energy look-up tables (ELUT) that were on board, and the true energies of their channels.

A table holds, for every pixel, the ADC values of the 31 edges between the science channels. They are the offset and
gain of a calibration applied to the nominal edges and rounded; the few that were rounded elsewhere are listed apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.instrument._tables import frozen, integers, numbers, text_columns
from stixflow.instrument.energies import energy_edges
from stixflow.time import iso, to_utc

_SHAPE = (32, 12)


@dataclass(frozen=True, slots=True, eq=False)
class Elut:
    """One on-board table; all arrays by detector and pixel, read-only."""

    name: str
    """Date of the table, yyyymmdd."""
    offset: NDArray[np.float64]
    """(32, 12) ADC value (of 4096) of 0 keV."""
    gain: NDArray[np.float64]
    """(32, 12) keV per ADC value (of 4096)."""
    adc_edges: NDArray[np.int64]
    """(32, 12, 31) first ADC value of channels 1 to 31."""
    edges: NDArray[np.float64]
    """(32, 12, 33) actual edges of the science channels in keV; the first and the last are the nominal 0 and ∞."""


def elut(time: object) -> Elut:
    """The table that was on board at `time`.

    Raises
    ------
    UsageError
        If the time is before the first table.
    """
    return _load(*elut_key(time))


def elut_key(time: object) -> tuple[str, str]:
    """Name of the table on board at `time`, and the start of the period it was used in (ISO 8601).

    Between the end of one period and the start of the next (hours at most) the earlier table is taken.

    Raises
    ------
    UsageError
        If the time is before the first table.
    """
    index, moment = text_columns("elut_index"), to_utc(time)
    position = int(elut_periods(moment))
    if position < 0:
        raise UsageError(
            f"no energy table is known for {iso(moment)}",
            expected=f"a time from {index['start'][0]}",
            advice="correct the time, or work without the energy correction",
        )
    return index["table"][position], index["start"][position]


def elut_periods(times: NDArray[np.datetime64] | np.datetime64) -> NDArray[np.int64]:
    """Number of the period, and so of the table, that each time (any shape, UTC) lies in; -1 before the first one."""
    return np.asarray(np.searchsorted(_period_starts(), times, side="right") - 1, dtype=np.int64)


@cache
def _period_starts() -> NDArray[np.datetime64]:
    return np.array(text_columns("elut_index")["start"], dtype="datetime64[ns]")


def actual_edges(time: object) -> NDArray[np.float64]:
    """Actual edges of the science channels, (32, 12, 33) by detector and pixel, keV; read-only."""
    return elut(time).edges


@cache
def _load(name: str, start: str) -> Elut:
    rows = np.array(text_columns("elut_pixels")["table"]) == name
    offset, gain = (numbers("elut_pixels", column)[rows].reshape(_SHAPE) for column in ("offset_adc", "gain_keV"))
    nominal = energy_edges(start)
    adc = rounded_edges(offset, gain, nominal).astype(np.int64)
    odd = np.array(text_columns("elut_exceptions")["table"]) == name
    detector, pixel, edge, value = (
        integers("elut_exceptions", column)[odd] for column in ("detector", "pixel", "edge", "adc")
    )
    adc[detector, pixel, edge - 1] = value
    edges = true_edges(adc, offset, gain)
    return Elut(name, frozen(offset), frozen(gain), frozen(adc), frozen(edges))


def rounded_edges(
    offset: NDArray[np.float64], gain: NDArray[np.float64], nominal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """First ADC value of channels 1 to 31 as the tables on board have them, (..., 31), NaN where a pixel has no gain.

    Parameters
    ----------
    offset, gain
        (...) ADC value of 0 keV and keV per ADC value (of 4096).
    nominal
        (33,) edges of the science channels in keV.
    """
    return np.asarray(np.rint(offset[..., None] + nominal[1:-1] / gain[..., None]))


def true_edges(
    adc: NDArray[np.int64] | NDArray[np.float64], offset: NDArray[np.float64], gain: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Edges in keV of channels that begin at ADC values (..., 31), of pixels with this offset and gain (...).

    Returns
    -------
    (..., 33), the first and the last are the nominal 0 and infinity.
    """
    edges = np.empty((*adc.shape[:-1], adc.shape[-1] + 2))
    edges[..., 1:-1] = (adc - offset[..., None]) * gain[..., None]
    edges[..., 0], edges[..., -1] = 0.0, np.inf
    return edges
