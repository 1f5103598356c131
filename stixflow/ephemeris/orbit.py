"""Where Solar Orbiter and the Earth are, without any file: a table of the orbit, and the axes of the Sun.

The table holds Chebyshev polynomials of the heliocentric position (J2000 ecliptic, au), pieces of at most 16 days that
end at the planets, made from the orbit prediction that ESA published in 2020 (kernel L002 V1 00014). The spacecraft
followed it to 0.02 degrees until the Venus flyby of 2022-09-04. From there to the flyby of 2025-02-18 it flew at
another inclination, up to 1.3 degrees away; the orbital elements of that arc were corrected by positions in ancillary
files and in headers of level-1 files, which leaves 1e-4 au. Of the time after, one position is known (2025-03: 0.4
degrees off).
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.ephemeris.constants import (
    AU_M,
    LIGHT_SPEED_M_S,
    MERIDIAN_DEG,
    MERIDIAN_DEG_A_DAY,
    R_SUN_M,
    SOLAR_NODE,
    SOLAR_POLE,
)
from stixflow.errors import NotFound, UsageError
from stixflow.time import Utc, iso, to_utc

FloatArray = NDArray[np.float64]

_KNOWN_UNTIL = np.datetime64("2025-02-18", "ns")
_UNIT_AU = 1e-7
_J2000 = np.datetime64("2000-01-01T12:00:00", "ns")
_TDB_MINUS_UTC = 69.184
_OBLIQUITY = np.deg2rad(84381.448 / 3600)
_ABERRATION_DEG = 20.5 / 3600
_PRECESSION_DEG_PER_DAY = 1.39697 / 36525


class _Table(NamedTuple):
    start: FloatArray
    """(piece,) seconds of TDB since J2000."""
    length: FloatArray
    coefficients: FloatArray
    """(piece, axis, order) au."""


def times_of(time: object) -> Utc:
    """One time or many, in whatever form, as an array of UTC.

    Raises
    ------
    UsageError
        If a time cannot be read.
    """
    if isinstance(time, np.ndarray) and time.dtype.kind == "M":
        times = time.astype("datetime64[ns]")
        if np.isnat(times).any():
            raise UsageError("a time is missing (NaT)", expected="UTC", advice="leave it out")
        return times
    if isinstance(time, (list, tuple)):
        return np.array([to_utc(one) for one in time], dtype="datetime64[ns]")
    return np.array(to_utc(time))


def tdb_seconds(times: Utc) -> FloatArray:
    """Seconds of barycentric dynamical time since J2000, for UTC since 2017 (no leap second since)."""
    return np.asarray((times - _J2000) / np.timedelta64(1, "ns") * 1e-9 + _TDB_MINUS_UTC)


def orbit(time: object) -> FloatArray:
    """Heliocentric position of Solar Orbiter in the J2000 ecliptic, au, (..., 3), from the built-in table.

    Raises
    ------
    NotFound
        Before 2020-02-10, the launch, or after 2030-11-18, the end of the prediction.
    """
    times = times_of(time)
    table, seconds = _table(), tdb_seconds(times)
    outside = (seconds < table.start[0]) | (seconds > table.start[-1] + table.length[-1])
    if outside.any():
        raise NotFound(
            f"the built-in orbit does not reach {iso(times[outside][0])}",
            expected="a time from 2020-02-10 to 2030-11-18",
            advice="give SPICE kernels or ancillary files",
        )
    piece = np.clip(np.searchsorted(table.start, seconds, side="right") - 1, 0, None)
    x = (seconds - table.start[piece]) / table.length[piece] * 2 - 1
    order = np.arange(table.coefficients.shape[2])
    polynomials = np.cos(order * np.arccos(np.clip(x, -1.0, 1.0))[..., None])
    return np.asarray(np.einsum("...ak,...k->...a", table.coefficients[piece], polynomials))


def earth(time: object) -> FloatArray:
    """Heliocentric position of the Earth in the J2000 ecliptic, au, (..., 3).

    Low-precision formula of the Astronomical Almanac, good to 0.01 degrees and 0.0002 au.
    """
    days = tdb_seconds(times_of(time)) / 86400.0
    anomaly = np.deg2rad(357.528 + 0.9856003 * days)
    longitude = 280.460 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly)
    seen = np.deg2rad(longitude + 180.0 + _ABERRATION_DEG - _PRECESSION_DEG_PER_DAY * days)
    distance = 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly)
    return np.asarray(np.stack([distance * np.cos(seen), distance * np.sin(seen), np.zeros_like(distance)], axis=-1))


def solar_pole() -> FloatArray:
    """North pole of the Sun in the J2000 ecliptic (IAU)."""
    return _to_ecliptic(SOLAR_POLE)


def heeq_axes(time: object) -> FloatArray:
    """Rows x, y, z of the Stonyhurst frame (x towards the Earth's meridian) in the J2000 ecliptic, (..., 3, 3)."""
    towards, pole = earth(time), solar_pole()
    x = towards - (towards @ pole)[..., None] * pole
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    z = np.broadcast_to(pole, x.shape)
    return np.stack([x, np.cross(z, x), z], axis=-2)


def carrington_of_earth(time: object, distance_m: ArrayLike | None = None) -> FloatArray:
    """Carrington longitude of Stonyhurst longitude 0, degrees in [0, 360).

    The Carrington frame turns by 14.1844 degrees a day about the pole of the Sun from the node of its equator (IAU).

    Parameters
    ----------
    distance_m
        Of the observer from the Sun: the longitude is that when light left the surface for it. None for the Earth.
    """
    times = times_of(time)
    away = np.linalg.norm(earth(times), axis=-1) * AU_M if distance_m is None else np.asarray(distance_m)
    days = (tdb_seconds(times) - (away - R_SUN_M) / LIGHT_SPEED_M_S) / 86400.0
    node = _to_ecliptic(SOLAR_NODE)
    x = heeq_axes(times)[..., 0, :]
    from_node = np.rad2deg(np.arctan2(x @ np.cross(solar_pole(), node), x @ node))
    return np.asarray((from_node - MERIDIAN_DEG - MERIDIAN_DEG_A_DAY * days) % 360.0)


def accuracy(time: object) -> tuple[float, float]:
    """Bounds on the error of `orbit` at the given times: au and degrees."""
    return (0.0003, 0.05) if bool((times_of(time) < _KNOWN_UNTIL).all()) else (0.01, 1.0)


def _to_ecliptic(equatorial: FloatArray) -> FloatArray:
    x, y, z = equatorial
    cos, sin = np.cos(_OBLIQUITY), np.sin(_OBLIQUITY)
    return np.array([x, cos * y + sin * z, cos * z - sin * y])


@cache
def _table() -> _Table:
    path = resources.files(__package__) / "tables" / "orbit.csv"
    with path.open(encoding="ascii") as lines:
        rows = np.loadtxt(lines, delimiter=",", skiprows=1)
    return _Table(rows[:, 0], rows[:, 1], rows[:, 2:].reshape(len(rows), 3, -1) * _UNIT_AU)
