"""Light curves of chosen energies, detectors and pixels, straight from a pixel cube, and as others take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import NotFound, UsageError

if TYPE_CHECKING:
    from sunpy.timeseries import GenericTimeSeries


def pixel_lightcurve(
    cube: xr.Dataset,
    *,
    energy_range: tuple[float, float] | None = None,
    detectors: Sequence[int] | None = None,
    pixels: Sequence[int] | None = None,
) -> xr.Dataset:
    """Sum the counts of a pixel cube over detectors and pixels; only the energies that are asked for are read.

    Parameters
    ----------
    energy_range
        Energy bins inside ``[low, high]`` keV; None for all of the request.
    detectors, pixels
        Indices as in the cube; None for all that the request sent.

    Returns
    -------
    A Dataset with `counts` (time, energy), `observed` (time, energy): whether every chosen detector and pixel of that
    bin was received, and the times and energies of the cube. Counts that were not observed are 0 and mean nothing.

    Raises
    ------
    UsageError
        If an index is not one of the cube.
    NotFound
        If no energy bin lies inside the range.
    """
    chosen = cube.isel(energy=_energies(cube, energy_range))
    rows = {"detector": _indices(cube, "detector", detectors), "pixel": _indices(cube, "pixel", pixels)}
    counts = chosen["counts"].to_numpy()[np.ix_(*map(np.arange, chosen["counts"].shape[:2]), *rows.values())]
    sent = _sent(cube["detector_mask"].to_numpy(), detectors) & _sent(cube["pixel_mask"].to_numpy(), pixels)
    made = chosen[["time_start", "timedel", "energy_low", "energy_high"]].copy()
    made["counts"] = (("time", "energy"), counts.sum((2, 3), dtype=np.uint64), {"units": "1", "long_name": "counts"})
    made["observed"] = (("time", "energy"), chosen["observed"].to_numpy() & sent[:, None])
    return made


def _energies(cube: xr.Dataset, energy_range: tuple[float, float] | None) -> slice:
    if energy_range is None:
        return slice(None)
    low, high = energy_range
    inside = np.flatnonzero((cube["energy_low"].to_numpy() >= low) & (cube["energy_high"].to_numpy() <= high))
    if not inside.size:
        pairs = zip(cube["energy_low"].values, cube["energy_high"].values, strict=True)
        edges = ", ".join(f"{a:g}-{b:g}" for a, b in pairs)
        raise NotFound(f"no energy bin lies inside {low:g}-{high:g} keV", expected=f"bins of {edges} keV")
    return slice(int(inside[0]), int(inside[-1]) + 1)


def _indices(cube: xr.Dataset, name: str, chosen: Sequence[int] | None) -> NDArray[np.intp]:
    size = cube.sizes[name]
    found = np.arange(size) if chosen is None else np.asarray(chosen, dtype=np.intp)
    if not found.size or found.min() < 0 or found.max() >= size or np.unique(found).size != found.size:
        raise UsageError(f"{name}s {found.tolist()}", expected=f"different indices of 0 to {size - 1}")
    return found


def _sent(mask: NDArray[np.unsignedinteger], chosen: Sequence[int] | None) -> NDArray[np.bool_]:
    """Tell at which times all chosen bits are set; any that were sent, where none was chosen."""
    if chosen is None:
        return np.asarray(mask != 0)
    wanted = sum(1 << int(bit) for bit in chosen)
    return np.asarray((mask.astype(np.uint64) & np.uint64(wanted)) == wanted)


def to_timeseries(lightcurve: xr.Dataset) -> GenericTimeSeries:
    """Return counts per energy bin as a sunpy TimeSeries; a bin that was not observed is NaN."""
    import astropy.units as u
    import pandas as pd
    from astropy.time import Time
    from sunpy.timeseries import GenericTimeSeries
    from sunpy.util import MetaDict

    names = [
        f"{low:g}-{high:g} keV"
        for low, high in zip(lightcurve["energy_low"].values, lightcurve["energy_high"].values, strict=True)
    ]
    counts = lightcurve["counts"].to_numpy().astype(float)
    if "observed" in lightcurve:
        counts = np.where(lightcurve["observed"].to_numpy(), counts, np.nan)
    frame = pd.DataFrame(counts, index=Time(lightcurve["time"].to_numpy()).to_datetime(), columns=names)
    return GenericTimeSeries(frame, MetaDict({"instrument": "STIX"}), dict.fromkeys(names, u.ct))
