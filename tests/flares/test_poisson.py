"""The likelihood detector: real days, false alarms, day boundaries, gaps, attenuator, what is no flare."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from stixflow.errors import UsageError
from stixflow.flares import CONTEXT, detect, flare_columns, join_days
from stixflow.flares.poisson import chance, false_alarm_rate, score_of_rate
from stixflow.time import TimeRange

BIN = np.timedelta64(4, "s")
DAY = np.timedelta64(1, "D")
DAY_BINS = 21600
QuietCurve = Callable[..., xr.Dataset]
AddFlare = Callable[..., xr.Dataset]


def bins_of(curve: xr.Dataset, times: pd.Series) -> np.ndarray:
    return np.searchsorted(curve["time_start"].to_numpy(), times.to_numpy().astype("datetime64[ns]"))


def scaled(curve: xr.Dataset, bins: slice, band: int, factor: float) -> xr.Dataset:
    counts = curve["counts"].copy()
    counts[bins, band] = np.rint(counts[bins, band] * factor)
    return curve.assign(counts=counts)


def test_the_operational_flares_of_the_real_day_are_found(day_2021: xr.Dataset) -> None:
    found = detect(day_2021, distance_au=0.9516).set_index("flare_id")
    operational = detect(day_2021, "snip").set_index("flare_id")
    for name, flare in operational.iterrows():
        off = (found["peak"] - flare["peak"]).abs()
        assert off.min() <= pd.Timedelta("20s"), name
        assert found.loc[off.idxmin(), "peak_counts"] == flare["peak_counts"]
    # The lesser of two peaks that the operational list takes as one flare.
    assert "2106062319" in found.index
    main = found.loc["2106061127"]
    assert main["goes_class"] == "B9"
    assert main["upper_band"] == 1
    assert main["probability"] > 0.9999
    assert (found["false_alarms_per_day"] < 0.02).all()
    np.testing.assert_allclose(found["bkg_median_0"], 253, atol=3)


def test_the_artefact_of_2020_is_no_flare(day_2020: xr.Dataset) -> None:
    assert detect(day_2020).empty
    seen = detect(day_2020, keep_vetoed=True)
    assert len(seen)
    assert seen["peak"].between(pd.Timestamp("2020-05-06T17:32"), pd.Timestamp("2020-05-06T17:37")).all()
    assert seen["veto"].str.contains("energy scale").all()
    assert seen["flags"].str.contains("NS").all()


def test_chance_is_a_mixture_of_chi_squares() -> None:
    draws = np.random.default_rng(4).normal(size=(400_000, 4))
    scores = np.square(np.maximum(draws, 0)).sum(axis=1)
    for score in (2.0, 8.0, 15.0):
        expected = (scores > score).mean()
        assert chance(score, 4) == pytest.approx(expected, abs=4 * np.sqrt(expected / len(scores)))
    assert chance(9.0, 1) == pytest.approx(chi2.sf(9.0, 1) / 2)


@settings(max_examples=20, deadline=None)
@given(rate=st.floats(1e-6, 100), bands=st.integers(1, 5))
def test_a_score_and_its_rate_of_false_alarms_agree(rate: float, bands: int) -> None:
    assert false_alarm_rate(score_of_rate(rate, bands), bands) == pytest.approx(rate, rel=1e-6)


def test_false_alarms_are_rarer_than_asked_but_not_much(quiet_curve: QuietCurve) -> None:
    days, rate = 8, 5.0
    found = detect(quiet_curve(days * DAY_BINS, seed=11), false_alarms_per_day=rate)
    assert 0.2 * rate * days < len(found) < rate * days + 3 * np.sqrt(rate * days)
    assert (found["false_alarms_per_day"] <= rate).all()
    assert (found["false_alarms_per_day"] < 0.02).sum() <= 1


def test_days_in_parallel_give_the_list_of_the_whole(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = quiet_curve(5 * DAY_BINS, seed=3)
    rng = np.random.default_rng(8)
    midnights = [DAY_BINS - 2, 2 * DAY_BINS + 1, 3 * DAY_BINS, 4 * DAY_BINS - 40]
    for peak in (*midnights, *rng.integers(300, 5 * DAY_BINS - 300, 40)):
        curve = add_flare(
            curve, int(peak), 10 ** rng.uniform(1.7, 4), rise=rng.uniform(5, 40), decay=rng.uniform(20, 90)
        )
    whole = detect(curve, distance_au=0.7)
    start = curve["time_start"].to_numpy()
    first = start[0].astype("datetime64[D]")
    days = [curve.isel(time=slice(k * DAY_BINS, (k + 1) * DAY_BINS)) for k in range(5)]
    parts = []
    for k in range(5):
        own = TimeRange((first + k).astype("datetime64[ns]"), (first + k + 1).astype("datetime64[ns]"))
        parts.append(detect(join_days(days[max(k - 1, 0) : k + 2]), distance_au=0.7, span=own))
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole, rtol=1e-9)
    assert CONTEXT["poisson"] == DAY
    peaks = bins_of(curve, whole["peak"])
    for midnight in midnights:
        assert (np.abs(peaks - midnight) <= 15).sum() == 1
    crossing = (whole["start"].dt.floor("D") < (whole["stop"] - pd.Timedelta("1s")).dt.floor("D")).sum()
    assert crossing >= 3


def test_a_peak_bin_across_midnight_belongs_to_the_day_of_its_middle(quiet_curve: QuietCurve) -> None:
    curve = quiet_curve(DAY_BINS, start="2022-02-28T23:59:59.5")
    curve["counts"][0:30, 0] += np.linspace(900, 100, 30).astype(np.uint32)
    days = [np.datetime64(day, "ns") for day in ("2022-02-28", "2022-03-01", "2022-03-02")]
    found = [detect(curve, span=TimeRange(a, b))["flare_id"].tolist() for a, b in pairwise(days)]
    assert found == [[], ["2202282359"]]


def test_a_long_curve_in_pieces(quiet_curve: QuietCurve, add_flare: AddFlare, monkeypatch: pytest.MonkeyPatch) -> None:
    curve = quiet_curve(4 * DAY_BINS, seed=5)
    for peak in (DAY_BINS - 3, 2 * DAY_BINS + 4, 3 * DAY_BINS + 900):
        curve = add_flare(curve, peak, 900)
    whole = detect(curve)
    monkeypatch.setattr("stixflow.flares.detection.CHUNK_DAYS", 1)
    pd.testing.assert_frame_equal(detect(curve), whole, rtol=1e-9)
    assert len(whole) == 3


def test_both_detectors_take_a_flare_at_midnight_as_one(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(quiet_curve(3 * DAY_BINS, seed=9), 2 * DAY_BINS - 4, 1500, decay=60)
    first = curve["time_start"].to_numpy()[0].astype("datetime64[D]")
    for method, reach in CONTEXT.items():
        whole = detect(curve, method)
        assert len(whole) == 1
        found = []
        for k in range(3):
            own = TimeRange((first + k).astype("datetime64[ns]"), (first + k + 1).astype("datetime64[ns]"))
            near = TimeRange(own.start - reach, own.stop + reach).covers(curve["time_start"].to_numpy())
            found.append(detect(curve.isel(time=np.flatnonzero(near)), method, span=own))
        joined = pd.concat([table for table in found if len(table)])
        assert joined["flare_id"].tolist() == whole["flare_id"].tolist()
        assert abs(joined["start"].iloc[0] - whole["start"].iloc[0]) <= pd.Timedelta("60s")
        assert abs(joined["stop"].iloc[0] - whole["stop"].iloc[0]) <= pd.Timedelta("60s")


def test_overlapping_flares_are_split_and_shoulders_are_sub_peaks(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(add_flare(quiet_curve(3600), 1500, 2500, decay=70), 1640, 1500, decay=70)
    found = detect(curve)
    assert len(found) == 2
    assert found["stop"][0] == found["start"][1]
    assert np.abs(bins_of(curve, found["peak"]) - [1500, 1640]).max() <= 10
    near = detect(add_flare(add_flare(quiet_curve(3600), 1500, 2500, rise=10, decay=40), 1540, 900, rise=6, decay=40))
    assert len(near) == 1
    assert near["n_sub_peaks"][0] == 1
    assert abs(np.datetime64(near["sub_peaks"][0]) - curve["time_start"].to_numpy()[1540]) <= 8 * BIN


@settings(max_examples=6, deadline=None)
@given(peak=st.integers(700, 2000), height=st.floats(90, 1e5), seed=st.integers(0, 99))
def test_a_clear_flare_is_found_with_honest_times(
    peak: int, height: float, seed: int, quiet_curve: QuietCurve, add_flare: AddFlare
) -> None:
    curve = add_flare(quiet_curve(seed=seed), peak, height)
    found = detect(curve)
    flare = found.loc[found["significance"].idxmax()]
    times = curve["time_start"].to_numpy()
    assert abs(flare["peak"] - times[peak]) <= 12 * BIN
    assert flare["start"] <= flare["peak"] < flare["stop"]
    assert flare["start_sigma_s"] > 0
    inside = curve["counts"].to_numpy()[(times >= flare["start"]) & (times < flare["stop"])]
    assert flare["bins"] == len(inside)
    assert [flare[f"counts_{band}"] for band in range(5)] == inside.sum(axis=0).tolist()
    assert flare["start_10"] >= flare["start"]
    assert flare["duration_10_s"] <= flare["duration_50_s"] <= flare["duration_70_s"] <= flare["duration_s"]


def test_a_motion_of_the_attenuator_is_neither_edge_nor_peak(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    bright = add_flare(quiet_curve(3600), 1500, 40_000, rise=40, decay=80)
    inserted = slice(1470, 1600)
    attenuated = bright.copy(deep=True)
    flux = bright["counts"].to_numpy() - np.array([250, 50, 67, 850, 460])
    attenuated["counts"][inserted, 0] = np.rint(250 + np.maximum(flux[inserted, 0], 0) * 0.03).astype(np.uint32)
    attenuated["counts"][inserted, 1] = np.rint(50 + np.maximum(flux[inserted, 1], 0) * 0.3).astype(np.uint32)
    attenuated["rcr"][inserted] = 1
    (free,) = detect(bright, distance_au=0.6).to_dict("records")
    (flare,) = detect(attenuated, distance_au=0.6).to_dict("records")
    assert flare["n_sub_peaks"] == free["n_sub_peaks"]
    assert abs(flare["peak"] - free["peak"]) <= pd.Timedelta("24s")
    assert abs(flare["start"] - free["start"]) <= pd.Timedelta("30s")
    assert abs(flare["stop"] - free["stop"]) <= pd.Timedelta("60s")
    assert (flare["rcr_start"], flare["rcr_peak"], flare["rcr_max"], flare["attenuator_motions"]) == (0, 1, 1, 2)
    assert flare["flags"] == "A1 a0"
    assert free["flags"] == "A0"
    assert free["goes_valid"]
    assert not flare["goes_valid"]
    assert np.isnan(flare["goes_fit_flux"])


def test_a_test_of_the_attenuator_is_no_flare(quiet_curve: QuietCurve) -> None:
    curve = quiet_curve(3600)
    curve["rcr"][1000:1100] = 1
    assert detect(curve).empty


def test_a_day_under_the_attenuator_is_searched_like_any_other(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(quiet_curve(5400), 2000, 900)
    curve["rcr"][:] = 1
    (flare,) = detect(curve).to_dict("records")
    assert flare["flags"] == "A1"
    assert not flare["goes_valid"]


def test_gaps_are_told_and_long_ones_not_bridged(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(quiet_curve(3600), 1500, 3000, decay=70)
    (short,) = detect(curve.isel(time=np.r_[0:1530, 1545:3600])).to_dict("records")
    assert short["has_gap"]
    assert "GD" in short["flags"].split()
    assert short["bins"] < short["duration_s"] / 4
    (cut,) = detect(curve.isel(time=np.r_[0:1530, 2100:3600])).to_dict("records")
    assert cut["is_boundary"]
    assert "GE" in cut["flags"].split()
    assert cut["stop"] <= pd.Timestamp(curve["time_start"].to_numpy()[1530])


def test_particles_and_single_bins_are_no_flares(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    particles = quiet_curve(3600)
    for band in range(5):
        particles = scaled(particles, slice(1500, 1800), band, 1.5)
    assert detect(particles).empty
    assert detect(particles, keep_vetoed=True)["veto"].str.contains("particles").all()
    spike = quiet_curve(3600)
    spike["counts"][1500, 0] += 2000
    assert detect(spike).empty
    assert detect(spike, keep_vetoed=True)["veto"].tolist() == ["a single bin"]
    shifted = scaled(add_flare(quiet_curve(3600), 1500, 300), slice(1480, 1560), 3, 0.7)
    assert detect(shifted).empty
    assert len(detect(add_flare(quiet_curve(3600), 1500, 300))) == 1


def test_flares_are_found_while_particles_rise(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = quiet_curve(DAY_BINS)
    hours = np.arange(DAY_BINS) / 900.0
    storm = 1 + 0.5 * np.clip(hours - 10, 0, 1) * np.exp(-np.maximum(hours - 11, 0) / 10)
    counts = np.random.default_rng(6).poisson(np.array([250, 50, 67, 850, 460]) * storm[:, np.newaxis])
    curve = curve.assign(counts=(("time", "energy"), counts.astype(np.uint32)))
    peaks = [9300, 10200, 11500]
    for peak in peaks:
        curve = add_flare(curve, peak, 500)
    found = detect(curve)
    for peak in peaks:
        assert (np.abs(bins_of(curve, found["peak"]) - peak) <= 10).sum() == 1
    assert len(found) <= len(peaks) + 1


def test_the_background_detector_tells_particles_from_flares(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(add_flare(quiet_curve(3600, seed=4), 1000, 400), 2400, 400)
    monitor = quiet_curve(3600, seed=5).drop_vars("rcr")
    monitor["counts"][2380:2470, :] = (monitor["counts"][2380:2470, :] * 1.8).astype(np.uint32)
    assert len(detect(curve)) == 2
    assert bins_of(curve, detect(curve, background_detector=monitor)["peak"]) == pytest.approx([1000], abs=10)
    seen = detect(curve, background_detector=monitor, keep_vetoed=True)
    assert [bool(text) for text in seen["veto"]] == [False, True]


def test_two_peaks_in_one_minute_have_names_of_their_own(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    from stixflow.flares.table import unique_ids

    assert unique_ids(["2203010100", "2203010107", "2203010107", "2203010107"]) == [
        "2203010100",
        "2203010107",
        "2203010107b",
        "2203010107c",
    ]
    found = detect(add_flare(quiet_curve(), 1300, 900))
    assert found["flare_id"].is_unique
    assert not found["is_duplicate_id"].any()


@pytest.mark.parametrize("bins", [0, 1, 4, 7, 40, 400])
def test_short_curves_have_all_columns(bins: int, quiet_curve: QuietCurve) -> None:
    found = detect(quiet_curve(bins), distance_au=1.0)
    assert found.empty
    assert list(found.columns) == list(flare_columns(5))


def test_the_distance_may_change_in_time(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(quiet_curve(), 1300, 900)
    fixed = detect(curve, distance_au=0.5)
    moving = detect(curve, distance_au=lambda times: np.full(len(times), 0.5))
    pd.testing.assert_frame_equal(moving, fixed)


@pytest.mark.parametrize("rate", [0.0, -1.0, 1e6])
def test_a_rate_of_false_alarms_that_is_none(rate: float, quiet_curve: QuietCurve) -> None:
    with pytest.raises(UsageError, match="false alarms a day"):
        detect(quiet_curve(10), false_alarms_per_day=rate)


def test_a_window_never_spans_a_long_gap(quiet_curve: QuietCurve) -> None:
    curve = quiet_curve(6000, seed=2).isel(time=np.r_[0:2000, 2100:3000, 5000:6000])
    assert detect(curve).empty
