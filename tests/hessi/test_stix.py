"""Observing summaries of STIX light curves."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from stixflow.ephemeris import distance_au
from stixflow.errors import UsageError
from stixflow.fits import read_level1
from stixflow.hessi import find_flares, read_summary, summary_from_lightcurve, ut_of_utc, utc_of_ut
from stixflow.hessi.stix import _grid, _rates
from stixflow.time import TimeRange

_DAY = np.datetime64("2021-06-06", "ns")


def _lightcurve(durations, counts, *, start=0.0, gap_at=None, gap_s=0.0, rcr=0):
    durations = np.asarray(durations, float)
    begin = start + np.concatenate([[0.0], np.cumsum(durations)[:-1]])
    if gap_at is not None:
        begin[gap_at:] += gap_s
    times = _DAY + np.rint((begin + durations / 2) * 1e9).astype("timedelta64[ns]")
    n = len(durations)
    return xr.Dataset(
        {
            "counts": (("time", "energy"), np.asarray(counts, np.uint32)),
            "timedel": ("time", durations),
            "rcr": ("time", np.broadcast_to(np.asarray(rcr, np.uint8), n)),
            "detector_mask": ("time", np.full(n, 0xFFFFFFFF, np.uint32)),
            "energy_low": ("energy", np.array([4.0, 10, 15, 25, 50])),
            "energy_high": ("energy", np.array([10.0, 15, 25, 50, 84])),
        },
        coords={"time": times},
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([1.0, 3.904, 4.0, 4.003, 4.005, 8.0]), min_size=1, max_size=60), st.floats(0, 4),
       st.integers(0, 50), st.floats(0, 100))  # fmt: skip
def test_counts_are_kept(durations, start, gap_at, gap_s):
    rng = np.random.default_rng(len(durations))
    counts = rng.integers(0, 1000, (len(durations), 5))
    where = min(gap_at, len(durations) - 1)
    curve = _lightcurve(durations, counts, start=start, gap_at=where, gap_s=gap_s)
    span = TimeRange(_DAY - np.timedelta64(60, "s"), _DAY + np.timedelta64(3600, "s"))
    rates, seconds = _rates(curve, _grid(curve, span))
    assert len(rates) == 915
    assert_allclose(seconds.sum(), sum(durations), rtol=1e-5)
    assert seconds.max() <= 4.0 + 1e-3
    assert_allclose((rates * seconds[:, None]).sum(axis=0), counts.sum(axis=0), rtol=1e-5, atol=1e-3)


def test_regular_bins_give_their_rates():
    counts = np.arange(50).reshape(10, 5) * 4
    data = summary_from_lightcurve(_lightcurve(np.full(10, 4.0), counts), compress=False).get("data")
    assert_allclose(data["countrate"], counts / 4.0, rtol=1e-6)
    assert_array_equal(utc_of_ut(data["time"]), _DAY + np.arange(10) * np.timedelta64(4, "s"))


def test_gap_and_attenuator_are_flagged():
    curve = _lightcurve(np.full(20, 4.0), np.full((20, 5), 40), gap_at=10, gap_s=40.0, rcr=np.arange(20) > 14)
    summary = summary_from_lightcurve(curve)
    gap = summary.flag("Data Gap")
    assert_array_equal(np.flatnonzero(gap), np.arange(10, 20))
    data = summary.get("data")["countrate"]
    assert_array_equal(data[gap == 0], 10.0)
    assert_array_equal(data[gap == 1], 0.0)
    assert_array_equal(np.flatnonzero(summary.flag("Attenuator State")), np.arange(25, 30))


def test_variance_position_and_flares(tmp_path):
    curve = _lightcurve(np.full(900, 4.0), np.full((900, 5), 40))
    variance = xr.Dataset(
        {"variance": ("time", np.where(np.arange(900) == 450, 400, 100)), "timedel": ("time", np.full(900, 4.0))},
        coords={"time": curve["time"]},
    )
    flare = TimeRange(_DAY + np.timedelta64(400, "s"), _DAY + np.timedelta64(500, "s"))
    summary = summary_from_lightcurve(curve, variance=variance, flares=[flare])
    summary.write(tmp_path / "hsi_obssumm_20210606_001.fits")
    back = read_summary(tmp_path / "hsi_obssumm_20210606_001.fits")
    modulation = back.get("mod_variance").data["mod_variance"].ravel()
    assert (modulation[450], modulation[10]) == (20, 10)
    assert back.flag("Flare").sum() == 25
    place = back.get("ephemeris")
    assert len(place.data) == 180
    distance = np.linalg.norm(place.data["xyz_eci"], axis=1) / 149_597_870.7
    assert_allclose(distance, distance_au(utc_of_ut(place.times())), rtol=1e-5)
    assert back.get("obs_summ_rate").info["seg_index_mask"].sum() == 32


def test_real_day_and_its_flares(shared):
    curve = read_level1(shared / "data/lightcurves/solo_L1A_stix-ql-lightcurve_20210606_010104_V01.fits")
    summary = summary_from_lightcurve(curve)
    data = summary.get("data")
    # Integrals agree but for the byte and the gaps.
    seconds = float(curve["timedel"].sum())
    mean = curve["counts"].to_numpy().sum(axis=0) / seconds
    assert_allclose(data["countrate"][summary.flag("Data Gap") == 0].mean(axis=0), mean, rtol=0.03)
    found = find_flares(summary, energy_range=(4, 10)).get("data")
    listed = pd.read_csv(shared / "oracle/flares/sdc_flares_20210606.csv").drop_duplicates("peak_UTC")["peak_UTC"]
    assert len(listed) == 4
    for peak in ut_of_utc(listed.to_numpy().astype("datetime64[ns]")):
        assert ((found["start_time"] < peak) & (found["end_time"] > peak)).any()
    assert len(found) < 25


def test_empty_light_curve():
    curve = _lightcurve(np.full(3, 4.0), np.zeros((3, 5))).isel(time=slice(0, 0))
    with pytest.raises(UsageError):
        summary_from_lightcurve(curve)
