"""Calibration runs whose gains, offsets and widths are known: photons of 133Ba, one by one, through every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from stixflow.cubes.assemble import assemble
from stixflow.cubes.model import N_DETECTORS, N_PIXELS
from stixflow.instrument.barium import GAMMA_LINES, X_RAYS_ALPHA, X_RAYS_BETA
from stixflow.telemetry.compression import RAW, compress, decompress, pack_skm
from stixflow.telemetry.engineering import calibrate
from stixflow.time import TICKS_PER_SECOND, scet_to_utc

_SCHEME = (0, 4, 4)
_FINE = 4
_TEMPERATURE, _TEMPERATURE_CURVE = 3947, "0024"
"""As sent in a real run (-37.8 deg C), and the curve of the parameter NIX00125."""
_LIVE_MS, _QUIET = 39_171_149, 6
_FLOOR_KEV = 20.0, 90.0


@dataclass(frozen=True, slots=True)
class PixelResponse:
    """What pixels make of photons: width of lines in keV (FWHM) at 31 and 81 keV, share and length of their tails."""

    fwhm: tuple[float, float] = (1.05, 1.3)
    tail_share: tuple[float, float] = (0.2, 0.5)
    tail_kev: tuple[float, float] = (2.0, 4.5)
    beta_share: float = 0.24
    """Counts at 35 keV over those at 31 keV."""
    gamma_share: float = 0.38
    """Counts at 81 keV over those at 31 keV."""
    floor_share: float = 0.02
    """Counts of an even floor over those at 31 keV."""


_USUAL = PixelResponse()


def simulate_calibration(
    gain: ArrayLike,
    offset: ArrayLike,
    *,
    counts: ArrayLike = 24000.0,
    response: PixelResponse = _USUAL,
    subspectra: tuple[tuple[int, int, int], ...] = ((200, 369, 1), (569, 14, 31)),
    compressed: bool = True,
    start_scet: int = 794271634 << 16,
    seconds: float = 86400.0,
    seed: int = 0,
) -> xr.Dataset:
    """Make a calibration run of pixels with a known energy scale.

    Parameters
    ----------
    gain, offset
        keV per ADC channel and ADC channel of 0 keV (of 4096), broadcast to (detector, pixel).
    counts
        Expected counts of the 31-keV line, broadcast to (detector, pixel).
    response
        Widths and tails.
    subspectra
        First channel (of 1024), number of points, and channels in each point; those of the runs of 2025 by default.
    compressed
        Send the counts as on board, with three or four digits of precision in base two.
    start_scet, seconds
        When, on the onboard clock in 1/65536 s, and how long.
    seed
        Of the photons.

    Returns
    -------
    Dataset of product ``cal_spectrum``.
    """
    rng = np.random.default_rng(seed)
    shape = (N_DETECTORS, N_PIXELS)
    scale = (
        np.broadcast_to(np.asarray(values, dtype=np.float64), shape).reshape(-1).tolist() for values in (gain, offset)
    )
    bright = np.broadcast_to(np.asarray(counts, dtype=np.float64), shape).reshape(-1).tolist()
    pixels = zip(*scale, bright, strict=True)
    fine = np.stack(
        [_spectrum(rng, gain=one, offset=zero, counts=number, response=response) for one, zero, number in pixels],
        axis=1,
    )
    first, width, number = (np.concatenate(parts) for parts in zip(*map(_points, enumerate(subspectra)), strict=True))
    total = np.concatenate([np.zeros((1, fine.shape[1]), dtype=np.int64), np.cumsum(fine, axis=0)])
    sums = total[first + width] - total[first]
    scheme = _SCHEME if compressed else RAW
    sent = decompress(compress(sums, scheme), scheme) if compressed else sums
    return assemble(
        "cal_spectrum",
        {
            "adc_start": first,
            "adc_stop": first + width,
            "subspectrum": number,
            "detector": np.arange(N_DETECTORS),
            "pixel": np.arange(N_PIXELS),
            "counts": sent.reshape(-1, *shape).astype(np.uint32),
            "observed": np.ones((first.size, *shape), dtype=np.bool_),
            **_state(start_scet, seconds, len(subspectra)),
            "counts_skm": pack_skm(*([part] for part in scheme)),
        },
        attrs={"ssid": 41, "complete": True, "missing": []},
    )


def _points(subspectrum: tuple[int, tuple[int, int, int]]) -> tuple[NDArray[np.int64], ...]:
    """First channel, width and subspectrum of every point of a subspectrum."""
    number, (lowest, points, summed) = subspectrum
    first = lowest + summed * np.arange(points)
    return first, np.full_like(first, summed), np.full_like(first, number)


def _spectrum(
    rng: np.random.Generator, *, gain: float, offset: float, counts: float, response: PixelResponse
) -> NDArray[np.int64]:
    """Draw the photons of one pixel, and count them in the 1024 channels."""
    kinds = (
        (X_RAYS_ALPHA, counts, 0),
        (X_RAYS_BETA, counts * response.beta_share, 0),
        (GAMMA_LINES, counts * response.gamma_share, 1),
    )
    energies = [rng.uniform(*_FLOOR_KEV, rng.poisson(counts * response.floor_share))]
    for lines, expected, at in kinds:
        strength = np.array(list(lines.values()))
        photons = rng.choice(np.array(list(lines)), rng.poisson(expected), p=strength / strength.sum())
        lost = rng.exponential(response.tail_kev[at], photons.size) * (
            rng.random(photons.size) < response.tail_share[at]
        )
        blur = rng.normal(0.0, response.fwhm[at] / (2 * np.sqrt(2 * np.log(2))), photons.size)
        energies.append(photons - lost + blur)
    adc = (offset + np.concatenate(energies) / gain) / _FINE
    return np.bincount(np.clip(adc.astype(np.int64), 0, 1023), minlength=1024)


def _state(start_scet: int, seconds: float, n_subspectra: int) -> dict[str, NDArray[np.generic]]:
    half = round(seconds * TICKS_PER_SECOND / 2)
    start, centre = scet_to_utc([start_scet, start_scet + half])
    one = {
        "time": centre,
        "time_start": start,
        "timedel": seconds,
        "scet": start_scet,
        "live_time": _LIVE_MS * 1e-3,
        "quiet_time": _QUIET * 1e-6,
        "average_temperature": float(calibrate(np.array([_TEMPERATURE]), _TEMPERATURE_CURVE)[0]),
        "live_time_raw": _LIVE_MS,
        "quiet_time_raw": _QUIET,
        "average_temperature_raw": _TEMPERATURE,
        "detector_mask": (1 << N_DETECTORS) - 1,
        "pixel_mask": (1 << N_PIXELS) - 1,
        "subspectrum_mask": (1 << n_subspectra) - 1,
        "bit_reduction": 0,
    }
    return {name: np.array([value]) for name, value in one.items()}


__all__ = ["PixelResponse", "simulate_calibration"]
