"""Tables of the files of one day: quick look and status."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.model import N_CHANNELS, N_DETECTORS, N_PIXELS
from stixflow.fits._tables import Span, day_packets, edge_mask, runs, skm_columns, times, with_error
from stixflow.fits._writing import Column, unfold
from stixflow.fits.origin import Origin
from stixflow.time import TICKS_PER_SECOND

_Array = NDArray[Any]
_Rows = NDArray[np.intp]
_Settings = Callable[[xr.Dataset, _Rows, _Array], list[Column]]


def _control(
    dataset: xr.Dataset, origin: Origin, *, settings: _Settings, states: tuple[str, ...]
) -> tuple[list[Column], _Rows]:
    """One row for each run of bins that follow each other on the onboard clock with equal settings."""
    scet, seconds = dataset["scet"].values, dataset["timedel"].values
    ticks = np.rint(seconds * TICKS_PER_SECOND).astype(np.int64)
    first, of_row = runs(scet - np.cumsum(ticks) + ticks, seconds, *(dataset[name].values for name in states))
    head = [
        Column("scet_coarse", (scet[first] >> 16).astype(np.uint32)),
        Column("scet_fine", scet[first] & 0xFFFF),
        Column("integration_time", seconds[first], "s"),
        *day_packets(first.size, origin),
    ]
    return [*head, *settings(dataset, first, np.bincount(of_row))], of_row


def _sizes(n_energies: int | None, samples: _Array) -> list[Column]:
    energies = [] if n_energies is None else [Column("num_energies", np.full(samples.size, n_energies, dtype=np.int64))]
    return [*energies, Column("num_samples", samples.astype(np.int64))]


def _masks(dataset: xr.Dataset, rows: _Rows) -> tuple[Column, Column]:
    return (
        Column("detector_mask", unfold(dataset["detector_mask"].values[rows], N_DETECTORS)),
        Column("pixel_mask", unfold(dataset["pixel_mask"].values[rows], N_PIXELS)),
    )


def _curve_settings(dataset: xr.Dataset, rows: _Rows, samples: _Array) -> list[Column]:
    return [
        *(_masks(dataset, rows) if "detector_mask" in dataset else ()),
        edge_mask(dataset, rows.size),
        *_sizes(dataset.sizes["energy"], samples),
        *skm_columns(dataset, rows, "counts", "triggers"),
    ]


def _variance_settings(dataset: xr.Dataset, rows: _Rows, samples: _Array) -> list[Column]:
    detectors, pixels = _masks(dataset, rows)
    return [
        Column("samples_per_variance", dataset["samples_per_variance"].values[rows]),
        pixels,
        detectors,
        *skm_columns(dataset, rows, "variance"),
        Column("energy_bin_mask", unfold(dataset["channel_mask"].values[rows], N_CHANNELS).astype(bool)),
        *_sizes(1, samples),
    ]


def _flag_settings(_dataset: xr.Dataset, _rows: _Rows, samples: _Array) -> list[Column]:
    return _sizes(None, samples)


_SKM = ("counts_skm", "triggers_skm")
_MASKS = ("detector_mask", "pixel_mask")
lightcurve_control = partial(_control, settings=_curve_settings, states=(*_MASKS, *_SKM))
background_control = partial(_control, settings=_curve_settings, states=_SKM)
variance_control = partial(
    _control, settings=_variance_settings, states=(*_MASKS, "samples_per_variance", "channel_mask", "variance_skm")
)
flareflag_control = partial(_control, settings=_flag_settings, states=())


def curve(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of light curves and background."""
    rates = [Column("rcr", dataset["rcr"].values)] if "rcr" in dataset else []
    return [
        *times(span),
        *with_error("triggers", dataset["triggers"].values[:, None], dataset["triggers_skm"].values),
        *rates,
        *with_error("counts", dataset["counts"].values, dataset["counts_skm"].values, "count"),
    ]


def variance(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of variances."""
    return [*times(span), *with_error("variance", dataset["variance"].values[:, None], dataset["variance_skm"].values)]


def flareflag(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of flare flags; whether a flare was in progress only where the telemetry told it."""
    told = dataset["flare_in_progress"].values
    progress = [] if (told == _NOT_TOLD).all() else [Column("flare_progress", told[:, None].astype(np.int16))]
    return [
        *times(span),
        *(Column(name, dataset[name].values.astype(np.int16)) for name in ("loc_z", "loc_y")),
        *(Column(name, dataset[name].values[:, None].astype(np.int16)) for name in _FLAGS),
        *progress,
    ]


def status_control(dataset: xr.Dataset, origin: Origin) -> tuple[list[Column], _Rows]:
    """One row for each report; each row of DATA is one flare of it, or a report without one."""
    scet = dataset["scet"].values
    head = [Column("scet_coarse", scet >> 16), Column("scet_fine", scet & 0xFFFF)]
    return [*head, *day_packets(scet.size, origin)], _reports(dataset)[0]


def status(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of status and flare lists."""
    report, slot = _reports(dataset)
    flares = {name: dataset[source].values[report, slot] for name, source in _FLARE_COLUMNS.items()}
    coarse = {"start_scet_coarse", "end_scet_coarse"}
    return [
        Column("ubsd", dataset["ubsd_counter"].values[report]),
        Column("pald", dataset["pald_counter"].values[report]),
        *(Column(n, values.astype(np.int64) >> (16 if n in coarse else 0)) for n, values in flares.items()),
        Column("time", span.time[report], "cs"),
        Column("timedel", span.timedel[report], "cs"),
    ]


def _reports(dataset: xr.Dataset) -> tuple[_Rows, _Rows]:
    """Report and slot of each row of DATA."""
    rows = np.maximum(dataset["num_flares"].values.astype(np.intp), 1)
    report = np.repeat(np.arange(rows.size), rows)
    return report, np.arange(report.size) - (np.cumsum(rows) - rows)[report]


_NOT_TOLD = 255
_FLAGS = ("thermal_index", "non_thermal_index", "location_status")
_FLARE_COLUMNS = {
    "start_scet_coarse": "flare_start_scet",
    "end_scet_coarse": "flare_stop_scet",
    "highest_flareflag": "highest_flare_flag",
    "tm_byte_volume": "tm_byte_volume",
    "average_z_loc": "average_z",
    "average_y_loc": "average_y",
    "processing_mask": "processing_status",
}
