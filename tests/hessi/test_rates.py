"""The byte codec of rates and the time rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from stixflow.errors import UsageError
from stixflow.hessi import ccsds, compress_rates, decompress_rates, rate_table, ut_of_utc, utc_of_ut


def test_table_of_the_flight_decoder(shared):
    expected = np.loadtxt(shared / "oracle/hessi/hessi_countrate_decompression_table.csv", delimiter=",", skiprows=1)
    assert_array_equal(rate_table(), expected[:, 1])
    assert_array_equal(decompress_rates(np.arange(256)), expected[:, 1])


def test_codes_come_back():
    assert_array_equal(compress_rates(rate_table()), np.arange(256))
    assert not rate_table().flags.writeable


@settings(deadline=None)
@given(st.floats(0, 1_015_792))
def test_code_is_the_nearest(rate):
    code = int(compress_rates(rate))
    apart = np.abs(rate_table() - rate)
    assert apart[code] == apart.min()
    assert apart[code] <= max(0.042 * rate, 0.5)


def test_limits_of_the_codec():
    assert compress_rates(5e6) == 255
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(UsageError, match="flag gaps"):
            compress_rates([1.0, bad])


def test_days_have_no_leap_seconds():
    # 2005-12-31 and 2016-12-31 ended with one.
    times = ["1979-01-01", "2005-12-31T23:59:59", "2006-01-01", "2011-04-04", "2016-12-31T23:59:59.5", "2017-01-01"]
    seconds = ut_of_utc(times)
    assert seconds[0] == 0
    assert seconds[2] - seconds[1] == 1.0
    assert seconds[3] == 1017878400.0
    assert seconds[5] - seconds[4] == 0.5
    assert_array_equal(utc_of_ut(seconds), np.array(times, "datetime64[ns]"))


@settings(deadline=None)
@given(st.integers(0, 2_000_000_000_000))
def test_times_come_back_to_the_millisecond(milliseconds):
    seconds = milliseconds / 1000
    assert abs(float(ut_of_utc(ccsds(seconds))) - seconds) < 1e-3
    assert abs(float(ut_of_utc(utc_of_ut(seconds))) - seconds) < 1e-6


def test_text_of_times():
    assert ccsds(1017878400.0) == "2011-04-04T00:00:00.000Z"
    assert ccsds(1017878400.25, zulu=False) == "2011-04-04T00:00:00.250"
