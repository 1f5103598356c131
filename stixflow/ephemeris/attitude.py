"""Where the instrument points, and where the spacecraft is, at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.ephemeris.constants import AU_M, LIGHT_SPEED_M_S
from stixflow.ephemeris.orbit import earth
from stixflow.errors import NotFound
from stixflow.time import TimeRange, Utc, iso, to_utc

ATTITUDE_OFFSET = (26.1, 58.2)
"""Average pointing of the mission, arcsec: added to what the attitude of the spacecraft tells."""
SAS_OFFSET = (60.0, 8.0)
"""Added to what the aspect system tells, arcsec."""

_STAMP_SHIFT = np.timedelta64(-32, "s")
"""From the stamp of an ancillary sample to the time it holds for, as in the ground software."""

_AGREEMENT_ARCSEC = 240.0
_STEADY_ARCSEC = 3.0
_REACH = np.timedelta64(300, "s")

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pointing:
    """Direction of the instrument in the spacecraft frame, and the roll of the spacecraft."""

    x: float
    """arcsec"""
    y: float
    """arcsec"""
    roll: float
    """degrees"""
    source: Literal["sas", "attitude", "average"]
    """The aspect system, the attitude of the spacecraft, or the average of the mission."""
    sigma: float
    """Scatter (rms) of the pointing in the time range, arcsec; NaN with fewer than two samples."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observer:
    """Place of the spacecraft."""

    distance_m: float
    hgln_deg: float
    """Stonyhurst longitude."""
    hglt_deg: float
    rsun_arcsec: float


def average_pointing(roll: float = 0.0) -> Pointing:
    """Pointing to assume where no ancillary data exist: the average of the mission."""
    return Pointing(*ATTITUDE_OFFSET, roll, "average", float("nan"), ("no ancillary data: average pointing assumed",))


def pointing(ephemeris: xr.Dataset, time_range: TimeRange) -> Pointing:
    """Pointing in a time range: of the aspect system, or of the spacecraft where that is missing or far off.

    Means over the samples in the range, or interpolated to its middle where it holds none. The aspect solution is
    taken if it lies within 240 arcsec of the attitude.

    Parameters
    ----------
    ephemeris
        Dataset of the product `ephemeris`.

    Raises
    ------
    NotFound
        If the ancillary data do not cover the range.
    """
    times = sample_times(ephemeris)
    _check_near(times, time_range.middle)
    rolls = _unwrapped(ephemeris["roll"].values)
    roll = float(_samples(times, rolls[:, None], time_range).mean())
    attitude = _samples(times, _attitude_direction(ephemeris), time_range)
    solved = ephemeris["sas_ok"].values
    if not _is_near(times[solved], time_range.middle):
        return _pointing(attitude, roll, "attitude", "no aspect solution: pointing from the attitude")
    sas = _samples(times[solved], _sas_direction(ephemeris)[solved], time_range)
    apart = float(np.hypot(*(sas.mean(axis=0) - attitude.mean(axis=0))))
    if not apart < _AGREEMENT_ARCSEC:
        remark = f"aspect solution is {apart:.0f} arcsec from the attitude: pointing from the attitude"
        return _pointing(attitude, roll, "attitude", remark)
    return _pointing(sas, roll, "sas")


def sample_times(ephemeris: xr.Dataset) -> Utc:
    """Times that the samples hold for: their stamps, shifted."""
    return np.asarray(ephemeris["time"].values + _STAMP_SHIFT, dtype="datetime64[ns]")


def _pointing(samples: Vector, roll: float, source: Literal["sas", "attitude"], *remarks: str) -> Pointing:
    x, y = samples.mean(axis=0)
    sigma = float(np.sqrt(samples.var(axis=0).sum())) if len(samples) > 1 else float("nan")
    if sigma > _STEADY_ARCSEC:
        remarks = (*remarks, f"pointing moves by {sigma:.1f} arcsec (rms) in the time range")
    return Pointing(float(x), float(y), (roll + 180.0) % 360.0 - 180.0, source, sigma, remarks)


def _sas_direction(ephemeris: xr.Dataset) -> Vector:
    return np.stack([ephemeris["sas_y"].values + SAS_OFFSET[0], -ephemeris["sas_z"].values + SAS_OFFSET[1]], axis=-1)


def _attitude_direction(ephemeris: xr.Dataset) -> Vector:
    roll = np.deg2rad(ephemeris["roll"].values)
    pitch, yaw = (3600.0 * ephemeris[name].values for name in ("pitch", "yaw"))
    x = ATTITUDE_OFFSET[0] - yaw * np.cos(roll) + pitch * np.sin(roll)
    y = ATTITUDE_OFFSET[1] + yaw * np.sin(roll) + pitch * np.cos(roll)
    return np.stack([x, y], axis=-1)


def observer(ephemeris: xr.Dataset, time: object) -> Observer:
    """Place of the spacecraft at a time, interpolated.

    Raises
    ------
    NotFound
        If the ancillary data do not cover the time.
    """
    moment, times = to_utc(time), sample_times(ephemeris)
    _check_near(times, moment)
    longitudes = _unwrapped(ephemeris["hgln"].values)
    others = (ephemeris[name].values for name in ("distance", "hglt", "rsun"))
    longitude, distance, latitude, radius = _interpolated(times, np.stack([longitudes, *others], axis=-1), moment)
    return Observer(float(distance), float((longitude + 180.0) % 360.0 - 180.0), float(latitude), float(radius))


def observer_of(dataset: xr.Dataset) -> Observer:
    """Place of the spacecraft as the header of the level-1 file gave it: one for the whole request.

    Raises
    ------
    NotFound
        If the file did not give it.
    """
    names = ("dsun_m", "hgln_deg", "hglt_deg", "rsun_arcsec")
    missing = [name for name in names if name not in dataset.attrs]
    if missing:
        raise NotFound(
            f"the data do not say where the spacecraft was: no {', '.join(missing)}",
            expected="the keywords of a level-1 file of the instrument pipeline",
            advice="give the ancillary file of the day",
        )
    return Observer(*(float(dataset.attrs[name]) for name in names))


def earth_delay(time: object, distance_m: float) -> float:
    """Seconds by which light of the Sun reaches the Earth after the spacecraft at `distance_m` from the Sun.

    The Earth is where the Astronomical Almanac's low-precision formula puts it, good to 0.1 s.
    """
    earth_au = float(np.linalg.norm(earth(time)))
    return (earth_au * AU_M - distance_m) / LIGHT_SPEED_M_S


def _samples(times: Utc, values: Vector, time_range: TimeRange) -> Vector:
    """Rows of `values` in the range, or one row interpolated to its middle."""
    inside = time_range.covers(times)
    return values[inside] if inside.any() else _interpolated(times, values, time_range.middle)[None]


def _interpolated(times: Utc, values: Vector, moment: np.datetime64) -> Vector:
    seconds = (times - moment) / np.timedelta64(1, "s")
    return np.array([np.interp(0.0, seconds, column) for column in values.T])


def _unwrapped(degrees: Vector) -> Vector:
    return np.asarray(np.unwrap(degrees, period=360.0))


def _is_near(times: Utc, moment: np.datetime64) -> bool:
    return bool(times.size) and bool(np.abs(times - moment).min() <= _REACH)


def _check_near(times: Utc, moment: np.datetime64) -> None:
    if not _is_near(times, moment):
        covered = f"{iso(times[0])} to {iso(times[-1])}" if times.size else "nothing"
        raise NotFound(
            f"the ancillary data cover {covered}, not {iso(moment)}",
            expected="a sample within five minutes",
            advice="give the ancillary file of that day",
        )
