"""From a quick-look light curve to a table of flares.

`detect` returns one row per flare with the columns of `FLARE_COLUMNS`. Times are UTC at the spacecraft; `start`, `peak`
and `stop` are starts of bins, and the flare is the half-open interval ``[start, stop)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import SchemaError, UsageError
from stixflow.flares.background import Background, nearest_quiet, quiet_statistics
from stixflow.flares.goes import estimate_goes, goes_class
from stixflow.flares.snip import Curve, smooth, snip_envelope

HEIGHT_SIGMAS = 3.0
PROMINENCE_SIGMAS = 2.0
MIN_WIDTH_BINS = 15
WIDTH_REL_HEIGHT = 0.9
MIN_DISTANCE_BINS = 75
MIN_ENVELOPE_ITERATIONS = 150
"""A curve too short for this many windows has no envelope; the quiet hours stand in for it."""
FALLBACK_QUIET_FACTOR = 2.0
FALLBACK_HEIGHT_SIGMAS = 2.0
EMPTY_LIMITS_BINS = (7, 8)
UPPER_BAND_BINS = 7
"""A flare reaches a band in which more bins than this lie two sigma above the background."""
SEGMENT_GAP_S = 3600.0
"""Bins on the two sides of a longer gap are searched separately: it is the half width of the envelope."""
GAP_MARGIN_S = 60.0
WIDTH_LEVELS = (10, 50, 70)

_NANOSECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the flare table."""

    dtype: str
    units: str
    description: str


FLARE_COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        "flare_id": Column("str", "", "yymmddHHMM of the peak, minute truncated"),
        "start": Column("datetime64[ns]", "UTC", "start of the first bin of the flare"),
        "peak": Column("datetime64[ns]", "UTC", "start of the bin where the smoothed lowest band is highest"),
        "stop": Column("datetime64[ns]", "UTC", "end of the last bin of the flare, not part of it"),
        "duration_s": Column("float64", "s", "stop - start"),
        "bins": Column("int64", "1", "bins observed in [start, stop)"),
        "peak_counts": Column("int64", "counts / bin", "largest count of the lowest band in [start, stop)"),
        "peak_counts_{band}": Column("int64", "counts / bin", "largest count in [start, stop)"),
        "peak_smoothed_{band}": Column("float64", "counts / bin", "largest smoothed count in [start, stop)"),
        "bkg_median_{band}": Column("float64", "counts / bin", "median of the quiet background"),
        "bkg_sigma_{band}": Column("float64", "counts / bin", "scatter of the quiet background"),
        "bins_above_{band}": Column("int64", "1", "bins more than two sigma above the background"),
        "bkg_start": Column("datetime64[ns]", "UTC", "start of the quiet frame used as background"),
        "bkg_age_s": Column("float64", "s", "time between the flare's peak and that frame, 0 inside"),
        "baseline": Column("float64", "counts / bin", "floor of the lowest band: minimum of its envelope"),
        "prominence": Column("float64", "counts / bin", "prominence of the peak in the smoothed lowest band"),
        "total_counts": Column("int64", "counts", "sum of the lowest band over [start, stop)"),
        "signal_counts": Column("float64", "counts", "total counts less the baseline of every bin"),
        "mean_rate": Column("float64", "counts / s", "total counts over the observed seconds"),
        **{
            f"{side}_{level}": Column("datetime64[ns]", "UTC", f"{side} of the peak {level} % below its top")
            for level in WIDTH_LEVELS
            for side in ("start", "stop")
        },
        "upper_band": Column("int64", "1", "highest band with flare counts, as an index"),
        "upper_energy_keV": Column("float64", "keV", "upper edge of that band"),
        "goes_flux": Column("float64", "W m-2", "estimated 0.1-0.8 nm flux, not valid if rcr_max > 0"),
        "goes_flux_min": Column("float64", "W m-2", "lower bound of the estimate"),
        "goes_flux_max": Column("float64", "W m-2", "upper bound of the estimate"),
        "goes_class": Column("str", "", "class of the estimate, empty if there is none"),
        "goes_class_min": Column("str", "", "class of the lower bound"),
        "goes_class_max": Column("str", "", "class of the upper bound"),
        "distance_au": Column("float64", "au", "distance of the spacecraft from the Sun used for the estimate"),
        "rcr_max": Column("int64", "1", "highest rate control regime in the flare; above 0 the attenuator was in"),
        "goes_valid": Column("bool", "", "there is an estimate and the attenuator stayed out"),
        "is_boundary": Column("bool", "", "the flare may go on beyond the observed time"),
        "has_gap": Column("bool", "", f"bins are missing in the flare or within {GAP_MARGIN_S:.0f} s of it"),
        "is_duplicate_id": Column("bool", "", "another peak falls into the same minute"),
        "method": Column("str", "", "detection method"),
    }
)
"""Every column of the flare table with its unit; counts are per quick-look bin, 4 s by default.

A name with ``{band}`` stands for one column per energy band, numbered from the lowest: ``peak_counts_0`` and so on.
"""


def flare_columns(bands: int) -> dict[str, Column]:
    """Return the columns of the table for a light curve with so many energy bands, in order."""
    return {
        name.format(band=band): column
        for name, column in FLARE_COLUMNS.items()
        for band in (range(bands) if "{band}" in name else (0,))
    }


def detect(
    lightcurve: xr.Dataset,
    method: str = "snip",
    *,
    distance_au: float | None = None,
    quiet: xr.Dataset | None = None,
) -> pd.DataFrame:
    """Find the flares in a quick-look light curve.

    Parameters
    ----------
    lightcurve
        A `ql_lightcurve` (time, energy): one day, or any span whose floor the method may take as one.
    method
        ``"snip"``: the operational detector of the mission, peaks of the lowest band above a SNIP envelope.
    distance_au
        Distance of the spacecraft from the Sun; without it there is no GOES estimate.
    quiet
        `quiet_statistics` of other days, used beside those of this light curve.

    Returns
    -------
    One row per flare in order of time, columns as `FLARE_COLUMNS`; ``attrs["energy_bands"]`` holds the band edges.

    Raises
    ------
    UsageError
        If the method is unknown.
    SchemaError
        If the light curve lacks a variable or its bins are not in order of time.
    """
    finder = _METHODS.get(method)
    if finder is None:
        raise UsageError(
            f"detection method {method!r} is unknown",
            expected=" or ".join(map(repr, _METHODS)),
            advice="choose one of these",
        )
    curve = _Curve.of(lightcurve)
    frames = quiet_statistics(lightcurve)
    frames = frames if quiet is None else xr.concat([frames, quiet], "frame")
    finds = [find for part in _segments(curve.start) for find in finder(curve, part, frames)]
    return _table(curve, finds, frames, distance_au=distance_au, method=method)


@dataclass(frozen=True, slots=True)
class _Curve:
    """The arrays of a light curve that detection reads."""

    start: NDArray[np.datetime64]
    stop: NDArray[np.datetime64]
    seconds: NDArray[np.float64]
    counts: NDArray[np.float64]
    smoothed: Curve
    rcr: NDArray[np.int64]
    energy_low: NDArray[np.float64]
    energy_high: NDArray[np.float64]

    @classmethod
    def of(cls, lightcurve: xr.Dataset) -> _Curve:
        _check(lightcurve)
        start = lightcurve["time_start"].to_numpy().astype("datetime64[ns]")
        seconds = lightcurve["timedel"].to_numpy().astype(np.float64)
        counts = np.ascontiguousarray(lightcurve["counts"].transpose("energy", "time").to_numpy(), dtype=np.float64)
        parts = [smooth(counts[:, part]) for part in _segments(start)]
        return cls(
            start=start,
            stop=start + np.rint(seconds * _NANOSECONDS).astype("timedelta64[ns]"),
            seconds=seconds,
            counts=counts,
            smoothed=np.concatenate(parts, axis=1) if parts else counts,
            rcr=lightcurve["rcr"].to_numpy().astype(np.int64),
            energy_low=lightcurve["energy_low"].to_numpy(),
            energy_high=lightcurve["energy_high"].to_numpy(),
        )


def _check(lightcurve: xr.Dataset) -> None:
    needed = ("time_start", "timedel", "counts", "rcr", "energy_low", "energy_high")
    problems = [f"no variable {name!r}" for name in needed if name not in lightcurve]
    if not problems:
        start = lightcurve["time_start"].to_numpy()
        if np.isnat(start).any():
            problems.append(f"{np.isnat(start).sum()} bins without a time")
        if back := int((np.diff(start) <= np.timedelta64(0, "ns")).sum()):
            problems.append(f"{back} bins that do not start after the bin before them")
        if not np.isfinite(lightcurve["counts"].to_numpy()).all():
            problems.append("counts that are not finite")
    if problems:
        raise SchemaError(
            "the light curve has " + ", ".join(problems),
            expected="a ql_lightcurve with bins in order of time",
            advice="sort and de-duplicate the bins, or read the file with stixflow.fits.read_level1",
        )


def _segments(start: NDArray[np.datetime64]) -> list[slice]:
    """Cut at gaps longer than an hour."""
    if not len(start):
        return []
    cuts = np.flatnonzero(np.diff(start) > np.timedelta64(round(SEGMENT_GAP_S * _NANOSECONDS), "ns")) + 1
    return [slice(a, b) for a, b in pairwise([0, *cuts.tolist(), len(start)])]


@dataclass(frozen=True, slots=True)
class _Find:
    """A peak and its limits, as indices of the whole curve; `left` to `right` is half-open."""

    peak: int
    left: int
    right: int
    height: float
    prominence: float
    baseline: float
    is_boundary: bool
    widths: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Floor:
    """What the lowest band would be without flares: `level` per bin, its minimum and scatter, the height asked."""

    level: Curve
    baseline: float
    sigma: float
    height: float


def _snip(curve: _Curve, part: slice, frames: xr.Dataset) -> list[_Find]:
    """Find major peaks as the operational pipeline does."""
    smoothed = curve.smoothed[0, part]
    floor = _floor(smoothed, curve.start[part], frames)
    return [] if floor is None else _major(_finds(smoothed, floor, part.start))


def _floor(smoothed: Curve, start: NDArray[np.datetime64], frames: xr.Dataset) -> _Floor | None:
    if (len(smoothed) - 1) // 2 < MIN_ENVELOPE_ITERATIONS:
        return _quiet_floor(smoothed, start[0], frames)
    level = snip_envelope(smoothed)
    baseline = float(level.min())
    sigma = float(np.sqrt(max(baseline, 1.0)))
    return _Floor(level, baseline, sigma, baseline + HEIGHT_SIGMAS * sigma)


def _quiet_floor(smoothed: Curve, time: np.datetime64, frames: xr.Dataset) -> _Floor | None:
    quiet = nearest_quiet(frames, time)
    if quiet is None:
        return None
    median, sigma = float(quiet.median[0]), float(quiet.sigma[0])
    if sigma >= FALLBACK_QUIET_FACTOR * np.sqrt(median):
        return None
    return _Floor(np.full_like(smoothed, median), median, sigma, median + FALLBACK_HEIGHT_SIGMAS * sigma)


def _finds(smoothed: Curve, floor: _Floor, offset: int) -> list[_Find]:
    from scipy.signal import find_peaks, peak_widths

    peaks, properties = find_peaks(
        smoothed,
        height=floor.height,
        prominence=PROMINENCE_SIGMAS * floor.sigma,
        width=MIN_WIDTH_BINS,
        rel_height=WIDTH_REL_HEIGHT,
        distance=MIN_DISTANCE_BINS,
    )
    known = (properties["prominences"], properties["left_bases"], properties["right_bases"])
    levels = [peak_widths(smoothed, peaks, rel_height=level / 100, prominence_data=known) for level in WIDTH_LEVELS]
    below = np.flatnonzero(smoothed < floor.level + floor.sigma)
    calm = np.flatnonzero(smoothed < floor.height)
    finds = []
    for i, peak in enumerate(peaks.tolist()):
        left, right = _limits(below, peak, len(smoothed))
        finds.append(
            _Find(
                peak=peak + offset,
                left=left + offset,
                right=right + offset,
                height=float(smoothed[peak]),
                prominence=float(properties["prominences"][i]),
                baseline=floor.baseline,
                is_boundary=left == 0 or right == len(smoothed) or _runs_out(calm, peak),
                widths=tuple((int(level[2][i]) + offset, int(level[3][i]) + offset) for level in levels),
            )
        )
    return finds


def _limits(below: NDArray[np.intp], peak: int, size: int) -> tuple[int, int]:
    """Walk from the peak to the bins below threshold on both sides; the left one belongs to the flare."""
    at = int(np.searchsorted(below, peak))
    if at < len(below) and below[at] == peak:
        before, after = EMPTY_LIMITS_BINS
        return max(peak - before, 0), min(peak + after, size)
    return int(below[at - 1]) if at > 0 else 0, int(below[at]) if at < len(below) else size


def _runs_out(calm: NDArray[np.intp], peak: int) -> bool:
    """Tell whether the curve stays up to an end of the observed time: there the envelope rises with the flare."""
    at = int(np.searchsorted(calm, peak))
    return at in (0, len(calm))


def _major(finds: list[_Find]) -> list[_Find]:
    """Keep the peaks whose limits overlap those of no higher one; of equal ones the later."""

    def loses(one: _Find, other: _Find) -> bool:
        overlap = one.left < other.right and other.left < one.right
        return overlap and (other.height, other.peak) > (one.height, one.peak)

    return [one for one in finds if not any(loses(one, other) for other in finds)]


_METHODS: Mapping[str, Callable[[_Curve, slice, xr.Dataset], list[_Find]]] = MappingProxyType({"snip": _snip})


def _table(
    curve: _Curve, finds: list[_Find], frames: xr.Dataset, *, distance_au: float | None, method: str
) -> pd.DataFrame:
    holds_flare = _frames_with_flares(curve, finds, frames)
    rows = [_row(curve, find, nearest_quiet(frames, curve.start[find.peak], excluded=holds_flare)) for find in finds]
    columns = flare_columns(len(curve.energy_low))
    table = pd.DataFrame(rows, columns=list(columns))
    table["distance_au"] = np.nan if distance_au is None else float(distance_au)
    table["method"] = method
    _add_goes(table)
    table["is_duplicate_id"] = table["flare_id"].duplicated(keep=False)
    for name, column in columns.items():
        table[name] = table[name].astype(_pandas_type(column))
    edges = zip(curve.energy_low.tolist(), curve.energy_high.tolist(), strict=True)
    table.attrs["energy_bands"] = [list(pair) for pair in edges]
    return table


def _pandas_type(column: Column) -> np.dtype[Any]:
    return np.dtype("object" if column.dtype == "str" else column.dtype)


def _frames_with_flares(curve: _Curve, finds: list[_Find], frames: xr.Dataset) -> NDArray[np.bool_]:
    """A frame that holds part of a flare is no background, however quiet its statistics look."""
    start, stop = frames["start"].to_numpy(), frames["stop"].to_numpy()
    touched = np.zeros(len(start), dtype=np.bool_)
    for find in finds:
        touched |= (start < curve.stop[find.right - 1]) & (stop > curve.start[find.left])
    return touched


def _row(curve: _Curve, find: _Find, quiet: Background | None) -> dict[str, Any]:
    inside = slice(find.left, find.right)
    counts, peak = curve.counts[:, inside], curve.start[find.peak]
    start, stop = curve.start[find.left], _stop(curve, find.right)
    total = counts[0].sum()
    median = np.full(len(counts), np.nan) if quiet is None else quiet.median
    sigma = np.full(len(counts), np.nan) if quiet is None else quiet.sigma
    above = (counts > (median + 2 * sigma)[:, None]).sum(axis=1)
    upper = int(np.max(np.flatnonzero(above > UPPER_BAND_BINS), initial=0))
    row: dict[str, Any] = {
        "flare_id": flare_id(peak),
        "start": start,
        "peak": peak,
        "stop": stop,
        "duration_s": float((stop - start) / np.timedelta64(1, "ns")) / _NANOSECONDS,
        "bins": find.right - find.left,
        "peak_counts": int(counts[0].max()),
        "bkg_start": np.datetime64("NaT") if quiet is None else quiet.start,
        "bkg_age_s": np.nan if quiet is None else quiet.age_s,
        "baseline": find.baseline,
        "prominence": find.prominence,
        "total_counts": int(total),
        "signal_counts": float(total - find.baseline * (find.right - find.left)),
        "mean_rate": float(total / curve.seconds[inside].sum()),
        "upper_band": upper,
        "upper_energy_keV": float(curve.energy_high[upper]),
        "rcr_max": int(curve.rcr[inside].max()),
        "is_boundary": find.is_boundary,
        "has_gap": _has_gap(curve, find),
    }
    for level, (left, right) in zip(WIDTH_LEVELS, find.widths, strict=True):
        row |= {f"start_{level}": curve.start[left], f"stop_{level}": curve.start[right]}
    per_band = {
        "peak_counts": counts.max(axis=1).astype(np.int64),
        "peak_smoothed": curve.smoothed[:, inside].max(axis=1),
        "bkg_median": median,
        "bkg_sigma": sigma,
        "bins_above": above,
    }
    return row | {f"{name}_{band}": value for name, values in per_band.items() for band, value in enumerate(values)}


def flare_id(peak: np.datetime64) -> str:
    """Name a flare by the minute of its peak, as the operational lists do: ``yymmddHHMM``."""
    text = str(np.datetime_as_string(peak, unit="m"))
    return text[2:].translate({ord(mark): None for mark in "-T:"})


def _stop(curve: _Curve, right: int) -> np.datetime64:
    """Start of the next bin where it follows without a gap, else the end of the last bin."""
    end: np.datetime64 = curve.stop[right - 1]
    if right == len(curve.start) or curve.start[right] - end >= np.timedelta64(1, "s"):
        return end
    following: np.datetime64 = curve.start[right]
    return following


def _has_gap(curve: _Curve, find: _Find) -> bool:
    margin = np.timedelta64(round(GAP_MARGIN_S * _NANOSECONDS), "ns")
    first = int(np.searchsorted(curve.stop, curve.start[find.left] - margin))
    last = int(np.searchsorted(curve.start, curve.stop[find.right - 1] + margin, side="right"))
    missing = curve.start[first + 1 : last] - curve.stop[first : last - 1]
    at_gap = first > 0 and curve.start[first] - curve.stop[first - 1] > np.timedelta64(2, "s")
    return bool(at_gap or (missing > np.timedelta64(2, "s")).any())


def _add_goes(table: pd.DataFrame) -> None:
    counts, background = (table[name].astype(np.float64).to_numpy() for name in ("peak_counts_0", "bkg_median_0"))
    estimate = estimate_goes(counts, background, table["distance_au"].to_numpy())
    for suffix, flux in {"": estimate.flux, "_min": estimate.low, "_max": estimate.high}.items():
        table[f"goes_flux{suffix}"] = flux
        table[f"goes_class{suffix}"] = [goes_class(value) for value in flux]
    table["goes_valid"] = np.isfinite(estimate.flux) & (table["rcr_max"].to_numpy() == 0)
