"""Ancillary files in and out."""

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from numpy.testing import assert_array_equal

from stixflow.cubes.check import check_dataset
from stixflow.ephemeris import read_ancillary, write_ancillary
from stixflow.errors import InputFileError, MissingFile

_NAME = "solo_L2_stix-aux-ephemeris_20221109_V01.fits"


@pytest.fixture
def official(shared):
    return shared / "data/flares_202211/ephemeris" / _NAME


def test_columns_of_an_official_file(official):
    ephemeris = read_ancillary(official)
    check_dataset(ephemeris)
    assert ephemeris.sizes["time"] == 1350
    first = np.datetime64("2022-11-09T00:00:58.163", "ns")
    assert abs(ephemeris["time"].values[0] - first) < np.timedelta64(1, "ms")
    assert ephemeris["scet"].values[0] == (721267111 << 16) | 56384
    assert ephemeris["distance"].values[0] == pytest.approx(8.8718448e10)
    assert ephemeris["hgln"].values[0] == pytest.approx(-23.448294)
    assert ephemeris["hglt"].values[0] == pytest.approx(7.957153)


def test_missing_aspect_solutions_are_not_valid(official):
    ephemeris = read_ancillary(official)
    assert int((~ephemeris["sas_ok"]).sum()) == 972
    assert_array_equal(ephemeris["sas_ok"].values, np.isfinite(ephemeris["sas_y"].values))


def test_written_files_read_back_the_same(official, tmp_path):
    first = read_ancillary(official)
    write_ancillary(tmp_path / _NAME, first)
    again = read_ancillary(tmp_path / _NAME)
    xr.testing.assert_identical(again, first)


def test_written_files_have_the_structure_of_official_ones(official, tmp_path):
    write_ancillary(tmp_path / _NAME, read_ancillary(official))
    with fits.open(official) as theirs, fits.open(tmp_path / _NAME) as ours:
        assert [hdu.name for hdu in ours] == [hdu.name for hdu in theirs]
        for hdu in theirs[1:]:
            mine = ours[hdu.name].columns
            assert set(hdu.columns.names) <= set(mine.names)
            for column in hdu.columns:
                if "A" not in column.format:
                    assert mine[column.name].format == column.format
                    assert mine[column.name].unit == column.unit
        heeq = "solo_loc_heeq_zxy"
        np.testing.assert_allclose(ours["DATA"].data[heeq], theirs["DATA"].data[heeq], rtol=1e-4, atol=2e4)


def test_a_flag_in_the_file_decides(official, tmp_path):
    ephemeris = read_ancillary(official)
    ephemeris["sas_ok"][:100] = False
    ephemeris["sas_y"][:100] = 0.0
    write_ancillary(tmp_path / _NAME, ephemeris)
    assert not read_ancillary(tmp_path / _NAME)["sas_ok"].values[:100].any()


def test_other_files_are_refused(shared, tmp_path):
    with pytest.raises(MissingFile):
        read_ancillary(tmp_path / "nothing.fits")
    with pytest.raises(InputFileError, match="no attitude"):
        read_ancillary(shared / "data/l1/solo_L1_stix-ql-variance_20200506_V01.fits")
