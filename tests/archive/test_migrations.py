"""Databases as earlier versions made them, brought up to date with all that they hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from stixflow.archive import Catalog, create_release, migrations, tables
from stixflow.archive.transactions import reading


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'old.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


def make_database(url: str, version: int, *statements: str) -> None:
    database = sa.create_engine(url)
    script = Path(__file__).with_name(f"schema_{version}.{database.dialect.name}.sql").read_text()
    with database.begin() as connection:
        for statement in (*script.split(";\n"), *statements):
            if statement.strip():
                connection.exec_driver_sql(statement)
    database.dispose()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_old_schema_is_brought_up_to_date(version: int, url: str) -> None:
    """The tables as earlier versions made them, with rows that must survive."""
    make_database(url, version, _ROW, _RUN)
    catalog = Catalog(url)
    (item,) = catalog.history("ql_lightcurve", "2022-11-09")
    assert (item.n_time, item.collected) == (10, None)
    assert [(run["state"], run["host"]) for run in catalog.runs()] == [("dead", None)]
    catalog.begin_run("R2", "process", code_version="2")
    catalog.publish(item.id)
    assert create_release(catalog, "2026.1", code_version="1")["partitions"] == 1
    with reading(catalog.engine) as connection:
        assert connection.execute(migrations._VERSION).scalar() == str(migrations.SCHEMA_VERSION)
        found = sa.inspect(connection)
        for table in tables.metadata.sorted_tables:
            assert {c["name"] for c in found.get_columns(table.name)} == {column.name for column in table.columns}
    catalog.close()
    Catalog(url).close()


_ROW = """
INSERT INTO partition (run_id, product, key, day, state, path, digest, input_digest, code_version, data_model_version,
    n_time, boxes, counts_sum, n_bytes, start, stop, structure, axes, complete, missing, shrink_reason, created, attrs)
VALUES ('R1', 'ql_lightcurve', '2022-11-09', '2022-11-09', 'staged', 'a.zarr', 'd', 'i', '1', 1,
    10, 1, 5, 9, 0, 1, '', '', true, '', '', 0, '{}')
"""

_RUN = """
INSERT INTO run (run_id, command, state, code_version, started, summary)
VALUES ('R1', 'process', 'running', '1', 1, '{}')
"""


def test_releases_of_an_old_schema_keep_their_flares_and_images(url: str) -> None:
    """Version 2 kept them as text; they, and what readers see, are rows of the same tables since version 4."""
    make_database(url, 2, *_RELEASE.split(";\n"))
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


_RELEASE = """
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
