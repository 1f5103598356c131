"""The operational detector on the real days, and what must hold on any day."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.errors import SchemaError, UsageError
from stixflow.flares import FLARE_COLUMNS, flare_columns, flare_id, quiet_statistics
from stixflow.flares import detect as detect_flares

BIN = np.timedelta64(4, "s")
TIMES = [name for name, column in FLARE_COLUMNS.items() if column.dtype == "datetime64[ns]"]
QuietCurve = Callable[..., xr.Dataset]
AddFlare = Callable[..., xr.Dataset]

detect = partial(detect_flares, method="snip")


def reference(shared: Path, day: str) -> pd.DataFrame:
    table = pd.read_csv(shared / f"oracle/flares/sdc_flares_{day}.csv", dtype={"flare_id": str})
    table = table[(table["min_distance_bins"] == 75) & table["is_major"]].reset_index(drop=True)
    for name in ("start_UTC", "peak_UTC", "end_UTC"):
        table[name] = pd.to_datetime(table[name])
    return table


@pytest.mark.parametrize("day", ["20210606", "20200506"])
def test_operational_flares(day: str, shared: Path, request: pytest.FixtureRequest) -> None:
    expected = reference(shared, day)
    found = detect(request.getfixturevalue(f"day_{day[:4]}"))
    assert found["flare_id"].tolist() == expected["flare_id"].tolist()
    clock = np.timedelta64(5, "ms")  # of ours against that of the file, from its first bin on
    for ours, theirs in {"start": "start_UTC", "peak": "peak_UTC", "stop": "end_UTC"}.items():
        assert (np.abs(found[ours] - expected[theirs]) <= clock).all()
    for level in (10, 50, 70):
        pairs = [literal_eval(text) for text in expected[f"PH{level}"]]
        for side, name in enumerate((f"start_{level}", f"stop_{level}")):
            theirs = [f"{peak:%Y-%m-%d}T{pair[side]}" for peak, pair in zip(expected["peak_UTC"], pairs, strict=True)]
            assert (np.abs(found[name] - np.array(theirs, "datetime64[ns]")) <= clock).all()
    same = {
        "total_counts": "total_counts",
        "upper_band": "upper_ilc",
        "is_boundary": "is_boundary",
        **{f"peak_counts_{band}": f"lc{band}_signal_max" for band in range(5)},
        **{f"bins_above_{band}": f"lc{band}_num_points_above_2sigma" for band in range(3)},
    }
    for ours, theirs in same.items():
        assert found[ours].tolist() == expected[theirs].tolist(), ours
    close = {
        "peak_smoothed_0": "peak_smoothed_counts",
        "signal_counts": "total_signal_counts",
        "prominence": "prominence",
    }
    for ours, theirs in close.items():
        np.testing.assert_allclose(found[ours], expected[theirs], rtol=1e-5)
    for band in range(4):
        assert found[f"bkg_median_{band}"].tolist() == expected[f"lc{band}_bkg_median"].tolist()


def test_the_listed_flare(day_2021: xr.Dataset, shared: Path) -> None:
    listed = pd.read_csv(shared / "oracle/flares/flarelist_csv_20210606.csv").iloc[0]
    found = detect(day_2021, distance_au=listed["solo_position_AU_distance"]).set_index("flare_id")
    flare = found.loc[str(listed["flare_id"])]
    for ours, theirs in {"start": "start_UTC", "peak": "peak_UTC", "stop": "end_UTC"}.items():
        assert abs(flare[ours] - pd.Timestamp(listed[theirs])) < pd.Timedelta("5ms")
    assert flare["peak_counts"] == 1343
    assert [flare[f"peak_counts_{band}"] for band in range(5)] == [1343, 91, 83, 927, 495]
    assert [flare[f"bkg_median_{band}"] for band in range(5)] == [247, 49, 67, 863, 463]
    assert flare["goes_class"] == "B9"
    assert flare["goes_valid"]
    assert not flare["has_gap"]


def test_gaps_in_and_next_to_a_flare_are_flagged(day_2020: xr.Dataset, day_2021: xr.Dataset) -> None:
    # 340 s are missing until 16 s before the rise of 2020-05-06.
    assert detect(day_2020)["has_gap"].tolist() == [True]
    assert detect(day_2021)["has_gap"].tolist() == [False, False, False]
    lost = day_2021.sel(time=slice("2021-06-06T11:26:00", "2021-06-06T11:26:11"))["time"]
    assert detect(day_2021.drop_sel(time=lost))["has_gap"].tolist() == [False, True, False]


@settings(max_examples=8, deadline=None)
@given(hours=st.integers(-30_000, 30_000), milliseconds=st.integers(0, 3_600_000))
def test_detection_moves_with_the_clock(
    hours: int, milliseconds: int, quiet_curve: QuietCurve, add_flare: AddFlare
) -> None:
    curve = add_flare(add_flare(quiet_curve(1800), 500, 400), 1200, 3000)
    offset = np.timedelta64(hours, "h") + np.timedelta64(milliseconds, "ms")
    later = curve.assign(time_start=("time", curve["time_start"].to_numpy() + offset))
    here, there = detect(curve), detect(later)
    assert len(here) == 2
    for name in here.columns.difference(["flare_id"]):
        moved = here[name] + pd.Timedelta(offset) if name in TIMES else here[name]
        pd.testing.assert_series_equal(there[name], moved)


@settings(max_examples=8, deadline=None)
@given(peak=st.integers(200, 1500), height=st.floats(150, 1e5), seed=st.integers(0, 50))
def test_a_clear_flare_is_found_where_it_is(
    peak: int, height: float, seed: int, quiet_curve: QuietCurve, add_flare: AddFlare
) -> None:
    curve = add_flare(quiet_curve(1800, seed=seed), peak, height)
    found = detect(curve)
    assert len(found) == 1
    flare = found.iloc[0]
    expected = curve["time_start"].to_numpy()[peak]
    assert abs(flare["peak"] - expected) <= 15 * BIN
    assert flare["start"] <= flare["peak"] < flare["stop"]
    inside = curve["counts"].to_numpy()[(curve["time_start"] >= flare["start"]) & (curve["time_start"] < flare["stop"])]
    assert flare["bins"] == len(inside)
    assert flare["total_counts"] == inside[:, 0].sum()
    assert flare["peak_counts_1"] == inside[:, 1].max()
    assert flare["flare_id"] == f"{flare['peak']:%y%m%d%H%M}"


def test_a_quiet_day_has_no_flare_but_all_columns(quiet_curve: QuietCurve) -> None:
    for bins in (0, 1, 40, 2700):
        found = detect(quiet_curve(bins))
        assert found.empty
        assert list(found.columns) == list(flare_columns(5))
        assert found["start"].dtype == "datetime64[ns]"


def test_of_overlapping_peaks_the_higher_stays(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(add_flare(quiet_curve(1800), 700, 500, decay=120), 800, 900, decay=120)
    found = detect(curve)
    assert len(found) == 1
    assert abs(found["peak"][0] - curve["time_start"].to_numpy()[800]) <= 10 * BIN


def test_flares_at_the_ends_are_flagged(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(add_flare(quiet_curve(1800), 20, 800, rise=80), 900, 800).isel(time=slice(None, 1700))
    assert detect(curve)["is_boundary"].tolist() == [True, False]


def test_no_flare_reaches_across_a_long_gap(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(quiet_curve(4000), 1000, 3000, decay=150).isel(time=np.r_[0:1100, 2100:4000])
    found = detect(curve)
    assert len(found) == 1
    assert found["is_boundary"][0]
    assert found["stop"][0] <= curve["time_start"].to_numpy()[1099] + BIN


def test_the_attenuator_makes_an_estimate_invalid(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(quiet_curve(2700), 1300, 3000)
    curve["rcr"][1298:1305] = 1
    flare = detect(curve, distance_au=0.5).iloc[0]
    assert flare["rcr_max"] == 1
    assert np.isfinite(flare["goes_flux"])
    assert not flare["goes_valid"]


def test_without_a_distance_there_is_no_class(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    flare = detect(add_flare(quiet_curve(2700), 1300, 3000)).iloc[0]
    assert np.isnan(flare["goes_flux"])
    assert flare["goes_class"] == ""
    assert not flare["goes_valid"]


def test_background_is_never_taken_from_the_flare(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    flare = detect(add_flare(quiet_curve(2700), 1300, 120, rise=60, decay=60)).iloc[0]
    hour = pd.Timedelta("1h")
    assert flare["bkg_start"] + hour <= flare["start"] or flare["bkg_start"] >= flare["stop"]
    assert flare["bkg_age_s"] > 0


def test_quiet_hours_of_another_day_serve_where_there_are_none(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(quiet_curve(900), 450, 3000)
    assert np.isnan(detect(curve)["bkg_median_0"][0])
    yesterday = quiet_curve(900, start="2022-02-28T00:00:00")
    flare = detect(curve, quiet=quiet_statistics(yesterday)).iloc[0]
    assert flare["bkg_median_0"] == np.median(yesterday["counts"][:, 0])
    assert flare["bkg_start"] == pd.Timestamp("2022-02-28")


def test_a_short_curve_is_searched_against_the_quiet_hours(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = add_flare(quiet_curve(250), 120, 1000)
    assert detect(curve).empty
    found = detect(curve, quiet=quiet_statistics(quiet_curve(900, start="2022-02-28T00:00:00")))
    assert len(found) == 1
    assert abs(found["peak"][0] - curve["time_start"].to_numpy()[120]) <= 8 * BIN


def test_every_column_is_described(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    found = detect(add_flare(quiet_curve(), 1300, 3000), distance_au=1.0)
    described = flare_columns(5)
    assert list(found.columns) == list(described)
    for name, column in described.items():
        assert found[name].dtype == ("object" if column.dtype == "str" else column.dtype)
        assert column.description
    assert found.attrs["energy_bands"] == [[4, 10], [10, 15], [15, 25], [25, 50], [50, 84]]
    assert found["peak_counts"].equals(found["peak_counts_0"])


def test_flare_id_truncates_the_minute() -> None:
    assert flare_id(np.datetime64("2021-06-06T11:27:59.999", "ns")) == "2106061127"


def test_unknown_method_names_the_known_ones(quiet_curve: QuietCurve) -> None:
    with pytest.raises(UsageError, match="'snip'"):
        detect(quiet_curve(10), method="wavelet")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda curve: curve.assign(time_start=curve["time_start"].where(curve["time"] > curve["time"][2])),
            "3 bins without a time",
        ),
        (lambda curve: curve.drop_vars("rcr"), "no variable 'rcr'"),
        (lambda curve: curve.isel(time=np.r_[0:50, 40:100]), "1 bins that do not start after"),
        (lambda curve: curve.assign(counts=curve["counts"].astype(float).where(curve["counts"] < 200)), "not finite"),
    ],
)
def test_light_curves_that_are_none(
    spoil: Callable[[xr.Dataset], xr.Dataset], message: str, quiet_curve: QuietCurve
) -> None:
    with pytest.raises(SchemaError, match=message):
        detect(spoil(quiet_curve(100)))
