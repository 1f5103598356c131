"""GOES class of a flare: the operational relation of 4-10 keV counts to XRS flux, a fitted one, and XRS itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import InputFileError

Flux = NDArray[np.float64]

LOG_FLUX_COEFFICIENTS = (-6.90, 0.07505, 0.07064)
"""log10 of the 0.1-0.8 nm flux in W m-2 as a quadratic in x = log10 of net counts per 4 s at 1 au."""

_LOG_COUNTS_SPREAD = 0.3
"""The operational minimum and maximum are the relation at x minus and plus this."""

_FIT_COEFFICIENTS = (-8.003, 0.6188)
"""log10 of the flux above the GOES background as a line in x: 208 flares of 2021 seen from Earth that exceed it."""
_FIT_BEND = (4.0, 0.085)
"""Above this x the curve leaves the line by this times the square of the difference: 800 flares of 2021 to 2023 seen
from Earth without attenuator, chosen by x alone, so that faint flares are not only those that GOES saw well."""
_FIT_SPREAD_DEX = 0.22
_FIT_RANGE = (3.5, 5.8)
"""Range of x in which the median of these flares lies within 0.1 dex of the curve; outside the uncertainty grows."""
_FIT_SPREAD_OUTSIDE = 0.3
"""Further uncertainty, dex per unit of x outside of the range."""

_LIGHT_SECONDS_PER_AU = 499.004784

_CLASSES = (("A", 1e-8), ("B", 1e-7), ("C", 1e-6), ("M", 1e-5), ("X", 1e-4))


@dataclass(frozen=True, slots=True)
class GoesEstimate:
    """Flux in 0.1-0.8 nm, W m-2, with the bounds of the operational list; NaN where there is no estimate."""

    flux: Flux
    low: Flux
    high: Flux


def estimate_goes(peak_counts: ArrayLike, background_counts: ArrayLike, distance_au: ArrayLike) -> GoesEstimate:
    """Estimate the GOES flux of flares from their quick-look peaks.

    Parameters
    ----------
    peak_counts, background_counts
        Counts per 4 s in 4-10 keV: the unsmoothed maximum and the quiet median. Any shapes that broadcast.
    distance_au
        Distance of the spacecraft from the Sun.

    Returns
    -------
    NaN where the peak does not exceed the background. Not valid while the attenuator is in.
    """
    net = np.asarray(peak_counts, dtype=np.float64) - np.asarray(background_counts, dtype=np.float64)
    scaled = np.where(net > 0, net, np.nan) * np.square(np.asarray(distance_au, dtype=np.float64))
    x = np.log10(scaled)
    return GoesEstimate(_flux(x), _flux(x - _LOG_COUNTS_SPREAD), _flux(x + _LOG_COUNTS_SPREAD))


def fit_goes(
    peak_counts: ArrayLike,
    background_counts: ArrayLike,
    distance_au: ArrayLike,
    *,
    background_sigma: ArrayLike = 0.0,
) -> GoesEstimate:
    """Estimate the flux above the GOES background, with bounds of one standard deviation.

    The bounds hold the scatter of the relation, the noise of the counts and of the background, and the doubt beyond
    the range in which the relation was fitted. Arguments as for `estimate_goes`, and the scatter of a quiet bin.
    """
    peak = np.asarray(peak_counts, dtype=np.float64)
    net = peak - np.asarray(background_counts, dtype=np.float64)
    net = np.where(net > 0, net, np.nan)
    x = np.log10(net * np.square(np.asarray(distance_au, dtype=np.float64)))
    noise = np.sqrt(np.maximum(net, 0.0) + np.square(np.asarray(background_sigma, dtype=np.float64)))
    constant, slope = _FIT_COEFFICIENTS
    outside = np.maximum(np.maximum(_FIT_RANGE[0] - x, x - _FIT_RANGE[1]), 0.0)
    x_sigma = noise / net / np.log(10.0)
    sigma = np.sqrt(_FIT_SPREAD_DEX**2 + np.square(slope * x_sigma) + np.square(_FIT_SPREAD_OUTSIDE * outside))
    log_flux = constant + slope * x + _FIT_BEND[1] * np.square(np.maximum(x - _FIT_BEND[0], 0.0))
    low, middle, high = (np.asarray(10.0 ** (log_flux + sign * sigma)) for sign in (-1.0, 0.0, 1.0))
    return GoesEstimate(middle, low, high)


def light_time_s(time: NDArray[np.datetime64], distance_au: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds to add to a time at the spacecraft for that at Earth, both as seen from the centre of the Sun.

    The distance of the Earth is that of the Astronomical Almanac's low-precision formula, good to 1e-4 au.
    """
    elapsed = np.asarray(time, dtype="datetime64[ns]") - np.datetime64("2000-01-01T12:00:00", "ns")
    days = elapsed / np.timedelta64(1, "D")
    anomaly = np.radians(357.529 + 0.98560028 * days)
    earth = 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly)
    return np.asarray((earth - distance_au) * _LIGHT_SECONDS_PER_AU)


def read_xrs(path: str | Path) -> xr.Dataset:
    """Read a GOES-R XRS file (level 2, one-minute means) as a Dataset (time) with `xrsb_flux` in W m-2.

    Raises
    ------
    InputFileError
        If it cannot be read as netCDF or holds no such flux.
    """
    try:
        with xr.open_dataset(path) as opened:
            data = opened[["xrsb_flux"]].load()
    except (OSError, ValueError, KeyError) as error:
        raise InputFileError(
            f"{Path(path).name} is no XRS file that can be read here: {error}",
            expected="netCDF with xrsb_flux (time)",
            advice="take a sci_xrsf-l2 file, and install h5netcdf if netCDF 4 cannot be read",
        ) from error
    return data.where(data["xrsb_flux"] > 0)


def measure_goes(flares: pd.DataFrame, xrs: xr.Dataset | pd.DataFrame) -> pd.DataFrame:
    """Add the GOES flux measured during each flare, at Earth time, to a copy of a flare table.

    Parameters
    ----------
    flares
        With `start`, `stop` and `light_time_s`.
    xrs
        `xrsb_flux` in W m-2 by `time`: a Dataset, or a frame with that column and a time index.

    Returns
    -------
    The table with `goes_measured_flux` (largest in the flare), `goes_measured_background` (least in the hour before
    its peak) and `goes_measured_class`; NaN and the empty text where XRS has no value or the light time is unknown.
    It means nothing for flares that the Earth does not see.
    """
    series = xrs["xrsb_flux"].to_series() if isinstance(xrs, xr.Dataset) else xrs["xrsb_flux"]
    series = series.dropna()
    times, flux = series.index.to_numpy().astype("datetime64[ns]"), series.to_numpy().astype(np.float64)
    cadence = np.median(np.diff(times)) if len(times) > 1 else np.timedelta64(60, "s")
    shift = pd.to_timedelta(flares["light_time_s"], unit="s")
    start, peak, stop = (
        (flares[name] + shift).to_numpy().astype("datetime64[ns]") for name in ("start", "peak", "stop")
    )
    hour = np.timedelta64(1, "h")
    result = flares.copy()
    result["goes_measured_flux"] = _extremes(times, flux, start - cadence, stop, np.max)
    result["goes_measured_background"] = _extremes(times, flux, peak - hour - cadence, peak, np.min)
    result["goes_measured_class"] = [goes_class(value, decimals=1) for value in result["goes_measured_flux"]]
    return result


def _extremes(
    times: NDArray[np.datetime64],
    flux: Flux,
    after: NDArray[Any],
    before: NDArray[Any],
    pick: Callable[[Flux], float],
) -> Flux:
    """Pick from the samples that begin between two times, by flare; NaN where there is none."""
    first, last = np.searchsorted(times, after, side="right"), np.searchsorted(times, before)
    known = ~np.isnat(after) & ~np.isnat(before)
    spans = zip(known.tolist(), first.tolist(), last.tolist(), strict=True)
    return np.array([pick(flux[a:b]) if there and b > a else np.nan for there, a, b in spans], dtype=np.float64)


def _flux(x: Flux) -> Flux:
    constant, linear, square = LOG_FLUX_COEFFICIENTS
    return np.asarray(10.0 ** (constant + linear * x + square * x * x))


def goes_class(flux: float, *, decimals: int = 0) -> str:
    """Write a flux in W m-2 as a class: estimates without decimals as ``C4``, measurements with one as ``C4.2``.

    The flux is rounded to two significant digits first, as in the operational list, so that ``B10`` occurs; below
    1e-7 the class is ``A`` without a number; an unknown flux gives the empty text.
    """
    if not flux > 0:
        return ""
    rounded = float(f"{flux:.1e}")
    if rounded < 1e-7:
        return "A"
    letter, unit = next((name, unit) for name, unit in reversed(_CLASSES) if rounded >= unit)
    return f"{letter}{rounded / unit:.{decimals}f}"
