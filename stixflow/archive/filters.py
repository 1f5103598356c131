"""Choosing rows of the tables of flares and requests by what is known of them.

Ranges are half-open, ``(low, high)``, either of which may be None. A row of which a value is not known is left out
where that value is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd

from stixflow.errors import UsageError

Range = tuple[float | None, float | None]


class FlareFilters(TypedDict, total=False):
    """What flares are chosen by; `Archive.flares` says what each means."""

    goes_class: str | tuple[str | None, str | None] | None
    peak_counts: Range | None
    duration_s: Range | None
    distance_au: Range | None
    upper_energy_keV: Range | None
    attenuator: bool | None
    on_disk: bool | None


class RequestFilters(TypedDict, total=False):
    """What requests are chosen by; `Archive.requests` says what each means."""

    energy_range: tuple[float, float] | None
    duration_s: Range | None
    attenuator: bool | None
    complete: bool | None


_Kept = np.ndarray[tuple[int], np.dtype[np.bool_]]
_Rule = Callable[[pd.DataFrame, Any], _Kept]

_CLASSES = {"A": -8, "B": -7, "C": -6, "M": -5, "X": -4}
"""Power of ten of the flux in W m-2 where each begins."""


def select_flares(flares: pd.DataFrame, **filters: Unpack[FlareFilters]) -> pd.DataFrame:
    """Return the flares that have all that is asked for.

    Raises
    ------
    UsageError
        If a class is none, or a filter.
    """
    return _select(flares, _FLARE_RULES, filters)


def select_requests(requests: pd.DataFrame, **filters: Unpack[RequestFilters]) -> pd.DataFrame:
    """Return the requests that have all that is asked for; errors as `select_flares`."""
    return _select(requests, _REQUEST_RULES, filters)


def _flux_of(name: str) -> float:
    """Return the flux in W m-2 from which on a flare has a GOES class, as ``C4.2``, ``M`` or ``X10``.

    Raises
    ------
    UsageError
        If it is no class.
    """
    letter, number = name[:1].upper(), name[1:].strip() or "1"
    try:
        return float(f"{float(number)}e{_CLASSES[letter]}")
    except (KeyError, ValueError):
        raise UsageError(f"{name!r} is no GOES class", expected="as B3, C4.2, M or X10", advice="correct it") from None


def _select(frame: pd.DataFrame, rules: Mapping[str, _Rule], filters: Mapping[str, Any]) -> pd.DataFrame:
    if unknown := filters.keys() - rules.keys():
        raise UsageError(
            f"there is no filter {', '.join(sorted(unknown))}", expected=", ".join(rules), advice="correct it"
        )
    kept = np.ones(len(frame), dtype=bool)
    for name, wanted in filters.items():
        if wanted is not None:
            kept &= rules[name](frame, wanted)
    return frame[kept].reset_index(drop=True)


def _is_of_class(flares: pd.DataFrame, wanted: str | tuple[str | None, str | None]) -> _Kept:
    low, high = (wanted, None) if isinstance(wanted, str) else wanted
    # As the operational list does, a class is made of two digits of the flux.
    flux = _numbers(flares, "goes_flux").map(lambda value: float(f"{value:.1e}"))
    return _inside(flux, (None if low is None else _flux_of(low), None if high is None else _flux_of(high)))


def _has_energies(requests: pd.DataFrame, wanted: tuple[float, float]) -> _Kept:
    low, high = wanted
    return (requests["energy_low"] <= low).to_numpy() & (requests["energy_high"] >= high).to_numpy()


def _has_attenuator(frame: pd.DataFrame, wanted: bool) -> _Kept:
    return _inside(_numbers(frame, "rcr_max"), (1, None) if wanted else (0, 1))


def _is_on_disk(flares: pd.DataFrame, wanted: bool) -> _Kept:
    return (_numbers(flares, "is_on_disk") == float(wanted)).to_numpy()


def _is_complete(requests: pd.DataFrame, wanted: bool) -> _Kept:
    return (requests["complete"] == wanted).to_numpy()


def _in_range(name: str) -> _Rule:
    return lambda frame, wanted: _inside(_numbers(frame, name), wanted)


def _numbers(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as numbers; NaN where there is none, or no such column."""
    if name not in frame:
        return pd.Series(np.nan, index=frame.index)
    return pd.to_numeric(frame[name], errors="coerce").astype(float)


def _inside(values: pd.Series, wanted: Range) -> _Kept:
    low, high = wanted
    kept = values.notna()
    if low is not None:
        kept &= values >= low
    if high is not None:
        kept &= values < high
    return kept.to_numpy(dtype=bool)


_FLARE_RULES: Mapping[str, _Rule] = {
    "goes_class": _is_of_class,
    "peak_counts": _in_range("peak_counts"),
    "duration_s": _in_range("duration_s"),
    "distance_au": _in_range("distance_au"),
    "upper_energy_keV": _in_range("upper_energy_keV"),
    "attenuator": _has_attenuator,
    "on_disk": _is_on_disk,
}
_REQUEST_RULES: Mapping[str, _Rule] = {
    "energy_range": _has_energies,
    "duration_s": _in_range("duration_s"),
    "attenuator": _has_attenuator,
    "complete": _is_complete,
}
