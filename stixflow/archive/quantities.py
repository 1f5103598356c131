"""Tables of the archive as astropy tables: columns with units, times as `astropy.time.Time`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from astropy.table import QTable

_BY_NAME = tuple(
    (re.compile(pattern), unit)
    for pattern, unit in (
        (r"(?:x|y)_(?:hpc|stix|cfl).*|sigma_[xy]_(?:hpc|stix|cfl)", "arcsec"),
        (r"hg[sc]_(?:lon|lat)", "deg"),
        (r"energy_(?:low|high)", "keV"),
        (r".*_s", "s"),
        (r"n_bytes", "byte"),
        (r"counts|net_counts", "ct"),
    )
)


def to_table(frame: pd.DataFrame) -> QTable:
    """Return flares, requests, images or any other table of the archive as an astropy table.

    Times are `Time` (UTC, what is missing is masked), numbers with a known unit are quantities, lists and mappings are
    JSON text. The meaning of a column of flares is its description.
    """
    from astropy.table import QTable

    table = QTable()
    for name in map(str, frame.columns):
        table[name] = _column(frame[name], _unit_of(name))
        model = _flare_column(name)
        table[name].info.description = model.description if model else ""
    return table


def _unit_of(name: str) -> str:
    """Return the unit of a column as astropy writes it; empty for one without."""
    model = _flare_column(name)
    if model is not None:
        return "" if model.units in ("1", "UTC") else model.units.replace("counts", "ct")
    return next((unit for pattern, unit in _BY_NAME if pattern.fullmatch(name)), "")


def _flare_column(name: str) -> Any:
    from stixflow.flares import FLARE_COLUMNS

    return FLARE_COLUMNS.get(name) or FLARE_COLUMNS.get(re.sub(r"_\d$", "_{band}", name))


def _column(values: pd.Series, unit: str) -> Any:
    import astropy.units as u
    from astropy.time import Time

    if pd.api.types.is_datetime64_any_dtype(values):
        return Time(values.to_numpy(dtype="datetime64[ns]"), format="datetime64", scale="utc")
    if pd.api.types.is_bool_dtype(values):
        return values.to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(values):
        plain = values.to_numpy(dtype=float, na_value=np.nan) if values.isna().any() else values.to_numpy()
        return u.Quantity(plain, unit) if unit else plain
    numbers = pd.to_numeric(values, errors="coerce")
    if len(values) and unit and (numbers.notna() | values.isna()).all():
        return u.Quantity(numbers.to_numpy(dtype=float), unit)
    return np.array([_text(value) for value in values], dtype=str)


def _text(value: object) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, default=str)
    return "" if value is None or value is pd.NaT or value is pd.NA or value != value else str(value)
