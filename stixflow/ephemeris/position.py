"""Where Solar Orbiter is: one door to the ancillary files, the SPICE kernels and the built-in orbit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.ephemeris.ancillary import apparent_radius
from stixflow.ephemeris.attitude import Observer, observer
from stixflow.ephemeris.constants import AU_M
from stixflow.ephemeris.orbit import accuracy, heeq_axes, orbit, times_of
from stixflow.ephemeris.spice import Kernels
from stixflow.time import Utc

FloatArray = NDArray[np.float64]
Source = Literal["ancillary", "spice", "orbit"]

_FLOWN_AU, _FLOWN_DEG = 1e-6, 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Position:
    """Place of the spacecraft at one time or many, and what it comes from."""

    distance_m: FloatArray
    """From the centre of the Sun; the shape of the times, as of the other fields."""
    hgln_deg: FloatArray
    """Stonyhurst longitude, -180 to 180."""
    hglt_deg: FloatArray
    source: Source
    """An ancillary file, SPICE kernels, or the built-in orbit."""
    accuracy_au: float
    """Bound on the error of the distance."""
    accuracy_deg: float
    """Bound on the error of the direction."""

    @property
    def distance_au(self) -> FloatArray:
        return np.asarray(self.distance_m / AU_M)

    @property
    def rsun_arcsec(self) -> FloatArray:
        """Apparent radius of the Sun."""
        return apparent_radius(self.distance_m)

    @property
    def observer(self) -> Observer:
        """The same as an `Observer`, for one time."""
        return Observer(float(self.distance_m), float(self.hgln_deg), float(self.hglt_deg), float(self.rsun_arcsec))


def position(time: object, source: xr.Dataset | Kernels | None = None) -> Position:
    """Place of the spacecraft.

    Parameters
    ----------
    time
        One time or an array or list of them, UTC.
    source
        Dataset of the product `ephemeris` (`read_ancillary`), open SPICE `Kernels`, or None for the built-in orbit.

    Raises
    ------
    NotFound
        If the source does not cover a time.
    """
    times = times_of(time)
    if isinstance(source, xr.Dataset):
        places = [observer(source, one) for one in times.ravel()]
        columns = np.array([(p.distance_m, p.hgln_deg, p.hglt_deg) for p in places]).reshape(*times.shape, 3)
        return Position(columns[..., 0], columns[..., 1], columns[..., 2], "ancillary", _FLOWN_AU, _FLOWN_DEG)
    if source is None:
        return _of_ecliptic(orbit(times), times, "orbit", *accuracy(times))
    return _of_ecliptic(source.orbit(times), times, "spice", _FLOWN_AU, _FLOWN_DEG)


def distance_au(time: object) -> FloatArray:
    """Distance of Solar Orbiter from the Sun, au, from the built-in orbit; the shape of `time`."""
    return np.asarray(np.linalg.norm(orbit(time), axis=-1))


def _of_ecliptic(place: FloatArray, times: Utc, source: Source, au: float, degrees: float) -> Position:
    x, y, z = np.moveaxis(np.einsum("...ij,...j->...i", heeq_axes(times), place), -1, 0)
    distance = np.linalg.norm(place, axis=-1)
    longitude, latitude = np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arcsin(z / distance))
    return Position(np.asarray(distance * AU_M), np.asarray(longitude), np.asarray(latitude), source, au, degrees)
