"""Energy calibrations as files: the structure of the official product, and back."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_calibrations import scales
from numpy.testing import assert_array_equal

from stixflow.calibration import (
    calibrate,
    elut_of,
    energy_edges_of,
    read_calibration,
    write_calibration,
    write_csv,
    write_elut,
)
from stixflow.errors import InputFileError
from stixflow.fits import compare_files, read_level1, write_level1
from stixflow.simulate.calibration import simulate_calibration

_OFFICIAL = "data/calibration/solo_CAL_stix-cal-energy_20250302T230511-20250303T230512_V02.fits"


@pytest.fixture(scope="module")
def calibration() -> xr.Dataset:
    run = simulate_calibration(*scales(3), counts=4000.0, seed=3)
    counts = run["counts"].values.copy()
    counts[:, 2, 3] = 0
    return calibrate(run.assign(counts=(run["counts"].dims, counts)))


@pytest.fixture(scope="module")
def path(calibration: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_calibration(tmp_path_factory.mktemp("cal"), calibration)


def test_a_file_is_read_back_as_it_was(calibration: xr.Dataset, path: Path) -> None:
    back = read_calibration(path)
    assert np.isnan(back["gain"].values[2, 3])
    for name in set(back.data_vars) - {"time_start"}:
        assert_array_equal(back[name], calibration[name], err_msg=str(name))


def test_readers_of_the_official_product_read_it(calibration: xr.Dataset, path: Path) -> None:
    found = read_level1(path)
    assert found.attrs["product"] == "cal_energy"
    assert found.attrs["ob_elut_name"] == "elut_table_20241114"
    assert_array_equal(found["gain"][0], calibration["gain"])
    assert_array_equal(found["energy_edges"][0], energy_edges_of(calibration))
    assert bool(found["gain_range_ok"][0])


def test_the_structure_is_that_of_the_official_file(shared: Path, path: Path) -> None:
    official = shared / _OFFICIAL
    assert path.name == official.name
    told = [one for one in compare_files(official, path) if one.hdu in {"CONTROL", "DATA"}]
    about = {
        (one.hdu, one.kind, one.name) for one in told if one.kind in {"column", "name", "order", "rows", "unit", "dim"}
    }
    assert about == {("DATA", "unit", "gain")}, told


def test_spectra_from_an_official_file_are_calibrated_alike(tmp_path: Path) -> None:
    run = simulate_calibration(*scales(3), counts=4000.0, seed=3)
    file = write_level1(tmp_path, run)
    one, other = calibrate(run), calibrate(read_level1(file))
    for name in ("gain", "offset", "gain_error", "flags"):
        assert_array_equal(one[name], other[name])


def test_a_table_has_a_row_for_each_pixel(calibration: xr.Dataset, tmp_path: Path) -> None:
    table = pd.read_csv(write_csv(tmp_path / "cal.csv", calibration))
    assert len(table) == 384
    assert_array_equal(table["gain"].to_numpy().reshape(32, 12), calibration["gain"])
    assert_array_equal(table["line_fwhm_81"].to_numpy().reshape(32, 12), calibration["line_fwhm"][..., 2])
    assert table["gain"].isna().sum() == 1


def test_an_energy_table_is_written_as_it_is(calibration: xr.Dataset, tmp_path: Path) -> None:
    made = elut_of(calibration)
    table = pd.read_csv(write_elut(tmp_path / "elut.csv", made))
    assert_array_equal(table.filter(like="keV").to_numpy().reshape(32, 12, 31), made["adc_edges"])
    assert table.filter(like="keV").columns[0] == "adc_4_keV"
    assert (~table["calibrated"]).sum() == 1


def test_official_files_have_no_errors_of_ours(shared: Path) -> None:
    official = read_calibration(shared / _OFFICIAL)
    assert np.isfinite(official["gain"]).all()
    assert official["gain_error"].isnull().all()
    assert not official["flags"].any()


def test_another_product_is_refused(shared: Path) -> None:
    with pytest.raises(InputFileError, match="ql_lightcurve"):
        read_calibration(next((shared / "data/l1").glob("*ql-lightcurve*V01.fits")))
