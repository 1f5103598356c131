"""Daily catalog files."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from stixflow.errors import InputFileError
from stixflow.hessi import (
    FlareList,
    ObservingSummary,
    find_flares,
    make_summary,
    read_catalog,
    read_summary,
    write_catalog,
)
from stixflow.hessi.tables import read_tables


def test_summary_and_flares_in_one_file(tmp_path):
    rates = np.full((900, 9), 2.0)
    rates[400:450, 1:3] += 100.0
    summary = make_summary(1017878400.0, rates, flags={"Flare": 0})
    flares = find_flares(summary)
    path = tmp_path / "hessi_catalog_20110404.fits"
    write_catalog(path, summary, flares)
    back, listed = read_catalog(path)
    assert_array_equal(back.get("data"), summary.get("data"))
    assert_array_equal(listed.get("data")["peak_time"], flares.get("data")["peak_time"])
    assert len(listed.get("data")) == 1
    assert_array_equal([t.name for t in back.tables()], [t.name for t in summary.tables()])
    # The archive finds the day in it too.
    span = ("2011-04-04T00:10", "2011-04-04T00:20")
    assert len(ObservingSummary(data_dir=tmp_path).getdata(ut_time_range=span)) == 150


def test_real_summary_with_flares(shared, tmp_path):
    path = shared / "data/rhessi/hsi_obssumm_20110404_042.fits.gz"
    summary = read_summary(path)
    write_catalog(tmp_path / "day.fits", summary, find_flares(summary, rule="flight"))
    tables = read_tables(tmp_path / "day.fits")
    for original, copy in zip(read_tables(path), tables, strict=False):
        assert original.rows.tobytes() == copy.rows.tobytes()
    assert len(tables) == len(read_tables(path)) + 3


def test_nothing_to_write(tmp_path):
    with pytest.raises(InputFileError):
        write_catalog(tmp_path / "day.fits", ObservingSummary(), FlareList())
