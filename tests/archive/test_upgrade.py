"""Archives and catalogs of earlier versions, opened, read and written by this one."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import sqlalchemy as sa
from example_archive import DAYS, add, day_of

from stixflow.archive import Archive, collect, migrations, open_archive, tables
from stixflow.archive.transactions import writing
from stixflow.cubes import check
from stixflow.cubes.model import PRODUCTS, Variable
from stixflow.cubes.store import encoding
from stixflow.errors import SchemaError, StoreError, UsageError

_OLD = Path(__file__).with_name("archive_of_schema_2.tar.xz")
"""Made by the version before runs kept who runs them: three days, one of them published twice, a release in between."""

_COUNTS = {"2022-11-08": 4294967300, "2022-11-09": 4294967301, "2022-11-11": 4294967301}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(_OLD) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "archive"


def counts_of(archive: Archive, day: str) -> int:
    return int(archive.lightcurves(day, np.datetime64(day) + 1)["counts"].sum())


def test_an_archive_of_an_earlier_version_goes_on(old: Path) -> None:
    archive = open_archive(old)
    assert {day: counts_of(archive, day) for day in _COUNTS} == _COUNTS
    assert archive.lightcurves("2022-11-08", "2022-11-12").sizes["time"] == 12
    assert archive.verify() == []
    assert archive.flares()[["flare_id", "peak_counts", "x_hpc"]].values.tolist() == [["2211090200", 13.0, 1.0]]
    assert archive.images("2211090200")["method"].tolist() == ["bp"]
    assert archive.files()["packets_in"].tolist() == [5]
    assert archive.runs().set_index("run_id")["state"].to_dict() == {"R0": "done", "R1": "dead"}
    pinned = open_archive(old, release="2026.1")
    assert pinned.flares()["peak_counts"].tolist() == [12.0]
    assert pinned.images()["image_id"].tolist() == ["2211090200-4-10keV-bp"]
    assert pinned.verify() == []
    pinned.close()
    archive.catalog.begin_run("R2", "process", code_version="2")
    add(archive, [day_of(DAYS[1], n_time=4, seed=7)], DAYS[1], "R2")
    archive.catalog.finish_run("R2")
    assert archive.catalog.rollback("ql_lightcurve", "2022-11-09").run_id == "R1"
    assert counts_of(archive, "2022-11-09") == _COUNTS["2022-11-09"]
    assert collect(archive, grace_days=0).removed == ()
    assert collect(archive, grace_days=0).removed
    assert archive.verify() == []
    assert open_archive(old, release="2026.1").verify() == []
    archive.close()


def test_two_processes_open_it_at_once(old: Path) -> None:
    """One brings the tables up to date, the other waits for it."""
    code = (
        "from stixflow import open_archive\n"
        f"print(len(open_archive({str(old)!r}).lightcurves('2022-11-08', '2022-11-12').time))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for one in running:
        out, error = one.communicate(timeout=60)
        assert (out.strip(), one.returncode) == ("12", 0), error


def test_a_migration_that_fails_leaves_the_old_tables(old: Path) -> None:
    def version() -> str:
        engine = sa.create_engine(f"sqlite:///{old / 'catalog.sqlite'}")
        with engine.connect() as connection:
            found = str(connection.execute(sa.text("SELECT value FROM meta WHERE name = 'schema_version'")).scalar())
            columns = {column["name"] for column in sa.inspect(connection).get_columns("run")}
        engine.dispose()
        assert ("seen" in columns) == (found != "2")
        return found

    statements = migrations._STEPS[-1]
    broken = (
        *migrations._STEPS[:-1],
        (*(statements if isinstance(statements, tuple) else ()), "ALTER TABLE no ADD x"),
    )
    with patch.object(migrations, "_STEPS", broken), pytest.raises((StoreError, sa.exc.SQLAlchemyError)):
        open_archive(old)
    assert version() == "2"
    open_archive(old).close()
    assert version() == str(migrations.SCHEMA_VERSION)


# Data models ----------------------------------------------------------------------------------------------------------

_LIGHT = PRODUCTS["ql_lightcurve"]


def with_variables(variables: dict[str, Variable]) -> dict[str, object]:
    return {**PRODUCTS, "ql_lightcurve": replace(_LIGHT, variables=variables)}


def add_of_model(archive: Archive, variables: dict[str, Variable], number: int, *, version: int) -> None:
    """Publish a day as a version with these variables makes it."""
    day = DAYS[number]
    cube = day_of(day, n_time=4)
    cube = cube.drop_vars([str(name) for name in cube.variables if name not in variables])
    for name in variables.keys() - {str(known) for known in cube.variables}:
        cube[name] = (variables[name].dims, np.ones([cube.sizes[one] for one in variables[name].dims], "f8"))
        cube[name].attrs = {"units": variables[name].units, "long_name": variables[name].long_name}
    models = with_variables(variables)
    cube.attrs["data_model_version"] = version
    for name, model in variables.items():
        cube[name].attrs["units"] = model.units
    with (
        patch.object(check, "PRODUCTS", models),
        patch.object(check, "DATA_MODEL_VERSION", version),
        patch.object(encoding, "PRODUCTS", models),
    ):
        made = add(archive, [cube], day, f"V{version}")
    with writing(archive.catalog.engine) as connection:
        mine = tables.partition.c.id == made.id
        connection.execute(tables.partition.update().where(mine).values(data_model_version=version))


_NEW = Variable(("time",), ("float64",), "1", "a measure that a later version brings")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return open_archive(tmp_path / "archive", create=True)


def test_a_span_of_two_data_models_has_what_both_have(archive: Archive) -> None:
    add_of_model(archive, dict(_LIGHT.variables), 0, version=1)
    add_of_model(archive, {**_LIGHT.variables, "quality": _NEW}, 1, version=2)
    add_of_model(archive, {name: one for name, one in _LIGHT.variables.items() if name != "rcr"}, 2, version=3)
    alone = archive.lightcurves(DAYS[1], DAYS[2])
    assert alone["quality"].values.tolist() == [1.0] * 4
    joined = archive.lightcurves(DAYS[0], "2022-11-12")
    assert joined.sizes["time"] == 12
    assert joined.attrs["left_out"] == ["quality", "rcr"]
    assert set(joined.variables) == set(_LIGHT.variables) - {"rcr"}
    days = [archive.lightcurves(day, np.datetime64(day) + 1)["counts"].values for day in DAYS]
    np.testing.assert_array_equal(joined["counts"].values, np.concatenate(days))
    assert archive.verify() == []


def test_data_models_that_mean_something_else_are_never_joined(archive: Archive) -> None:
    counts = _LIGHT.variables["counts"]
    add_of_model(archive, dict(_LIGHT.variables), 0, version=1)
    add_of_model(archive, {**_LIGHT.variables, "counts": replace(counts, units="count s-1")}, 1, version=2)
    with pytest.raises(SchemaError, match=r"counts of .* are not what they are"):
        archive.lightcurves(DAYS[0], DAYS[2])
    assert archive.lightcurves(DAYS[1], DAYS[2])["counts"].attrs["units"] == "count s-1"


def test_other_axes_of_one_data_model_are_told(archive: Archive) -> None:
    add(archive, [day_of(DAYS[0], n_time=4)], DAYS[0])
    other = day_of(DAYS[1], n_time=4)
    other["energy_high"] = other["energy_high"] + 1
    add(archive, [other], DAYS[1])
    with pytest.raises(UsageError, match="energy bins of ql_lightcurve change"):
        archive.lightcurves(DAYS[0], DAYS[2])
    with writing(archive.catalog.engine) as connection:
        connection.execute(tables.partition.update().where(tables.partition.c.id == 2).values(data_model_version=2))
    # The stores themselves say one model: nothing is joined on the word of the catalog alone.
    with pytest.raises(SchemaError, match="energy_high"):
        archive.lightcurves(DAYS[0], DAYS[2])
