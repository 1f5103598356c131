"""Observing summaries and flare lists of STIX, from its quick-look light curve and the flares found in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from stixflow.ephemeris.constants import AU_M
from stixflow.ephemeris.orbit import orbit
from stixflow.ephemeris.spice import Kernels
from stixflow.errors import UsageError
from stixflow.hessi.flare_list import FLARE, FlareList, make_flare_list
from stixflow.hessi.rates import ut_of_utc, utc_of_ut
from stixflow.hessi.summary import EPHEMERIS_S, INTERVAL_S, ObservingSummary, make_summary
from stixflow.time import TimeRange

FLAG_IDS = ("Attenuator State", "Data Gap", "Flare", "Rate Control Regime")

FloatArray = NDArray[np.float64]

_HIGHEST_KEV = 150.0
_OBSERVED_PART = 0.5
_BANDS_KEV = ((4.0, 10.0), (10.0, 15.0), (15.0, 25.0), (25.0, 50.0), (50.0, 84.0))
_LIST_FLAGS = {"Attenuator State at Peak": "rcr_peak", "Data Gap": "has_gap", "Edge of Data": "is_boundary"}
_BIN_S = 4.0


class _Grid(NamedTuple):
    start: float
    """Seconds since 1979-01-01."""
    n: int

    @property
    def edges(self) -> FloatArray:
        return np.asarray(self.start + np.arange(self.n + 1) * INTERVAL_S)


def summary_from_lightcurve(
    lightcurve: xr.Dataset,
    *,
    time_range: TimeRange | None = None,
    variance: xr.Dataset | None = None,
    flares: Sequence[TimeRange] = (),
    kernels: Kernels | None = None,
    compress: bool = True,
) -> ObservingSummary:
    """Observing summary of a span of STIX light curve (product `ql_lightcurve`), every 4 s.

    Counts of bins that lie across two intervals are shared by the time they spend in each. An interval of which less
    than half was observed has the flag "Data Gap" and, where rates are bytes, the rate 0.

    Parameters
    ----------
    time_range
        Half-open; the whole intervals that cover the light curve by default.
    variance
        Dataset of the product `ql_variance`: its ratio to Poisson becomes the modulation variance.
    flares
        When there was a flare.
    kernels
        For the position; the built-in orbit otherwise. It is heliocentric (J2000 ecliptic), not that of an Earth orbit.
    compress
        Rates as bytes; else as floats, NaN in gaps.
    """
    grid = _grid(lightcurve, time_range)
    rates, observed = _rates(lightcurve, grid)
    gap = observed < _OBSERVED_PART * INTERVAL_S
    rates[gap] = 0.0 if compress else np.nan
    regime = _nearest(lightcurve, "rcr", grid)
    flags = {
        "Attenuator State": (regime > 0) & ~gap,
        "Data Gap": gap,
        "Flare": _during(flares, grid),
        "Rate Control Regime": np.where(gap, 0, regime),
    }
    summary = make_summary(
        grid.start, rates, energy_edges=_edges(lightcurve), mask=_mask(lightcurve),
        modulation=None if variance is None else _modulation(variance, grid),
        xyz_km=_position(grid, kernels), flags=flags, compress=compress,
    )  # fmt: skip
    return summary


def _grid(lightcurve: xr.Dataset, time_range: TimeRange | None) -> _Grid:
    if not lightcurve.sizes["time"]:
        raise UsageError("an empty light curve", expected="at least one bin")
    starts, ends = _limits(lightcurve)
    if time_range is not None:
        first, last = (float(ut_of_utc(one)) for one in (time_range.start, time_range.stop))
    else:
        first, last = float(starts[0]) // INTERVAL_S * INTERVAL_S, float(ends[-1])
    return _Grid(first, max(int(np.ceil((last - first) / INTERVAL_S - 1e-6)), 1))


def _limits(dataset: xr.Dataset) -> tuple[FloatArray, FloatArray]:
    half = dataset["timedel"].to_numpy() / 2
    middle = ut_of_utc(dataset["time"].to_numpy())
    return middle - half, middle + half


def _rates(lightcurve: xr.Dataset, grid: _Grid) -> tuple[FloatArray, FloatArray]:
    """Counts per observed second (interval, band), and seconds observed (interval,)."""
    starts, ends = _limits(lightcurve)
    counts = lightcurve["counts"].to_numpy().astype(np.float64)
    bands = [_shared(starts, ends, column, grid) for column in counts.T]
    seconds = _shared(starts, ends, ends - starts, grid)
    rates = np.stack(bands, axis=1) / np.where(seconds > 0, seconds, 1.0)[:, None]
    return rates, seconds


def _shared(starts: FloatArray, ends: FloatArray, amounts: FloatArray, grid: _Grid) -> FloatArray:
    """Amounts of bins shared among the intervals of the grid: differences of the running sum at their edges."""
    # A point before and after each bin, so that a gap adds nothing; bins that touch give a point twice.
    points = np.stack([starts, np.maximum(ends, starts)], axis=1).ravel()
    points = np.maximum.accumulate(points)
    total = np.cumsum(amounts)
    sums = np.stack([total - amounts, total], axis=1).ravel()
    return np.diff(np.interp(grid.edges, points, sums, left=0.0, right=float(total[-1])))


def _nearest(dataset: xr.Dataset, name: str, grid: _Grid) -> NDArray[np.uint8]:
    """Value of the last bin that began before the middle of each interval."""
    starts, _ = _limits(dataset)
    index = np.searchsorted(starts, grid.edges[:-1] + INTERVAL_S / 2, side="right") - 1
    return np.asarray(dataset[name].to_numpy()[np.clip(index, 0, None)], dtype=np.uint8)


def _modulation(variance: xr.Dataset, grid: _Grid) -> NDArray[np.uint8]:
    """Root of the variance over its mean of the span, times 10, in one column; 0 where nothing was observed."""
    values = variance["variance"].to_numpy().astype(np.float64).reshape(variance.sizes["time"], -1).sum(axis=1)
    starts, ends = _limits(variance)
    total, seconds = _shared(starts, ends, values, grid), _shared(starts, ends, ends - starts, grid)
    usual = np.median(values / (ends - starts))
    ratio = np.sqrt(total / np.where(seconds > 0, seconds, 1.0) / max(float(usual), 1e-9))
    codes = np.where(seconds > 0, np.clip(np.rint(10.0 * ratio), 0, 255), 0)
    return np.asarray(codes[:, None], dtype=np.uint8)


def _during(flares: Sequence[TimeRange], grid: _Grid) -> NDArray[np.bool_]:
    edges = utc_of_ut(grid.edges)
    inside = np.zeros(grid.n, dtype=np.bool_)
    for flare in flares:
        inside |= (edges[:-1] < flare.stop) & (edges[1:] > flare.start)
    return inside


def _position(grid: _Grid, kernels: Kernels | None) -> FloatArray:
    times = utc_of_ut(grid.start + np.arange(0.0, grid.n * INTERVAL_S, EPHEMERIS_S))
    place = orbit(times) if kernels is None else kernels.orbit(times)
    return np.asarray(place * AU_M / 1e3)


def _edges(lightcurve: xr.Dataset) -> list[float]:
    low, high = lightcurve["energy_low"].to_numpy(), lightcurve["energy_high"].to_numpy()
    if (low[1:] != high[:-1]).any():
        raise UsageError("the bands of the light curve leave gaps", expected="bands that follow each other")
    return [*(float(value) for value in low), float(high[-1]) if np.isfinite(high[-1]) else _HIGHEST_KEV]


def _mask(lightcurve: xr.Dataset) -> NDArray[np.uint8]:
    mask = int(np.bitwise_or.reduce(lightcurve["detector_mask"].to_numpy()))
    return np.array([mask >> i & 1 for i in range(32)], dtype=np.uint8)


def list_from_table(flares: pd.DataFrame) -> FlareList:
    """Flare list of a table of `stixflow.flares`, in its order.

    Numbers are those of RHESSI, yymmddnn with nn the count of the day, since identifiers of STIX do not fit them. Rates
    are those of the lowest band; the position is helioprojective, NaN where it is unknown.
    """
    rows = np.zeros(len(flares), FLARE)
    times = {name: flares[name].to_numpy().astype("datetime64[ns]") for name in ("start", "stop", "peak")}
    for name, ours in {"START_TIME": "start", "END_TIME": "stop", "PEAK_TIME": "peak"}.items():
        rows[name] = ut_of_utc(times[ours])
    days = pd.Series(times["peak"]).dt.strftime("%y%m%d")
    rows["ID_NUMBER"] = days.astype(np.int64) * 100 + days.groupby(days).cumcount() + 1
    total = _numbers(flares, "total_counts")
    seconds = total / _numbers(flares, "mean_rate") / _numbers(flares, "bins")
    seconds = np.where(np.isfinite(seconds), seconds, _BIN_S)
    rows["PEAK_COUNTRATE"] = _numbers(flares, "peak_counts") / seconds
    rows["BCK_COUNTRATE"] = _numbers(flares, "bkg_median_0") / seconds
    rows["TOTAL_COUNTS"] = total
    rows["BCK_TIME"] = np.nan
    rows["POSITION"] = np.stack([_numbers(flares, "x_hpc"), _numbers(flares, "y_hpc")], axis=-1)
    bands = np.array(flares.attrs.get("energy_bands", _BANDS_KEV), dtype=np.float64)
    highest = np.nan_to_num(_numbers(flares, "upper_band")).astype(np.intp)
    rows["ENERGY_HI"] = np.where(np.isfinite(_numbers(flares, "upper_band"))[:, None], bands[highest], np.nan)
    for number, name in enumerate(_LIST_FLAGS.values()):
        rows["FLAGS"][:, number] = np.nan_to_num(_numbers(flares, name)) > 0
    span = (float(rows["START_TIME"].min()), float(rows["END_TIME"].max())) if len(rows) else (0.0, 0.0)
    low, high = bands[0].tolist()
    return make_flare_list(rows, span, energy_range=(low, high), flag_ids=tuple(_LIST_FLAGS))


def _numbers(flares: pd.DataFrame, name: str) -> FloatArray:
    """A column as numbers, NaN where the table does not have it."""
    if name not in flares:
        return np.full(len(flares), np.nan)
    return flares[name].to_numpy(dtype=np.float64, na_value=np.nan)
