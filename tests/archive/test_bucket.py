"""The whole chain on a bucket and PostgreSQL, as on a disk and SQLite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs
import xarray as xr
from example_delivery import DAYS, assert_balanced, published
from services.s3 import Bucket

from stixflow.archive import Archive, open_archive
from stixflow.compute import Serial
from stixflow.stages import STAGES, run_stages


@pytest.fixture(scope="module")
def run() -> Callable[..., dict[str, object]]:
    def process(root: str, catalog: str, *paths: Path) -> dict[str, object]:
        report = run_stages(STAGES, paths, root=root, catalog=catalog, pool=Serial(), command="test")
        assert_balanced(report["balance"])
        return report

    return process


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


def test_a_delivery_on_a_bucket_is_that_on_a_disk(
    s3: Bucket, catalog: str, delivery: Path, processed: Path, run: Callable[..., dict[str, object]]
) -> None:
    root = f"{s3.url}/archive"
    report = run(root, catalog, delivery / "telemetry", delivery / "ephemeris")
    assert not report["failed"]
    archive = open_archive(root, catalog=catalog)
    mine = {f"{p.product} {p.key}": (p.digest, p.n_time, p.counts_sum) for p in archive.catalog.partitions()}
    assert mine == published(processed)
    local = open_archive(processed)
    xr.testing.assert_identical(
        archive.lightcurves(DAYS[0], "2022-06-17").load(), local.lightcurves(DAYS[0], "2022-06-17").load()
    )
    assert archive.verify() == []
    assert archive.map(archive.images()["image_id"][0]).data.shape == (129, 129)
    assert run(root, catalog, delivery)["counts"] == {}
    _lose_everything_of_one_day(archive)
    assert [item.key for item in archive.lost()] == [DAYS[1]]
    again = run(root, catalog)["counts"]
    assert again == {"ql_lightcurve": 1, "flares": 1, "days_searched": 1}
    assert archive.verify() == []


def _lose_everything_of_one_day(archive: Archive) -> None:
    day = archive.catalog.current("ql_lightcurve", DAYS[1])
    assert day is not None
    s3fs.S3FileSystem().rm(archive.url(day.path), recursive=True)
