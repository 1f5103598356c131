"""Simulated days with known flares: what must hold of what is found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.flare_months import Month, find, format_tables, judge, measure, simulate_days


@pytest.fixture(scope="module")
def month() -> Month:
    return simulate_days(np.datetime64("2022-03-04", "ns"), 3, seed=20)


@pytest.fixture(scope="module")
def judged(month: Month) -> tuple[pd.DataFrame, pd.DataFrame]:
    return judge(month, find(month.curve, "poisson"))


def test_every_clear_flare_is_found_and_nothing_else(judged: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    truth, found = judged
    clear = truth[(truth["significance"] > 10) & truth["alone"]]
    assert len(clear) > 15
    assert (clear["found"] >= 0).mean() > 0.9
    assert (found["kind"] != "false").all()
    assert (found["kind"] == "part").sum() <= 1


def test_errors_of_peak_times_are_honest(judged: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    truth, found = judged
    pairs = truth[(truth["found"] >= 0) & (truth["significance"] > 5) & truth["alone"]]
    mine = found.iloc[pairs["found"]]
    off = (mine["peak"].to_numpy() - pairs["peak"].to_numpy()) / np.timedelta64(1, "s")
    inside = np.abs(off) <= mine["peak_sigma_s"].to_numpy() + 2.0
    assert 0.5 < inside.mean() <= 1.0
    assert np.abs(off).max() < 120


def test_the_table_of_the_benchmark() -> None:
    result = {"months": measure(1), "false_alarms_per_day": {"steady": {"poisson": 0.0, "snip": 0.0}}}
    text = format_tables(result)
    assert text.count("\n") > 15
    assert "| purity |" in text
