"""Where the spacecraft was, in the frames that headers name: Carrington, ecliptic, inertial, equatorial, geocentric.

Each frame is a rotation that depends on the time alone. The Earth and the mean ecliptic are those of ERFA (VSOP87,
IAU 2006), pole and prime meridian of the Sun those of the IAU, as in sunpy and astropy, which take a hundred times as
long to be general.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.ephemeris.attitude import Observer
from stixflow.ephemeris.constants import (
    AU_M,
    LIGHT_SPEED_M_S,
    MERIDIAN_DEG,
    MERIDIAN_DEG_A_DAY,
    R_SUN_M,
    SOLAR_NODE,
    SOLAR_POLE,
)
from stixflow.ephemeris.orbit import accuracy, orbit, tdb_seconds, times_of
from stixflow.errors import NotFound
from stixflow.time import to_utc

FloatArray = NDArray[np.float64]

_STEP = np.timedelta64(600, "s")
_J2000 = 2451545.0
_DAY_S = 86400.0


@lru_cache(maxsize=64)
def observer_keywords(observer: Observer, time: str) -> dict[str, Any]:
    """FITS cards of the place of the spacecraft at a time (ISO 8601, UTC); positions in m.

    Carrington longitude and latitude; HEE, HCI, HAE (mean ecliptic of J2000), HEQ (HEEQ) and GSE as sunpy and astropy
    define them (Thompson 2006; Fraenz & Harper 2002). OBS_VR where the observer is on the built-in orbit.
    """
    import erfa

    days = float(tdb_seconds(times_of(time))) / _DAY_S
    earth = np.array(erfa.epv00(_J2000, days)[0]["p"].tolist()) * AU_M
    stonyhurst = _frame(SOLAR_POLE, earth)
    seen = observer.distance_m * _direction(observer.hgln_deg, observer.hglt_deg)
    place = seen @ stonyhurst
    of_j2000, of_date = erfa.ecm06(_J2000, 0.0), erfa.ecm06(_J2000, days)
    towards_earth = of_date @ earth
    hee = _frame(np.array([0.0, 0.0, 1.0]), towards_earth, tilts=True) @ (of_date @ place)
    systems = {
        "HEE": hee,
        "HCI": _frame(SOLAR_POLE, np.cross(of_j2000[2], SOLAR_POLE)) @ place,
        "HAE": of_j2000 @ place,
        "HEQ": seen,
        "GSE": np.array([np.linalg.norm(earth) - hee[0], -hee[1], hee[2]]),
    }
    longitude = observer.hgln_deg + _carrington_of(stonyhurst[0], days, observer.distance_m)
    cards: dict[str, Any] = {
        "CRLN_OBS": (longitude % 360.0, "[deg] Carrington longitude"),
        "CRLT_OBS": (observer.hglt_deg, "[deg] Carrington latitude"),
    }
    for name, xyz in systems.items():
        cards |= {f"{name}{axis}_OBS": (float(value), "[m]") for axis, value in zip("XYZ", xyz, strict=True)}
    speed = radial_velocity(observer, time)
    if speed is not None:
        cards["OBS_VR"] = (speed, "[m/s] away from the Sun, built-in orbit")
    return cards | {"SUN_TIME": (observer.distance_m / LIGHT_SPEED_M_S, "[s] from the Sun to the spacecraft")}


def _frame(pole: FloatArray, towards: FloatArray, *, tilts: bool = False) -> FloatArray:
    """Rows x, y, z of the axes with z at the pole and x towards a place; if it `tilts`, x is right there, z is not."""
    y = np.cross(pole, towards)
    y = y / np.linalg.norm(y)
    if tilts:
        x = towards / np.linalg.norm(towards)
        return np.stack([x, y, np.cross(x, y)])
    return np.stack([np.cross(y, pole), y, pole])


def _direction(lon_deg: float, lat_deg: float) -> FloatArray:
    lon, lat = np.deg2rad(lon_deg), np.deg2rad(lat_deg)
    return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def _carrington_of(direction: FloatArray, days: float, distance_m: float) -> float:
    """Carrington longitude, degrees, of a direction from the Sun when light left the surface for an observer."""
    from_node = np.rad2deg(np.arctan2(direction @ np.cross(SOLAR_POLE, SOLAR_NODE), direction @ SOLAR_NODE))
    left = days - (distance_m - R_SUN_M) / LIGHT_SPEED_M_S / _DAY_S
    return float(from_node - MERIDIAN_DEG - MERIDIAN_DEG_A_DAY * left)


def radial_velocity(observer: Observer, time: object) -> float | None:
    """Velocity away from the Sun, m/s, of the built-in orbit; None where the observer is not on it."""
    moment = to_utc(time)
    try:
        before, at, after = np.linalg.norm(orbit([moment - _STEP, moment, moment + _STEP]), axis=-1)
    except NotFound:
        return None
    if abs(at * AU_M - observer.distance_m) > accuracy(moment)[0] * AU_M:
        return None
    return float((after - before) * AU_M / (2 * _STEP / np.timedelta64(1, "s")))
