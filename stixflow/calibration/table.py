"""The energy table (ELUT) that a calibration asks for, and how far the pixels have drifted from the one on board."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.instrument.elut import Elut, elut, elut_key, rounded_edges, true_edges
from stixflow.instrument.energies import energy_edges

DRIFT_LIMIT_KEV = 0.5
"""Half of the narrowest science channel."""
DRIFT_TO_KEV = 84.0
"""Edges up to here are judged: the lines reach to 81 keV, beyond them the scale is extrapolated."""
_SIGNIFICANT = 3.0


def elut_of(calibration: xr.Dataset, *, active: Elut | None = None) -> xr.Dataset:
    """Make the energy table of a calibration, rounded as the tables on board are.

    Parameters
    ----------
    calibration
        As `calibrate` gives it.
    active
        The table on board, which pixels without calibration keep; by default that of the time of the run.

    Returns
    -------
    Dataset with ``adc_edges`` (detector, pixel, edge), the first ADC values of channels 1 to 31, ``offset``, ``gain``,
    and ``calibrated``, whether they are those of the calibration.
    """
    time, table = _active(calibration, active)
    nominal = energy_edges(time)
    is_new = np.isfinite(calibration["gain"].values)
    offset = np.where(is_new, calibration["offset"].values, table.offset)
    gain = np.where(is_new, calibration["gain"].values, table.gain)
    edges = np.where(is_new[..., None], rounded_edges(offset, gain, nominal), table.adc_edges).astype(np.int64)
    pixels, edge_dims = ("detector", "pixel"), ("detector", "pixel", "edge")
    return xr.Dataset(
        {
            "adc_edges": (edge_dims, edges, {"units": "adu", "long_name": "first ADC value (of 4096) above the edge"}),
            "offset": (pixels, offset, {"units": "adu", "long_name": "ADC value of 0 keV"}),
            "gain": (pixels, gain, {"units": "keV / adu", "long_name": "width of an ADC value"}),
            "calibrated": (pixels, is_new, {"long_name": "whether the pixel is calibrated, else as on board"}),
        },
        {**_pixel_coords(calibration), "energy": ("edge", nominal[1:-1], {"units": "keV"})},
        {"product": "elut", "active": table.name, "time": str(time)},
    )


def energy_edges_of(calibration: xr.Dataset, *, active: Elut | None = None) -> NDArray[np.float64]:
    """True edges of the science channels in keV under the table on board, (detector, pixel, 33); NaN without a gain.

    They are ``e_edges_actual`` of the official product: the first is 0, the last infinity.
    """
    _, table = _active(calibration, active)
    gain = calibration["gain"].values
    edges = true_edges(table.adc_edges, calibration["offset"].values, gain)
    return np.where(np.isfinite(gain)[..., None], edges, np.nan)


def drift_of(calibration: xr.Dataset, *, active: Elut | None = None, limit_kev: float = DRIFT_LIMIT_KEV) -> xr.Dataset:
    """Say how far every edge of the channels lies from where the calibration of the table on board put it.

    Returns
    -------
    Dataset with ``drift`` (detector, pixel, edge) in keV, true minus believed, its one-sigma ``drift_error``, and
    ``beyond`` (detector, pixel): whether an edge up to 84 keV is off by more than `limit_kev` and three sigma (where
    they are known). Pixels without calibration have NaN, and are not beyond.
    """
    time, table = _active(calibration, active)
    offset, gain = (calibration[name].values[..., None] for name in ("offset", "gain"))
    drift = (table.adc_edges - offset) * gain - (table.adc_edges - table.offset[..., None]) * table.gain[..., None]
    of_gain = (table.adc_edges - offset) * calibration["gain_error"].values[..., None]
    of_offset = -gain * calibration["offset_error"].values[..., None]
    both = 2 * calibration["correlation"].values[..., None] * of_gain * of_offset
    error = np.sqrt(np.maximum(of_gain**2 + of_offset**2 + both, 0.0))
    nominal = energy_edges(time)[1:-1]
    with np.errstate(invalid="ignore"):
        is_far = (np.abs(drift) > limit_kev) & ~(np.abs(drift) <= _SIGNIFICANT * error)
    pixels, edges = ("detector", "pixel"), ("detector", "pixel", "edge")
    return xr.Dataset(
        {
            "drift": (edges, drift, {"units": "keV", "long_name": "true minus believed energy of the edge"}),
            "drift_error": (edges, error, {"units": "keV", "long_name": "one sigma of the drift"}),
            "beyond": (pixels, is_far[..., nominal <= DRIFT_TO_KEV].any(axis=-1), {"long_name": "beyond the limit"}),
        },
        {**_pixel_coords(calibration), "energy": ("edge", nominal, {"units": "keV"})},
        {"product": "elut_drift", "active": table.name, "limit_kev": limit_kev, "time": str(time)},
    )


@dataclass(frozen=True, slots=True)
class Drift:
    """Drift of a run in a few numbers."""

    table: str
    """Name of the table on board."""
    median_kev: float
    """Median over pixels of the edges at 4 to 84 keV, true minus believed; NaN where no pixel is calibrated."""
    worst_kev: float
    beyond: tuple[tuple[int, int], ...]
    """Detector and pixel, from 0, of those beyond the limit."""


def summarise_drift(drift: xr.Dataset) -> Drift:
    """Put the drift of a run, as `drift_of` gives it, into a few numbers."""
    judged = drift["drift"].values[..., drift["energy"].values <= DRIFT_TO_KEV]
    values = judged[np.isfinite(judged)]
    beyond = tuple((int(detector), int(pixel)) for detector, pixel in np.argwhere(drift["beyond"].values))
    if not values.size:
        return Drift(str(drift.attrs["active"]), float("nan"), float("nan"), beyond)
    worst = values[np.argmax(np.abs(values))]
    return Drift(str(drift.attrs["active"]), float(np.median(values)), float(worst), beyond)


def active_table(calibration: xr.Dataset) -> str:
    """Name the energy table that was on board during the run."""
    return elut_key(_time(calibration))[0]


def _active(calibration: xr.Dataset, active: Elut | None) -> tuple[np.datetime64, Elut]:
    time = _time(calibration)
    return time, active or elut(time)


def _time(calibration: xr.Dataset) -> np.datetime64:
    return np.datetime64(calibration["time_start"].values.reshape(-1)[0], "ns")


def _pixel_coords(calibration: xr.Dataset) -> dict[str, NDArray[np.generic]]:
    return {name: calibration[name].values for name in ("detector", "pixel")}


__all__ = [
    "DRIFT_LIMIT_KEV",
    "DRIFT_TO_KEV",
    "Drift",
    "active_table",
    "drift_of",
    "elut_of",
    "energy_edges_of",
    "summarise_drift",
]
