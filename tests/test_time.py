"""Onboard clock, half-open ranges, UTC days."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stixflow.errors import UsageError
from stixflow.time import (
    SYNC_LOST_BIT,
    TimeRange,
    clock_uncertainty,
    scet_from_coarse_fine,
    scet_from_seconds,
    scet_to_utc,
    to_utc,
    utc_to_scet,
)

_MISSION = st.integers(634_700_000 << 16, 950_000_000 << 16)


@given(_MISSION)
def test_utc_is_the_inverse_of_scet(scet: int) -> None:
    assert utc_to_scet(scet_to_utc(scet)) == scet


@given(_MISSION, st.integers(1, 1 << 30))
def test_utc_grows_with_scet(scet: int, step: int) -> None:
    assert scet_to_utc(scet + step) > scet_to_utc(scet)


def test_sync_bit_is_dropped() -> None:
    assert scet_from_coarse_fine(SYNC_LOST_BIT | 5, 7) == scet_from_coarse_fine(5, 7) == (5 << 16) + 7


def test_seconds_round_to_the_nearest_tick() -> None:
    assert scet_from_seconds(1.5) == 3 << 15


def test_spice_kernel_agrees_within_the_stated_uncertainty(shared: Path) -> None:
    oracle = json.loads((shared / "oracle/telemetry/scet_utc_spice.json").read_text())
    pairs = [(clock.split(":"), utc) for clock, utc in oracle["pairs"]]
    scet = scet_from_coarse_fine([int(c) for (c, _), _ in pairs], [int(f) for (_, f), _ in pairs])
    reference = np.array([to_utc(utc) for _, utc in pairs])
    # From launch until the kernel was made (2020-09); later values are its own extrapolation.
    known = (scet > (634_700_000 << 16)) & (scet < (655_000_000 << 16))
    error = np.abs((scet_to_utc(scet) - reference) / np.timedelta64(1, "ns")) * 1e-9
    assert known.sum() > 20
    assert (error[known] <= clock_uncertainty(scet[known])).all()


def test_real_headers_of_november_2022_agree(shared: Path) -> None:
    """Two of these 69 pairs of onboard time and UTC are anchors; the others are three days that they must predict."""
    from astropy.io import fits

    headers = [fits.getheader(path) for path in sorted((shared / "data/flares_202211/pixel_data").glob("*.fits"))]
    scet = scet_from_seconds([header["OBT_BEG"] for header in headers])
    reference = np.array([to_utc(header["DATE-BEG"]) for header in headers])
    error = np.abs((scet_to_utc(scet) - reference) / np.timedelta64(1, "ms"))
    assert len(headers) == 69
    assert error.max() < 2.0


def test_uncertainty_grows_beyond_the_last_anchor() -> None:
    inside, beyond = clock_uncertainty(np.array([794_000_000, 830_000_000]) << 16)
    assert inside == 0.1
    assert beyond > 3


def test_range_is_half_open_and_lists_its_days() -> None:
    span = TimeRange.parse("2021-06-06T23:00:00/2021-06-08T00:00:00Z")
    assert span.days() == [date(2021, 6, 6), date(2021, 6, 7)]
    assert list(span.covers(np.array([span.start, span.stop]))) == [True, False]
    assert span.seconds == 25 * 3600
    assert TimeRange.of_day(date(2021, 6, 6)).days() == [date(2021, 6, 6)]


@pytest.mark.parametrize("text", ["2021-06-06", "2021-06-07/2021-06-06", "yesterday/today", "/"])
def test_bad_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="Do:"):
        TimeRange.parse(text)


def test_times_of_many_kinds() -> None:
    expected = np.datetime64("2022-11-09T00:50:20.013", "ns")
    assert to_utc("2022-11-09T00:50:20.013Z") == expected
    assert to_utc(datetime(2022, 11, 9, 0, 50, 20, 13000)) == expected
    assert to_utc("2022-11-09T02:50:20.013+02:00") == expected
    assert to_utc(datetime(2022, 11, 8, 23, 50, 20, 13000, timezone(timedelta(hours=-1)))) == expected
    for wrong in (np.datetime64("NaT"), "2022-11-09T00:50:20.013A", "2022-11-09T00:50:20+9"):
        with pytest.raises(UsageError):
            to_utc(wrong)
