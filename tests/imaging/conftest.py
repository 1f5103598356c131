"""Pixel data made by the forward model, so that what an image should show is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from stixflow.imaging import Gaussian, expected_pixel_rates, source_visibilities
from stixflow.imaging.visibilities import phase_correction
from stixflow.instrument import detectors, energy_edges, grid_transmission, live_fraction_of_rate, pixels, trigger_rate
from stixflow.time import utc_to_scet

START = np.datetime64("2022-11-09T00:00:00", "ns")
RAW = 0
PixelsMaker = Callable[..., xr.Dataset]


@pytest.fixture
def make_pixels() -> PixelsMaker:
    """Return a function that makes pixel data of sources at a location, without noise."""
    return _make_pixels


def _make_pixels(
    sources: Sequence[Gaussian] = (),
    *,
    location: tuple[float, float] = (0.0, 0.0),
    n_times: int = 6,
    seconds: float = 10.0,
    channels: tuple[int, int] = (1, 12),
    scale: float = 1.0,
    background: float = 0.0,
    photons: float = 5e3,
    skm: int = RAW,
) -> xr.Dataset:
    start, stop = channels
    edges = energy_edges()
    low, high = edges[start:stop], edges[start + 1 : stop + 1]
    rates = scale * _pixel_rates(sources, location) + background
    live = seconds * live_fraction_of_rate(photons)
    counts = rates * pixels().area_cm2 * live * np.minimum(high - low, 100.0)[:, None, None]
    shape = (n_times, stop - start, 32, 12)
    times = START + np.arange(n_times) * np.timedelta64(round(seconds * 1e9), "ns")
    half = np.timedelta64(round(seconds * 5e8), "ns")
    by_time = {name: ("time", np.full(n_times, value, dtype)) for name, value, dtype in (
        ("rcr", 0, np.uint8),
        ("detector_mask", 0xFFFFFFFF, np.uint32),
        ("pixel_mask", 0xFFF, np.uint16),
        ("counts_skm", skm, np.uint16),
        ("triggers_skm", RAW, np.uint16),
        ("timedel", seconds, np.float64),
    )}  # fmt: skip
    triggers = np.full((n_times, 16), round(float(trigger_rate(photons)) * seconds), np.uint32)
    data: dict[str, Any] = {
        "counts": (("time", "energy", "detector", "pixel"), np.broadcast_to(np.rint(counts), shape).astype(np.uint32)),
        "observed": (("time", "energy"), np.ones(shape[:2], np.bool_)),
        "triggers": (("time", "accumulator"), triggers),
        "time_start": ("time", times),
        "scet": ("time", utc_to_scet(times)),
        "energy_low": ("energy", low),
        "energy_high": ("energy", high),
        "channel_start": ("energy", np.arange(start, stop, dtype=np.uint8)),
        "channel_stop": ("energy", np.arange(start + 1, stop + 1, dtype=np.uint8)),
        **by_time,
    }
    coords = {
        "time": times + half,
        "energy": (low + high) / 2,
        "detector": np.arange(32, dtype=np.uint8),
        "pixel": np.arange(12, dtype=np.uint8),
    }
    return xr.Dataset(data, coords, {"product": "sci_pixels", "request_id": 2211090305})


def _pixel_rates(sources: Sequence[Gaussian], location: tuple[float, float]) -> NDArray[np.float64]:
    """Rates (32, 12) per cm² and keV; detectors without grids see nothing."""
    grids = detectors()
    rates = np.zeros((32, 12))
    has_grids = np.isfinite(grids.u)
    moved = [Gaussian(s.flux, s.x + location[0], s.y + location[1], s.fwhm, s.fwhm_minor, s.angle) for s in sources]
    vis = source_visibilities(moved, grids.u[has_grids], grids.v[has_grids])
    flux = sum(source.flux for source in sources)
    transmission = grid_transmission(*location)[has_grids]
    phase = phase_correction(np.flatnonzero(has_grids))
    rates[has_grids] = expected_pixel_rates(flux, vis, transmission, phase)
    return rates
