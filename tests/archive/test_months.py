from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import xarray as xr
from example_archive import add, day_of
from example_cubes import make_dataset

from stixflow.archive import Archive, collect, create_release, open_archive
from stixflow.archive.months import stale_months
from stixflow.compute import Serial
from stixflow.cubes.files import LocalFiles
from stixflow.cubes.store import open_joined
from stixflow.stages.months import join_months
from stixflow.stages.run import open_run

FIRST, LAST = date(2022, 1, 20), date(2022, 3, 20)
CHANGED = date(2022, 2, 10)
SPAN = ("2022-01-20", "2022-03-20")


def _days(first: date, stop: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((stop - first).days)]


def join(archive: Archive) -> dict[str, object]:
    with open_run(archive.root, pool=Serial(), command="test") as run:
        join_months(run)
    return run.report()


def daily(archive: Archive, start: str, stop: str) -> xr.Dataset:
    """What the daily stores hold, read without any month."""
    found = archive.catalog.partitions("ql_lightcurve", start=start, stop=stop)
    joined = open_joined([(archive.url(item.path), item.digest) for item in found])
    return joined.sel(time=slice(start, None)).compute()


@contextmanager
def reads() -> Iterator[Counter[str]]:
    """Count what is asked of the disk."""
    counted: Counter[str] = Counter()
    originals = {name: getattr(LocalFiles, name) for name in ("get", "list")}

    def counting(name: str) -> object:
        def call(self: LocalFiles, *arguments: str) -> object:
            counted[name] += 1
            return originals[name](self, *arguments)

        return call

    with patch.multiple(LocalFiles, **{name: counting(name) for name in originals}):
        yield counted


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return sixty days in three months, one of them missing, joined."""
    made = open_archive(tmp_path_factory.mktemp("months") / "archive", create=True)
    for day in _days(FIRST, LAST):
        if day != date(2022, 3, 3):
            add(made, [day_of(day, n_time=6, step_s=4 * 3600.0, seed=day.toordinal())], day)
    assert join(made)["counts"] == {"months_joined": 3}
    made.close()
    return Path(made.root)


@pytest.fixture
def archive(template: Path, tmp_path: Path) -> Archive:
    return open_archive(shutil.copytree(template, tmp_path / "archive"))


@pytest.mark.parametrize(
    "span", [SPAN, ("2022-01-25T06:00", "2022-03-10"), ("2022-02-01", "2022-03-01"), ("2022-02-27", "2022-03-02")]
)
def test_a_span_is_that_of_the_days(archive: Archive, span: tuple[str, str]) -> None:
    found = archive.lightcurves(*span)
    assert found["counts"].chunks is not None
    xr.testing.assert_equal(found.compute(), daily(archive, *span))


def test_a_long_span_opens_few_objects(archive: Archive) -> None:
    """Manifest, metadata and times of each month, and once the axes of the first."""
    with reads() as counted:
        cube = archive.lightcurves(*SPAN)
    assert counted["list"] == 4
    assert counted["get"] <= 3 * 4 + 8
    with reads() as counted:
        cube["counts"].data.compute()
    assert counted["get"] == 3 * 2  # values and their metadata


def test_a_day_that_changes_makes_its_month_again_and_no_other(archive: Archive) -> None:
    add(archive, [day_of(CHANGED, n_time=6, step_s=4 * 3600.0, seed=1)], CHANGED, "R2")
    assert [month.label for month in stale_months(archive.catalog, archive.root)] == ["ql_lightcurve 2022-02"]
    xr.testing.assert_equal(archive.lightcurves(*SPAN).compute(), daily(archive, *SPAN))
    assert join(archive)["counts"] == {"months_joined": 1}
    with reads() as counted:
        found = archive.lightcurves(*SPAN)
    assert counted["list"] == 4
    xr.testing.assert_equal(found.compute(), daily(archive, *SPAN))
    assert join(archive)["counts"] == {}


def test_roll_back_shows_the_days_of_before(archive: Archive) -> None:
    before = archive.lightcurves(*SPAN).compute()
    add(archive, [day_of(CHANGED, n_time=6, step_s=4 * 3600.0, seed=1)], CHANGED, "R2")
    join(archive)
    archive.catalog.rollback("ql_lightcurve", CHANGED.isoformat())
    xr.testing.assert_identical(archive.lightcurves(*SPAN).compute(), before)


def test_a_lost_or_damaged_month_is_read_from_its_days(archive: Archive) -> None:
    whole = daily(archive, *SPAN)
    month = Path(archive.url(archive.catalog.done("derived")["ql_lightcurve 2022-02"]))
    (month / "0" / "counts" / "c.0.0").unlink()
    xr.testing.assert_equal(archive.lightcurves(*SPAN).compute(), whole)
    assert ["is missing" in str(defect) for defect in archive.verify()] == [True]
    (month / "manifest.json").unlink()
    xr.testing.assert_equal(archive.lightcurves(*SPAN).compute(), whole)
    assert join(archive)["counts"] == {"months_joined": 1}
    assert archive.verify() == []


def test_a_release_reads_its_own_months(archive: Archive) -> None:
    before = archive.lightcurves(*SPAN).compute()
    create_release(archive.catalog, "2026.1", code_version="1")
    add(archive, [day_of(CHANGED, n_time=6, step_s=4 * 3600.0, seed=1)], CHANGED, "R2")
    join(archive)
    pinned = open_archive(archive.root, release="2026.1")
    xr.testing.assert_identical(pinned.lightcurves(*SPAN).compute(), before)


def test_old_months_are_garbage_and_new_ones_are_not(archive: Archive) -> None:
    assert collect(archive).marked == ()
    old = archive.catalog.done("derived")["ql_lightcurve 2022-02"]
    add(archive, [day_of(CHANGED, n_time=6, step_s=4 * 3600.0, seed=1)], CHANGED, "R2")
    join(archive)
    assert collect(archive).marked == (old,)


def test_days_that_cannot_be_joined_are_left_and_told_once(tmp_path: Path) -> None:
    """Bins of one day that reach into the next: each day is sound, together they are not."""
    archive = open_archive(tmp_path / "archive", create=True)
    for day in _days(date(2022, 1, 1), date(2022, 1, 11)):
        add(archive, [day_of(day, n_time=25 if day.day == 4 else 24)], day)
    report = join(archive)
    assert [note["item"] for note in report["skipped"]] == ["ql_lightcurve 2022-01"]  # type: ignore[attr-defined]
    assert not report["failed"]
    assert join(archive)["skipped"] == []
    assert archive.lightcurves("2022-01-01", "2022-01-11").sizes["time"] == 241
    assert archive.verify() == []


def test_months_of_few_days_or_several_energy_axes_are_not_joined(tmp_path: Path) -> None:
    archive = open_archive(tmp_path / "archive", create=True)
    for day in _days(date(2022, 1, 28), date(2022, 2, 12)):
        add(archive, [day_of(day, n_energy=4 if day.day == 5 else 5)], day)
    assert stale_months(archive.catalog, archive.root) == []


@pytest.mark.parametrize("product", ["ephemeris", "ql_background"])
def test_other_products_that_are_asked_for_by_the_year(product: str, tmp_path: Path) -> None:
    archive = open_archive(tmp_path / "archive", create=True)
    for day in _days(date(2022, 1, 1), date(2022, 1, 11)):
        values = {"n_time": 24, "step_s": 3600.0, "seed": day.day}
        add(archive, [make_dataset(product, start=np.datetime64(day, "ns"), **values)], day)  # type: ignore[arg-type]
    before = archive.cube(product, "2022-01-01", "2022-01-11").compute()
    assert join(archive)["counts"] == {"months_joined": 1}
    with reads() as counted:
        after = archive.cube(product, "2022-01-01", "2022-01-11")
    assert counted["list"] == 2
    xr.testing.assert_identical(after.compute(), before)
