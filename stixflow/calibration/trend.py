"""A calibration in a few numbers, and those of many runs as a table: how gain, offset and resolution change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.calibration.reasons import n_calibrated
from stixflow.calibration.table import DRIFT_LIMIT_KEV, drift_of, summarise_drift
from stixflow.cubes.model import N_PIXELS
from stixflow.time import iso

if TYPE_CHECKING:
    import pandas as pd

_LARGE = np.arange(N_PIXELS) < 8
"""The pixels A and B; C are smaller, and have a tenth of the counts."""


def summarise(calibration: xr.Dataset, *, limit_kev: float = DRIFT_LIMIT_KEV) -> dict[str, Any]:
    """Put a calibration into a few numbers: medians over the calibrated pixels, drift from the table on board.

    Returns
    -------
    ``start`` (UTC), ``hours``, ``live_hours``, ``temperature`` (deg C), ``calibrated`` (pixels), ``gain`` (keV per ADC
    channel), ``offset`` (ADC channels), their typical errors, ``fwhm_31`` and ``fwhm_81`` (keV, large pixels),
    ``reduced_chi2``, ``table`` on board, ``drift_median`` and ``drift_worst`` (keV), ``beyond`` (pixels as
    ``[detector, pixel]``, from 0). What is not known is NaN.
    """
    drift = summarise_drift(drift_of(calibration, limit_kev=limit_kev))
    width = calibration["line_fwhm"].values[:, _LARGE]
    found: dict[str, Any] = {
        "start": iso(np.datetime64(calibration["time_start"].values[0], "ms")),
        "hours": _first(calibration, "timedel") / 3600,
        "live_hours": _first(calibration, "live_time") / 3600,
        "temperature": _first(calibration, "average_temperature"),
        "calibrated": n_calibrated(calibration),
    }
    for name in ("gain", "offset", "gain_error", "offset_error", "reduced_chi2"):
        found[name] = _median(calibration[name].values)
    return found | {
        "fwhm_31": _median(width[..., 0]),
        "fwhm_81": _median(width[..., 2]),
        "table": drift.table,
        "drift_median": drift.median_kev,
        "drift_worst": drift.worst_kev,
        "beyond": [list(one) for one in drift.beyond],
    }


def trend_of(summaries: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Put what `summarise` says of many runs into a table, one row each in order of time; ``beyond`` is a number."""
    import pandas as pd

    rows = [{**one, "beyond": len(one["beyond"])} for one in summaries]
    table = pd.DataFrame(rows)
    return table.sort_values("start", ignore_index=True) if rows else table


def _first(calibration: xr.Dataset, name: str) -> float:
    return float(calibration[name].values[0]) if name in calibration else float("nan")


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


__all__ = ["summarise", "trend_of"]
