from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from example_archive import DAYS, add, day_of, with_days

import stixflow
from stixflow.archive import Archive, Quarantined
from stixflow.errors import MissingFile, UsageError


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return with_days(tmp_path / "archive")


class TestOpening:
    def test_there_must_be_one(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFile, match="is not an archive"):
            stixflow.open_archive(tmp_path / "none")
        assert list(tmp_path.iterdir()) == []

    def test_an_archive_can_be_moved(self, archive: Archive, tmp_path: Path) -> None:
        archive.close()
        Path(archive.root).rename(tmp_path / "elsewhere")
        assert stixflow.open_archive(tmp_path / "elsewhere").verify() == []

    def test_a_bucket_needs_a_catalog(self) -> None:
        with pytest.raises(UsageError, match="no place for SQLite"):
            stixflow.open_archive("s3://bucket/root")


class TestTables:
    def test_flares_have_plain_times(self, archive: Archive) -> None:
        day = archive.catalog.current("ql_lightcurve", "2022-11-09")
        assert day is not None
        row = {"flare_id": 1, "start": "2022-11-09T01", "peak": "2022-11-09T02", "stop": "2022-11-09T03"}
        archive.catalog.replace_flares(day.id, [row | {"peak_counts": 12, "goes_class": "C1"}])
        table = archive.flares("2022-11-09", "2022-11-10")
        assert [str(table[name].dtype) for name in ("start", "peak", "stop")] == ["datetime64[ns]"] * 3
        assert table.columns[:5].tolist() == ["flare_id", "start", "peak", "stop", "peak_counts"]
        assert table.loc[0, "goes_class"] == "C1"
        assert archive.flares("2022-11-08", "2022-11-09").columns[0] == "flare_id"

    def test_images_of_a_flare_and_of_a_span(self, archive: Archive) -> None:
        row = {
            "image_id": "a",
            "method": "bp",
            "energy_low": 4,
            "energy_high": 10,
            "digest": "d",
            "path": "images/a.fits",
        }
        span = {"start": "2022-11-09T01", "stop": "2022-11-09T02"}
        archive.catalog.replace_images({"7": [row | span]}, run_id="R")
        assert archive.images(flare_id=7)["image_id"].tolist() == ["a"]
        assert archive.images(start="2022-11-09")["image_id"].tolist() == ["a"]
        assert len(archive.images(start="2022-11-10")) == 0

    def test_runs_files_and_quarantine(self, archive: Archive) -> None:
        archive.catalog.begin_run("R1", "stixflow ingest", code_version="1")
        archive.catalog.quarantine([Quarantined("a.xml", "bad length")], run_id="R1")
        assert archive.runs().loc[0, "command"] == "stixflow ingest"
        assert archive.quarantine("R1").loc[0, "reason"] == "bad length"
        assert len(archive.quarantine("R2")) == len(archive.files()) == 0

    def test_coverage_sums_what_is_published(self, archive: Archive) -> None:
        add(archive, [day_of(DAYS[0], seed=3)], DAYS[0], "R2", complete=False)
        (row,) = archive.coverage().to_dict("records")
        assert (row["product"], row["partitions"], row["n_time"], row["incomplete"]) == ("ql_lightcurve", 3, 72, 1)
        assert row["n_bytes"] == sum(item.n_bytes for item in archive.catalog.partitions())
        assert (row["start"], row["stop"]) == (pd.Timestamp("2022-11-08"), pd.Timestamp("2022-11-12"))
        assert archive.catalog.totals() == {"files": 0, "quarantined": 0, "images": 0, "flares": 0}

    def test_the_repr_says_what_is_there(self, archive: Archive) -> None:
        assert "3 partitions  2022-11-08T00:00:00.000 to 2022-11-12T00:00:00.000" in repr(archive)
