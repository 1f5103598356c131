"""Science channels and the choice of them."""

import numpy as np
import pytest

from stixflow.instrument import energy_edges, energy_shift


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
    ("time", "shift"),
    [("2020-11-14T23:59:59", 0.0), ("2020-11-15", -1.6), ("2020-12-04T23:59", -1.6), ("2020-12-05", 0.0)],
)
def test_energies_were_off_for_three_weeks(time, shift):
    assert energy_shift(time) == shift
