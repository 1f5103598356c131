"""Which bins and which background an image is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from stixflow.errors import UsageError
from stixflow.flares import BackgroundNeed, ImagingWindow, NoWindow, channels_of, choose_background, imaging_window
from stixflow.time import TimeRange

T0 = np.datetime64("2022-11-09T00:00:00", "ns")
LOW, HIGH = np.array([4.0, 6.0, 10.0, 16.0]), np.array([6.0, 10.0, 16.0, 28.0])


def request(counts: list[float], seconds: float | list[float] = 10.0, rcr: list[int] | None = None) -> xr.Dataset:
    """Return a pixel request; `counts` per bin in 4-10 keV, half as many in 16-28."""
    bins = len(counts)
    lengths = np.broadcast_to(np.asarray(seconds, float), bins)
    starts = T0 + np.rint(np.concatenate([[0], np.cumsum(lengths)[:-1]]) * 1e9).astype("timedelta64[ns]")
    cube = np.zeros((bins, 4, 32, 12), np.uint32)
    cube[:, 0, 3, 4], cube[:, 1, 5, 0], cube[:, 3, 20, 7] = (
        np.array(counts) // 2,
        np.array(counts) // 2,
        np.array(counts) // 2,
    )
    return xr.Dataset(
        {
            "time_start": ("time", starts),
            "timedel": ("time", lengths),
            "energy_low": ("energy", LOW),
            "energy_high": ("energy", HIGH),
            "channel_start": ("energy", np.array([1, 3, 7, 13], np.uint8)),
            "channel_stop": ("energy", np.array([3, 7, 13, 18], np.uint8)),
            "counts": (("time", "energy", "detector", "pixel"), cube),
            "rcr": ("time", np.array(rcr or [0] * bins, np.uint8)),
        },
        attrs={"request_id": 2211090001},
    )


def flare(start: float, stop: float) -> dict[str, Any]:
    return {
        "start": T0 + np.timedelta64(round(start * 1e9), "ns"),
        "stop": T0 + np.timedelta64(round(stop * 1e9), "ns"),
    }


def seconds_of(window: ImagingWindow | NoWindow) -> tuple[float, float]:
    assert isinstance(window, ImagingWindow)
    start, stop = (float((t - T0) / np.timedelta64(1, "s")) for t in (window.time_range.start, window.time_range.stop))
    return start, stop


def test_peak_minute_takes_only_bins_entirely_inside() -> None:
    pixels = request([100, 3000, 3000, 4000, 8000, 4000, 3000, 3000, 100])
    window = imaging_window(pixels, None, (4, 10))
    assert isinstance(window, ImagingWindow)
    # The middle of the peak bin is 45 s: bins inside 15-75 s.
    assert seconds_of(window) == (20, 70)
    assert (window.first, window.last, window.counts, window.rule) == (2, 7, 22000, "peak minute")


def test_a_long_peak_bin_is_used_whole_and_alone() -> None:
    window = imaging_window(request([500, 20000, 15000], [20, 90, 90]), None, (4, 10))
    assert isinstance(window, ImagingWindow)
    assert seconds_of(window) == (20, 110)
    assert (window.rule, window.counts) == ("peak bin", 20000)


def test_the_peak_is_the_highest_rate_not_the_longest_bin() -> None:
    window = imaging_window(request([30000, 8000, 9000, 8000], [600, 10, 10, 10]), None, (4, 10))
    assert seconds_of(window) == (600, 630)


def test_a_small_flare_is_taken_whole() -> None:
    pixels = request([600] * 30)
    window = imaging_window(pixels, flare(50, 250), (4, 10))
    assert isinstance(window, ImagingWindow)
    assert window.rule == "whole flare"
    assert seconds_of(window) == (50, 250)
    assert window.counts == 12000


def test_too_few_counts_give_the_reason() -> None:
    window = imaging_window(request([600] * 30), flare(50, 150), (16, 28))
    assert isinstance(window, NoWindow)
    assert window.counts == 10 * 300
    assert window.reason == "3000 counts in 16-28 keV, 10000 needed"


def test_a_flare_outside_the_request() -> None:
    window = imaging_window(request([600] * 30), flare(5000, 6000), (4, 10))
    assert window == NoWindow("the request holds no time bin of the flare")


def test_only_the_flare_asked_for_is_imaged() -> None:
    pixels = request([100, 9000, 9000, 100] * 3 + [90000] * 4)
    assert seconds_of(imaging_window(pixels, flare(0, 120), (4, 10)))[1] <= 130


@given(
    counts=st.lists(st.integers(0, 20000), min_size=1, max_size=25),
    changes=st.lists(st.booleans(), min_size=25, max_size=25),
    minimum=st.integers(0, 30000),
)
def test_a_window_is_one_regime_and_has_its_counts(counts: list[int], changes: list[bool], minimum: int) -> None:
    rcr = np.cumsum(changes)[: len(counts)] % 3
    pixels = request([float(value) for value in counts], rcr=rcr.tolist())
    window = imaging_window(pixels, None, (4, 10), minimum_counts=minimum)
    if isinstance(window, NoWindow):
        assert window.counts < minimum
        return
    inside = slice(window.first, window.last)
    assert len(set(rcr[inside].tolist())) == 1
    assert window.counts == pixels["counts"][inside, :2].sum() >= minimum
    assert window.time_range.start == pixels["time_start"].to_numpy()[window.first]


def test_channels_lie_entirely_inside() -> None:
    pixels = request([1.0])
    assert channels_of(pixels, (4, 10)).tolist() == [True, True, False, False]
    assert channels_of(pixels, (5, 28)).tolist() == [False, True, True, True]
    with pytest.raises(UsageError, match="4-6, 6-10, 10-16, 16-28"):
        channels_of(pixels, (11, 15))


NEED = BackgroundNeed(TimeRange.parse("2022-11-09T12:00:00/2022-11-09T12:10:00"), 1, 17, request_id=1)


def candidate(start: str, **changes: Any) -> dict[str, Any]:
    begin = pd.Timestamp(start)
    row = {
        "request_id": 2,
        "start": begin,
        "stop": begin + pd.Timedelta(hours=1),
        "channel_start": 0,
        "channel_stop": 32,
        "detector_mask": 0xFFFFFFFF,
    }
    return row | changes


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (candidate("2022-11-09T11:00", request_id=1), "is the request of the flare itself"),
        (candidate("2023-01-15T00:00"), "67 days away"),
        (candidate("2022-09-17T00:00"), "another energy table on board"),
        (candidate("2022-11-08", channel_stop=16), "lacks channels of 1-16"),
        (candidate("2022-11-08", channel_start=2), "lacks channels of 1-16"),
        (candidate("2022-11-08", detector_mask=0xFFFFFCFF), "2 detectors missing"),
        (candidate("2022-11-08", duration_s=60.0), "only 60 s"),
        (candidate("2022-11-10T03:00"), "2 listed flares inside"),
        (candidate("2022-11-08", rcr_max=1), "attenuator in"),
    ],
)
def test_what_cannot_be_a_background(row: dict[str, Any], reason: str) -> None:
    flares = pd.DataFrame(
        {
            "start": pd.to_datetime(["2022-11-10T02:50", "2022-11-10T03:30", "2022-11-08T01:00"]),
            "stop": pd.to_datetime(["2022-11-10T03:01", "2022-11-10T03:40", "2022-11-08T01:10"]),
        }
    )
    judged = choose_background(NEED, pd.DataFrame([row]), flares=flares).iloc[0]
    assert reason in judged["reasons"].split("; ")
    assert not judged["usable"]
    assert judged["score"] == 0


def test_the_best_background_is_near_on_either_side_and_long() -> None:
    rows = [
        candidate("2022-10-20", request_id=10),
        candidate("2022-11-12", request_id=11),
        candidate("2022-11-11", request_id=12, stop=pd.Timestamp("2022-11-11T00:05")),
        candidate("2022-11-04", request_id=13),
        candidate("2022-11-09T09:00", request_id=14, detector_mask=1),
    ]
    table = choose_background(NEED, pd.DataFrame(rows))
    assert table["request_id"].tolist() == [11, 13, 12, 10, 14]
    assert table["usable"].tolist() == [True, True, True, True, False]
    assert table.set_index("request_id").loc[12, "reasons"] == "300 s, less than a thermal cycle"
    assert table["score"].is_monotonic_decreasing


def test_no_candidates() -> None:
    empty = pd.DataFrame(columns=list(candidate("2022-11-08")))
    table = choose_background(NEED, empty)
    assert table.empty
    assert {"usable", "score", "reasons"} <= set(table.columns)


def test_the_need_of_a_request() -> None:
    need = BackgroundNeed.of(request([100] * 6), (4, 10))
    assert (need.channel_start, need.channel_stop, need.request_id) == (1, 7, 2211090001)
    assert need.time_range == TimeRange(T0, T0 + np.timedelta64(60, "s"))
