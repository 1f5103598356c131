from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from example_archive import DAYS, add, day_of, with_days

from stixflow.archive import (
    Archive,
    Catalog,
    compare_releases,
    create_release,
    list_releases,
    open_archive,
)
from stixflow.errors import NotFound, UsageError


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return with_days(tmp_path / "archive")


def _flare(archive: Archive, key: str, flare_id: str) -> None:
    day = archive.catalog.current("ql_lightcurve", key)
    assert day is not None
    moment = np.datetime64(key, "h") + np.timedelta64(2, "h")
    row = {"flare_id": flare_id, "start": moment, "peak": moment, "stop": moment, "peak_counts": 12, "x_hpc": 3.5}
    archive.catalog.replace_flares(day.id, [row])


def test_a_release_shows_what_was_published_when_it_was_made(archive: Archive) -> None:
    _flare(archive, "2022-11-09", "a")
    before = archive.lightcurves("2022-11-08", "2022-11-12").load()
    flares = archive.flares()
    told = create_release(archive.catalog, "2026.1", note="first", code_version="1")
    assert told == {"name": "2026.1", "partitions": 3, "flares": 1, "images": 0}
    add(archive, [day_of(DAYS[1], seed=99)], DAYS[1], "R2")
    _flare(archive, "2022-11-09", "b")
    pinned = open_archive(archive.root, release="2026.1")
    xr.testing.assert_identical(pinned.lightcurves("2022-11-08", "2022-11-12").load(), before)
    assert pinned.flares().equals(flares)
    assert pinned.coverage().equals(pinned.coverage())
    assert archive.flares()["flare_id"].tolist() == ["b"]
    assert not archive.lightcurves("2022-11-08", "2022-11-12")["counts"].equals(before["counts"])
    assert pinned.verify() == []
    assert pinned.catalog.totals() == {"files": 0, "quarantined": 0, "images": 0, "flares": 1}
    assert len(pinned.flares("2022-11-10", "2022-11-12")) == 0


def test_images_of_a_release_stay(archive: Archive) -> None:
    row = {"image_id": "a", "method": "bp", "energy_low": 4, "energy_high": 10, "digest": "d"}
    row |= {"start": "2022-11-09T01", "stop": "2022-11-09T02"}
    archive.catalog.replace_images({"7": [row | {"path": "images/R1/a.fits"}]}, run_id="R1")
    create_release(archive.catalog, "2026.1", code_version="1")
    archive.catalog.replace_images({"7": [row | {"path": "images/R2/a.fits"}]}, run_id="R2")
    pinned = open_archive(archive.root, release="2026.1")
    assert pinned.images(flare_id="7")["path"].tolist() == ["images/R1/a.fits"]
    assert len(pinned.images(flare_id="8")) == len(pinned.images(start="2022-11-10")) == 0
    assert archive.images()["path"].tolist() == ["images/R2/a.fits"]


def test_a_name_is_given_once_and_is_a_name(archive: Archive) -> None:
    create_release(archive.catalog, "2026.1", code_version="1")
    with pytest.raises(UsageError, match="exists"):
        create_release(archive.catalog, "2026.1", code_version="1")
    with pytest.raises(UsageError, match="part of a path"):
        create_release(archive.catalog, "../2026", code_version="1")
    with pytest.raises(NotFound, match=r"no release '2026\.2'.*one of 2026\.1"):
        open_archive(archive.root, release="2026.2")
    with pytest.raises(NotFound, match="nothing is published"):
        create_release(Catalog(f"sqlite:///{archive.root}/other.sqlite"), "a", code_version="1")


def test_two_releases_compared_partition_by_partition(archive: Archive) -> None:
    create_release(archive.catalog, "one", code_version="1")
    add(archive, [day_of(DAYS[1], seed=99)], DAYS[1], "R2")
    add(archive, [day_of(DAYS[2])], DAYS[2], "R2")
    from datetime import date

    add(archive, [day_of(date(2022, 11, 20))], date(2022, 11, 20), "R2")
    create_release(archive.catalog, "two", code_version="1")
    one, two = (open_archive(archive.root, release=name).catalog for name in ("one", "two"))
    rows = compare_releases(one, two)
    assert {row["key"]: row["change"] for row in rows} == {
        "2022-11-09": "changed",
        "2022-11-11": "rebuilt",
        "2022-11-20": "added",
    }
    assert [row["change"] for row in compare_releases(two, one)] == ["changed", "rebuilt", "removed"]
    assert compare_releases(two, archive.catalog) == []
    assert (rows[0]["run_id_before"], rows[0]["run_id_after"]) == ("R1", "R2")
    assert [(row["name"], row["partitions"]) for row in list_releases(archive.catalog)] == [("two", 4), ("one", 3)]
