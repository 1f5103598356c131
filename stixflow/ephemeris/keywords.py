"""Where the spacecraft was, in the frames that headers name: Carrington, ecliptic, inertial, equatorial, geocentric."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from stixflow.ephemeris.attitude import Observer
from stixflow.ephemeris.constants import AU_M, LIGHT_SPEED_M_S
from stixflow.ephemeris.orbit import accuracy, orbit
from stixflow.errors import NotFound
from stixflow.time import to_utc

_STEP = np.timedelta64(600, "s")


@lru_cache(maxsize=64)
def observer_keywords(observer: Observer, time: str) -> dict[str, Any]:
    """FITS cards of the place of the spacecraft at a time (ISO 8601, UTC); positions in m.

    Carrington longitude and latitude; HEE, HCI, HAE (mean ecliptic of J2000), HEQ (HEEQ) and GSE as sunpy and astropy
    define them, with their built-in position of the Earth: nothing is fetched. OBS_VR where the observer is on the
    built-in orbit.
    """
    import astropy.units as u
    from astropy.coordinates import HeliocentricMeanEcliptic, SkyCoord
    from sunpy.coordinates import frames

    stonyhurst = frames.HeliographicStonyhurst(obstime=time)
    place = SkyCoord(observer.hgln_deg * u.deg, observer.hglt_deg * u.deg, observer.distance_m * u.m, frame=stonyhurst)
    carrington = place.transform_to(frames.HeliographicCarrington(obstime=time, observer="self"))
    cards: dict[str, Any] = {
        "CRLN_OBS": (float(carrington.lon.deg), "[deg] Carrington longitude"),
        "CRLT_OBS": (float(carrington.lat.deg), "[deg] Carrington latitude"),
    }
    systems = {
        "HEE": frames.HeliocentricEarthEcliptic(obstime=time),
        "HCI": frames.HeliocentricInertial(obstime=time),
        "HAE": HeliocentricMeanEcliptic(obstime=time, equinox="J2000"),
        "HEQ": stonyhurst,
        "GSE": frames.GeocentricSolarEcliptic(obstime=time),
    }
    for name, system in systems.items():
        xyz = np.asarray(place.transform_to(system).cartesian.xyz.to_value(u.m), dtype=np.float64)
        cards |= {f"{name}{axis}_OBS": (float(value), "[m]") for axis, value in zip("XYZ", xyz, strict=True)}
    speed = radial_velocity(observer, time)
    if speed is not None:
        cards["OBS_VR"] = (speed, "[m/s] away from the Sun, built-in orbit")
    return cards | {"SUN_TIME": (observer.distance_m / LIGHT_SPEED_M_S, "[s] from the Sun to the spacecraft")}


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
