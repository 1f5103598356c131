"""Choosing rows of the tables of flares and requests by what is known of them.

Ranges are half-open, ``(low, high)``, either of which may be None. A row of which a value is not known is left out
where that value is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from stixflow.errors import UsageError

Range = tuple[float | None, float | None]

_CLASSES = {"A": -8, "B": -7, "C": -6, "M": -5, "X": -4}
"""Power of ten of the flux in W m-2 where each begins."""


def select_flares(
    flares: pd.DataFrame,
    *,
    goes_class: str | tuple[str | None, str | None] | None = None,
    peak_counts: Range | None = None,
    duration_s: Range | None = None,
    distance_au: Range | None = None,
    upper_energy_keV: Range | None = None,
    attenuator: bool | None = None,
    on_disk: bool | None = None,
    imaged: Collection[str] | None = None,
) -> pd.DataFrame:
    """Return the flares that have all that is asked for.

    Parameters
    ----------
    goes_class
        A lowest class as ``"C5"``, or ``("B1", "C1")`` for those from B1 to below C1, of the estimate.
    peak_counts
        Of the lowest band, a bin.
    upper_energy_keV
        Up to which energy a flare was seen.
    attenuator
        Whether the attenuator was in at any time of it.
    on_disk
        Whether it was located, and on the disk as seen from the spacecraft (True) or beyond the limb (False).
    imaged
        Names of the flares that may be returned.

    Raises
    ------
    UsageError
        If a class is none.
    """
    kept = np.ones(len(flares), dtype=bool)
    if goes_class is not None:
        low, high = (goes_class, None) if isinstance(goes_class, str) else goes_class
        bounds = tuple(None if name is None else class_flux(name) for name in (low, high))
        # As the operational list does, a class is made of two digits of the flux.
        flux = numbers_of(flares, "goes_flux").map(lambda value: float(f"{value:.1e}"))
        kept &= _inside(flux, (bounds[0], bounds[1]))
    ranges: Mapping[str, Range | None] = {
        "peak_counts": peak_counts,
        "duration_s": duration_s,
        "distance_au": distance_au,
        "upper_energy_keV": upper_energy_keV,
    }
    for name, wanted in ranges.items():
        if wanted is not None:
            kept &= _inside(numbers_of(flares, name), wanted)
    if attenuator is not None:
        kept &= _inside(numbers_of(flares, "rcr_max"), (1, None) if attenuator else (0, 1))
    if on_disk is not None:
        kept &= (numbers_of(flares, "is_on_disk") == float(on_disk)).to_numpy()
    if imaged is not None:
        kept &= flares["flare_id"].astype(str).isin(list(imaged)).to_numpy()
    return flares[kept].reset_index(drop=True)


def select_requests(
    requests: pd.DataFrame,
    *,
    energy_range: tuple[float, float] | None = None,
    duration_s: Range | None = None,
    attenuator: bool | None = None,
    complete: bool | None = None,
) -> pd.DataFrame:
    """Return the requests that have all that is asked for.

    Parameters
    ----------
    energy_range
        Lowest and highest energy in keV: requests that have all of it.
    attenuator
        Whether the attenuator was in at any time of it.
    complete
        Whether all of its packets are there.
    """
    kept = np.ones(len(requests), dtype=bool)
    if energy_range is not None:
        low, high = energy_range
        kept &= (requests["energy_low"] <= low).to_numpy() & (requests["energy_high"] >= high).to_numpy()
    if duration_s is not None:
        kept &= _inside(numbers_of(requests, "duration_s"), duration_s)
    if attenuator is not None:
        kept &= _inside(numbers_of(requests, "rcr_max"), (1, None) if attenuator else (0, 1))
    if complete is not None:
        kept &= (requests["complete"] == complete).to_numpy()
    return requests[kept].reset_index(drop=True)


def class_flux(name: str) -> float:
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


def numbers_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as numbers; NaN where there is none, or no such column."""
    if name not in frame:
        return pd.Series(np.nan, index=frame.index)
    return pd.to_numeric(frame[name], errors="coerce").astype(float)


def _inside(values: pd.Series, wanted: Range) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    low, high = wanted
    kept = values.notna()
    if low is not None:
        kept &= values >= low
    if high is not None:
        kept &= values < high
    return kept.to_numpy(dtype=bool)
