"""The commands that look after an archive: releases, garbage, tables of the catalog."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from astropy.table import Table
from example_archive import DAYS, add, day_of
from example_delivery import process, published

from stixflow import cli
from stixflow.archive import open_archive


@pytest.fixture
def root(tmp_path: Path) -> Path:
    archive = open_archive(tmp_path / "archive", create=True)
    for day in DAYS:
        add(archive, [day_of(day)], day)
    archive.close()
    return tmp_path / "archive"


@pytest.fixture
def run(root: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.main([*arguments, "--archive", str(root)])
        return code, capsys.readouterr().out

    return call


def test_releases_from_the_command_line(run: Any, root: Path) -> None:
    assert run("release", "list") == (0, "no release was made yet\n")
    assert run("release", "create", "2026.1", "--note", "first") == (0, "release 2026.1: 3 partitions, 0 flares\n")
    add(open_archive(root), [day_of(DAYS[1], seed=99)], DAYS[1], "R2")
    code, out = run("release", "compare", "2026.1", "current")
    assert code == 0
    assert out.splitlines()[0].startswith("changed  ql_lightcurve    2022-11-09  24 to 24 time bins")
    assert out.splitlines()[1] == "1 changed"
    assert run("release", "compare", "2026.1", "2026.1")[1] == "2026.1 and 2026.1 are the same\n"
    told = json.loads(run("release", "show", "2026.1", "--json")[1])
    assert (told["name"], told["products"][0]["partitions"]) == ("2026.1", 3)
    assert "2026.1" in run("release", "list")[1]
    assert run("release", "create", "2026.1")[0] == 2
    assert run("release", "show", "2026.2")[0] == 1
    assert run("release")[0] == 2


def test_a_release_promises_only_what_is_there(run: Any, root: Path) -> None:
    archive = open_archive(root)
    (Path(archive.url(archive.catalog.partitions()[0].path)) / "manifest.json").unlink()
    assert run("release", "create", "2026.1")[0] == 1
    assert run("release", "list")[1] == "no release was made yet\n"


def test_garbage_from_the_command_line(run: Any, root: Path) -> None:
    for name in ("R2", "R3"):
        add(open_archive(root), [day_of(DAYS[1], seed=int(name[1]))], DAYS[1], name)
    old = "ql_lightcurve/v1/2022/11/09/R1.zarr"
    assert run("gc", "--dry-run")[1] == f"marked {old}\n0 removed, 1 marked, 0 waiting\n"
    run("gc")
    assert json.loads(run("gc", "--json")[1])["waiting"] == [old]
    assert run("gc", "--grace-days", "0")[1] == f"removed {old}\n1 removed, 0 marked, 0 waiting\n"
    assert not (root / old).exists()
    assert run("gc", "--grace-days", "-1")[0] == 2
    assert run("verify")[0] == 0


def test_tables_of_the_catalog(run: Any, tmp_path: Path) -> None:
    code, out = run("catalog", "products", "--start", "2022-11-09", "--format", "csv")
    assert code == 0
    assert [line.split(",")[1] for line in out.splitlines()] == ["key", "2022-11-09", "2022-11-11"]
    assert len(json.loads(run("catalog", "products", "--json")[1])) == 3
    assert run("catalog", "flares")[1] == "nothing\n"
    path = tmp_path / "products.fits"
    assert run("catalog", "products", "--format", "fits", "--output", str(path)) == (0, f"{path}\n")
    assert len(Table.read(path)) == 3
    assert run("catalog", "products", "--format", "fits")[0] == 2
    run("release", "create", "a")
    assert len(json.loads(run("catalog", "products", "--release", "a", "--json")[1])) == 3
    assert run("catalog", "products", "--release", "b")[0] == 1


def test_damaged_stores_are_removed_and_built_again(
    archive_copy: Path, processed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but those whose packets are damaged too: a damaged store is better than none."""
    archive = open_archive(archive_copy)
    days = [archive.catalog.current("ql_lightcurve", day) for day in ("2022-06-15", "2022-06-16")]
    for day in days:
        assert day is not None
        _flip(archive_copy / day.path / "0" / "counts" / "c.0.0")
    _flip(archive_copy / archive.catalog.packet_sets("ql_lightcurve", "2022-06-15")[0].path)
    place = ["--archive", str(archive_copy)]
    assert cli.main(["verify", *place]) == 1
    assert cli.main(["verify", "--remove-damaged", "--json", *place]) == 1
    told = json.loads(capsys.readouterr().out.split("\n", 2)[2])
    assert days[1] is not None
    assert told["removed"] == [days[1].path]
    process(archive_copy)
    assert len(archive.verify()) == 1
    assert published(archive_copy) == published(processed)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_status_tells_gaps_releases_and_what_is_lost(run: Any, root: Path) -> None:
    run("release", "create", "2026.1")
    told = json.loads(run("status", "--json")[1])
    assert told["products"]["ql_lightcurve"]["gaps"] == ["2022-11-10"]
    assert (told["releases"], told["lost"]) == (["2026.1"], [])
    assert "without 2022-11-10" in run("status")[1]
    add(open_archive(root), [day_of(date(2022, 11, 20))], date(2022, 11, 20))
    (root / "ql_lightcurve/v1/2022/11/09/R1.zarr/manifest.json").unlink()
    shown = run("status")[1]
    assert "without 2022-11-10, 2022-11-12 to 2022-11-19" in shown
    assert "LOST ql_lightcurve/v1/2022/11/09/R1.zarr" in shown
