"""Something to draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stixflow.ephemeris import Observer, apparent_radius, read_ancillary
from stixflow.fits import read_level1
from stixflow.previews import Preview, SkyImage, preview
from stixflow.time import TimeRange

DISTANCE = 0.5 * 149_597_870_700.0


@pytest.fixture(scope="session")
def lightcurve() -> xr.Dataset:
    """Return forty minutes with a gap of eight in the middle and one flare."""
    bins = np.r_[0:250, 370:600]
    start = np.datetime64("2022-03-01T01:00:00", "ns") + bins * np.timedelta64(4, "s")
    counts = np.tile(np.array([250, 50, 67, 850, 460], np.uint32), (len(bins), 1))
    counts[:, 0] += (2000 * np.exp(-(((bins - 450) / 20) ** 2))).astype(np.uint32)
    edges = np.array([4.0, 10.0, 15.0, 25.0, 50.0, 84.0])
    return xr.Dataset(
        {
            "time_start": ("time", start),
            "timedel": ("time", np.full(len(bins), 4.0)),
            "energy_low": ("energy", edges[:-1]),
            "energy_high": ("energy", edges[1:]),
            "counts": (("time", "energy"), counts),
            "rcr": ("time", (np.abs(bins - 450) < 5).astype(np.uint8)),
        },
        coords={"time": start + np.timedelta64(2, "s")},
    )


@pytest.fixture(scope="session")
def flares() -> pd.DataFrame:
    """Return two flares as the flare table names them."""
    return pd.DataFrame(
        {
            "flare_id": ["2203010130", "2203010137"],
            "start": pd.to_datetime(["2022-03-01T01:28:00", "2022-03-01T01:36:00"]),
            "peak": pd.to_datetime(["2022-03-01T01:30:00", "2022-03-01T01:37:10"]),
            "stop": pd.to_datetime(["2022-03-01T01:32:00", "2022-03-01T01:38:00"]),
            "peak_counts": [2250, 400],
            "goes_class": ["C2", ""],
        }
    )


@pytest.fixture(scope="session")
def image() -> SkyImage:
    """Return a source 12 arcsec right of and 6 above the middle of a turned image of 65 pixels of 2 arcsec."""
    column, row = np.meshgrid(np.arange(65), np.arange(65))
    data = np.exp(-(((column - 38) / 4) ** 2) - ((row - 35) / 3) ** 2)
    cos, sin = 2 * np.cos(np.deg2rad(100)), 2 * np.sin(np.deg2rad(100))
    observer = Observer(DISTANCE, 30.0, -4.0, float(apparent_radius(DISTANCE)))
    return SkyImage(data, (32.0, 32.0), (700.0, -400.0), ((cos, -sin), (sin, cos)), observer, "clean", "counts")


@pytest.fixture(scope="session")
def real_paths(shared: Path) -> dict[str, Path]:
    """Return official files of a flare of 2022-11-09."""
    folder = shared / "data" / "flares_202211"
    return {
        "pixels": next((folder / "pixel_data").glob("*_2211091049-*.fits")),
        "background": next((folder / "pixel_data").glob("*_2211098157-*.fits")),
        "ephemeris": folder / "ephemeris" / "solo_L2_stix-aux-ephemeris_20221109_V01.fits",
    }


@pytest.fixture(scope="session")
def real_inputs(real_paths: dict[str, Path]) -> dict[str, xr.Dataset]:
    """Return what is in them."""
    readers = {"pixels": read_level1, "background": read_level1, "ephemeris": read_ancillary}
    return {name: readers[name](path) for name, path in real_paths.items()}


@pytest.fixture(scope="session")
def real_preview(real_inputs: dict[str, xr.Dataset]) -> Preview:
    """Return the preview of 40 s of it, on maps of 65 pixels of 4 arcsec."""
    span = TimeRange.parse("2022-11-09T07:20:24/2022-11-09T07:21:04")
    places = {name: real_inputs[name] for name in ("background", "ephemeris")}
    return preview(real_inputs["pixels"], span, (4.0, 10.0), size=65, pixel=4.0, **places)
