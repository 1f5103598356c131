"""What a flare leaves on the coarse flare locator, and its fluence, from a Dataset of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from stixflow.flares.cfl_mask import FLIGHT_MASK, RAW_MASK, CflMask, FloatArray
from stixflow.imaging.bins import covering_energy_bins, covering_time_bins
from stixflow.instrument import CFL_INDEX, LOCATION_RESOLUTIONS, live_fraction, per_detector, subcollimators
from stixflow.telemetry.compression import packed_variance
from stixflow.time import TimeRange

IMAGING_AREA_MM2 = 210.0
"""Open area of the large pixels of the twelve detectors 10, 9, 8, 7, background subtracted (grids as measured: 213)."""
RAW_IMAGING_AREA_MM2 = 228.93
"""The same without subtraction, where the background of those detectors adds to the fluence."""


@dataclass(frozen=True, slots=True, eq=False)
class CflCounts:
    """What one flare left on the coarse flare locator, ready for `locate_cfl`."""

    counts: FloatArray
    """(12,) live time corrected, background subtracted; (8,) where the small pixels were not sent."""
    variance: FloatArray
    fluence: float
    """Counts per mm² of open area, from the twelve imaging detectors of the coarsest grids."""
    mask: CflMask
    """Mask to use: `RAW_MASK` if no background was subtracted."""


def cfl_counts(
    pixels: xr.Dataset,
    time_range: TimeRange | str,
    energy_range: tuple[float, float] = (6.0, 10.0),
    background: xr.Dataset | None = None,
) -> CflCounts:
    """Counts of the coarse flare locator and fluence of one interval, from a Dataset of the product `sci_pixels`.

    Whole bins that cover the ranges. The background is scaled by the live times; weak flares need one.

    Raises
    ------
    ImagingError
        If the data do not cover the ranges.
    """
    span = TimeRange.parse(time_range) if isinstance(time_range, str) else time_range
    (first, stop) = covering_time_bins(pixels, [span])[0]
    net, spread, live = _detector_counts(pixels.isel(time=slice(first, stop)), energy_range)
    n_pixels = 12 if net[CFL_INDEX, 8:].any() else 8
    if background is not None:
        quiet, quiet_spread, quiet_live = _detector_counts(background, energy_range)
        ratio = (live / quiet_live)[:, None]
        net, spread = net - ratio * quiet, spread + ratio**2 * quiet_spread
    seconds = float(pixels["timedel"].to_numpy()[first:stop].sum())
    fraction = live / seconds
    imaging = subcollimators(*LOCATION_RESOLUTIONS)
    area, mask = (RAW_IMAGING_AREA_MM2, RAW_MASK) if background is None else (IMAGING_AREA_MM2, FLIGHT_MASK)
    fluence = float((net[imaging, :8].sum(axis=1) / fraction[imaging]).sum()) / area
    return CflCounts(
        net[CFL_INDEX, :n_pixels] / fraction[CFL_INDEX],
        spread[CFL_INDEX, :n_pixels] / fraction[CFL_INDEX] ** 2,
        fluence,
        mask,
    )


def _detector_counts(
    pixels: xr.Dataset, energy_range: tuple[float, float]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Counts and their variance (detector, pixel) summed over time and energy, and live seconds (detector,)."""
    low, high = covering_energy_bins(pixels, *energy_range)
    seconds = pixels["timedel"].to_numpy()
    live = (live_fraction(pixels["triggers"].to_numpy(), seconds[:, None]) * seconds[:, None]).sum(axis=0)
    counts = pixels["counts"].to_numpy()[:, low:high]
    error = packed_variance(counts, pixels["counts_skm"].to_numpy())
    total = counts.sum(axis=(0, 1), dtype=np.float64)
    return total, total + error.sum(axis=(0, 1)), per_detector(live)
