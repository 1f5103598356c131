"""Where on the Sun a flare is, how the Earth sees it, and when light from it arrives.

A position on the disk is put on the photosphere; one off the limb on the spherical screen through the centre of the Sun
about the observer, as the public lists do. All in one array pass, in the Stonyhurst frame at the time of observation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.ephemeris.ancillary import apparent_radius
from stixflow.ephemeris.attitude import Observer
from stixflow.ephemeris.constants import AU_M, LIGHT_SPEED_M_S, R_SUN_M
from stixflow.ephemeris.orbit import carrington_of_earth, earth, solar_pole, times_of
from stixflow.ephemeris.position import Position

FloatArray = NDArray[np.float64]

_ARCSEC = np.pi / 180 / 3600


@dataclass(frozen=True, slots=True, eq=False)
class SolarPlace:
    """Places of flares; arrays of the shape of the positions given."""

    hgs_lon_deg: FloatArray
    """Stonyhurst, -180 to 180."""
    hgs_lat_deg: FloatArray
    hgc_lon_deg: FloatArray
    """Carrington, 0 to 360, at the time light for the spacecraft left the Sun."""
    hgc_lat_deg: FloatArray
    hpc_earth_x: FloatArray
    """Helioprojective as the Earth would see it, arcsec, also where the Sun hides it (`visible_from_earth`)."""
    hpc_earth_y: FloatArray
    on_disk: NDArray[np.bool_]
    """Whether the line of sight of the spacecraft meets the photosphere."""
    visible_from_earth: NDArray[np.bool_]
    """Whether nothing of the Sun lies between the place and the Earth."""
    light_time_earth_s: FloatArray
    """From the flare to the Earth."""
    light_time_s: FloatArray
    """From the flare to the spacecraft."""
    delay_s: FloatArray
    """How much later the Earth sees the flare."""
    delay_of_center_s: FloatArray
    """The same for light from the centre of the Sun."""
    light_time_between_s: FloatArray
    """From the spacecraft to the Earth."""
    angle_earth_deg: FloatArray
    """Between the vertical at the flare and the direction of the Earth; above 90 it is hidden."""
    angle_deg: FloatArray
    """Between the vertical at the flare and the direction of the spacecraft."""
    angle_between_deg: FloatArray
    """At the flare, between the Earth and the spacecraft."""


def place_on_sun(hpc: ArrayLike, seen_from: Position | Observer, time: object) -> SolarPlace:
    """Place flares on the Sun.

    Parameters
    ----------
    hpc
        (..., 2) helioprojective positions seen from the spacecraft, arcsec.
    seen_from
        Place of the spacecraft, one or one per position.
    time
        UTC, one or one per position.
    """
    xy = np.asarray(hpc, dtype=np.float64)
    times = times_of(time)
    spacecraft = _place_of(seen_from)
    ours = _earth_heeq(times)
    flare, on_disk = _intersect(xy, spacecraft)
    spacecraft, ours = np.broadcast_to(spacecraft, flare.shape), np.broadcast_to(ours, flare.shape)
    x, y, z = np.moveaxis(flare, -1, 0)
    longitude = np.rad2deg(np.arctan2(y, x))
    latitude = np.rad2deg(np.arcsin(z / _length(flare)))
    to_earth, to_spacecraft = _length(ours - flare), _length(spacecraft - flare)
    earth_x, earth_y = _project(flare, ours)
    return SolarPlace(
        hgs_lon_deg=longitude,
        hgs_lat_deg=latitude,
        hgc_lon_deg=(longitude + carrington_of_earth(times, seen_from.distance_m)) % 360.0,
        hgc_lat_deg=latitude,
        hpc_earth_x=earth_x,
        hpc_earth_y=earth_y,
        on_disk=on_disk,
        visible_from_earth=~_is_hidden(flare, ours),
        light_time_earth_s=to_earth / LIGHT_SPEED_M_S,
        light_time_s=to_spacecraft / LIGHT_SPEED_M_S,
        delay_s=(to_earth - to_spacecraft) / LIGHT_SPEED_M_S,
        delay_of_center_s=(_length(ours) - _length(spacecraft)) / LIGHT_SPEED_M_S,
        light_time_between_s=_length(ours - spacecraft) / LIGHT_SPEED_M_S,
        angle_earth_deg=_angle(flare, ours - flare),
        angle_deg=_angle(flare, spacecraft - flare),
        angle_between_deg=_angle(ours - flare, spacecraft - flare),
    )


def heliographic_to_hpc(
    lon_deg: ArrayLike, lat_deg: ArrayLike, seen_from: Position | Observer, *, hide: bool = False
) -> FloatArray:
    """Helioprojective position, (..., 2) arcsec, of a place on the photosphere (Stonyhurst).

    Parameters
    ----------
    hide
        Whether places behind the limb give NaN.
    """
    place, eye = _cartesian(R_SUN_M, lon_deg, lat_deg), _place_of(seen_from)
    xy = np.stack(_project(place, eye), axis=-1)
    return np.where(((place * (eye - place)).sum(axis=-1) < 0)[..., None], np.nan, xy) if hide else xy


def hpc_to_heliographic(hpc: ArrayLike, seen_from: Position | Observer) -> FloatArray:
    """Stonyhurst longitude and latitude, (..., 2) degrees, of helioprojective arcsec (..., 2); NaN beside the disk."""
    place, on_disk = _intersect(np.asarray(hpc, dtype=np.float64), _place_of(seen_from))
    x, y, z = np.moveaxis(place, -1, 0)
    both = np.rad2deg(np.stack([np.arctan2(y, x), np.arcsin(np.clip(z / R_SUN_M, -1.0, 1.0))], axis=-1))
    return np.where(on_disk[..., None], both, np.nan)


def _place_of(observer: Position | Observer) -> FloatArray:
    return _cartesian(observer.distance_m, observer.hgln_deg, observer.hglt_deg)


def earth_observer(time: object) -> Observer:
    """Place of the Earth at a time: longitude 0 by definition, low-precision formula."""
    x, _, z = np.moveaxis(_earth_heeq(times_of(time)), -1, 0)
    distance = float(np.hypot(x, z))
    return Observer(distance, 0.0, float(np.rad2deg(np.arctan2(z, x))), float(apparent_radius(distance)))


def _cartesian(distance: ArrayLike, lon_deg: ArrayLike, lat_deg: ArrayLike) -> FloatArray:
    lon, lat = np.deg2rad(lon_deg), np.deg2rad(lat_deg)
    parts = np.broadcast_arrays(np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat))
    return np.asarray(np.stack(parts, axis=-1) * np.asarray(distance, dtype=np.float64)[..., None])


def _earth_heeq(times: NDArray[np.datetime64]) -> FloatArray:
    place = earth(times) * AU_M
    z = place @ solar_pole()
    return np.stack([np.sqrt((place**2).sum(axis=-1) - z**2), np.zeros_like(z), z], axis=-1)


def _axes(observer: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Unit vectors of an observer: solar west (x), solar north (y), towards the observer (z)."""
    z = observer / _length(observer)[..., None]
    x = np.cross(np.array([0.0, 0.0, 1.0]), z)
    x = x / _length(x)[..., None]
    return x, np.cross(z, x), z


def _intersect(xy: FloatArray, observer: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """First point of the photosphere on each line of sight, or the point on the screen, and whether it is the first."""
    x, y, z = _axes(observer)
    tx, ty = xy[..., 0] * _ARCSEC, xy[..., 1] * _ARCSEC
    east, north, inward = np.cos(ty) * np.sin(tx), np.sin(ty), np.cos(ty) * np.cos(tx)
    sight = east[..., None] * x + north[..., None] * y - inward[..., None] * z
    distance = _length(observer)
    middle = distance * inward
    square = middle**2 - distance**2 + R_SUN_M**2
    on_disk = square >= 0
    reach = np.where(on_disk, middle - np.sqrt(np.maximum(square, 0.0)), distance)
    return np.asarray(observer + reach[..., None] * sight), np.asarray(on_disk)


def _project(place: FloatArray, observer: FloatArray) -> tuple[FloatArray, FloatArray]:
    x, y, z = _axes(observer)
    sight = place - observer
    east, north, inward = ((sight * axis).sum(axis=-1) for axis in (x, y, -z))
    return np.arctan2(east, inward) / _ARCSEC, np.arcsin(north / _length(sight)) / _ARCSEC


def _is_hidden(place: FloatArray, observer: FloatArray) -> NDArray[np.bool_]:
    """Whether the photosphere lies between (a place on it counts as above it)."""
    sight = observer - place
    along = -(place * sight).sum(axis=-1) / _length(sight)
    nearest = np.sqrt(np.maximum((place**2).sum(axis=-1) - along**2, 0.0))
    return np.asarray((along > 0) & (nearest < R_SUN_M))


def _angle(a: FloatArray, b: FloatArray) -> FloatArray:
    cosine = (a * b).sum(axis=-1) / (_length(a) * _length(b))
    return np.asarray(np.rad2deg(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _length(vectors: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt((vectors**2).sum(axis=-1)))
