"""What must hold inside an interval: one state of the instrument, complete data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn

import numpy as np
import xarray as xr

from stixflow.errors import ImagingError
from stixflow.imaging.bins import IntArray
from stixflow.instrument import SumCase
from stixflow.time import iso

_STATE: Mapping[str, str] = MappingProxyType(
    {
        "rcr": "the rate control regime (attenuator)",
        "pixel_mask": "the pixel mask",
        "detector_mask": "the detector mask",
    }
)
"""What must not change inside an interval."""


def check_states(
    pixels: xr.Dataset,
    time_bins: IntArray,
    energy_bins: Sequence[tuple[int, int]],
    detectors: IntArray,
    case: SumCase,
) -> None:
    """Refuse the first interval that changes its state or misses data, with all that is wrong with it.

    Parameters
    ----------
    time_bins
        (interval, 2) half-open ranges of time bins.
    energy_bins
        Half-open ranges of energy bins.
    detectors
        Detector indices.
    case
        Pixels that are summed.

    Raises
    ------
    ImagingError
        If an interval changes its state, misses pixels or detectors, or has unobserved energies.
    """
    first, last = time_bins[:, 0], time_bins[:, 1] - 1
    bad = np.zeros(len(time_bins), dtype=np.bool_)
    for name in _STATE:
        changes = np.cumsum(np.diff(pixels[name].to_numpy(), prepend=pixels[name].to_numpy()[:1]) != 0)
        bad |= changes[last] != changes[first]
    bad |= (case.pixel_mask & ~pixels["pixel_mask"].to_numpy()[first].astype(np.int64)) != 0
    needed = int(np.bitwise_or.reduce(1 << detectors.astype(np.int64)))
    bad |= (needed & ~pixels["detector_mask"].to_numpy()[first].astype(np.int64)) != 0
    lost = np.cumsum(~pixels["observed"].to_numpy(), axis=0)
    for start, stop in energy_bins:
        before = np.where(first[:, None] > 0, lost[np.maximum(first - 1, 0), start:stop], 0)
        bad |= (lost[last, start:stop] != before).any(axis=1)
    if bad.any():
        _refuse(pixels, time_bins[int(np.argmax(bad))], energy_bins, detectors, case)


def _refuse(
    pixels: xr.Dataset,
    bins: IntArray,
    energy_bins: Sequence[tuple[int, int]],
    detectors: IntArray,
    case: SumCase,
) -> NoReturn:
    inside = slice(int(bins[0]), int(bins[1]))
    problems = []
    for name, meaning in _STATE.items():
        values = np.unique(pixels[name].to_numpy()[inside])
        if values.size > 1:
            problems.append(f"{meaning} changes ({', '.join(map(str, values))})")
    pixel_mask, detector_mask = (int(pixels[name].to_numpy()[bins[0]]) for name in ("pixel_mask", "detector_mask"))
    if case.pixel_mask & ~pixel_mask:
        problems.append(f"pixels of the rows {case.lower().replace('_', '+')} were not sent (mask {pixel_mask:#05x})")
    missing = [int(detector) for detector in detectors if not detector_mask >> int(detector) & 1]
    if missing:
        problems.append(f"the detectors with index {missing} were not sent")
    observed = pixels["observed"].to_numpy()[inside]
    if not all(observed[:, first:stop].all() for first, stop in energy_bins):
        problems.append("some energy bins were not received at all times")
    raise ImagingError(
        f"the interval from {iso(pixels['time_start'].to_numpy()[bins[0]])} cannot be imaged: {'; '.join(problems)}",
        expected="one instrument state and complete data in an interval",
        advice="choose another interval, energy range, or set of rows and sub-collimators",
    )
