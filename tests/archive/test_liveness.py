from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from example_archive import DAYS, day_of, stage

from stixflow.archive import Catalog, collect, open_archive, runs, tables
from stixflow.archive.liveness import SILENCE_NS, is_alive, this_process
from stixflow.archive.transactions import reading, writing
from stixflow.stages.report import archive_status, format_status

DAY_NS = 86_400 * 10**9


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    opened = Catalog(url)
    yield opened
    opened.close()


def begun_elsewhere(url: str, run_id: str) -> int:
    """Begin a run in a process of its own, which stays; return its number."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        Catalog(url).begin_run(run_id, "process", code_version="1")
        os.write(tell, b"x")
        signal.pause()
    os.read(told, 1)
    os.close(told)
    os.close(tell)
    return child


def state_of(catalog: Catalog) -> str:
    return str(catalog.runs()[0]["state"])


def change(catalog: Catalog, **values: object) -> None:
    with writing(catalog.engine) as connection:
        connection.execute(tables.run.update().values(**values))


def test_a_run_of_this_machine_lives_as_long_as_its_process(url: str) -> None:
    child = begun_elsewhere(url, "R1")
    catalog = Catalog(url)
    (row,) = catalog.runs()
    assert (row["state"], row["pid"], row["seen"]) == ("running", child, row["started"])
    os.kill(child, signal.SIGKILL)
    while state_of(catalog) != "dead":  # at once: also before its parent has asked for it
        time.sleep(0.01)
    os.waitpid(child, 0)
    assert runs.active_runs(catalog.engine) == []
    catalog.begin_run("R2", "process", code_version="1")
    with reading(catalog.engine) as connection:
        kept = connection.execute(sa.select(tables.run.c.run_id, tables.run.c.state, tables.run.c.finished))
        assert sorted(tuple(row) for row in kept) == [("R1", "dead", row["seen"].astype(int)), ("R2", "running", None)]
    catalog.close()


def test_a_number_that_another_process_has_now_is_no_life(catalog: Catalog) -> None:
    catalog.begin_run("R1", "process", code_version="1")
    assert state_of(catalog) == "running"
    change(catalog, process=this_process()["process"] + "1")
    assert state_of(catalog) == "dead"


def test_a_run_of_another_machine_lives_while_it_says_so(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.begin_run("R1", "process", code_version="1")
    change(catalog, host="far", process="boot-of-another/pid:[1] 5")
    now = tables.now_ns()
    monkeypatch.setattr(tables, "now_ns", lambda: now + SILENCE_NS // 2)
    assert state_of(catalog) == "running"
    catalog.see_run("R1")
    monkeypatch.setattr(tables, "now_ns", lambda: now + SILENCE_NS + 10**9)
    assert state_of(catalog) == "running"
    monkeypatch.setattr(tables, "now_ns", lambda: now + 2 * SILENCE_NS)
    assert state_of(catalog) == "dead"
    assert runs.active_runs(catalog.engine) == []


def test_a_run_that_was_taken_for_dead_may_come_back(catalog: Catalog) -> None:
    catalog.begin_run("R1", "process", code_version="1")
    change(catalog, process="boot-of-another/pid:[1] 5", seen=tables.now_ns() - 2 * SILENCE_NS)
    catalog.begin_run("R2", "process", code_version="1")
    catalog.finish_run("R2")
    assert runs.active_runs(catalog.engine) == []
    catalog.see_run("R1")
    assert runs.active_runs(catalog.engine) == ["R1"]
    catalog.finish_run("R1")
    catalog.see_run("R1")
    assert {row["state"] for row in catalog.runs()} == {"done"}


def test_it_is_said_again_and_again_whatever_the_database_does(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.begin_run("R1", "process", code_version="1")
    change(catalog, seen=0)
    original, calls = Catalog.see_run, iter(range(10**6))

    def first_in_vain(self: Catalog, run_id: str) -> None:
        if next(calls) == 0:
            raise sa.exc.OperationalError("UPDATE", {}, Exception("gone"))
        original(self, run_id)

    monkeypatch.setattr(Catalog, "see_run", first_in_vain)
    with catalog.kept_alive("R1", every_s=0.001):
        while not catalog.runs()[0]["seen"].astype(int):
            time.sleep(0.005)


@pytest.mark.parametrize(("age_days", "alive"), [(1, True), (3, False)])
def test_a_run_of_an_older_version_is_trusted_for_two_days(age_days: int, alive: bool) -> None:
    run = {"process": None, "started": -age_days * DAY_NS, "seen": None}
    assert is_alive(run, 0) is alive


def test_the_dead_hold_no_garbage_and_status_tells_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = open_archive(tmp_path / "archive", create=True)
    child = begun_elsewhere(f"sqlite:///{archive.root}/catalog.sqlite", "R7")
    stage(archive, [day_of(DAYS[1])], DAYS[1], "R7")
    collect(archive)
    now = tables.now_ns()
    monkeypatch.setattr(tables, "now_ns", lambda: now + 8 * DAY_NS)
    assert collect(archive).active_runs == ("R7",)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(collect(archive).removed) == 1
    status = archive_status(archive.root)
    assert (status["runs"][0]["state"], status["runs"][0]["pid"]) == ("dead", child)
    began = str(status["runs"][0]["started"])[:19]
    assert f"run R7 dead     process  {began}  process {child} on " in format_status(status)
