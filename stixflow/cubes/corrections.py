"""Level-1 corrections: named steps that change what the packets say, recorded in the attribute ``corrections``.

=========================  ========================================================================================
``calibration_units``      live time of SSID 41 is in milliseconds, quiet time in microseconds (made by the builder)
``missing_detectors``      requests that began within a time in which detectors 9 and 10 (indices 8, 9) were not
                           recorded although the masks name them: their mask bits are cleared, unless they have counts
``shifted_durations``      requests before 2021-12-09 in bins of the shortest length: durations are one row late on
                           board; they are moved, and the first and last bins, which have none, are dropped
``overlapping_durations``  official files give the last bin of some packets a length that reaches over the next bin: it
                           ends where that one begins
=========================  ========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.time import TICKS_PER_SECOND, Scet, Utc, scet_to_utc

CALIBRATION_UNITS = "calibration_units"
MISSING_DETECTORS = "missing_detectors"
SHIFTED_DURATIONS = "shifted_durations"
OVERLAPPING_DURATIONS = "overlapping_durations"

_NOT_RECORDED = (659_318_490 << 16, 668_863_556 << 16)
"""Onboard times of the first and last request without the two detectors."""
_LOST_BITS = np.uint32(1 << 8 | 1 << 9)
_SHIFT_ENDED = 692_380_776 << 16
"""Onboard time of the software that ended the shift (database 2.26.36)."""
_HALF_SECOND_FROM = np.datetime64("2021-09-06T13:00:00", "ns")


def correct(dataset: xr.Dataset, names: Iterable[str], *, to_utc: Callable[[Scet], Utc] = scet_to_utc) -> xr.Dataset:
    """Apply the named corrections to a cube of a request, where they apply to it.

    Parameters
    ----------
    dataset
        A cube of a science request.
    names
        Of `REQUEST_CORRECTIONS`, in the order in which they shall be made.
    to_utc
        The clock by which the cube was made.

    Returns
    -------
    The Dataset, with those that changed it added to its attribute ``corrections``.

    Raises
    ------
    UsageError
        If a name is not known.
    """
    done = list(dataset.attrs.get("corrections", []))
    for name in names:
        if name not in REQUEST_CORRECTIONS:
            raise UsageError(f"no correction {name!r}", expected=", ".join(REQUEST_CORRECTIONS), advice="correct it")
        changed = REQUEST_CORRECTIONS[name](dataset, to_utc)
        if changed is not None:
            dataset, done = changed, [*done, name]
    return dataset.assign_attrs(corrections=done)


def has_shifted_durations(dataset: xr.Dataset) -> bool:
    """Tell whether the durations of a request are one row late: its bins are of the shortest length, and early."""
    if dataset.sizes["time"] < 2 or int(dataset["scet"].values[0]) >= _SHIFT_ENDED:
        return False
    shortest = 0.5 if dataset["time_start"].values[0] >= _HALF_SECOND_FROM else 1.0
    return bool(np.isclose(dataset["timedel"].values.min(), shortest))


def _clear_missing_detectors(dataset: xr.Dataset, _: Callable[[Scet], Utc]) -> xr.Dataset | None:
    first, last = _NOT_RECORDED
    start, mask = int(dataset["scet"].values[0]), dataset["detector_mask"]
    if not first <= start <= last or not (mask.values & _LOST_BITS).any() or _holds_counts(dataset):
        return None
    return dataset.assign(detector_mask=mask.copy(data=mask.values & ~_LOST_BITS))


def _holds_counts(dataset: xr.Dataset) -> bool:
    """Tell whether the two detectors have counts all the same, so that the mask is right."""
    counts = dataset.get("counts")
    return counts is not None and "detector" in counts.dims and bool(counts.isel(detector=[8, 9]).any())


def _shift_durations(dataset: xr.Dataset, to_utc: Callable[[Scet], Utc]) -> xr.Dataset | None:
    """Give each bin the duration of the row before it; the first and the last bin are dropped."""
    if dataset.sizes["time"] < 3 or not has_shifted_durations(dataset):
        return None
    duration = dataset["timedel"].values[:-2]
    kept = dataset.isel(time=slice(1, -1))
    return _with_durations(kept, duration, to_utc)


def _with_durations(dataset: xr.Dataset, duration: NDArray[np.float64], to_utc: Callable[[Scet], Utc]) -> xr.Dataset:
    scet = dataset["scet"].values
    half = np.rint(duration * (TICKS_PER_SECOND / 2)).astype(np.int64)
    centre = dataset["time_start"].values + (to_utc(scet + half) - to_utc(scet))
    # Variables without coordinates: assigning arrays would align them by their old times.
    time = dataset["time"].variable.copy(data=centre)
    return dataset.assign_coords(time=time).assign(timedel=dataset["timedel"].variable.copy(data=duration))


def _cut_durations(dataset: xr.Dataset, to_utc: Callable[[Scet], Utc]) -> xr.Dataset | None:
    """End a bin where the next one begins, if that is before its centre."""
    step = np.diff(dataset["scet"].values) / TICKS_PER_SECOND
    duration = dataset["timedel"].values.copy()
    reaching = np.flatnonzero(step < duration[:-1] / 2)
    if not reaching.size or (step[reaching] <= 0).any():
        return None
    duration[reaching] = np.round(step[reaching], 2)
    return _with_durations(dataset, duration, to_utc)


REQUEST_CORRECTIONS: dict[str, Callable[[xr.Dataset, Callable[[Scet], Utc]], xr.Dataset | None]] = {
    MISSING_DETECTORS: _clear_missing_detectors,
    SHIFTED_DURATIONS: _shift_durations,
    OVERLAPPING_DURATIONS: _cut_durations,
}
"""Corrections of science requests by name; each returns None where it does not apply."""

__all__ = [
    "CALIBRATION_UNITS",
    "MISSING_DETECTORS",
    "OVERLAPPING_DURATIONS",
    "REQUEST_CORRECTIONS",
    "SHIFTED_DURATIONS",
    "correct",
    "has_shifted_durations",
]
