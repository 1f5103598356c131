"""From the simulated Sun to what the instrument counts: expected counts, noise, and the Datasets that come down.

Every random number comes from a generator keyed by the seed and by what it is for, so that one product does not depend
on which others are made, nor in which order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from stixflow.cubes.assemble import assemble, energy_arrays
from stixflow.cubes.model import N_DETECTORS, N_PIXELS
from stixflow.instrument import energy_edges, live_fraction_of_rate, per_detector, trigger_rate
from stixflow.simulate.packetise import request_layout, triggers_follow_counts
from stixflow.simulate.response import (
    QL_CHANNELS,
    QL_DETECTORS,
    Component,
    FlareResponse,
    accumulator_rates,
    background_rates,
    flare_response,
    mask_bits,
    ql_band_rates,
)
from stixflow.simulate.sun import Scenario
from stixflow.telemetry.compression import Scheme, compress, decompress, pack_skm
from stixflow.time import TICKS_PER_SECOND, Scet, TimeRange, scet_to_utc, utc_to_scet

Floats = NDArray[np.float64]

ALL_DETECTORS = 0xFFFFFFFF
_ALL_PIXELS = 0xFFF
_QL_SCHEME = (0, 5, 3)
_PIXEL_SCHEME = (0, 4, 4)
_SPECTROGRAM_SCHEME = (0, 5, 3)
_TRIGGER_SCHEME = (0, 5, 3)
_QL_TICKS = 4 * TICKS_PER_SECOND
_SAMPLES_PER_BIN = 5
_NOISE_TRIGGERS = 11.0
"""Triggers per second of an accumulator beyond the counts sent: real quiet files have 56 for 45 counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Sky:
    """What the instrument looks at: the quiet background and the answer of every pixel to every flare."""

    scenario: Scenario
    background: Floats
    flares: tuple[FlareResponse, ...]

    def components(self, span: TimeRange) -> list[Component]:
        """Components of the flares that are visible somewhere in `span`."""
        return [
            part
            for response in self.flares
            for part in response.components
            if part.flare.extent.start < span.stop and span.start < part.flare.extent.stop
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A science request: which bins of time and energy, from which detectors and pixels.

    Attributes
    ----------
    edges
        Onboard times of the bins, one more than bins, multiples of 0.1 s apart.
    channels
        First science channel and the one after the last.
    """

    kind: Literal["sci_pixels", "sci_spectrogram"]
    purpose: Literal["flare", "background"]
    request_id: int
    seq_control: int
    edges: Scet
    channels: tuple[int, int]
    detector_mask: int = ALL_DETECTORS
    pixel_mask: int = _ALL_PIXELS

    @property
    def span(self) -> TimeRange:
        """UTC of the first and the last edge."""
        first, last = scet_to_utc(self.edges[[0, -1]])
        return TimeRange(first, last)


def build_sky(scenario: Scenario) -> Sky:
    """Compute the answer of the instrument to every flare of a scenario."""
    flares = tuple(flare_response(scenario, flare) for flare in scenario.flares)
    return Sky(scenario, background_rates(scenario), flares)


def generator(seed: int, *key: int) -> np.random.Generator:
    """Make the random numbers for one purpose: independent of all other keys, the same for the same seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def expected_light_curve(sky: Sky, edges: Scet) -> tuple[Floats, Floats]:
    """Noise-free quick look: counts (time, 5) and triggers (time,) of the detectors of the quick look."""
    seconds = np.diff(edges) / TICKS_PER_SECOND
    bands = np.broadcast_to(ql_band_rates(sky.background), (len(seconds), 5, 16)).copy()
    photons = _quiet_photons(sky, len(seconds))
    for part, when, profile in _active(sky, edges):
        bands[when] += profile[:, np.newaxis, np.newaxis] * ql_band_rates(part.rates)
        photons[when] += profile[:, np.newaxis] * accumulator_rates(part.rates.sum(axis=0))
    live = live_fraction_of_rate(photons)
    counts = np.einsum("tba,ta->tb", bands, live) * seconds[:, np.newaxis]
    used = accumulator_rates(mask_bits(QL_DETECTORS, N_DETECTORS)[:, np.newaxis].astype(np.float64)) > 0
    return counts, np.asarray(trigger_rate(photons)[:, used].sum(axis=1) * seconds)


def expected_pixels(sky: Sky, edges: Scet, channels: tuple[int, int]) -> tuple[Floats, Floats]:
    """Noise-free pixel data: counts (time, energy, detector, pixel) and triggers (time, 16)."""
    seconds = np.diff(edges) / TICKS_PER_SECOND
    chosen = slice(*channels)
    counts = np.broadcast_to(sky.background[chosen], (len(seconds), *sky.background[chosen].shape)).copy()
    photons = _quiet_photons(sky, len(seconds))
    for part, when, profile in _active(sky, edges):
        counts[when] += profile[:, np.newaxis, np.newaxis, np.newaxis] * part.rates[chosen]
        photons[when] += profile[:, np.newaxis] * accumulator_rates(part.rates.sum(axis=0))
    counts *= (per_detector(live_fraction_of_rate(photons)) * seconds[:, np.newaxis])[:, np.newaxis, :, np.newaxis]
    return counts, np.asarray(trigger_rate(photons) * seconds[:, np.newaxis])


def expected_spectrogram(
    sky: Sky, edges: Scet, channels: tuple[int, int], detector_mask: int, pixel_mask: int
) -> tuple[Floats, Floats]:
    """Noise-free spectrogram: counts (time, energy) and triggers (time,), summed over what the masks select."""
    seconds = np.diff(edges) / TICKS_PER_SECOND
    bits = mask_bits(detector_mask, N_DETECTORS)[:, np.newaxis] & mask_bits(pixel_mask, N_PIXELS)
    background = accumulator_rates(sky.background * bits)[slice(*channels)]
    rates = np.broadcast_to(background, (len(seconds), *background.shape)).copy()
    photons = _quiet_photons(sky, len(seconds))
    for part, when, profile in _active(sky, edges):
        rates[when] += profile[:, np.newaxis, np.newaxis] * accumulator_rates(part.rates * bits)[slice(*channels)]
        photons[when] += profile[:, np.newaxis] * accumulator_rates(part.rates.sum(axis=0))
    counts = np.einsum("tea,ta->te", rates, live_fraction_of_rate(photons)) * seconds[:, np.newaxis]
    used = accumulator_rates(np.asarray(bits, dtype=np.float64)) > 0
    return counts, np.asarray(trigger_rate(photons)[:, used].sum(axis=1) * seconds)


def light_curve(sky: Sky) -> xr.Dataset:
    """Quick-look light curve of the whole scenario in 4 s bins, with noise, as decompressed on the ground."""
    span = sky.scenario.span
    start = int(utc_to_scet(span.start))
    edges = start + _QL_TICKS * np.arange(round(span.seconds / 4.0) + 1, dtype=np.int64)
    rng = generator(sky.scenario.seed, 1)
    counts, triggers = (rng.poisson(values) for values in expected_light_curve(sky, edges))
    return _dataset(
        "ql_lightcurve",
        edges,
        QL_CHANNELS,
        {"counts": _as_received(counts, _QL_SCHEME), "triggers": _as_received(triggers, _TRIGGER_SCHEME)},
        {"detector_mask": QL_DETECTORS, **_skm(_QL_SCHEME, _TRIGGER_SCHEME)},
    )


def science(sky: Sky, request: Request) -> xr.Dataset:
    """Answer to a science request, with noise, as decompressed on the ground."""
    rng = generator(sky.scenario.seed, 2 if request.kind == "sci_pixels" else 3, int(request.edges[0]) >> 16)
    if request.kind == "sci_pixels":
        expected, triggers = expected_pixels(sky, request.edges, request.channels)
        expected *= mask_bits(request.detector_mask, N_DETECTORS)[:, np.newaxis]
        expected *= mask_bits(request.pixel_mask, N_PIXELS)
        scheme = _PIXEL_SCHEME
    else:
        masks = request.detector_mask, request.pixel_mask
        expected, triggers = expected_spectrogram(sky, request.edges, request.channels, *masks)
        scheme = _SPECTROGRAM_SCHEME
    follows = request.kind == "sci_pixels" and triggers_follow_counts(
        request_layout(request.kind, int(request.edges[-1]))
    )
    trigger_scheme = scheme if follows else _TRIGGER_SCHEME
    noisy = {
        "counts": _as_received(rng.poisson(expected), scheme),
        "triggers": _as_received(rng.poisson(triggers), trigger_scheme),
    }
    state = {
        "detector_mask": request.detector_mask,
        "pixel_mask": request.pixel_mask,
        **_skm(scheme, trigger_scheme),
    }
    edges = tuple(range(request.channels[0], request.channels[1] + 1))
    dataset = _dataset(request.kind, request.edges, edges, noisy, state)
    return dataset.assign_attrs(
        request_id=request.request_id,
        seq_control=request.seq_control,
        ssid=21 if request.kind == "sci_pixels" else 24,
        box=0,
        boxes=1,
    )


def _quiet_photons(sky: Sky, n_times: int) -> Floats:
    """Rate of what triggers the accumulators without a flare, (time, 16): background and electronic noise."""
    quiet = accumulator_rates(sky.background.sum(axis=0)) + _NOISE_TRIGGERS
    return np.broadcast_to(quiet, (n_times, quiet.size)).copy()


def _active(sky: Sky, edges: Scet) -> list[tuple[Component, slice, Floats]]:
    """List the components with the bins in which their flare is visible, and their mean profile there."""
    utc = scet_to_utc(edges)
    found = []
    for part in sky.components(TimeRange(utc[0], utc[-1])):
        extent = part.flare.extent
        first = max(int(np.searchsorted(utc, extent.start, side="right")) - 1, 0)
        when = slice(first, int(np.searchsorted(utc[:-1], extent.stop)))
        steps = (np.arange(_SAMPLES_PER_BIN) + 0.5) / _SAMPLES_PER_BIN
        width = np.diff(utc)[when].astype(np.int64)
        inside = utc[:-1][when, np.newaxis] + (width[:, np.newaxis] * steps).astype("timedelta64[ns]")
        found.append((part, when, part.profile(inside).mean(axis=1)))
    return found


def _as_received(counts: NDArray[np.int64], scheme: Scheme) -> NDArray[np.generic]:
    """Numbers as they come back from the compression on board."""
    values: NDArray[np.generic] = decompress(compress(counts, scheme), scheme)
    return values


def _skm(counts: Scheme, triggers: Scheme) -> dict[str, int]:
    return {"counts_skm": int(pack_skm(*counts)), "triggers_skm": int(pack_skm(*triggers))}


def _dataset(
    product: str, edges: Scet, channels: tuple[int, ...], data: dict[str, NDArray[np.generic]], state: dict[str, int]
) -> xr.Dataset:
    """Wrap arrays as a Dataset of the data model; `state` holds what does not change in time."""
    n_times, n_energies = len(edges) - 1, len(channels) - 1
    utc = scet_to_utc(edges[:-1])
    width = np.diff(edges)
    values: dict[str, ArrayLike] = {
        "time": scet_to_utc(edges[:-1] + width // 2),
        "time_start": utc,
        "timedel": width / TICKS_PER_SECOND,
        "scet": edges[:-1],
        **energy_arrays(channels[:-1], channels[1:], energy_edges(utc[0])),
        "detector": np.arange(N_DETECTORS),
        "pixel": np.arange(N_PIXELS),
        "observed": np.ones((n_times, n_energies), dtype=bool),
        "rcr": np.zeros(n_times),
        "detector_mask": np.full(n_times, ALL_DETECTORS),
        "pixel_mask": np.full(n_times, _ALL_PIXELS),
        **{name: np.full(n_times, value) for name, value in state.items()},
        **data,
    }
    return assemble(product, values)
