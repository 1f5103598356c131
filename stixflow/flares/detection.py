"""From a quick-look light curve to a table of flares.

`detect` returns one row per flare with the columns of `FLARE_COLUMNS`. Times are UTC at the spacecraft; `start`, `peak`
and `stop` are starts of bins, and the flare is the half-open interval ``[start, stop)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.flares.background import quiet_statistics
from stixflow.flares.columns import FLARE_COLUMNS, Column, flare_columns
from stixflow.flares.curve import Curve
from stixflow.flares.find import Find
from stixflow.flares.operational import find_snip
from stixflow.flares.poisson import FALSE_ALARMS_PER_DAY, find_poisson
from stixflow.flares.quiet import REACH
from stixflow.flares.row import flare_id, row_of
from stixflow.flares.table import finish
from stixflow.flares.veto import Monitor
from stixflow.time import TimeRange

__all__ = [
    "CONTEXT",
    "FLARE_COLUMNS",
    "METHOD",
    "Column",
    "Distance",
    "detect",
    "flare_columns",
    "flare_id",
    "join_days",
]

METHOD = "poisson"
CONTEXT: Mapping[str, np.timedelta64] = MappingProxyType({"poisson": REACH, "snip": np.timedelta64(2, "h")})
"""How much of the light curve before and after a span decides on the flares in it, by method."""
CHUNK_DAYS = 6
"""A longer curve is read and searched in pieces of so many days, each with its context; the result is the same."""

Distance: TypeAlias = float | Callable[[NDArray[np.datetime64]], NDArray[np.float64]]


def detect(
    lightcurve: xr.Dataset,
    method: str = METHOD,
    *,
    distance_au: Distance | None = None,
    quiet: xr.Dataset | None = None,
    background_detector: xr.Dataset | None = None,
    span: TimeRange | None = None,
    false_alarms_per_day: float = FALSE_ALARMS_PER_DAY,
    keep_vetoed: bool = False,
) -> pd.DataFrame:
    """Find the flares in a quick-look light curve.

    Parameters
    ----------
    lightcurve
        A `ql_lightcurve` (time, energy) of any length.
    method
        ``"poisson"``: likelihood ratio on all bands against the modelled background. ``"snip"``: the operational
        detector of the mission, peaks of the lowest band above a SNIP envelope of the whole curve.
    distance_au
        Distance of the spacecraft from the Sun, or a function of times that gives it; without it there is no GOES
        estimate and no light time.
    quiet
        For ``"snip"``: `quiet_statistics` of other days, used beside those of this light curve.
    background_detector
        For ``"poisson"``: a `ql_background` of the same time; rises that it sees as the others do are vetoed.
    span
        Return only flares whose peak bin has its middle in it, as days hold bins; the rest of the curve is context
        (`CONTEXT` says how much there should be).
    false_alarms_per_day
        For ``"poisson"``: how many chance rises a day without flares may have.
    keep_vetoed
        Return rises that are no flares too; their column `veto` says why.

    Returns
    -------
    One row per flare in order of time, columns as `FLARE_COLUMNS`; ``attrs["energy_bands"]`` holds the band edges.

    Raises
    ------
    UsageError
        If the method is unknown, or the rate of false alarms not above 0.
    SchemaError
        If the light curve lacks a variable or its bins are not in order of time.
    """
    _check_usage(method, false_alarms_per_day)
    parts = [(lightcurve, span)] if method == "snip" else _chunks(lightcurve, span)
    options = _Options(method, quiet, background_detector, false_alarms_per_day, keep_vetoed)
    tables = [_detect_part(part, own, options) for part, own in parts]
    return finish(tables, lightcurve, distance_au=distance_au, method=method)


def _check_usage(method: str, false_alarms_per_day: float) -> None:
    if method not in CONTEXT:
        raise UsageError(
            f"detection method {method!r} is unknown",
            expected=" or ".join(map(repr, CONTEXT)),
            advice="choose one of these",
        )
    if not 0 < false_alarms_per_day <= 1000:
        raise UsageError(
            f"{false_alarms_per_day} false alarms a day",
            expected="more than 0 and at most 1000",
            advice="0.02 is the default",
        )


def join_days(days: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join light curves in order of time; those with other energy bands than the first one are left out."""
    model = days[0]
    low, high = model["energy_low"].to_numpy(), model["energy_high"].to_numpy()
    alike = [
        day
        for day in days
        if np.array_equal(day["energy_low"].to_numpy(), low) and np.array_equal(day["energy_high"].to_numpy(), high)
    ]
    alike = sorted((day for day in alike if day.sizes["time"]), key=lambda day: day["time_start"].to_numpy()[0])
    if len(alike) < 2:
        return alike[0] if alike else model
    per_bin = [[name for name in day.data_vars if "time" in day[name].dims] for day in alike]
    shared = [name for name in per_bin[0] if all(name in names for names in per_bin)]
    joined = xr.concat([day[shared] for day in alike], "time", combine_attrs="override")
    return joined.assign({name: model[name] for name in model.data_vars if "time" not in model[name].dims})


def _chunks(lightcurve: xr.Dataset, span: TimeRange | None) -> Iterator[tuple[xr.Dataset, TimeRange | None]]:
    """Cut a long curve into pieces with their context, and say which peaks each piece owns."""
    if "time_start" not in lightcurve or not lightcurve.sizes["time"]:
        yield lightcurve, span
        return
    start = lightcurve["time_start"].to_numpy()
    first, last = start[0], start[-1] + np.timedelta64(1, "D")
    if span is not None:
        first, last = max(first, span.start), min(last, span.stop)
    if np.isnat(start).any() or (np.diff(start) <= np.timedelta64(0, "ns")).any():
        yield lightcurve, span
        return
    step = np.timedelta64(CHUNK_DAYS, "D")
    at = first.astype("datetime64[D]").astype("datetime64[ns]")
    while at < last:
        own = TimeRange(max(at, first), min(at + step, last))
        a, b = np.searchsorted(start, [own.start - REACH, own.stop + REACH])
        yield lightcurve.isel(time=slice(int(a), int(b))), own
        at = at + step


@dataclass(frozen=True, slots=True, eq=False)
class _Options:
    """What `detect` was asked, as `detect` describes it."""

    method: str
    quiet: xr.Dataset | None
    background_detector: xr.Dataset | None
    false_alarms_per_day: float
    keep_vetoed: bool


def _detect_part(lightcurve: xr.Dataset, own: TimeRange | None, options: _Options) -> list[dict[str, Any]]:
    curve = Curve.of(lightcurve)
    frames: xr.Dataset | None = None
    if options.method == "snip":
        frames = quiet_statistics(lightcurve)
        frames = frames if options.quiet is None else xr.concat([frames, options.quiet], "frame")
        finds = find_snip(curve, frames)
    else:
        finds = find_poisson(curve, false_alarms_per_day=options.false_alarms_per_day)
        if options.background_detector is not None:
            finds = _checked(curve, finds, options.background_detector)
        finds = [find for find in finds if options.keep_vetoed or not find.veto]
    return list(_rows(curve, finds, frames, own))


def _checked(curve: Curve, finds: list[Find], background_detector: xr.Dataset) -> list[Find]:
    """Veto what the background detector sees as the others do."""
    near = TimeRange(curve.start[0], curve.stop[-1]).covers(background_detector["time_start"].to_numpy())
    if not near.any():
        return finds
    monitor = Monitor(background_detector.isel(time=np.flatnonzero(near)))
    result = []
    for find in finds:
        rise = float(curve.counts[0, find.left : find.right].sum()) / (find.baseline * (find.right - find.left)) - 1.0
        reason = "" if find.veto else monitor.veto(curve.start[find.left], curve.stop[find.right - 1], rise)
        result.append(replace(find, veto=reason) if reason else find)
    return result


def _rows(
    curve: Curve, finds: list[Find], frames: xr.Dataset | None, own: TimeRange | None
) -> Iterator[dict[str, Any]]:
    from stixflow.flares.operational import smoothed_counts

    if not finds:
        return
    smoothed = smoothed_counts(curve)
    holds_flare = _frames_with_flares(curve, finds, frames)
    for find in finds:
        start, stop = curve.start[find.peak], curve.stop[find.peak]
        if own is None or own.start <= start + (stop - start) / 2 < own.stop:
            yield row_of(curve, find, smoothed, frames, holds_flare)


def _frames_with_flares(curve: Curve, finds: list[Find], frames: xr.Dataset | None) -> NDArray[np.bool_] | None:
    """A frame that holds part of a flare is no background, however quiet its statistics look."""
    if frames is None:
        return None
    start, stop = frames["start"].to_numpy(), frames["stop"].to_numpy()
    touched = np.zeros(len(start), dtype=np.bool_)
    for find in finds:
        touched |= (start < curve.stop[find.right - 1]) & (stop > curve.start[find.left])
    return touched
