"""Light curves for the tests of flares: synthetic ones, and the real days."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from stixflow.fits import read_level1

EDGES = np.array([4.0, 10.0, 15.0, 25.0, 50.0, 84.0])
QUIET = (250.0, 50.0, 67.0, 850.0, 460.0)

QuietCurve = Callable[..., xr.Dataset]
AddFlare = Callable[..., xr.Dataset]


def _curve(start: NDArray[np.datetime64], counts: NDArray[np.uint32]) -> xr.Dataset:
    bins = len(start)
    return xr.Dataset(
        {
            "time_start": ("time", start),
            "timedel": ("time", np.full(bins, 4.0)),
            "energy_low": ("energy", EDGES[:-1]),
            "energy_high": ("energy", EDGES[1:]),
            "counts": (("time", "energy"), counts),
            "rcr": ("time", np.zeros(bins, np.uint8)),
        },
        coords={"time": start + np.timedelta64(2, "s"), "energy": (EDGES[:-1] + EDGES[1:]) / 2},
    )


@pytest.fixture(scope="session")
def quiet_curve() -> QuietCurve:
    """Return a maker of Poisson counts of a quiet Sun."""

    def make(bins: int = 2700, *, seed: int = 1, start: str = "2022-03-01T00:00:00") -> xr.Dataset:
        counts = np.random.default_rng(seed).poisson(QUIET, (bins, 5)).astype(np.uint32)
        return _curve(np.datetime64(start, "ns") + np.arange(bins) * np.timedelta64(4, "s"), counts)

    return make


@pytest.fixture(scope="session")
def add_flare() -> AddFlare:
    """Return a function that adds a flare with exponential rise and decay to the lowest band, a tenth to the next."""

    def add(curve: xr.Dataset, peak_bin: int, height: float, *, rise: float = 20, decay: float = 40) -> xr.Dataset:
        offset = np.arange(curve.sizes["time"]) - peak_bin
        shape = np.where(offset < 0, np.exp(np.minimum(offset, 0) / rise), np.exp(-np.maximum(offset, 0) / decay))
        extra = np.outer(shape, [height, height / 10, 0, 0, 0])
        return curve.assign(counts=curve["counts"] + np.rint(extra).astype(np.uint32))

    return add


def _as_onboard_seconds(curve: xr.Dataset) -> xr.Dataset:
    """Count seconds of the onboard clock from the first bin on, as files and reference results of 2020 do."""
    ticks = curve["scet"].to_numpy().astype(np.int64)
    since = ((ticks - ticks[0]) * 1_000_000_000 // 65536).astype("timedelta64[ns]")
    shift = curve["time"].to_numpy()[0] + since - curve["time"].to_numpy()
    moved = {name: ("time", curve[name].to_numpy() + shift, curve[name].attrs) for name in ("time", "time_start")}
    return curve.assign(time_start=moved["time_start"]).assign_coords(time=moved["time"])


@pytest.fixture(scope="session")
def day_2021(shared: Path) -> xr.Dataset:
    """Return the light curve of 2021-06-06."""
    return read_level1(shared / "data/lightcurves/solo_L1A_stix-ql-lightcurve_20210606_010104_V01.fits")


@pytest.fixture(scope="session")
def day_2020(shared: Path) -> xr.Dataset:
    """Return the light curve of 2020-05-06, with a gap and an instrumental rise after it."""
    return _as_onboard_seconds(read_level1(shared / "data/l1/solo_L1_stix-ql-lightcurve_20200506_V01.fits"))
