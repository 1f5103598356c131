"""Tables of the file of an energy calibration (CAL): those of the official product, and what was fitted beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.fits._calibration_tables import calibration_control
from stixflow.fits._tables import Span
from stixflow.fits._tables import times as time_columns
from stixflow.fits._writing import Column
from stixflow.fits.origin import Origin

_Array = NDArray[Any]

FIT_COLUMNS = {
    "gain_error": "keV / adu",
    "offset_error": "adu",
    "correlation": "",
    "line_position": "adu",
    "line_position_error": "adu",
    "line_fwhm": "keV",
    "line_fwhm_error": "keV",
    "line_counts": "count",
    "line_counts_error": "count",
    "reduced_chi2": "",
    "likeness": "",
}
"""Columns of the table FIT, of which official files know nothing, and their units."""


def control(dataset: xr.Dataset, origin: Origin) -> tuple[list[Column], _Array]:
    """One row: the run, the energy table that was on board, and what calibrated."""
    columns, rows = calibration_control(dataset, origin)
    names = (Column(name, np.array([str(dataset.attrs[name])])) for name in ("ob_elut_name", "ecc_config_name"))
    return [*columns, *names], rows


def data(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA: one row with offset, gain, goodness, errors and true edges of all pixels."""
    gain = dataset["gain"].values
    with np.errstate(invalid="ignore"):
        in_range = bool(np.isfinite(gain).any() and dataset.attrs["gain_range_ok"])
    live = dataset["live_time"].values.astype(np.float64)
    return [
        *time_columns(span),
        Column("live_time", live, "s"),
        Column("offset", dataset["offset"].values[None], "adu"),
        Column("gain", gain[None], "keV / adu"),
        Column("goc", dataset["reduced_chi2"].values[None].astype(np.float32)),
        Column("ecc_error", _line_errors(dataset)[None]),
        Column("gain_range_ok", np.array([in_range])),
        Column("e_edges_actual", dataset["energy_edges"].values[None], "keV"),
    ]


def _line_errors(dataset: xr.Dataset) -> _Array:
    """Errors in keV of position and width of the lines at 31 and 81 keV, (4, detector, pixel)."""
    lines = [0, 2]
    position = dataset["line_position_error"].values[..., lines] * dataset["gain"].values[..., None]
    width = dataset["line_fwhm_error"].values[..., lines]
    return np.stack([position[..., 0], width[..., 0], position[..., 1], width[..., 1]])


def fit_table(dataset: xr.Dataset) -> dict[str, list[Column]]:
    """FIT: errors, lines, flags."""
    columns = [Column(name, dataset[name].values[None].astype(np.float64), unit) for name, unit in FIT_COLUMNS.items()]
    return {"FIT": [*columns, Column("flags", dataset["flags"].values[None].astype(np.uint16))]}


def cards(dataset: xr.Dataset) -> dict[str, tuple[Any, str]]:
    """Cards of the primary header: the energies, and the live time."""
    return {
        "DATAMIN": (4, "Minimum valid physical value"),
        "DATAMAX": (150, "Maximum valid physical value"),
        "BUNIT": ("keV", "Units of physical value"),
        "XPOSURE": (float(dataset["timedel"].values[0]), "[s] shortest exposure time"),
        "XPOMAX": (float(dataset["timedel"].values[0]), "[s] maximum exposure time"),
        **(
            {"LIVETIME": (float(dataset["live_time"].values[0]), "calibration spectra live time in seconds")}
            if np.isfinite(dataset["live_time"].values[0])
            else {}
        ),
    }


__all__ = ["FIT_COLUMNS", "cards", "control", "data", "fit_table"]
