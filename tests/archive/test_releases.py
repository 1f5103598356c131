from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import xarray as xr
from example_archive import DAYS, add, day_of

from stixflow.archive import (
    Archive,
    Catalog,
    compare_releases,
    create_release,
    list_releases,
    migrations,
    open_archive,
    tables,
)
from stixflow.archive.transactions import reading
from stixflow.errors import NotFound, UsageError


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = open_archive(tmp_path / "archive", create=True)
    for day in DAYS:
        add(made, [day_of(day)], day)
    return made


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


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_old_schema_is_brought_up_to_date(
    version: int, engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The tables as earlier versions made them, with rows that must survive."""
    url = f"sqlite:///{tmp_path / 'old.sqlite'}" if engine == "sqlite" else request.getfixturevalue("postgres_url")
    script = (Path(__file__).parent / f"schema_{version}.{engine}.sql").read_text()
    database = sa.create_engine(url)
    with database.begin() as connection:
        for statement in script.split(";\n"):
            if statement.strip():
                connection.execute(sa.text(statement))
        connection.execute(sa.text(_OLD_ROW))
        connection.execute(sa.text(_OLD_RUN))
    database.dispose()
    catalog = Catalog(url)
    (item,) = catalog.history("ql_lightcurve", "2022-11-09")
    assert (item.n_time, item.collected) == (10, None)
    assert [(run["state"], run["host"]) for run in catalog.runs()] == [("dead", None)]
    catalog.begin_run("R2", "process", code_version="2")
    catalog.publish(item.id)
    assert create_release(catalog, "2026.1", code_version="1")["partitions"] == 1
    with reading(catalog._engine) as connection:
        assert connection.execute(migrations._VERSION).scalar() == str(migrations.SCHEMA_VERSION)
        found = sa.inspect(connection)
        for table in tables.metadata.sorted_tables:
            assert {c["name"] for c in found.get_columns(table.name)} == {column.name for column in table.columns}
    catalog.close()
    Catalog(url).close()


_OLD_ROW = """
INSERT INTO partition (run_id, product, key, day, state, path, digest, input_digest, code_version, data_model_version,
    n_time, boxes, counts_sum, n_bytes, start, stop, structure, axes, complete, missing, shrink_reason, created, attrs)
VALUES ('R1', 'ql_lightcurve', '2022-11-09', '2022-11-09', 'staged', 'a.zarr', 'd', 'i', '1', 1,
    10, 1, 5, 9, 0, 1, '', '', true, '', '', 0, '{}')
"""

_OLD_RUN = """
INSERT INTO run (run_id, command, state, code_version, started, summary)
VALUES ('R1', 'process', 'running', '1', 1, '{}')
"""


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_releases_of_an_old_schema_keep_their_flares_and_images(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Version 2 kept them as text; they, and what readers see, are rows of the same tables since version 4."""
    url = f"sqlite:///{tmp_path / 'old.sqlite'}" if engine == "sqlite" else request.getfixturevalue("postgres_url")
    script = (Path(__file__).parent / f"schema_2.{engine}.sql").read_text()
    database = sa.create_engine(url)
    with database.begin() as connection:
        for statement in (*script.split(";\n"), *_OLD_RELEASE.split(";\n")):
            if statement.strip():
                connection.exec_driver_sql(statement)
    database.dispose()
    present, pinned = Catalog(url), Catalog(url, release="2026.1")
    for catalog, counts, path in ((present, 7.0, "images/new.fits"), (pinned, 5.0, "images/old.fits")):
        (flare,) = catalog.flares()
        (image,) = catalog.images("f")
        assert (flare["flare_id"], flare["peak_counts"], flare["x_hpc"], flare["day"]) == (
            "f",
            counts,
            3.5,
            "2022-11-09",
        )
        assert (image["path"], image["run_id"], image["total_flux"]) == (path, "R1", 2.5)
        assert str(image["created"]).startswith("1970-01-01T00:00:00.000000009")
        assert catalog.totals()["flares"] == catalog.totals()["images"] == 1
    assert present.done("images") == {"f": "x"}
    present.replace_images({"f": []}, run_id="R2")
    assert (present.images(), len(pinned.images())) == ([], 1)
    for catalog in (present, pinned):
        catalog.close()


_OLD_RELEASE = """
INSERT INTO partition (run_id, product, key, day, state, path, digest, input_digest, code_version, data_model_version,
    n_time, boxes, counts_sum, n_bytes, start, stop, structure, axes, complete, missing, shrink_reason, created, attrs)
VALUES ('R1', 'ql_lightcurve', '2022-11-09', '2022-11-09', 'published', 'a.zarr', 'd', 'i', '1', 1,
    10, 1, 5, 9, 0, 1, '', '', true, '', '', 0, '{}');
INSERT INTO current (product, key, partition_id, revision, start, stop)
    SELECT product, key, id, 1, start, stop FROM partition;
INSERT INTO flare (partition_id, flare_id, start, peak, stop, peak_counts, attrs)
    SELECT id, 'f', 0, 1, 2, 7.0, '{}' FROM partition;
INSERT INTO location (flare_id, attrs) VALUES ('f', '{"x_hpc": 3.5}');
INSERT INTO image (image_id, flare_id, method, energy_low, energy_high, start, stop, path, digest, run_id, created,
    attrs)
    VALUES ('i', 'f', 'bp', 4, 10, 0, 1, 'images/new.fits', 'd', 'R1', 9, '{"total_flux": 2.5}');
INSERT INTO done (stage, item, input_digest, run_id, created) VALUES ('images', 'f', 'x', 'R1', 0);
INSERT INTO release (name, note, code_version, created) VALUES ('2026.1', '', '1', 0);
INSERT INTO release_partition (release, product, key, partition_id) SELECT '2026.1', product, key, id FROM partition;
INSERT INTO release_row (release, kind, item, attrs) VALUES ('2026.1', 'flare', 'f',
    '{"flare_id": "f", "day": "2022-11-09", "run_id": "R1", "peak_counts": 5.0, "x_hpc": 3.5,
    "start": {"ns since 1970": 0}, "peak": {"ns since 1970": 1}, "stop": {"ns since 1970": 2}}');
INSERT INTO release_row (release, kind, item, attrs) VALUES ('2026.1', 'image', 'i',
    '{"image_id": "i", "flare_id": "f", "method": "bp", "energy_low": 4, "energy_high": 10, "path": "images/old.fits",
    "digest": "d", "run_id": "R1", "total_flux": 2.5, "created": {"ns since 1970": 9},
    "start": {"ns since 1970": 0}, "stop": {"ns since 1970": 1}}')
"""
