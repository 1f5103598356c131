from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging.counts import interval_counts
from stixflow.imaging.intervals import flare_intervals
from stixflow.instrument import SumCase, subcollimators
from stixflow.time import TimeRange

START = np.datetime64("2022-11-09T00:00:00", "ns")
DETECTORS = subcollimators()
ENERGIES = [(6.0, 10.0), (4.0, 8.0)]
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Maker = Callable[..., xr.Dataset]


def _flare(make_pixels: Maker, levels: list[int], rcr: list[int] | None = None) -> xr.Dataset:
    """Bins of 10 s with the given counts in every pixel and channel."""
    pixels = make_pixels(n_times=len(levels))
    pixels["counts"] = xr.zeros_like(pixels["counts"]) + xr.DataArray(np.array(levels, np.uint32), dims="time")
    if rcr is not None:
        pixels["rcr"][:] = rcr
    return pixels


def _direct(pixels: xr.Dataset, first: int, stop: int) -> tuple[int, int]:
    chosen = pixels["counts"].to_numpy()[first:stop][:, :, DETECTORS, :8].astype(np.int64)
    return int(chosen[:, 2:6].sum()), int(chosen[:, 0:4].sum())


states = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 0, 0, 0, 1])), min_size=1, max_size=25)


@SLOW
@given(bins=states, wanted=st.floats(1, 60_000))
def test_intervals_by_counts(make_pixels: Maker, bins: list[tuple[int, int]], wanted: float) -> None:
    levels, rcr = [level for level, _ in bins], [state for _, state in bins]
    pixels = _flare(make_pixels, levels, rcr)
    found = flare_intervals(pixels, ENERGIES, counts=wanted).intervals
    assert [one.first for one in found] == [0, *(one.stop for one in found[:-1])]
    assert found[-1].stop == len(bins)
    for one in found:
        assert len(set(rcr[one.first : one.stop])) == 1
        assert one.counts == _direct(pixels, one.first, one.stop)
        assert one.is_enough == (min(one.counts) >= wanted)
        at_end = one.stop == len(bins) or rcr[one.stop] != rcr[one.first]
        assert one.is_enough or at_end
        if not at_end:
            assert min(_direct(pixels, one.first, one.stop - 1)) < wanted
        if not one.is_enough:
            assert one.first == 0 or rcr[one.first - 1] != rcr[one.first]


@SLOW
@given(bins=states, seconds=st.floats(5, 80))
def test_intervals_of_a_cadence(make_pixels: Maker, bins: list[tuple[int, int]], seconds: float) -> None:
    rcr = [state for _, state in bins]
    found = flare_intervals(_flare(make_pixels, [1] * len(bins), rcr), ENERGIES, cadence=seconds).intervals
    assert [one.first for one in found] == [0, *(one.stop for one in found[:-1])]
    assert found[-1].stop == len(bins)
    for one in found:
        assert len(set(rcr[one.first : one.stop])) == 1
        assert one.time_range.seconds <= max(seconds, 10) + 10


@SLOW
@given(levels=st.lists(st.integers(0, 30), min_size=1, max_size=20), snr=st.floats(5, 100))
def test_intervals_by_signal_to_noise(make_pixels: Maker, levels: list[int], snr: float) -> None:
    pixels, background = _flare(make_pixels, levels), _flare(make_pixels, [3] * 4)
    for one in flare_intervals(pixels, (6.0, 10.0), snr=snr, background=background).intervals:
        total = one.counts[0]
        part = (one.stop - one.first) / 4
        taken = part * _direct(background, 0, 4)[0]
        reached = total > 0 and total - taken >= snr * np.sqrt(total + part * taken) * (1 - 1e-9)
        last = one.stop == len(levels)
        assert one.is_enough or last
        assert reached or last


def test_every_interval_can_be_imaged(make_pixels: Maker) -> None:
    pixels = _flare(make_pixels, [5] * 6 + [9] * 8, [0] * 5 + [1] * 4 + [0] * 5).isel(
        time=[0, 1, 2, 3, 5, 6, 7, 9, 10, 11]
    )
    pixels["observed"][9, 3] = False
    found = flare_intervals(pixels, ENERGIES, counts=7000)
    interval_counts(pixels, found.time_ranges, ENERGIES, DETECTORS, SumCase.TOP_BOTTOM)
    reasons = [one.reason for one in found.intervals]
    assert any("rate control" in reason for reason in reasons)
    assert any("not received" in reason for reason in reasons)
    assert found.left_out[0][1] == "energies were not received"
    assert found.left_out[0][0].start == pixels["time_start"].values[9]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("pixel_mask", 0x0FF, "pixel mask"), ("detector_mask", 0x7FFFFFFF & ~(1 << 8), "detector mask")],
)
def test_changes_of_masks_end_an_interval(make_pixels: Maker, name: str, value: int, reason: str) -> None:
    pixels = _flare(make_pixels, [5] * 6)
    pixels[name][3:] = value
    chosen = DETECTORS[DETECTORS < 30]
    found = flare_intervals(pixels, ENERGIES, counts=1e9, subcollimators=chosen).intervals
    assert [(one.first, one.stop) for one in found] == [(0, 3), (3, 6)]
    assert reason in found[0].reason


def test_a_lost_bin_ends_an_interval_and_jitter_does_not(make_pixels: Maker) -> None:
    pixels = _flare(make_pixels, [5] * 6)
    jitter = pixels.assign(time_start=pixels["time_start"] + np.array([0, 20, -30, 40, 0, 10], "timedelta64[ms]"))
    assert len(flare_intervals(jitter, ENERGIES, counts=1e9).intervals) == 1
    lost = pixels.isel(time=[0, 1, 3, 4, 5])
    found = flare_intervals(lost, ENERGIES, counts=1e9).intervals
    assert [(one.first, one.stop) for one in found] == [(0, 2), (2, 5)]
    assert "gap" in found[0].reason


def test_a_time_range_and_a_shortest_duration_limit_the_intervals(make_pixels: Maker) -> None:
    pixels = _flare(make_pixels, [50] * 12)
    within = TimeRange(START + np.timedelta64(20, "s"), START + np.timedelta64(100, "s"))
    found = flare_intervals(pixels, ENERGIES, counts=1, within=within, shortest=25)
    assert [(one.first, one.stop) for one in found.intervals] == [(2, 5), (5, 10)]
    assert found.time_ranges[0].start == within.start
    assert found.intervals[-1].reason == "the time range ends; what was left is added"
    assert found.left_out == ()


@pytest.mark.parametrize("demand", [{}, {"counts": 10, "snr": 3}, {"cadence": 0}, {"counts": -4}])
def test_one_demand_is_needed(make_pixels: Maker, demand: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="exactly one"):
        flare_intervals(_flare(make_pixels, [1]), ENERGIES, **demand)


def test_energies_must_be_there(make_pixels: Maker) -> None:
    with pytest.raises(ImagingError, match="do not cover"):
        flare_intervals(_flare(make_pixels, [1]), (20, 40), counts=5)
