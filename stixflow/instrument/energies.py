"""Science energy channels: their nominal edges, and which channels an energy range means."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from stixflow.instrument._tables import frozen, numbers, text_columns
from stixflow.time import to_utc

N_CHANNELS = 32
"""Files keep edges such as 4.45 keV as 32-bit floats."""

_SHIFTED = (np.datetime64("2020-11-15", "ns"), np.datetime64("2020-12-05", "ns"))
_SHIFT_KEV = -1.6


def energy_edges(time: object = None) -> NDArray[np.float64]:
    """Nominal edges of the 32 science channels.

    Parameters
    ----------
    time
        UTC of the observation; two tables of fine channels were active in 2023. None: the standard table.

    Returns
    -------
    (33,) in keV, from 0 to infinity (the last channel is the overflow); read-only.
    """
    return _edges_of_table("standard" if time is None else _channel_table(time))


def energy_shift(time: object) -> float:
    """Correction in keV to add to all energies: the scale was off from 15 November to 4 December 2020."""
    start, stop = _SHIFTED
    return _SHIFT_KEV if start <= to_utc(time) < stop else 0.0


def _channel_table(time: object) -> str:
    """Name of the table of science channels that was on board at `time`."""
    starts, names = _channel_dates()
    return names[max(int(np.searchsorted(starts, to_utc(time), side="right")) - 1, 0)]


@cache
def _edges_of_table(table: str) -> NDArray[np.float64]:
    return frozen(np.append(numbers("energy_channels", table), np.inf))


@cache
def _channel_dates() -> tuple[NDArray[np.datetime64], list[str]]:
    index = text_columns("elut_index")
    return np.array(index["start"], dtype="datetime64[ns]"), index["channels"]
