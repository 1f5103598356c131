"""A flare as a time series of images: intervals, location at the peak, maps of several energy bands and methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from stixflow.errors import ImagingError
from stixflow.imaging.bins import energy_ranges
from stixflow.imaging.intervals import Interval, Intervals, flare_intervals
from stixflow.imaging.reconstruction import Method
from stixflow.imaging.source import Selection, SourceImages, image_source
from stixflow.time import TimeRange

_LOCATION_COUNTS = 5000.0
"""Counts of the interval that the flare is located in, if it has as many: the one of the highest rate."""


@dataclass(frozen=True, slots=True)
class FlareImages:
    """Maps of a flare in the order of bands, then time; and the intervals that each band was cut into."""

    source: SourceImages
    intervals: Mapping[tuple[float, float], Intervals]
    located_in: Selection
    absent: tuple[tuple[Selection, str], ...] = ()
    """Energy ranges that the data do not reach, and why."""

    @property
    def left_out(self) -> list[tuple[Selection, str]]:
        """Stretches of time without a map, and why."""
        short = [
            ((one.time_range, band), f"too little: {one.reason}")
            for band, found in self.intervals.items()
            for one in found.intervals
            if not one.is_enough
        ]
        unusable = [((when, band), why) for band, found in self.intervals.items() for when, why in found.left_out]
        return [*self.absent, *short, *unusable, *self.source.dropped]


def image_flare(
    pixels: xr.Dataset,
    energy_range: Any,
    *,
    counts: float | None = None,
    snr: float | None = None,
    cadence: float | None = None,
    within: TimeRange | None = None,
    background: xr.Dataset | None = None,
    ephemeris: xr.Dataset | None = None,
    methods: Sequence[str | Method] = ("clean",),
    size: int = 129,
    pixel: float = 2.0,
    realisations: int = 0,
) -> FlareImages:
    """Image a flare over time, in every energy range with intervals of its own.

    Parameters
    ----------
    pixels, background
        Datasets of the product `sci_pixels`; choose the background with `stixflow.flares.choose_background`.
    energy_range
        One or many pairs in keV.
    counts, snr, cadence
        What every map has, one of them: counts, net counts over their error, or seconds; see `flare_intervals`.
    within
        The flare, if not all of the data.
    ephemeris, methods, size, pixel, realisations
        As of `image_source`; each method gets all maps as one stack.

    Raises
    ------
    ImagingError
        If the data reach none of the energies, no interval has enough, or none of them shows more than background.
    UsageError
        If not exactly one demand is made, or there is no such method.
    """
    demand: dict[str, Any] = {"counts": counts, "snr": snr, "cadence": cadence}
    cut, refused = _cut(pixels, energy_ranges(energy_range), background, within, demand)
    if not cut:
        raise next(iter(refused.values()))
    selections = [(one.time_range, band) for band, found in cut.items() for one in found.intervals if one.is_enough]
    if not selections:
        most = max((max(one.counts) for found in cut.values() for one in found.intervals), default=0.0)
        raise ImagingError(
            f"no interval has enough: the fullest has {most:.0f} counts",
            expected="an interval without a change of the instrument that meets the demand",
            advice="ask for fewer counts or less signal to noise, or give a wider time or energy range",
        )
    located = _peak(pixels, next(iter(cut)), within)
    source = image_source(
        pixels, selections, background=background, ephemeris=ephemeris, methods=methods, size=size, pixel=pixel,
        located_in=located, realisations=realisations,
    )  # fmt: skip
    span = within or TimeRange(pixels["time_start"].to_numpy()[0], pixels["time_start"].to_numpy()[-1])
    return FlareImages(source, cut, located, tuple(((span, band), str(error)) for band, error in refused.items()))


def _cut(
    pixels: xr.Dataset,
    bands: Sequence[tuple[float, float]],
    background: xr.Dataset | None,
    within: TimeRange | None,
    demand: Mapping[str, Any],
) -> tuple[dict[tuple[float, float], Intervals], dict[tuple[float, float], ImagingError]]:
    """Intervals of every band, and the error of those that the data do not reach."""
    cut, refused = {}, {}
    for band in bands:
        try:
            cut[band] = flare_intervals(pixels, band, background=background, within=within, **demand)
        except ImagingError as error:
            refused[band] = error
    return cut, refused


def _peak(pixels: xr.Dataset, band: tuple[float, float], within: TimeRange | None) -> Selection:
    """The interval of the highest rate."""

    def rate(one: Interval) -> float:
        return one.counts[0] / one.time_range.seconds

    found = flare_intervals(pixels, band, counts=_LOCATION_COUNTS, within=within).intervals
    enough = [one for one in found if one.is_enough]
    best = max(enough, key=rate) if enough else max(found, key=lambda one: one.counts[0])
    return best.time_range, band
