from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from astropy.table import Table

from stixflow.archive import Archive, open_archive
from stixflow.archive.formats import write_table
from stixflow.archive.listing import TABLES, list_table
from stixflow.errors import UsageError


@pytest.fixture(scope="module")
def archive(processed: Path) -> Archive:
    return open_archive(processed)


@pytest.mark.parametrize("name", list(TABLES))
def test_every_table_goes_out_in_every_format(archive: Archive, name: str, tmp_path: Path) -> None:
    frame = list_table(archive, name)
    assert len(json.loads(write_table(frame, "json"))) == len(frame)
    write_table(frame, "csv", tmp_path / "table.csv")
    assert len(pd.read_csv(tmp_path / "table.csv")) == len(frame)
    assert len(write_table(frame, "table").splitlines()) == (len(frame) + 1 if len(frame) else 1)
    write_table(frame, "fits", tmp_path / "table.fits")
    back = Table.read(tmp_path / "table.fits")
    assert (len(back), back.colnames) == (len(frame), [str(column) for column in frame.columns])


def test_a_printed_table_can_be_read(archive: Archive) -> None:
    assert "contour" not in write_table(list_table(archive, "images"), "table"), "how many sources says enough"
    frame = pd.DataFrame({"start": pd.to_datetime(["2022-06-14T23:59:59.999993", None]), "digest": ["ab" * 32] * 2})
    assert write_table(frame, "table").split()[2:] == ["2022-06-15", "00:00:00", "abababababab", "abababababab"]


def test_fits_keeps_times_and_numbers(archive: Archive, tmp_path: Path) -> None:
    frame = list_table(archive, "flares")
    write_table(frame, "fits", tmp_path / "flares.fits")
    back = Table.read(tmp_path / "flares.fits")
    assert back["peak"][0] == frame["peak"][0].isoformat(timespec="milliseconds")
    assert back["peak_counts"][0] == frame["peak_counts"][0]
    assert back["x_hpc"].dtype.kind == "f"


@pytest.mark.parametrize("name", TABLES)
def test_parquet(archive_copy: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow: the extra `parquet`")
    archive = open_archive(archive_copy)
    archive.catalog.begin_run(f"run of {name}", "process", code_version="1")
    frame = list_table(archive, name)
    write_table(frame, "parquet", tmp_path / "table.parquet")
    back = pd.read_parquet(tmp_path / "table.parquet")
    assert back.columns.tolist() == [str(column) for column in frame.columns]
    assert len(back) == len(frame)
    for column in frame.select_dtypes("datetime64[ns]"):
        assert back[column].tolist() == frame[column].tolist() or frame[column].isna().all()


def test_wrong_use_is_named(archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frame = list_table(archive, "products")
    with pytest.raises(UsageError, match="'soup' is not a format"):
        write_table(frame, "soup")
    with pytest.raises(UsageError, match="--output"):
        write_table(frame, "fits")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pyarrow"):
        write_table(frame, "parquet", tmp_path / "a.parquet")
