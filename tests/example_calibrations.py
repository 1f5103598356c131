"""Calibration runs: run 1300 of 2021 as the reference has it, and simulated ones with a known scale."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from stixflow.archive import Archive, draft_partition
from stixflow.archive.layout import run_key, store_path
from stixflow.cubes.model import N_DETECTORS, N_PIXELS
from stixflow.cubes.store import write_store
from stixflow.simulate.calibration import simulate_calibration

SHAPE = (N_DETECTORS, N_PIXELS)
LARGE = np.arange(N_PIXELS) < 8
RUN_1300 = (200, 1)
"""Points of that run, and channels in each, from channel 250."""


def run_1300(shared: Path) -> xr.Dataset:
    """Real spectra of all pixels; the middles of their bins in the file are stretched, the bins are channels."""
    table = pd.read_csv(shared / "oracle/calibration/cal_run1300_spectra.csv").to_numpy()[:200, 1:]
    empty = simulate_calibration(0.1, 900.0, counts=0.0, subspectra=((250, 200, 1),), start_scet=679_000_000 << 16)
    counts = table.reshape(-1, *SHAPE).astype(np.uint32)
    return empty.assign(counts=(empty["counts"].dims, counts, empty["counts"].attrs))


def oracle(shared: Path, name: str, *columns: str) -> list[NDArray[np.float64]]:
    """Columns of a reference table as maps of the pixels."""
    table = pd.read_csv(shared / f"oracle/calibration/{name}.csv")
    return [table[column].to_numpy(np.float64).reshape(SHAPE) for column in columns]


def scales(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gains and offsets anywhere in the range that pixels of the mission had."""
    rng = np.random.default_rng(seed)
    return 1 / rng.uniform(8.9, 9.6, SHAPE), rng.uniform(860.0, 960.0, SHAPE)


def put_run(archive: Archive, run: xr.Dataset, run_id: str = "R1") -> None:
    """Write the store of a run and publish it."""
    day = date.fromisoformat(str(run["time_start"].values[0])[:10])
    key = run_key(int(run["scet"][0]) >> 16, round(float(run["timedel"][0])))
    path = store_path("cal_spectrum", key, day, run_id)
    made = draft_partition(
        write_store(archive.url(path), [run]),
        product="cal_spectrum",
        run_id=run_id,
        key=key,
        day=day,
        path=path,
        input_digest="in",
        code_version="1",
    )
    archive.catalog.publish(archive.catalog.stage(made))
