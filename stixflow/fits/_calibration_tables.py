"""Tables of the file of one calibration run: spectra of every pixel, their points as they were sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.model import N_DETECTORS, N_PIXELS
from stixflow.fits._tables import UNKNOWN, Span, day_packets, skm_columns, with_error
from stixflow.fits._writing import Column, unfold
from stixflow.fits.origin import Origin

_Array = NDArray[Any]

_KELVIN = 273.15
_N_SUBSPECTRA = 8
_FINE_OF_OFFICIAL = 65535.0
_ROW = np.zeros(1, dtype=np.intp)


def calibration_control(dataset: xr.Dataset, origin: Origin) -> tuple[list[Column], _Array]:
    """One row: the run, and how its subspectra are laid out."""
    scet, values = dataset["scet"].values, {name: dataset[name].values for name in _RAW}
    points, summed, lowest = _subspectra(dataset)
    return [
        Column("scet_coarse", (scet >> 16).astype(np.uint32)),
        Column("scet_fine", (scet & 0xFFFF).astype(np.uint32)),
        Column("integration_time", dataset["timedel"].values.astype(np.float64), "s"),
        *day_packets(1, origin),
        # The official files take what was sent for a fraction of an onboard second.
        Column("quiet_time", values["quiet_time_raw"] / _FINE_OF_OFFICIAL * 1e6, "us"),
        Column("live_time", values["live_time_raw"], "ms"),
        Column("average_temperature", dataset["average_temperature"].values + _KELVIN, "K"),
        Column("detector_mask", unfold(dataset["detector_mask"].values, N_DETECTORS)),
        Column("pixel_mask", unfold(dataset["pixel_mask"].values, N_PIXELS)),
        Column("subspectrum_mask", unfold(dataset["subspectrum_mask"].values, _N_SUBSPECTRA)),
        *skm_columns(dataset, _ROW, "counts"),
        Column("num_samples", np.full(1, UNKNOWN, dtype=np.uint16), missing=UNKNOWN),
        Column("subspec_num_points", points),
        Column("subspec_num_summed_channel", summed),
        Column("subspec_lowest_channel", lowest),
        Column("num_channels", np.array([dataset.sizes["adc"]], dtype=np.int64)),
    ], _ROW


def calibration(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of one run."""
    counts, observed = (np.moveaxis(dataset[name].values, 0, -1)[np.newaxis] for name in ("counts", "observed"))
    # A day of hundredths of a second: more than 16 bits also where the run is short.
    times = (Column(name, getattr(span, name).astype(np.uint32), "cs") for name in ("time", "timedel"))
    return [*times, *with_error("counts", counts, dataset["counts_skm"].values, "count", observed=observed)]


def _subspectra(dataset: xr.Dataset) -> tuple[_Array, _Array, _Array]:
    """Points, channels summed in each, and first channel of the eight subspectra, shape (1, 8) each."""
    number, start = dataset["subspectrum"].values.astype(np.intp), dataset["adc_start"].values.astype(np.int64)
    used, first = np.unique(number, return_index=True)
    points = np.ones((1, _N_SUBSPECTRA), dtype=np.int16)
    summed, lowest = np.ones_like(points), np.zeros_like(points)
    points[0, used] = np.bincount(number)[used]
    summed[0, used] = (dataset["adc_stop"].values - start)[first]
    lowest[0, used] = start[first]
    return points, summed, lowest


_RAW = ("quiet_time_raw", "live_time_raw")
