"""The best background of a need, found among many, is the first of all scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from stixflow.flares import BackgroundNeed, Candidates, choose_background
from stixflow.time import TimeRange

_FIRST = np.datetime64("2022-03-01T00:00", "ns")

_requests = st.lists(
    st.fixed_dictionaries(
        {
            "request_id": st.integers(1, 4),
            "hour": st.integers(0, 200 * 24),
            "minutes": st.integers(1, 90),
            "channel_stop": st.sampled_from([16, 32]),
            "detector_mask": st.sampled_from([0xFFFFFFFF, 0xFFFFFCFF]),
            "rcr_max": st.integers(0, 1),
        }
    ),
    min_size=1,
    max_size=12,
)
_flares = st.lists(st.tuples(st.integers(0, 200 * 24), st.integers(0, 60)), max_size=6)


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    start = np.array([_FIRST + np.timedelta64(row["hour"], "h") for row in rows], "datetime64[ns]")
    stop = start + np.array([np.timedelta64(row["minutes"], "m") for row in rows])
    kept = [{name: row[name] for name in ("request_id", "channel_stop", "detector_mask", "rcr_max")} for row in rows]
    return pd.DataFrame(kept).assign(start=start, stop=stop, channel_start=0)


@given(_requests, _flares, st.integers(0, 200 * 24))
def test_the_best_is_the_first_of_all(rows: list[dict[str, Any]], listed: list[tuple[int, int]], hour: int) -> None:
    begin = _FIRST + np.timedelta64(hour, "h")
    need = BackgroundNeed(TimeRange(begin, begin + np.timedelta64(10, "m")), 1, 17, request_id=1)
    starts = [_FIRST + np.timedelta64(at, "h") for at, _ in listed]
    flares = pd.DataFrame(
        {
            "start": np.array(starts, "datetime64[ns]"),
            "stop": np.array(starts, "datetime64[ns]") + np.array([m for _, m in listed], "timedelta64[m]"),
        }
    )
    candidates = table(rows)
    scored = choose_background(need, candidates, flares=flares)
    best = Candidates(candidates, flares).best(need)
    assert best is not None
    first = scored.iloc[0]
    assert best.row == scored.index[0]
    assert (best.score, best.apart_days, best.usable, best.reasons) == tuple(
        first[["score", "apart_days", "usable", "reasons"]]
    )


@given(_requests, _flares)
def test_flares_inside_are_counted_as_one_by_one(rows: list[dict[str, Any]], listed: list[tuple[int, int]]) -> None:
    starts = np.array([_FIRST + np.timedelta64(at, "h") for at, _ in listed], "datetime64[ns]")
    stops = starts + np.array([m + 1 for _, m in listed], "timedelta64[m]")
    candidates = table(rows).assign(request_id=9, detector_mask=0xFFFFFFFF, rcr_max=0, channel_stop=32)
    need = BackgroundNeed(TimeRange(_FIRST, _FIRST + np.timedelta64(10, "m")), 1, 17)
    scored = choose_background(need, candidates, flares=pd.DataFrame({"start": starts, "stop": stops}))
    for _, row in scored.iterrows():
        inside = int(((starts < row["stop"]) & (stops > row["start"])).sum())
        text = f"{inside} listed flare{'s' if inside > 1 else ''} inside"
        assert (text in row["reasons"].split("; ")) == (inside > 0)


def test_only_what_is_near_is_judged(monkeypatch: Any) -> None:
    rows = [{"request_id": 2, "hour": 24 * day, "minutes": 60, "channel_stop": 32, "detector_mask": 0xFFFFFFFF,
             "rcr_max": 0} for day in range(2500)]  # fmt: skip
    known = Candidates(table(rows))
    asked: list[int] = []
    judge = known.judge
    monkeypatch.setattr(known, "judge", lambda need, some: (asked.append(len(some)), judge(need, some))[1])
    begin = _FIRST + np.timedelta64(1000, "D")
    assert known.best(BackgroundNeed(TimeRange(begin, begin + np.timedelta64(1, "h")), 1, 17)) is not None
    assert asked == [121]
