"""Science channels and the choice of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stixflow.errors import UsageError
from stixflow.instrument import channel_range, energy_edges, energy_shift


def test_standard_edges():
    edges = energy_edges()
    assert edges.shape == (33,)
    assert edges[[0, 1, 12, 13, 28, 31, 32]].tolist() == [0, 4, 15, 16, 84, 150, np.inf]


@pytest.mark.parametrize(
    ("time", "third"),
    [
        ("2020-06-07", 6.0),
        ("2023-01-30T00:04:34", 6.0),
        ("2023-01-30T00:04:35", 4.95),
        ("2023-02-02T16:06:11", 4.95),
        ("2023-02-02T16:06:12", 6.0),
        ("2023-08-15", 6.3),
        ("2023-11-05T00:01:00", 6.0),
    ],
)
def test_edges_have_dated_exceptions(time, third):
    assert energy_edges(time)[3] == third


@pytest.mark.parametrize(
    ("low", "high", "rule", "expected"),
    [
        (4, 10, "inside", (1, 7)),
        (16, 28, "inside", (13, 18)),
        (4, 10, "cover", (1, 7)),
        (5.5, 9.5, "inside", (3, 6)),
        (5.5, 9.5, "cover", (2, 7)),
        (84, np.inf, "inside", (28, 32)),
    ],
)
def test_channel_range(low, high, rule, expected):
    assert channel_range(low, high, energy_edges(), rule=rule) == expected


def test_edges_kept_as_32_bit_floats_are_found():
    edges = energy_edges("2023-02-01").astype(np.float32)
    assert channel_range(4.45, 6.95, edges, rule="inside") == (2, 7)
    assert channel_range(4.45, 6.95, edges, rule="cover") == (2, 7)


@pytest.mark.parametrize(
    ("low", "high", "rule"), [(10, 4, "inside"), (6, 6, "cover"), (6.1, 6.9, "inside"), (-3, 5, "cover")]
)
def test_ranges_without_channels_are_refused(low, high, rule):
    with pytest.raises(UsageError):
        channel_range(low, high, energy_edges(), rule=rule)


@given(st.floats(4, 140), st.floats(0.1, 100))
def test_cover_holds_the_range_and_inside_is_held_by_it(low, width):
    edges, high = energy_edges(), low + width
    start, stop = channel_range(low, high, edges, rule="cover")
    assert edges[start] <= low + 1e-3
    assert edges[stop] >= high - 1e-3
    try:
        first, last = channel_range(low, high, edges)
    except UsageError:
        assert stop - start <= 2
    else:
        assert start <= first < last <= stop
        assert edges[first] >= low - 1e-3
        assert edges[last] <= high + 1e-3


@pytest.mark.parametrize(
    ("time", "shift"),
    [("2020-11-14T23:59:59", 0.0), ("2020-11-15", -1.6), ("2020-12-04T23:59", -1.6), ("2020-12-05", 0.0)],
)
def test_energies_were_off_for_three_weeks(time, shift):
    assert energy_shift(time) == shift
