"""From pixel data to a located source and its maps: the recipe behind every image that stixflow publishes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress

import numpy as np
import xarray as xr

from stixflow.ephemeris import Observer, Pointing, hpc_to_stix, observer, observer_of, pointing, stix_to_hpc
from stixflow.errors import ImagingError, NotFound
from stixflow.imaging.attitude import with_attitude
from stixflow.imaging.back_projection import BackProjection
from stixflow.imaging.bins import covering_energy_bins, with_energy_shift
from stixflow.imaging.clean import Clean
from stixflow.imaging.grids import FloatArray, Grid
from stixflow.imaging.location import Location, locate
from stixflow.imaging.metadata import Source, find_sources
from stixflow.imaging.reconstruction import Method, find_method, reconstruct
from stixflow.imaging.uncertainty import uncertainty
from stixflow.imaging.visibilities import stack, visibilities
from stixflow.time import TimeRange

_LOCATION_ENERGY = (6.0, 10.0)
"""Energies of the full-disk location, keV: the thermal source, above the strongest attenuation of the window."""
SIGNIFICANT_SIGMAS = 5.0
"""How far a further selection must stand out of the background to be worth a map."""
MODULATED_SNR = 2.0
"""Median of the visibilities over their errors from which a map shows more than noise, whose median is 1.2 ± 0.2: of
real flares, maps below it have no source that stands out, or several at random."""
_LOCATION_SLACK_KEV = 1.0
_LARGEST_RSUN_ARCSEC = 3450.0
"""Apparent radius of the Sun at the smallest perihelion of the mission, for a spacecraft at an unknown distance."""
_RULES = "rows", "grids", "amplitude"
"""Attributes of visibilities that methods go by."""
_SAME_IN_ANY_STACK = BackProjection, Clean
"""Methods whose maps are the same bit for bit whatever else is in the stack: sums of the others go by its size."""

Selection = tuple[TimeRange, tuple[float, float]]
"""A time range with an energy range in keV."""


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where a source is."""

    location: Location
    pointing: Pointing | None
    """While the source was located; each map carries its own."""
    observer: Observer | None

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


@dataclass(frozen=True, slots=True, eq=False)
class SourceImages(_Place):
    """A source, where it is, and its maps."""

    images: tuple[xr.Dataset, ...]
    """One stack per method, one map per selection. All are centred on the location: on the same place on the sky where
    the pointing is known, whatever the spacecraft did meanwhile, else in the STIX frame."""
    visibilities: xr.Dataset
    """What the maps were made from."""
    sources: tuple[tuple[Source, ...], ...]
    """What is in the maps of each stack."""
    dropped: tuple[tuple[Selection, str], ...]
    """Selections without a map, and why."""
    warnings: tuple[str, ...] = ()

    @property
    def time_range(self) -> TimeRange:
        """From the start of the first to the end of the last bin of the maps."""
        start, stop = (self.visibilities[name].to_numpy() for name in ("time_start", "time_stop"))
        return TimeRange(start.min(), stop.max())

    @property
    def visibility_snr(self) -> FloatArray:
        """Median of the visibilities over their errors of every map; see `MODULATED_SNR`."""
        return _median_snr(self.visibilities)


def image_source(
    pixels: xr.Dataset,
    selections: Sequence[Selection],
    *,
    background: xr.Dataset | None = None,
    ephemeris: xr.Dataset | None = None,
    methods: Sequence[str | Method] = ("clean",),
    size: int = 129,
    pixel: float = 2.0,
    located_in: Selection | None = None,
    realisations: int = 0,
) -> SourceImages:
    """Locate the source of the first selection on the full disk, then make maps of every selection centred there.

    Parameters
    ----------
    pixels, background
        Datasets of the product `sci_pixels`.
    selections
        Time ranges with energy ranges in keV. The first is always mapped; a further one only where it stands out of the
        background by 5 sigma.
    ephemeris
        Dataset of the product `ephemeris`; each map takes pointing, roll and distance of its own time. Without one, or
        where it does not cover the time, the position stays in the STIX frame.
    methods
        For `reconstruct`, which gets all selections as one stack.
    size, pixel
        Pixels along a side of the maps, and their size in arcsec.
    located_in
        Where the source is located, if not in the first selection; in 6-10 keV if the data reach that, else in its own
        energies. The first selection is then like the others.
    realisations
        Maps of noise from which the uncertainty of each map is taken; 0 for none.

    Raises
    ------
    ImagingError
        If an interval has no data, missing data, or a changing instrument state, or no selection shows more than
        background.
    UsageError
        If there is no such method.
    """
    for method in methods:
        find_method(method)
    located = locate_source(pixels, selections, background=background, ephemeris=ephemeris, located_in=located_in)
    (made,) = image_located([located], methods=methods, size=size, pixel=pixel, realisations=realisations)
    return made


@dataclass(frozen=True, slots=True, eq=False)
class LocatedSource(_Place):
    """A source that is located, and the visibilities of its maps to be."""

    visibilities: xr.Dataset
    """One image per selection that is worth a map."""
    pointings: tuple[Pointing | None, ...]
    """Of every image."""
    observers: tuple[Observer | None, ...]
    dropped: tuple[tuple[Selection, str], ...]
    warnings: tuple[str, ...]


def locate_source(
    pixels: xr.Dataset,
    selections: Sequence[Selection],
    *,
    background: xr.Dataset | None = None,
    ephemeris: xr.Dataset | None = None,
    located_in: Selection | None = None,
) -> LocatedSource:
    """Locate a source and make the visibilities of its maps, as `image_source` does before it makes the maps.

    Raises
    ------
    ImagingError
        As of `image_source`.
    """
    when, energies = located_in or selections[0]
    point, place, warnings = _attitude(pixels, ephemeris, when)
    center = None if point is None else hpc_to_stix((0.0, 0.0), point)
    location = locate(
        pixels,
        when,
        location_energy(pixels, energies),
        background,
        rsun_arcsec=place.rsun_arcsec if place else _LARGEST_RSUN_ARCSEC,
        center=center,
    )
    pointings, observers, remarks = zip(*(_attitude(pixels, ephemeris, one) for one, _ in selections), strict=True)
    where = _centers((location.x, location.y), point, pointings)
    data = _visibilities_of(pixels, selections, background, where)
    if ephemeris is not None and "spice_mk" in ephemeris.attrs:
        data.attrs["spice_mk"] = ephemeris.attrs["spice_mk"]
    significance = _significance(data)
    seen = significance >= SIGNIFICANT_SIGMAS
    seen[0] |= located_in is None
    dropped = tuple((selections[i], _faint(data, i, significance[i])) for i in np.flatnonzero(~seen).tolist())
    if not seen.any():
        raise ImagingError(
            f"no selection can be imaged: {dropped[0][1]}",
            expected="net counts of 5 sigma",
            advice="choose longer intervals or other energies",
        )
    warnings = tuple(dict.fromkeys((*warnings, *chain.from_iterable(compress(remarks, seen)))))
    if location.ambiguous:
        warnings = (*warnings, "the location is ambiguous: a source elsewhere fits almost as well")
    return LocatedSource(
        location, point, place, data.isel(image=np.flatnonzero(seen)), tuple(compress(pointings, seen)),
        tuple(compress(observers, seen)), dropped, warnings,
    )  # fmt: skip


def image_located(
    located: Sequence[LocatedSource],
    *,
    methods: Sequence[str | Method] = ("clean",),
    size: int = 129,
    pixel: float = 2.0,
    realisations: int = 0,
) -> list[SourceImages]:
    """Make the maps of many sources, of different requests even: together where that changes no bit of them.

    Arguments as of `image_source`. The maps are those that each source gets alone, bit for bit.
    """
    grid = Grid(size, pixel)
    made: list[SourceImages | None] = [None] * len(located)
    for members in _alike(located):
        group = [located[i] for i in members]
        maps = [_maps(group, grid, method, realisations) for method in methods]
        for i, one, own in zip(members, group, zip(*maps, strict=True), strict=True):
            made[i] = _finished(one, own)
    return [one for one in made if one is not None]


def _maps(group: Sequence[LocatedSource], grid: Grid, method: str | Method, realisations: int) -> list[xr.Dataset]:
    """Maps by one method, one stack for each source."""
    if not isinstance(find_method(method), _SAME_IN_ANY_STACK):
        return [_images(one.visibilities, grid, method, realisations, one.pointings, one.observers) for one in group]
    attitudes = [[item for one in group for item in getattr(one, name)] for name in ("pointings", "observers")]
    maps = _images(stack([one.visibilities for one in group]), grid, method, realisations, *attitudes)
    stops = np.cumsum([one.visibilities.sizes["image"] for one in group])
    return [maps.isel(image=slice(start, stop)) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _alike(located: Sequence[LocatedSource]) -> list[list[int]]:
    """Indices of the sources whose visibilities may be one stack."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, one in enumerate(located):
        data = one.visibilities
        key = (*(data[name].to_numpy().tobytes() for name in ("u", "v")), *(data.attrs.get(name) for name in _RULES))
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _finished(one: LocatedSource, stacks: Sequence[xr.Dataset]) -> SourceImages:
    snr = ("image", _median_snr(one.visibilities), {"long_name": "median of the visibilities over their errors"})
    images = tuple(maps.assign(visibility_snr=snr).assign_attrs(one.visibilities.attrs | maps.attrs) for maps in stacks)
    sources = tuple(tuple(find_sources(maps)) for maps in images)
    return SourceImages(
        one.location, one.pointing, one.observer, images, one.visibilities, sources, one.dropped, one.warnings
    )


def _centers(
    location: tuple[float, float], located: Pointing | None, pointings: Sequence[Pointing | None]
) -> FloatArray:
    """(selection, 2) middle of each map in the STIX frame: the same place on the sky, where the pointing is known."""
    if located is None:
        return np.tile(np.asarray(location, dtype=np.float64), (len(pointings), 1))
    hpc = stix_to_hpc(location, located)
    return np.array([location if one in (None, located) else hpc_to_stix(hpc, one) for one in pointings])


def _images(
    data: xr.Dataset,
    grid: Grid,
    method: str | Method,
    realisations: int,
    pointings: Sequence[Pointing | None],
    observers: Sequence[Observer | None],
) -> xr.Dataset:
    images = reconstruct(data, grid, method)
    if realisations:
        spread = uncertainty(data, grid, method, realisations=realisations)["uncertainty"]
        images = images.assign(uncertainty=spread)
    return with_attitude(images, pointings, observers)


def _visibilities_of(
    pixels: xr.Dataset, selections: Sequence[Selection], background: xr.Dataset | None, where: FloatArray
) -> xr.Dataset:
    """One stack of all selections in their order; those of the same energies are made together."""
    bands = list(dict.fromkeys(energies for _, energies in selections))
    parts, order = [], np.empty(len(selections), dtype=np.intp)
    done = 0
    for band in bands:
        mine = [i for i, (_, energies) in enumerate(selections) if energies == band]
        times = [selections[i][0] for i in mine]
        parts.append(visibilities(pixels, times, band, background, location=where[mine], center=where[mine]))
        order[mine] = done + np.arange(len(mine))
        done += len(mine)
    return stack(parts).isel(image=order)


def _median_snr(data: xr.Dataset) -> FloatArray:
    return np.asarray(np.median(np.abs(data["visibility"].to_numpy()) / data["sigma"].to_numpy(), axis=1))


def _significance(data: xr.Dataset) -> FloatArray:
    """Net counts over their error, all sub-collimators of each selection together."""
    error = np.sqrt((data["rate_sigma"].to_numpy() ** 2).sum(axis=(1, 2)))
    total = data["rate"].to_numpy().sum(axis=(1, 2))
    return np.asarray(np.divide(total, error, out=np.zeros_like(total), where=error > 0))


def _faint(data: xr.Dataset, index: int, significance: float) -> str:
    one = data.isel(image=index)
    return (
        f"nothing but background: {float(one['net_counts']):.0f} of {float(one['counts']):.0f} counts left, "
        f"{significance:.1f} sigma"
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


def location_energy(pixels: xr.Dataset, fallback: tuple[float, float]) -> tuple[float, float]:
    """Energies to locate a source in: 6-10 keV where bins not much wider cover that."""
    pixels = with_energy_shift(pixels)
    try:
        first, stop = covering_energy_bins(pixels, *_LOCATION_ENERGY)
    except ImagingError:
        return fallback
    low, high = pixels["energy_low"].to_numpy()[first], pixels["energy_high"].to_numpy()[stop - 1]
    is_close = _LOCATION_ENERGY[0] - low <= _LOCATION_SLACK_KEV and high - _LOCATION_ENERGY[1] <= _LOCATION_SLACK_KEV
    return _LOCATION_ENERGY if is_close else fallback
