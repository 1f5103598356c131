"""The flare table as a whole: identifiers, GOES estimates, light time, types of the columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from stixflow.flares.columns import Column, flare_columns
from stixflow.flares.goes import estimate_goes, fit_goes, goes_class, light_time_s

_LETTERS = "bcdefghijklmnopqrstuvwxyz"


def finish(
    parts: Iterable[Iterable[dict[str, Any]]],
    lightcurve: xr.Dataset,
    *,
    distance_au: float | Callable[[NDArray[np.datetime64]], NDArray[np.float64]] | None,
    method: str,
) -> pd.DataFrame:
    """Make the table of flares from the rows of one or more stretches of a light curve."""
    low, high = lightcurve["energy_low"].to_numpy(), lightcurve["energy_high"].to_numpy()
    columns = flare_columns(len(low))
    table = pd.DataFrame([row for part in parts for row in part], columns=list(columns))
    peaks = table["peak"].to_numpy().astype("datetime64[ns]")
    if callable(distance_au):
        table["distance_au"] = np.asarray(distance_au(peaks), dtype=np.float64)
    else:
        table["distance_au"] = np.nan if distance_au is None else float(distance_au)
    table["light_time_s"] = light_time_s(peaks, table["distance_au"].to_numpy())
    table["method"] = method
    _add_goes(table)
    table["is_duplicate_id"] = table["flare_id"].duplicated(keep=False)
    table["flare_id"] = unique_ids(table["flare_id"].tolist())
    for name, column in columns.items():
        table[name] = table[name].astype(_pandas_type(column))
    table.attrs["energy_bands"] = [list(pair) for pair in zip(low.tolist(), high.tolist(), strict=True)]
    return table


def unique_ids(names: list[str]) -> list[str]:
    """Give the second and later flares of one minute a letter: b, c, and so on, in order of time.

    All flares of a minute peak on the same UTC day, so days named apart agree with days named together.
    """
    seen: dict[str, int] = {}
    result = []
    for name in names:
        number = seen.get(name, 0)
        seen[name] = number + 1
        result.append(name if number == 0 else name + _LETTERS[min(number - 1, len(_LETTERS) - 1)])
    return result


def _pandas_type(column: Column) -> np.dtype[Any]:
    return np.dtype("object" if column.dtype == "str" else column.dtype)


def _add_goes(table: pd.DataFrame) -> None:
    counts, background, sigma = (
        table[name].astype(np.float64).to_numpy() for name in ("peak_counts_0", "bkg_median_0", "bkg_sigma_0")
    )
    distance = table["distance_au"].to_numpy()
    estimate = estimate_goes(counts, background, distance)
    for suffix, flux in {"": estimate.flux, "_min": estimate.low, "_max": estimate.high}.items():
        table[f"goes_flux{suffix}"] = flux
        table[f"goes_class{suffix}"] = [goes_class(value) for value in flux]
    attenuated = table["rcr_max"].to_numpy() > 0
    table["goes_valid"] = np.isfinite(estimate.flux) & ~attenuated
    fitted = fit_goes(counts, background, distance, background_sigma=sigma)
    for suffix, flux in {"": fitted.flux, "_min": fitted.low, "_max": fitted.high}.items():
        table[f"goes_fit_flux{suffix}"] = np.where(attenuated, np.nan, flux)
