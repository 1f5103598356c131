"""Official files of every product beside light curves, pixel data and spectrograms, column by column."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal

from stixflow.cubes.check import check_dataset
from stixflow.errors import InputFileError, UsageError
from stixflow.fits import read_level1

DAY = "data/l1/solo_L1_stix-{}_20200506_V01.fits"
REQUEST = "data/l1/solo_L1_stix-sci-xray-{}.fits"
PIXELS = REQUEST.format("rpd_20200505T235959-20200506T000019_V01_0087031808-50882")
SUMS = REQUEST.format("scpd_20200505T235959-20200506T000019_V01_0087031810-50884")
VISIBILITIES = REQUEST.format("l3-87031827_20200508T011207_V01")
HOUSEKEEPING = "data/l1/solo_L1_stix-hk-maxi_20200501_V01.fits"


@contextmanager
def data_of(path: Path) -> Iterator[Any]:
    with warnings.catch_warnings(), fits.open(path) as hdus:
        warnings.simplefilter("ignore")
        yield hdus["DATA"].data


def test_background(shared: Path) -> None:
    found = read_level1(shared / DAY.format("ql-background"))
    check_dataset(found)
    with data_of(shared / DAY.format("ql-background")) as data:
        assert_array_equal(found["counts"], data["counts"])
        assert_array_equal(found["triggers"], data["triggers"][:, 0])
        assert_array_equal(found["timedel"], data["timedel"] / 100)
    assert found["energy_high"].values.tolist() == [10, 15, 25, 50, 150]


def test_variance(shared: Path) -> None:
    found = read_level1(shared / DAY.format("ql-variance"))
    check_dataset(found)
    with data_of(shared / DAY.format("ql-variance")) as data:
        assert_array_equal(found["variance"], data["variance"][:, 0])
    assert set(found["channel_mask"].values.tolist()) == {0x7FFE}
    assert set(found["samples_per_variance"].values.tolist()) == {40}


def test_flareflag(shared: Path) -> None:
    found = read_level1(shared / DAY.format("ql-flareflag"))
    check_dataset(found)
    with data_of(shared / DAY.format("ql-flareflag")) as data:
        for name in ("loc_y", "loc_z", "thermal_index", "non_thermal_index", "location_status"):
            assert_array_equal(found[name], np.asarray(data[name]).reshape(-1))
    assert (found["flare_in_progress"] == 255).all()


def test_spectra_come_in_sweeps(shared: Path) -> None:
    """Twelve rows of 32 spectra that begin with detector 28 are fifteen sweeps, the first and last of each run cut."""
    found = read_level1(shared / DAY.format("ql-spectra"))
    check_dataset(found)
    with data_of(shared / DAY.format("ql-spectra")) as data:
        assert int(found["counts"].sum()) == int(data["spectra"].sum())
        assert int(found["triggers"].sum()) == int(data["triggers"].sum())
        assert_array_equal(found["counts"].values[0, :, 28:], data["spectra"][0, :4].T)
        assert_array_equal(found["counts"].values[1, :, :28], data["spectra"][0, 4:].T)
        assert_array_equal(found["counts"].values[1, :, 28:], data["spectra"][1, :4].T)
        assert_array_equal(np.diff(found["scet"].values[:4]), [1024 << 16] * 3)
    assert found["observed"].values.sum(axis=1).tolist() == [4, 32, 32, 32, 28] * 3
    assert not found["counts"].values[0, :, :28].any()


def test_status(shared: Path) -> None:
    found = read_level1(shared / DAY.format("ql-ql-tmstatusflarelist"))
    check_dataset(found)
    assert found["pald_counter"].values.tolist() == [23955176]
    assert found["num_flares"].values.tolist() == [0]
    assert found["scet"].values.tolist() == [642101605 << 16 | 61349]


def test_housekeeping_has_engineering_values_and_the_raw_ones_behind_them(shared: Path) -> None:
    found = read_level1(shared / HOUSEKEEPING)
    check_dataset(found)
    with data_of(shared / HOUSEKEEPING) as data:
        assert_allclose(found["det_q1_t"], data["det_q1_t"] - 273.15, rtol=0, atol=1e-12)
        assert_allclose(found["hk_hv_01_16_v"], data["hk_hv_01_16_v"], rtol=0, atol=0)
        assert_array_equal(found["archive_memory_usage_raw"], data["archive_memory_usage"])
        assert_array_equal(found["tc_20_128_seq_cnt"], data["tc(20,128)_seq_cnt"])
        assert_array_equal(found["watchdog_state"] == 1, data["watchdog_state"] == "On")
        assert_array_equal(found["instrument_mode"] == 5, data["instrument_mode"] == "NOMINAL")
    assert (np.abs(found["time"].values[1:] - found["time"].values[:-1] - np.timedelta64(64, "s"))).max() < (
        np.timedelta64(100, "ms")
    )


def test_calibration_runs_are_chosen_one_by_one(shared: Path) -> None:
    path = shared / DAY.format("cal-energy")
    with pytest.raises(UsageError, match="2 calibration runs"):
        read_level1(path)
    with pytest.raises(UsageError, match="not one numbered 2"):
        read_level1(path, run=2)
    for run, seconds in enumerate((45599, 49104)):
        found = read_level1(path, run=run)
        check_dataset(found)
        assert found["timedel"].values.tolist() == [seconds]
        assert found["live_time"].values.tolist() == [21780.304]
        assert found["quiet_time_raw"].values.tolist() == [6]
        with data_of(path) as data:
            assert_array_equal(found["counts"], np.moveaxis(data["counts"][run], -1, 0))
        assert int(found["observed"].values.any(axis=0).sum()) == 172


def test_sums_of_pixels_are_the_sums_of_the_pixels(shared: Path) -> None:
    """The same interval asked for as raw pixels and as sums: equal where the compression is exact, 64 counts."""
    raw, found = read_level1(shared / PIXELS), read_level1(shared / SUMS)
    check_dataset(found)
    assert found.attrs["request_id"] == 87031810
    assert found["pixel_set"].values[0].tolist() == [0x888, 0x444, 0x222, 0x111]
    pixels = [np.flatnonzero(mask >> np.arange(12) & 1) for mask in found["pixel_set"].values[0].tolist()]
    sums = np.stack([raw["counts"].values[..., chosen].sum(axis=-1) for chosen in pixels], axis=-1)
    exact = sums < 64
    assert exact.mean() > 0.99
    assert_array_equal(found["counts"].values[exact], sums[exact])


def test_visibilities_that_a_file_does_not_hold_are_not_zero(shared: Path) -> None:
    found = read_level1(shared / VISIBILITIES)
    check_dataset(found)
    assert np.isnan(found["visibility"].values).all()
    assert found["flux"].values.sum(axis=1).tolist() == [310, 329, 234, 267, 284]
    assert found["pixel_set"].values[0].tolist() == [0x888, 0x444, 0x222, 0x111, 0xFFF]


def test_housekeeping_of_other_curves_is_refused(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "spoiled_stix-hk-maxi.fits"
    with fits.open(shared / HOUSEKEEPING) as hdus:
        hdus["DATA"].data["det_q1_t"][3] += 0.001
        hdus.writeto(path)
    with pytest.raises(InputFileError, match="det_q1_t values that curve 0024 does not"):
        read_level1(path)
