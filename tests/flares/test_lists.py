"""Official lists in, ours out, two compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from stixflow.errors import InputFileError, MissingFile, UsageError
from stixflow.flares import FLARE_COLUMNS, compare_lists, detect, read_list, read_official, write_list
from stixflow.flares.lists import LOCATION_COLUMNS

CSV = "data/flarelists/STIX_flarelist_w_locations_20210214_20230901_version1.csv"
FITS = "data/flarelists/solo_L3_stix-flarelist-sdcloc_20240901T000000-20241001T004710_V02.fits"
TIMES = ("start", "peak", "stop")


@pytest.fixture(scope="module")
def found(quiet_curve: Callable[..., xr.Dataset], add_flare: Callable[..., xr.Dataset]) -> pd.DataFrame:
    curve = quiet_curve(5400)
    for peak, height in ((900, 300), (2500, 4000), (4100, 150)):
        curve = add_flare(curve, peak, height)
    return detect(curve, distance_au=0.6)


def test_the_operational_csv_list(shared: Path) -> None:
    table = read_official(shared / CSV)
    raw = pd.read_csv(shared / CSV)
    assert len(table) == len(raw) == 8598
    assert table["peak_counts"].sum() == raw["4-10 keV"].sum()
    assert table["is_duplicate_id"].sum() == raw["flare_id"].duplicated(keep=False).sum()
    # The identifier is the minute of the peak.
    assert (table["peak"].dt.strftime("%y%m%d%H%M") == table["flare_id"]).all()
    one = table.set_index("flare_id").loc["2106061127"]
    assert one["start"] == pd.Timestamp("2021-06-06T11:23:46.943")
    assert (one["x_hpc"], one["distance_au"], one["bkg_median_3"]) == pytest.approx((-629.251, 0.951554, 863), rel=1e-5)


def test_the_level_3_fits_list(shared: Path) -> None:
    table = read_official(shared / FITS)
    assert len(table) == 2360
    assert (table["peak"].dt.strftime("%y%m%d%H%M") == table["flare_id"]).all()
    assert table["peak"].is_monotonic_increasing
    # Their estimates are logarithms under the unit W m-2.
    assert table["goes_flux"].between(1e-7, 1e-2).sum() == table["goes_flux"].notna().sum() > 2000
    assert table["distance_au"].dropna().between(0.28, 1.02).all()
    assert set(table["goes_class"].str[:1]) <= {"", "B", "C", "M", "X"}
    assert not table["goes_measured_class"].isin(["nan", "NA"]).any()


def test_columns_of_official_lists_are_known(shared: Path) -> None:
    known = {name.format(band=band) for name in FLARE_COLUMNS for band in range(5)} | set(LOCATION_COLUMNS)
    for path in (CSV, FITS):
        assert set(read_official(shared / path).columns) <= known


@pytest.mark.parametrize("suffix", ["csv", "fits"])
def test_lists_come_back_as_they_went(suffix: str, found: pd.DataFrame, tmp_path: Path) -> None:
    assert len(found) == 3
    for table in (found, found.iloc[:0], detect_snip_like(found)):
        back = read_list(write_list(table, tmp_path / f"list.{suffix}"))
        pd.testing.assert_frame_equal(back, table)


def detect_snip_like(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with times and numbers missing as the operational detector leaves them."""
    missing = table.assign(significance=np.nan, start_sigma_s=np.nan)
    return missing.assign(bkg_start=pd.Series([pd.NaT] * len(table), dtype="datetime64[ns]"))


def test_official_lists_come_back_as_they_went(shared: Path, tmp_path: Path) -> None:
    for path in (CSV, FITS):
        table = read_official(shared / path).iloc[:300].reset_index(drop=True)
        for suffix in ("csv", "fits"):
            pd.testing.assert_frame_equal(read_list(write_list(table, tmp_path / f"list.{suffix}")), table)


def test_fits_and_votable_tell_units(found: pd.DataFrame, tmp_path: Path) -> None:
    from astropy.table import Table

    for suffix in ("fits", "vot"):
        table = Table.read(write_list(found, tmp_path / f"list.{suffix}"))
        assert len(table) == 3
        assert str(table["goes_flux"].unit) == "W / m2"
        assert str(table["peak_counts_0"].unit) == "ct"
        assert str(table["duration_s"].unit) == "s"


def test_the_layout_of_the_official_list(found: pd.DataFrame, tmp_path: Path) -> None:
    table = pd.read_csv(write_list(found, tmp_path / "list.csv", layout="official"), dtype={"flare_id": str})
    assert table["flare_id"].tolist() == found["flare_id"].tolist()
    assert {"start_UTC", "peak_UTC", "end_UTC", "duration", "lc_peak_0", "lc_bkg_peak_4", "att_in"} <= set(
        table.columns
    )
    assert table["lc_peak_0"].tolist() == found["peak_counts_0"].tolist()
    assert table["goes_mean_flux_est"].to_numpy() == pytest.approx(found["goes_flux"].to_numpy())


def test_a_list_compared_with_itself_and_with_a_part(found: pd.DataFrame) -> None:
    assert compare_lists(found, found)["kind"].tolist() == ["matched"] * 3
    part = compare_lists(found.iloc[[0, 2]], found)
    assert part["kind"].tolist() == ["matched", "missed", "matched"]
    assert part["reference_id"].tolist() == found["flare_id"].tolist()
    assert compare_lists(found, found.iloc[1:])["kind"].tolist() == ["extra", "matched", "matched"]
    assert compare_lists(found.iloc[:0], found.iloc[:0]).empty


@given(
    ours=st.lists(st.integers(0, 2000), max_size=12),
    theirs=st.lists(st.integers(0, 2000), max_size=12),
    tolerance=st.integers(0, 200),
)
def test_every_flare_of_both_lists_is_in_the_comparison_once(
    ours: list[int], theirs: list[int], tolerance: int
) -> None:
    one, other = (as_list(seconds) for seconds in (ours, theirs))
    compared = compare_lists(one, other, tolerance_s=tolerance)
    kinds = compared["kind"]
    assert (kinds != "missed").sum() == len(ours)
    assert (kinds != "extra").sum() == len(theirs)
    off = compared.loc[kinds == "matched", "peak_off_s"]
    assert (off.abs() <= tolerance).all()
    lonely = compared[kinds == "extra"]["peak"], compared[kinds == "missed"]["reference_peak"]
    for peak in lonely[0]:
        assert not ((lonely[1] - peak).abs() <= pd.Timedelta(seconds=tolerance)).any()


def as_list(seconds: list[int]) -> pd.DataFrame:
    peak = pd.Series(np.datetime64("2022-01-01", "ns") + np.array(sorted(seconds), dtype="timedelta64[s]"))
    return pd.DataFrame({"flare_id": [str(s) for s in sorted(seconds)], "peak_counts": 1, **dict.fromkeys(TIMES, peak)})


def test_what_is_no_list(tmp_path: Path, found: pd.DataFrame, shared: Path) -> None:
    with pytest.raises(MissingFile):
        read_official(tmp_path / "nothing.csv")
    text = tmp_path / "other.csv"
    text.write_text("a,b\n1,2\n")
    for read in (read_official, read_list):
        with pytest.raises(InputFileError, match="lacks the columns"):
            read(text)
    with pytest.raises(InputFileError, match="lacks the columns"):
        read_official(shared / "data/l1/solo_L1_stix-ql-variance_20200506_V01.fits")
    with pytest.raises(UsageError, match=r"list\.xlsx"):
        write_list(found, tmp_path / "list.xlsx")
    with pytest.raises(UsageError, match="layout 'other'"):
        write_list(found, tmp_path / "list.csv", layout="other")


def test_the_text_list_is_that_of_hessi(found: pd.DataFrame, tmp_path: Path) -> None:
    from stixflow.hessi.flare_list import read_flare_list

    read = read_flare_list(write_list(found, tmp_path / "list.txt")).get("data")
    days = found["peak"].dt.strftime("%y%m%d").astype(int)
    assert read["id_number"].tolist() == [100 * day + number for number, day in enumerate(days, start=1)]
    assert read["total_counts"].tolist() == found["total_counts"].tolist()
    # Bins of 4 s; the text has hundredths.
    np.testing.assert_allclose(read["peak_countrate"], found["peak_counts"] / 4.0, atol=0.006)
    assert np.isnan(read["position"]).all()
    assert read["energy_hi"][:, 1].tolist() == found["upper_energy_keV"].tolist()
    assert write_list(found.iloc[:0], tmp_path / "none.txt").is_file()
