"""From pixel data to a located source and its maps: the recipe behind every image that stixflow publishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from stixflow.ephemeris import Observer, Pointing, hpc_to_stix, observer, observer_of, pointing, stix_to_hpc
from stixflow.errors import NotFound
from stixflow.imaging.grids import Grid
from stixflow.imaging.location import Location, locate
from stixflow.imaging.reconstruction import Method, reconstruct
from stixflow.imaging.visibilities import stack, visibilities
from stixflow.time import TimeRange

LOCATION_ENERGY = (6.0, 10.0)
"""Energies of the full-disk location, keV: the thermal source, above the strongest attenuation of the window."""
SIGNIFICANT_SIGMAS = 5.0
"""How far a further selection must stand out of the background to be worth a map."""
_LARGEST_RSUN_ARCSEC = 3450.0
"""Apparent radius of the Sun at the smallest perihelion of the mission, for a spacecraft at an unknown distance."""

Selection = tuple[TimeRange, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class SourceImages:
    """A source, where it is, and its maps."""

    location: Location
    pointing: Pointing | None
    observer: Observer | None
    images: tuple[xr.Dataset, ...]
    """One stack per method, one map per selection, all centred on the location."""
    dropped: Mapping[tuple[float, float], str]
    """Energy ranges without a map, and why."""
    warnings: tuple[str, ...] = ()

    @property
    def hpc(self) -> tuple[float, float] | None:
        """Helioprojective position seen from the spacecraft, arcsec; None where the pointing is unknown."""
        if self.pointing is None:
            return None
        x, y = stix_to_hpc((self.location.x, self.location.y), self.pointing)
        return float(x), float(y)

    @property
    def hpc_sigma(self) -> tuple[float, float] | None:
        """Its standard error: that of the fit, turned into the frame of the Sun, and the scatter of the pointing."""
        if self.pointing is None:
            return None
        angle = np.deg2rad(90.0 + self.pointing.roll)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        fit = turn**2 @ np.array([self.location.sigma_x, self.location.sigma_y]) ** 2
        scatter = np.nan_to_num(self.pointing.sigma) ** 2 / 2.0
        x, y = np.sqrt(fit + scatter)
        return float(x), float(y)


def image_source(
    pixels: xr.Dataset,
    selections: Sequence[Selection],
    *,
    background: xr.Dataset | None = None,
    ephemeris: xr.Dataset | None = None,
    methods: Sequence[str | Method] = ("clean",),
    size: int = 129,
    pixel: float = 2.0,
) -> SourceImages:
    """Locate the source of the first selection on the full disk, then make maps of every selection centred there.

    Parameters
    ----------
    pixels, background
        Datasets of the product `sci_pixels`.
    selections
        Time ranges with energy ranges in keV; the first is where the source is located, in 6-10 keV if the data reach
        that, else in its own energies.
    ephemeris
        Dataset of the product `ephemeris`; without one, or where it does not cover the time, the position stays in the
        STIX frame.
    methods
        For `reconstruct`.
    size, pixel
        Pixels along a side of the maps, and their size in arcsec.

    Raises
    ------
    ImagingError
        If an interval has no data, missing data, or a changing instrument state.
    """
    time_range = selections[0][0]
    point, place, warnings = _attitude(pixels, ephemeris, time_range)
    center = None if point is None else hpc_to_stix((0.0, 0.0), point)
    location = locate(
        pixels,
        time_range,
        _location_energy(pixels, selections[0][1]),
        background,
        rsun_arcsec=place.rsun_arcsec if place else _LARGEST_RSUN_ARCSEC,
        center=center,
    )
    where = (location.x, location.y)
    parts = [visibilities(pixels, when, keV, background, location=where, center=where) for when, keV in selections]
    # The first selection is what was located and asked for; a further band may hold nothing but background.
    seen = [index == 0 or _significance(part) >= SIGNIFICANT_SIGMAS for index, part in enumerate(parts)]
    data = stack([part for part, is_seen in zip(parts, seen, strict=True) if is_seen])
    grid = Grid(size, pixel, center=where)
    if location.ambiguous:
        warnings = (*warnings, "the location is ambiguous: a source elsewhere fits almost as well")
    return SourceImages(
        location,
        point,
        place,
        tuple(reconstruct(data, grid, method) for method in methods),
        {selections[i][1]: _faint(part) for i, part in enumerate(parts) if not seen[i]},
        warnings,
    )


def _significance(data: xr.Dataset) -> float:
    """Net counts over their error, all sub-collimators of a selection together."""
    error = float(np.sqrt((data["rate_sigma"] ** 2).sum()))
    return float(data["rate"].sum()) / error if error else 0.0


def _faint(data: xr.Dataset) -> str:
    return (
        f"nothing but background: {float(data['net_counts'][0]):.0f} of {float(data['counts'][0]):.0f} counts left, "
        f"{_significance(data):.1f} sigma"
    )


def _attitude(
    pixels: xr.Dataset, ephemeris: xr.Dataset | None, time_range: TimeRange
) -> tuple[Pointing | None, Observer | None, tuple[str, ...]]:
    """Pointing and place of the spacecraft, as far as they are known, and what is to be said of them."""
    if ephemeris is not None:
        try:
            point = pointing(ephemeris, time_range)
            return point, observer(ephemeris, time_range.middle), point.warnings
        except NotFound as error:
            return None, _observer_of(pixels), (f"{error} The position stays in the STIX frame",)
    remark = "no ephemeris: roll and pointing are unknown, and the position stays in the STIX frame"
    return None, _observer_of(pixels), (remark,)


def _observer_of(pixels: xr.Dataset) -> Observer | None:
    try:
        return observer_of(pixels)
    except NotFound:
        return None


def _location_energy(pixels: xr.Dataset, fallback: tuple[float, float]) -> tuple[float, float]:
    low, high = pixels["energy_low"].to_numpy(), pixels["energy_high"].to_numpy()
    reached = np.isclose(low, LOCATION_ENERGY[0]).any() and np.isclose(high, LOCATION_ENERGY[1]).any()
    return LOCATION_ENERGY if reached else fallback
