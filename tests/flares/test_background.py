"""Quiet hours and the look-up of the nearest one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stixflow.flares import nearest_quiet, quiet_statistics

HOUR = np.timedelta64(3600, "s")


@pytest.mark.parametrize("day", ["20210606", "20200506"])
def test_hours_of_the_real_days(day: str, shared: Path, request: pytest.FixtureRequest) -> None:
    curve = request.getfixturevalue(f"day_{day[:4]}")
    expected = json.loads((shared / f"oracle/flares/sdc_flares_{day}_conditions.json").read_text())
    hours = expected["hourly_quiet_statistics"]
    frames = quiet_statistics(curve)
    assert frames.sizes["frame"] == len(hours)
    # The reference counts a bin that starts exactly at the end of a frame twice; frames here are half-open.
    shared_bins = frames["bins"].to_numpy() == [hour["num_points"] for hour in hours]
    assert shared_bins.all() == (day == "20210606")
    assert frames["is_quiet"].to_numpy().tolist() == [hour["is_quiet"] for hour in hours]
    np.testing.assert_array_equal(frames["median"], [hour["median"] for hour in hours])
    for name in ("mean", "std", "min", "max"):
        values = np.array([hour[name] for hour in hours])
        np.testing.assert_allclose(frames[name].to_numpy()[shared_bins], values[shared_bins], rtol=1e-12)


def test_every_bin_is_in_one_frame(quiet_curve: Callable[..., xr.Dataset]) -> None:
    curve = quiet_curve(2500).isel(time=np.r_[0:700, 2100:2500])
    frames = quiet_statistics(curve)
    assert frames["bins"].to_numpy().tolist() == [700, 400]
    total = (frames["mean"] * frames["bins"]).sum("frame")
    np.testing.assert_allclose(total, curve["counts"].sum("time"))
    assert (frames["stop"].to_numpy()[:-1] <= frames["start"].to_numpy()[1:]).all()


def test_no_bins_no_frames(quiet_curve: Callable[..., xr.Dataset]) -> None:
    frames = quiet_statistics(quiet_curve(0))
    assert frames.sizes["frame"] == 0
    assert nearest_quiet(frames, np.datetime64("2022-03-01", "ns")) is None


def test_nearest_may_lie_before_or_after(quiet_curve: Callable[..., xr.Dataset]) -> None:
    frames = quiet_statistics(quiet_curve(2700))
    start = frames["start"].to_numpy()
    earlier = nearest_quiet(frames, start[0] - 10 * HOUR)
    later = nearest_quiet(frames, start[-1] + 10 * HOUR)
    assert earlier is not None
    assert later is not None
    assert (earlier.start, earlier.age_s) == (start[0], 36000.0)
    assert (later.start, later.age_s) == (start[-1], 9 * 3600.0)


def test_inside_a_quiet_frame_the_background_has_no_age(quiet_curve: Callable[..., xr.Dataset]) -> None:
    frames = quiet_statistics(quiet_curve(2700))
    found = nearest_quiet(frames, frames["start"].to_numpy()[1] + HOUR / 4)
    assert found is not None
    assert found.age_s == 0.0
    np.testing.assert_array_equal(found.median, frames["median"].to_numpy()[1])


def test_hours_with_flares_or_bright_hours_are_not_used(
    quiet_curve: Callable[..., xr.Dataset], add_flare: Callable[..., xr.Dataset]
) -> None:
    curve = add_flare(quiet_curve(2700), 1350, 2000)
    curve["counts"][2000, 0] = 501
    frames = quiet_statistics(curve)
    assert frames["is_quiet"].to_numpy().tolist() == [True, False, True]
    middle = frames["start"].to_numpy()[1]
    found = nearest_quiet(frames, middle)
    assert found is not None
    assert found.start == frames["start"].to_numpy()[0]
    assert nearest_quiet(frames, middle, excluded=np.array([True, False, False])) is None
