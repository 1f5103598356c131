"""Dated energy tables."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from stixflow.errors import UsageError
from stixflow.instrument import actual_edges, elut, energy_edges


@pytest.mark.parametrize(
    ("time", "name"),
    [
        ("2020-06-07", "20200519"),
        ("2020-12-31T23:59:59", "20200519"),
        ("2021-01-01", "20201204"),
        ("2022-11-09", "20220918"),
        ("2023-01-25", "20221214"),
        ("2023-01-31", "20221220"),
        ("2023-03-01", "20221214"),
        ("2024-02-19T03:00:00", "20231019"),
        ("2024-03-08", "20240205"),
        ("2026-01-01", "20250523"),
    ],
)
def test_table_of_a_date(time, name):
    assert elut(time).name == name


def test_one_table_used_in_two_periods_is_the_same():
    assert (actual_edges("2023-01-25") == actual_edges("2023-03-01")).all()


def test_before_the_first_table():
    with pytest.raises(UsageError, match="2019"):
        elut("2019-12-31")


def test_edges_are_near_the_nominal_ones():
    edges = actual_edges("2022-11-09")
    assert edges.shape == (32, 12, 33)
    assert (edges[..., 0] == 0).all()
    assert np.isinf(edges[..., -1]).all()
    # rounding to whole ADC values of at most 0.12 keV
    assert_allclose(edges[..., 1:-1], np.broadcast_to(energy_edges()[1:-1], (32, 12, 31)), atol=0.06)


def test_an_edge_that_was_rounded_the_other_way():
    # ground table of 2020-05-19: detector 21, pixel 11, channel 19 starts at ADC 1175 although rounding gives 1174
    table = elut("2020-06-07")
    assert table.adc_edges[21, 11, 18] == 1175
    value = table.offset[21, 11] + energy_edges()[19] / table.gain[21, 11]
    assert round(value) == 1174


def test_first_pixel_of_the_first_table():
    table = elut("2020-06-07")
    assert table.adc_edges[0, 0, :5].tolist() == [920, 930, 939, 948, 957]
    assert table.edges[0, 0, 1] == pytest.approx((920 - 883.7037) * 0.108906)


def test_means_of_every_table(shared):
    summary = json.loads((shared / "oracle/calibration/elut_tables_summary.json").read_text())
    known = {row["file"][11:19]: row for row in summary}
    for time in ("2020-06-07", "2021-06-06", "2022-11-09", "2023-02-01", "2023-09-01", "2024-05-01", "2025-01-01"):
        table = elut(time)
        assert table.gain.mean() == pytest.approx(known[table.name]["mean_gain"], rel=1e-9)
        assert table.offset.mean() == pytest.approx(known[table.name]["mean_offset"], rel=1e-9)
        assert_allclose(energy_edges(time)[1:-1], known[table.name]["energies"])


def test_table_on_board_in_an_official_calibration_product(shared):
    folder = shared / "oracle/calibration"
    official = np.loadtxt(folder / "cal_20250302_official_e_edges_actual.csv", delimiter=",", skiprows=1)
    calibration = np.loadtxt(folder / "cal_20250302_official_gain_offset.csv", delimiter=",", skiprows=1)
    table = elut("2025-03-02T23:05:11")
    offset, gain = (calibration[:, column].reshape(32, 12, 1) for column in (2, 3))
    assert_allclose((table.adc_edges - offset) * gain, official[:, 3:34].reshape(32, 12, 31), rtol=1e-12)
    assert_allclose(table.offset.ravel(), calibration[:, 11])
    assert_allclose(table.gain.ravel(), calibration[:, 12])
