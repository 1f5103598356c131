"""Flare lists: the sample of the catalog byte for byte, and real lists of the flight."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from stixflow.errors import InputFileError, MissingFile, NotFound, UsageError
from stixflow.hessi import MISSING, FlareList, make_flare_list, parse_ascii, read_flare_list, ut_of_utc
from stixflow.hessi.flare_list import FLARE, flag_numbers
from stixflow.hessi.tables import read_tables

SAMPLE = """\
HESSI FLARE LIST FILE
Created: 2000-06-17T16:24:37.000Z
ID: flare list: 2000-08-31T00:16:20.000Z to 2000-08-31T00:42:08.000Z
Number of Flares: 2
Time Range: 2000-08-31T00:16:20.000Z
To: 2000-08-31T00:42:08.000Z
Energy Range Found (keV): 6.00000 25.0000
Simulated Data
DATA:
id_number | Start_date | Start_time | End_time | Peak_time | hi_eband0 | hi_eband1 | peak_rate | total_cnt | xcen | ycen | Flags |
124 | 2000-08-31 | 00:16:20 | 00:16:40 | 00:16:28 | 100.00 | 300.00 | 624.00 | 8048.00 | 402.50 | 228.50 | -1 |
125 | 2000-08-31 | 00:41:48 | 00:42:08 | 00:41:56 | 50.00 | 100.00 | 272.00 | 3696.00 | -612.50 | -191.50 | -1 |
FLAGS
-1 : NONE
0 : SAA At Start
1 : SAA at End
2 : SAA
3 : Eclipse at Start
4 : Eclipse At End
5 : Flare at SOF
6 : Flare at EOF
7 : Fast Rate Mode
8 : Decimation
9 : Att State at peak
"""  # noqa: E501


def test_sample_of_the_catalog_is_written_as_it_stands(shared):
    text = (shared / "docs/mission/hessi-catalog.txt").read_text()
    first, last = text.index("HESSI FLARE LIST FILE"), text.index("9 : Att State at peak")
    assert text[first:last] + "9 : Att State at peak\n" == SAMPLE
    assert parse_ascii(SAMPLE).to_ascii() == SAMPLE


def test_sample_from_arrays(tmp_path):
    flares = np.zeros(2, dtype=FLARE)
    flares["ID_NUMBER"] = 124, 125
    for name, clocks in (("START", ("00:16:20", "00:41:48")), ("END", ("00:16:40", "00:42:08")),
                         ("PEAK", ("00:16:28", "00:41:56"))):  # fmt: skip
        flares[f"{name}_TIME"] = ut_of_utc([f"2000-08-31T{clock}" for clock in clocks])
    flares["ENERGY_HI"] = (100, 300), (50, 100)
    flares["PEAK_COUNTRATE"], flares["TOTAL_COUNTS"] = (624, 272), (8048, 3696)
    flares["POSITION"] = (402.5, 228.5), (-612.5, -191.5)
    span = (float(flares["START_TIME"][0]), float(flares["END_TIME"][1]))
    made = make_flare_list(flares, span, simulated=True, created="2000-06-17T16:24:37.000Z")
    made.write_ascii(tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_bytes() == SAMPLE.encode()
    made.write(tmp_path / "list.fits")
    back = read_flare_list(tmp_path / "list.fits")
    back.created = made.created
    assert back.to_ascii() == SAMPLE
    assert_array_equal(FlareList().getdata(filename=tmp_path / "list.txt")["end_time"], flares["END_TIME"])


@pytest.mark.parametrize("month", ["201801", "201802", "201803"])
def test_real_lists_are_written_as_they_were_read(month, shared, tmp_path):
    path = shared / f"data/rhessi/hessi_flare_list_{month}.fits"
    flares = FlareList()
    data = flares.getdata(filename=path)
    assert len(data) == flares.get("info")["n_flares"]
    flares.write(tmp_path / "copy.fits")
    for original, copy in zip(read_tables(path), read_tables(tmp_path / "copy.fits"), strict=True):
        assert original.name == copy.name
        assert original.rows.tobytes() == copy.rows.tobytes()


def test_real_list_by_the_verbs_of_the_catalog(shared):
    flares = FlareList(data_dir=shared / "data/rhessi")
    data = flares.getdata(ut_time_range=("2018-01-20", "2018-02-08"))
    assert (data["peak_time"] >= data["start_time"]).all()
    assert (data["start_time"] >= ut_of_utc("2018-01-20")).all()
    assert (data["start_time"] < ut_of_utc("2018-02-08")).all()
    assert 18020401 in data["id_number"]
    assert flares.get("info")["concat_flag"] == 1
    assert flares.get("list_id").startswith("HSI_FLARE_LIST")
    assert flares.get("version") == 0
    text = flares.to_ascii()
    again = parse_ascii(text)
    assert again.to_ascii() == text.replace(text.splitlines()[1], f"Created: {again.created}")
    assert_array_equal(again.get("data")["id_number"], data["id_number"])
    assert "Simulated Data" not in text


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**8), st.integers(0, 86399), st.integers(0, 7000), st.integers(0, 7000),
                          st.sets(st.integers(0, 9))), max_size=4))  # fmt: skip
def test_text_comes_back(rows):
    flares = np.zeros(len(rows), dtype=FLARE)
    for flare, (number, start, peak, end, flags) in zip(flares, rows, strict=True):
        began = float(ut_of_utc("2002-02-20")) + start
        flare["ID_NUMBER"], flare["START_TIME"] = number, began
        flare["PEAK_TIME"], flare["END_TIME"] = began + min(peak, end), began + max(peak, end)
        flare["FLAGS"][list(flags)] = 1
    made = make_flare_list(flares, (0.0, 1e9), created="2002-02-20T00:00:00.000Z")
    back = parse_ascii(made.to_ascii())
    assert back.to_ascii() == made.to_ascii()
    for name in ("start_time", "peak_time", "end_time", "flags"):
        assert_array_equal(back.get("data")[name], made.get("data")[name])


def test_flags():
    assert flag_numbers(np.zeros(32)) == [-1]
    assert flag_numbers([0, 3, 0, 1]) == [1, 3]


def test_what_is_not_there(tmp_path):
    flares = FlareList(data_dir=tmp_path)
    for question in ({"ut_time_range": ("2001-01-01", "2001-01-02")}, {"filename": "none.fits"}):
        with pytest.raises((NotFound, MissingFile)):
            flares.getdata(**question)
        assert flares.getdata(**question, missing="sentinel") == MISSING
    assert [flares.get(name) for name in ("info", "data", "version", "list_id")] == [MISSING] * 4
    with pytest.raises(NotFound):
        flares.write(tmp_path / "none.fits")
    with pytest.raises(UsageError):
        flares.getdata()
    with pytest.raises(UsageError):
        flares.get("altitude")


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        ("Number of Flares: 2", "Number of Flares: 3"),
        ("DATA:", "DATUM:"),
        (" | 624.00", ""),
        ("00:16:40", "25:16:40"),
        ("Created: 2000", "Made: 2000"),
        ("| -1 |\n125", "| none |\n125"),
    ],
)
def test_damaged_text(find, replace):
    with pytest.raises(InputFileError):
        parse_ascii(SAMPLE.replace(find, replace))


def test_fits_of_something_else(shared):
    with pytest.raises(InputFileError, match="no flare list"):
        read_flare_list(shared / "data/rhessi/hsi_obssumm_20110404_042.fits.gz")
