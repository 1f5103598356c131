"""Energy tables of a calibration, true edges, drift."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from example_calibrations import SHAPE, oracle
from numpy.testing import assert_allclose, assert_array_equal

from stixflow.calibration import drift_of, elut_of, energy_edges_of, read_calibration, summarise_drift
from stixflow.calibration.table import DRIFT_LIMIT_KEV
from stixflow.instrument import elut

_TIME = np.datetime64("2025-03-02T23:05:11", "ns")
_OFFICIAL = "data/calibration/solo_CAL_stix-cal-energy_20250302T230511-20250303T230512_V02.fits"


def _calibration(offset: np.ndarray, gain: np.ndarray, error: float = 1e-6) -> xr.Dataset:
    dims = ("detector", "pixel")
    values = {"offset": offset, "gain": gain, "offset_error": np.full(SHAPE, error * 1000)}
    values |= {"gain_error": np.full(SHAPE, error), "correlation": np.full(SHAPE, 0.9)}
    return xr.Dataset(
        {name: (dims, value) for name, value in values.items()} | {"time_start": ("time", [_TIME])},
        {"detector": np.arange(SHAPE[0]), "pixel": np.arange(SHAPE[1])},
    )


@pytest.mark.parametrize("time", ["2020-06-07", "2021-07-01", "2022-11-09", "2025-03-02"])
def test_tables_are_rounded_as_on_board(time: str) -> None:
    table = elut(time)
    calibration = _calibration(table.offset, table.gain).assign(time_start=("time", [np.datetime64(time, "ns")]))
    made = elut_of(calibration)
    # At most 0.043 % of the edges of a table differ by the rounding of its stored decimals.
    assert (made["adc_edges"].values == table.adc_edges).mean() >= 0.99957
    assert made["calibrated"].all()
    assert_allclose(drift_of(calibration)["drift"], 0.0, atol=1e-12)


def test_reference_agrees_on_how_well_rounding_matches(shared: Path) -> None:
    summary = json.loads((shared / "oracle/calibration/elut_tables_summary.json").read_text())
    assert min(one["round_match"] for one in summary) >= 0.99957


def test_pixels_without_calibration_keep_the_table_on_board() -> None:
    table = elut(_TIME)
    gain = np.where(np.arange(SHAPE[1]) == 3, np.nan, table.gain * 1.01)
    calibration = _calibration(np.where(np.isnan(gain), np.nan, table.offset), gain)
    made = elut_of(calibration)
    assert_array_equal(made["adc_edges"].values[:, 3], table.adc_edges[:, 3])
    assert not made["calibrated"].values[:, 3].any()
    assert made["calibrated"].values.sum() == 352
    assert np.isnan(energy_edges_of(calibration)[:, 3]).all()
    assert np.isnan(drift_of(calibration)["drift"].values[:, 3]).all()
    assert not drift_of(calibration)["beyond"].values[:, 3].any()


def test_true_edges_of_the_official_calibration_are_exact(shared: Path) -> None:
    made = energy_edges_of(read_calibration(shared / _OFFICIAL))
    columns = [f"e_edge_{number:02d}" for number in range(33)]
    expected = np.stack(oracle(shared, "cal_20250302_official_e_edges_actual", *columns), axis=-1)
    assert_array_equal(made, expected)


def test_drift_of_the_official_calibration_is_small(shared: Path) -> None:
    found = summarise_drift(drift_of(read_calibration(shared / _OFFICIAL)))
    assert found.table == "20241114"
    assert abs(found.median_kev) < 0.1
    assert abs(found.worst_kev) < 1.0


@pytest.mark.parametrize("kev", [-0.7, -0.4, 0.4, 0.7])
def test_drift_beyond_the_limit_is_told(kev: float) -> None:
    table, moved = elut(_TIME), np.zeros(SHAPE)
    moved[4, 5] = kev
    drift = drift_of(_calibration(table.offset - moved / table.gain, table.gain))
    assert_allclose(drift["drift"].values[4, 5], kev, atol=1e-9)
    found = summarise_drift(drift)
    assert found.beyond == (((4, 5),) if abs(kev) > DRIFT_LIMIT_KEV else ())
    assert found.worst_kev == pytest.approx(kev)


def test_an_uncertain_drift_is_not_beyond() -> None:
    table = elut(_TIME)
    drift = drift_of(_calibration(table.offset - 6.0, table.gain, error=5e-3))
    assert (np.abs(drift["drift"]) > DRIFT_LIMIT_KEV).all()
    assert not drift["beyond"].any()


def test_errors_of_the_drift_are_those_of_drawn_calibrations() -> None:
    table, rng = elut(_TIME), np.random.default_rng(2)
    one = _calibration(table.offset, table.gain, error=1e-4)
    error = drift_of(one)["drift_error"].values[0, 0]
    covariance = np.array([[1e-2, 0.9 * 1e-1 * 1e-4], [0.9 * 1e-1 * 1e-4, 1e-8]])
    drawn = rng.multivariate_normal([table.offset[0, 0], table.gain[0, 0]], covariance, 20000)
    edges = (table.adc_edges[0, 0] - drawn[:, :1]) * drawn[:, 1:]
    assert_allclose(edges.std(axis=0), error, rtol=0.03)


def test_no_calibrated_pixel_has_no_drift() -> None:
    found = summarise_drift(drift_of(_calibration(np.full(SHAPE, np.nan), np.full(SHAPE, np.nan))))
    assert np.isnan(found.median_kev)
    assert np.isnan(found.worst_kev)
    assert found.beyond == ()
