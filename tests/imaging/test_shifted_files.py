"""Real files with the faults of their time: energies 1.6 keV off, counts one bin late, an attenuator that moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from stixflow.errors import ImagingError
from stixflow.fits import read_level1
from stixflow.imaging import correct_bin_shift, flare_intervals, image_source, map_header, visibilities
from stixflow.time import TimeRange

Changed = Callable[..., Path]
DAY = "2020-11-20"
SPAN = "T07:19:31/{0}T07:21:33"


@pytest.fixture
def original(shared: Path) -> Path:
    return next((shared / "data/flares_202211/pixel_data").glob("*_2211091049-*.fits"))


@pytest.fixture
def changed(original: Path, tmp_path: Path) -> Changed:
    """Write a copy of the file as of another day, its table of data changed."""

    def write(day: str = "2022-11-09", change: Callable[[fits.FITS_rec], None] | None = None, remark: str = "") -> Path:
        with fits.open(original) as file:
            for hdu in file:
                for name in ("OBS", "BEG", "AVG", "END"):
                    if f"DATE-{name}" in hdu.header:
                        hdu.header[f"DATE-{name}"] = hdu.header[f"DATE-{name}"].replace("2022-11-09", day)
            if change is not None:
                change(file["DATA"].data)
            if remark:
                file[0].header.add_history(remark)
            path = tmp_path / original.name
            file.writeto(path, overwrite=True)
        return path

    return write


def _later(data: fits.FITS_rec) -> None:
    for name in ("counts", "triggers"):
        data[name][1:] = data[name][:-1].copy()


def test_energies_of_the_wrong_scale_are_moved_and_the_map_says_so(original: Path, changed: Changed) -> None:
    whole, shifted = read_level1(original), read_level1(changed(DAY))
    (seen,) = image_source(shifted, [(TimeRange.parse(DAY + SPAN.format(DAY)), (4, 10))], methods=("bp",)).images
    assert (float(seen["energy_low"][0]), float(seen["energy_high"][0])) == pytest.approx((3.4, 10.4))
    header = map_header(seen)
    assert (header["ENSHIFT"], header["BINSHIFT"]) == (-1.6, "possible")
    usual = image_source(whole, [(TimeRange.parse("2022-11-09" + SPAN.format("2022-11-09")), (5, 12))], methods=("bp",))
    assert "ENSHIFT" not in map_header(usual.images[0])
    assert float(seen["counts"][0]) == float(usual.images[0]["counts"][0])


def test_counts_one_bin_late_are_moved_back(original: Path, changed: Changed) -> None:
    whole, late = read_level1(original), read_level1(changed("2021-06-09", _later))
    assert late.attrs["bin_shift"] == "possible"
    mended = correct_bin_shift(late)
    assert mended.attrs["bin_shift"] == "corrected"
    for name in ("counts", "triggers"):
        np.testing.assert_array_equal(mended[name], whole[name][:-1])
    np.testing.assert_array_equal(mended["timedel"], late["timedel"][:-1])


def test_a_file_that_was_corrected_is_not_moved_again(changed: Changed) -> None:
    fixed = read_level1(changed("2021-06-09", remark="time and counts: offset fixed"))
    assert fixed.attrs["bin_shift"] == "corrected"
    with pytest.raises(ImagingError, match="cannot be moved by one bin"):
        correct_bin_shift(fixed)


def test_no_interval_reaches_across_the_attenuator(changed: Changed) -> None:
    """It goes in at the peak, and out four bins later; asked for by time, such an interval is refused."""

    def insert(data: fits.FITS_rec) -> None:
        peak = int(np.argmax(data["counts"].sum(axis=(1, 2, 3))))
        data["rcr"][peak : peak + 4] = 1

    pixels = read_level1(changed(change=insert))
    moves = pixels["time_start"].to_numpy()[1:][np.diff(pixels["rcr"].to_numpy().astype(int)) != 0]
    assert len(moves) == 2
    found = flare_intervals(pixels, [(4, 10), (10, 15), (15, 25)], counts=300).intervals
    assert len(found) >= 3
    assert not any(one.time_range.start < move < one.time_range.stop for one in found for move in moves)
    assert sum("attenuator" in one.reason for one in found) == 2
    with pytest.raises(ImagingError, match="attenuator"):
        visibilities(pixels, TimeRange(moves[0] - np.timedelta64(30, "s"), moves[0] + np.timedelta64(30, "s")), (4, 10))


def test_a_background_of_another_energy_table_is_refused(original: Path, changed: Changed) -> None:
    quiet = read_level1(next(original.parent.glob("*_2211098157-*.fits")))
    shifted = read_level1(changed(DAY))
    with pytest.raises(ImagingError, match="energ"):
        visibilities(shifted, TimeRange.parse(DAY + SPAN.format(DAY)), (4, 10), quiet)
