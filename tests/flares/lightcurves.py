"""Light curves for the tests: real files read plainly, and synthetic ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

EDGES = (4.0, 10.0, 15.0, 25.0, 50.0, 84.0)
QUIET = (250.0, 50.0, 67.0, 850.0, 460.0)


def as_lightcurve(
    start: NDArray[np.datetime64], counts: NDArray[np.uint32], *, seconds: float = 4.0, rcr: int = 0
) -> xr.Dataset:
    """Put bins into the shape of a `ql_lightcurve`."""
    half = np.timedelta64(round(seconds * 5e8), "ns")
    bins = len(start)
    return xr.Dataset(
        {
            "time_start": ("time", start),
            "timedel": ("time", np.full(bins, seconds)),
            "energy_low": ("energy", np.array(EDGES[:-1])),
            "energy_high": ("energy", np.array(EDGES[1:])),
            "counts": (("time", "energy"), counts),
            "rcr": ("time", np.full(bins, rcr, np.uint8)),
        },
        coords={"time": start + half, "energy": (np.array(EDGES[:-1]) + EDGES[1:]) / 2},
        attrs={"product": "ql_lightcurve"},
    )


def read_lightcurve(path: Path) -> xr.Dataset:
    """Read an official L1 or L1A light curve, bins as they are in the file."""
    from astropy.io import fits

    with fits.open(path) as hdus:
        data, header = hdus["DATA"].data, hdus["PRIMARY"].header
        unit = 1e-2 if hdus["DATA"].columns["time"].unit == "cs" else 1.0
        begin = np.datetime64(header.get("DATE-BEG", header.get("DATE_OBS")), "ns")
        centre = begin + np.rint(np.asarray(data["time"], float) * unit * 1e9).astype("timedelta64[ns]")
        seconds = np.asarray(data["timedel"], float) * unit
        counts = np.asarray(data["counts"]).astype(np.uint32)
        rcr = np.asarray(data["rcr"]).astype(np.uint8)
    curve = as_lightcurve(centre, counts)
    curve["timedel"] = ("time", seconds)
    curve["time_start"] = ("time", centre - np.rint(seconds * 5e8).astype("timedelta64[ns]"))
    curve["rcr"] = ("time", rcr)
    return curve.assign_coords(time=centre)


def quiet_day(bins: int = 5400, *, seed: int = 1, start: str = "2022-03-01T00:00:00") -> xr.Dataset:
    """Poisson counts of a quiet Sun."""
    counts = np.random.default_rng(seed).poisson(QUIET, (bins, 5)).astype(np.uint32)
    return as_lightcurve(np.datetime64(start, "ns") + np.arange(bins) * np.timedelta64(4, "s"), counts)


def add_flare(curve: xr.Dataset, peak_bin: int, height: float, *, rise: float = 20, decay: float = 40) -> xr.Dataset:
    """Add a flare with an exponential rise and decay to the lowest band, a tenth of it to the next."""
    offset = np.arange(curve.sizes["time"]) - peak_bin
    shape = np.where(offset < 0, np.exp(np.minimum(offset, 0) / rise), np.exp(-np.maximum(offset, 0) / decay))
    extra = np.outer(shape, [height, height / 10, 0, 0, 0])
    return curve.assign(counts=curve["counts"] + np.rint(extra).astype(np.uint32))
