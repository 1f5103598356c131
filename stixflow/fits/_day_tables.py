"""Tables of the files of one day: quick look, status, aspect."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.model import N_CHANNELS, N_DETECTORS, N_PIXELS
from stixflow.fits._tables import Span, day_packets, edge_mask, runs, skm_columns, times, with_error
from stixflow.fits._writing import Column, smallest, unfold
from stixflow.fits.origin import Origin
from stixflow.telemetry.compression import unpack_skm
from stixflow.telemetry.runs import starts_of
from stixflow.time import TICKS_PER_SECOND

_Array = NDArray[Any]
_Rows = NDArray[np.intp]
_Settings = Callable[[xr.Dataset, _Rows, _Array], list[Column]]


def _control(
    dataset: xr.Dataset, origin: Origin, *, settings: _Settings, states: tuple[str, ...], steps: int = 1
) -> tuple[list[Column], _Rows]:
    """One row for each run of bins that follow each other on the onboard clock with equal settings."""
    scet, seconds = dataset["scet"].values, dataset["timedel"].values
    ticks = np.rint(seconds * steps * TICKS_PER_SECOND).astype(np.int64)
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


def _spectra_settings(dataset: xr.Dataset, rows: _Rows, samples: _Array) -> list[Column]:
    skm = [
        Column(f"compression_scheme_{name}_skm", np.stack(unpack_skm(dataset[f"{source}_skm"].values[rows]), axis=-1))
        for name, source in (("spectra", "counts"), ("triggers", "triggers"))
    ]
    return [_masks_of_pixels(dataset, rows), *skm, *_sizes(dataset.sizes["energy"], samples)]


def _masks_of_pixels(dataset: xr.Dataset, rows: _Rows) -> Column:
    return Column("pixel_mask", unfold(dataset["pixel_mask"].values[rows], N_PIXELS))


def _aspect_settings(dataset: xr.Dataset, rows: _Rows, samples: _Array) -> list[Column]:
    values = [Column(name, dataset[name].values[rows]) for name in ("summing_value", "averaging_value")]
    return [*values, *_sizes(None, samples)]


def spectra_control(dataset: xr.Dataset, origin: Origin) -> tuple[list[Column], _Rows]:
    """One row for each run of sweeps that follow each other with equal settings."""
    columns, of_sweep = _control(
        dataset, origin, settings=_spectra_settings, states=("pixel_mask", *_SKM), steps=N_DETECTORS
    )
    return columns, of_sweep[_spectra_rows(dataset)[0][:, 0]]


def spectra(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of spectra: rows of 32 as they came, from one sweep on into the next; NaN errors fill the last of a run."""
    sweep, detector, sent, run = _spectra_rows(dataset)
    first = sweep[:, 0]
    skm, triggers_skm = (dataset[name].values[first] for name in _SKM)
    counts = np.moveaxis(dataset["counts"].values, 1, -1)[sweep, detector] * sent[..., np.newaxis]
    triggers = dataset["triggers"].values[sweep, detector] * sent
    since = (dataset["scet"].values[sweep] - dataset["scet"].values[run][:, np.newaxis]) / TICKS_PER_SECOND
    integrations = np.rint(since / dataset["timedel"].values[first][:, np.newaxis]).astype(np.int64)
    return [
        Column("time", span.time[first], "cs"),
        Column("timedel", span.timedel[first], "cs"),
        Column("detector_index", detector.astype(np.uint8)),
        *with_error("spectra", counts, skm, "count", observed=sent[..., np.newaxis]),
        *with_error("triggers", triggers, triggers_skm, observed=sent),
        Column("num_integrations", smallest(integrations)),
    ]


def _spectra_rows(dataset: xr.Dataset) -> tuple[_Rows, _Rows, NDArray[np.bool_], _Rows]:
    """Sweep, detector, and whether there is a spectrum, of the 32 places of each row; first sweep of its run."""
    scet, seconds = dataset["scet"].values, dataset["timedel"].values
    lag = np.diff(scet) / TICKS_PER_SECOND - N_DETECTORS * seconds[:-1]
    new = np.abs(lag) > seconds[:-1] / 2
    for state in (dataset[name].values for name in ("pixel_mask", *_SKM)):
        new |= state[1:] != state[:-1]
    first = np.flatnonzero(np.concatenate([[True], new]))
    sweep, detector = np.nonzero(dataset["observed"].values)
    rows, origins = [], []
    for begin, end in zip(first, [*first[1:], scet.size], strict=True):
        mine = np.flatnonzero((sweep >= begin) & (sweep < end))
        for start in range(0, mine.size, N_DETECTORS):
            places = mine[start : start + N_DETECTORS]
            rows.append(_filled_row(sweep[places], detector[places]))
            origins.append(begin)
    sweeps, detectors, sent = (np.stack(part) for part in zip(*rows, strict=True))
    return sweeps, detectors, sent, np.asarray(origins, dtype=np.intp)


def _filled_row(sweep: _Rows, detector: _Rows) -> tuple[_Rows, _Rows, NDArray[np.bool_]]:
    lacking = N_DETECTORS - sweep.size
    others = np.setdiff1d(np.arange(N_DETECTORS), detector)[:lacking]
    others = np.concatenate([others, np.zeros(lacking - others.size, dtype=np.intp)])
    there = np.arange(N_DETECTORS) < sweep.size
    return np.append(sweep, np.full(lacking, sweep[-1])), np.append(detector, others), there


def aspect(dataset: xr.Dataset, _span: Span) -> list[Column]:
    """DATA of the aspect photodiodes; times in seconds, since bins of 16 ms are no whole hundredths."""
    scet, seconds = dataset["scet"].values, dataset["timedel"].values
    centre = (scet - scet[0]) / TICKS_PER_SECOND + seconds / 2
    return [
        Column("time", centre, "s"),
        Column("timedel", seconds, "s"),
        *(Column(name, dataset[name].values) for name in _DIODES),
    ]


_DIODES = ("cha_diode0", "cha_diode1", "chb_diode0", "chb_diode1")
_SKM = ("counts_skm", "triggers_skm")
_MASKS = ("detector_mask", "pixel_mask")
lightcurve_control = partial(_control, settings=_curve_settings, states=(*_MASKS, *_SKM))
background_control = partial(_control, settings=_curve_settings, states=_SKM)
variance_control = partial(
    _control, settings=_variance_settings, states=(*_MASKS, "samples_per_variance", "channel_mask", "variance_skm")
)
flareflag_control = partial(_control, settings=_flag_settings, states=())
aspect_control = partial(_control, settings=_aspect_settings, states=("summing_value", "averaging_value"))


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
    return report, np.arange(report.size) - starts_of(rows)[report]


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
