"""What a flare makes in every pixel: expected count rates of channel, detector and pixel, before dead time.

A flare is a sum of components of constant spectrum and shape: a component is one rate array and one time profile.
"""

from __future__ import annotations

import csv
import functools
import math
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.model import N_ACCUMULATORS, N_DETECTORS, N_PIXELS
from stixflow.errors import UsageError
from stixflow.flares.goes import LOG_FLUX_COEFFICIENTS
from stixflow.imaging.forward import Gaussian, expected_pixel_rates, source_visibilities
from stixflow.instrument import (
    BKG_INDEX,
    CFL_INDEX,
    N_CHANNELS,
    actual_edges,
    detectors,
    grid_transmission,
    live_fraction_of_rate,
    pixels,
    window_transmission,
)
from stixflow.simulate.spectra import (
    between,
    cumulative,
    detected,
    energy_grid,
    power_law_photons,
    thermal_photons,
)
from stixflow.simulate.sun import FlareModel, Scenario, Source

Floats = NDArray[np.float64]

QL_CHANNELS = (1, 7, 12, 17, 23, 28)
"""First channels of the five quick-look bands, and the end of the last."""
QL_DETECTORS = 0xFFFFFCFF
"""All detectors but the coarse flare locator and the background monitor."""
_QL_SECONDS = 4.0
_CFL_DISTANCE_MM = 593.08
_CFL_OPEN_MM = ((-4.4, 4.4, 3.45, 10.0), (-4.4, 4.4, -10.0, -3.45))
_KINDS: tuple[Literal["thermal", "non_thermal"], ...] = ("thermal", "non_thermal")
_BANDS_KEV = ((4.0, 10.0), (6.0, 10.0), (16.0, 28.0))
_BKG_OPEN_CM2 = {0: 0.0095, 5: 0.0027, 7: 0.0135}
"""Open area over the pixels of the background monitor, from its counts in the flare of 2020-06-07."""


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """One part of the emission of a flare.

    Attributes
    ----------
    kind
        Which time profile of `flare` scales it.
    rates
        (channel, detector, pixel) counts per second at profile 1, before dead time.
    """

    flare: FlareModel
    kind: Literal["thermal", "non_thermal"]
    rates: Floats

    def profile(self, utc: NDArray[np.datetime64]) -> Floats:
        """Time profile at given times."""
        seconds = (utc - self.flare.peak) / np.timedelta64(1, "ns") * 1e-9
        return (
            self.flare.thermal_profile(seconds) if self.kind == "thermal" else self.flare.non_thermal_profile(seconds)
        )


@dataclass(frozen=True, slots=True, eq=False)
class FlareResponse:
    """The components of one flare, and what they amount to above the grids.

    Attributes
    ----------
    ql_peak_counts
        4-10 keV counts of 4 s at the peak, detectors of the quick look: no background, no noise, dead time included.
    flux
        Mean count flux above the grids at profile 1, counts / (s cm2 keV), by kind and band in keV.
    emission_measure
        cm^-3 of the thermal plasma, had the spectrum been seen from 1 au times the distance of the scenario.
    """

    components: tuple[Component, ...]
    ql_peak_counts: float
    flux: dict[str, dict[str, float]]
    emission_measure: float


def counts_of_goes_flux(flux: float, distance_au: float) -> float:
    """4-10 keV counts per 4 s above background that the operational relation turns into `flux` (W m-2).

    Raises
    ------
    UsageError
        If the flux is below the minimum of the relation, about B1.
    """
    constant, linear, square = LOG_FLUX_COEFFICIENTS
    root = linear * linear - 4 * square * (constant - math.log10(flux))
    if root < 0:
        raise UsageError(
            f"a GOES flux of {flux:.2g} W m-2 is below what the relation can give", expected="1.3e-7 or more"
        )
    return float(10.0 ** ((math.sqrt(root) - linear) / (2 * square)) / distance_au**2)


def background_rates(scenario: Scenario) -> Floats:
    """Quiet background, (channel, detector, pixel) counts per second: a mean spectrum, shared by area."""
    area = pixels().area_cm2
    rates = scenario.background * _background_table()[:, np.newaxis, np.newaxis] * (area / area.sum())
    return np.ascontiguousarray(np.broadcast_to(rates, (N_CHANNELS, N_DETECTORS, N_PIXELS)))


def flare_response(scenario: Scenario, flare: FlareModel) -> FlareResponse:
    """Expected rates of a flare, scaled so that its quick-look peak gives its GOES flux."""
    spectra = _spectra(flare)
    ratio = (
        flare.non_thermal * _mean_flux(spectra["thermal"], 4.0, 10.0) / _mean_flux(spectra["non_thermal"], 16.0, 28.0)
    )
    spectra["non_thermal"] = spectra["non_thermal"] * ratio
    sources = {"thermal": flare.thermal_sources, "non_thermal": flare.non_thermal_sources or flare.thermal_sources}
    components = tuple(
        Component(flare, kind, _channel_rates(spectra[kind], pixel_areas(scenario, sources[kind]), flare.peak))
        for kind in _KINDS
    )
    wanted = counts_of_goes_flux(flare.goes_flux, scenario.distance_au)
    scale = _peak_scale(components, background_rates(scenario), wanted)
    flux: dict[str, dict[str, float]] = {
        kind: {f"{low:g}-{high:g}": scale * _mean_flux(spectra[kind], low, high) for low, high in _BANDS_KEV}
        for kind in _KINDS
    }
    scaled = tuple(Component(flare, part.kind, part.rates * scale) for part in components)
    return FlareResponse(scaled, wanted, flux, 1e49 * scale * scenario.distance_au**2)


def accumulator_rates(rates: Floats) -> Floats:
    """Photons per second on each trigger accumulator from (..., detector, pixel) rates: (..., 16)."""
    return np.asarray(rates.sum(axis=-1) @ _accumulator_matrix())


def _peak_scale(components: tuple[Component, ...], background: Floats, wanted: float) -> float:
    """Find the factor on the components with which the quick look, dead time included, peaks at `wanted` counts."""
    flare = components[0].flare
    span = np.arange(-3.0 * flare.rise_s, flare.decay_s, _QL_SECONDS / 2)
    utc = flare.peak + np.rint(span * 1e9).astype("timedelta64[ns]")
    profiles = np.stack([part.profile(utc) for part in components], axis=-1)
    photons = profiles @ np.stack([accumulator_rates(part.rates.sum(axis=0)) for part in components])
    seen = profiles @ np.stack([ql_band_rates(part.rates)[0] for part in components])
    quiet = accumulator_rates(background.sum(axis=0))
    scale = wanted / (seen.sum(axis=-1).max() * _QL_SECONDS)
    for _ in range(8):
        live = live_fraction_of_rate(quiet + scale * photons)
        scale = wanted / ((seen * live).sum(axis=-1).max() * _QL_SECONDS)
    return float(scale)


def ql_band_rates(rates: Floats) -> Floats:
    """Sum (channel, detector, pixel) rates over quick-look bands and detectors: (5, 16) by accumulator."""
    bands = np.add.reduceat(rates[: QL_CHANNELS[-1]], QL_CHANNELS[:-1], axis=0)
    return accumulator_rates(masked(bands, QL_DETECTORS))


def masked(rates: Floats, detector_mask: int) -> Floats:
    """Copy rates (channel, detector, pixel) with zeros for the detectors outside the mask."""
    return np.asarray(rates * mask_bits(detector_mask, N_DETECTORS)[:, np.newaxis])


def mask_bits(mask: int, size: int) -> NDArray[np.bool_]:
    """Expand a detector or pixel mask to one truth value per index."""
    return np.asarray((mask >> np.arange(size)) & 1, dtype=bool)


def _spectra(flare: FlareModel) -> dict[str, Floats]:
    """Cumulative count spectra by kind, (2, n): coarse and fine detectors; thermal for 1e49 cm^-3 at 1 au."""
    grid = energy_grid()
    windows = np.stack([window_transmission(grid), window_transmission(grid, fine=True)])
    photons = {
        "thermal": thermal_photons(grid, flare.temperature),
        "non_thermal": power_law_photons(grid, flare.electron_index - 1.0, flare.cutoff),
    }
    return {kind: cumulative(detected(spectrum, windows)) for kind, spectrum in photons.items()}


def _mean_flux(integral: Floats, low: float, high: float) -> float:
    edges = between(integral[0], np.array([low, high]))
    return float((edges[1] - edges[0]) / (high - low))


def _channel_rates(integral: Floats, apertures: Floats, time: np.datetime64) -> Floats:
    """Rates of (channel, detector, pixel) from the actual edges of every pixel and its effective open area."""
    edges = np.array(actual_edges(time))
    fine = (detectors().resolution > 0) & (detectors().resolution <= 2)
    below = np.where(fine[:, np.newaxis, np.newaxis], between(integral[1], edges), between(integral[0], edges))
    rates = np.diff(below, axis=-1) * apertures[..., np.newaxis]
    return np.ascontiguousarray(np.moveaxis(rates, -1, 0))


def pixel_areas(scenario: Scenario, sources: tuple[Source, ...]) -> Floats:
    """Effective area, cm2, by (detector, pixel), of all sources together for unit flux above the grids."""
    shares = np.array([source.share for source in sources])
    return np.asarray(
        sum(
            share * _source_areas(scenario, source)
            for share, source in zip(shares / shares.sum(), sources, strict=True)
        )
    )


def _source_areas(scenario: Scenario, source: Source) -> Floats:
    x, y = scenario.stix_position(source)
    grids = detectors()
    shape = Gaussian(1.0, x, y, *source.widths, scenario.stix_angle(source))
    visibilities = source_visibilities([shape], grids.u, grids.v)
    phase = grids.grid_phase_deg + grids.adhoc_phase_deg
    area = expected_pixel_rates(1.0, visibilities, grid_transmission(x, y), phase) * pixels().area_cm2
    area[CFL_INDEX] = _cfl_open_cm2(x, y)
    area[BKG_INDEX] = [_BKG_OPEN_CM2.get(pixel, 0.0) for pixel in range(N_PIXELS)]
    return np.asarray(area)


def _cfl_open_cm2(x: float, y: float) -> Floats:
    """Lit area of the pixels of the coarse flare locator under the shifted shadow of its mask."""
    shift_x = _CFL_DISTANCE_MM * math.tan(math.radians(x / 3600.0))
    shift_y = -_CFL_DISTANCE_MM * math.tan(math.radians(y / 3600.0))
    boxes = _pixel_boxes()
    lit = np.zeros(len(boxes))
    for x0, x1, y0, y1 in _CFL_OPEN_MM:
        lit += _overlap(boxes, (x0 + shift_x, x1 + shift_x, y0 + shift_y, y1 + shift_y))
    big, notch, small = lit[:8], lit[8:16], lit[8:16].reshape(2, 4).sum(axis=0)
    return np.asarray(np.concatenate([big - notch, small]) / 100.0)


@functools.cache
def _accumulator_matrix() -> Floats:
    """(detector, accumulator) 1 where the triggers of the detector are counted."""
    return np.asarray(detectors().accumulator[:, np.newaxis] == np.arange(N_ACCUMULATORS), dtype=np.float64)


@functools.cache
def _pixel_boxes() -> Floats:
    """(16, 4) x0, x1, y0, y1 in mm: big top, big bottom, then the halves of the small ones cut out of them."""
    left = np.tile(-4.4 + 2.2 * np.arange(4), 4)
    wide = np.repeat([2.2, 2.2, 1.1, 1.1], 4)
    low = np.repeat([0.0, -4.6, 0.0, -0.455], 4)
    high = np.repeat([4.6, 0.0, 0.455, 0.0], 4)
    return np.column_stack([left, left + wide, low, high])


def _overlap(boxes: Floats, window: tuple[float, float, float, float]) -> Floats:
    wide = np.minimum(boxes[:, 1], window[1]) - np.maximum(boxes[:, 0], window[0])
    high = np.minimum(boxes[:, 3], window[3]) - np.maximum(boxes[:, 2], window[2])
    return np.asarray(np.maximum(wide, 0.0) * np.maximum(high, 0.0))


@functools.cache
def _background_table() -> Floats:
    text = (resources.files(__package__) / "tables" / "background.csv").read_text(encoding="ascii")
    return np.array([float(row["rate"]) for row in csv.DictReader(text.splitlines())])
