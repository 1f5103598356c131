"""Runs in a few numbers, and many of them as a table."""

import numpy as np
import pytest
import xarray as xr
from example_calibrations import LARGE

from stixflow.calibration import calibrate, summarise, trend_of
from stixflow.instrument import elut
from stixflow.simulate.calibration import simulate_calibration

_START = 794271634


def _calibration(day: int, factor: float = 1.0) -> xr.Dataset:
    table = elut("2025-03-03")
    return calibrate(
        simulate_calibration(
            table.gain * factor, table.offset, counts=4000.0, start_scet=_START + 86400 * day << 16, seed=day
        )
    )


def test_a_run_in_a_few_numbers() -> None:
    told = summarise(_calibration(0))
    assert told["start"].startswith("2025-03-02T23:05:11")
    assert told["hours"] == 24.0
    assert told["calibrated"] == 384
    assert told["table"] == "20241114"
    assert abs(told["drift_median"]) < 0.02
    assert told["beyond"] == []


def test_a_trend_is_in_order_of_time_and_shows_a_change_of_gain() -> None:
    later, earlier = summarise(_calibration(8, factor=1.01)), summarise(_calibration(0))
    trend = trend_of([later, earlier])
    assert trend["start"].is_monotonic_increasing
    assert trend["gain"].iloc[1] / trend["gain"].iloc[0] == pytest.approx(1.01, abs=5e-4)
    assert trend["beyond"].tolist()[0] == 0
    assert trend["beyond"].tolist()[1] > 200
    assert trend["drift_worst"].iloc[1] == pytest.approx(0.84, abs=0.3)


def test_a_trend_of_nothing_is_empty() -> None:
    assert trend_of([]).empty


def test_a_run_without_lines_has_no_numbers() -> None:
    run = simulate_calibration(0.108, 900.0, seed=1)
    told = summarise(calibrate(run.assign(counts=run["counts"] * 0)))
    assert told["calibrated"] == 0
    assert all(np.isnan(told[name]) for name in ("gain", "offset", "fwhm_31", "drift_median", "drift_worst"))


def test_widths_are_those_of_large_pixels() -> None:
    found = _calibration(0)
    assert summarise(found)["fwhm_31"] == pytest.approx(np.median(found["line_fwhm"].values[:, LARGE, 0]))
