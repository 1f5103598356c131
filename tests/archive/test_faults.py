"""After any fault: nothing published is wrong, nothing is lost, and the next run heals it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from example_archive import DAYS, add, day_of, stage

from stixflow.archive import Archive, Catalog, open_archive, tables
from stixflow.archive.transactions import writing
from stixflow.errors import BalanceError, PublishConflict, SchemaError, StoreError

_HERE = Path(__file__).parent


def _kill(tmp_path: Path, url: str) -> list[dict[str, Any]]:
    paths = os.pathsep.join([str(_HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, _HERE / "kill_points.py", tmp_path / "archive", url, "12" if "sqlite" in url else "36"],
        env=os.environ | {"PYTHONPATH": paths, "BLOSC_NTHREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_killed_at_every_step_of_a_publication(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Real processes that end by `os._exit` before each write; then a disc without room."""
    url = f"sqlite:///{tmp_path}/c.sqlite" if engine == "sqlite" else request.getfixturevalue("postgres_url")
    rows = _kill(tmp_path, url)
    kills = [row for row in rows if row.get("killed")]
    assert {row["event"] for row in kills} >= {
        "file mkdir", "file write_bytes", "sql insert", "sql update", "sql commit",
    }  # fmt: skip
    assert len(kills) >= 15
    for row in rows:
        seen = row["seen"]
        assert seen["run"] in (row["before"], row.get("mine"))
        assert (seen["defects"], seen["sum_is_right"], seen["state"]) == ([], True, "published")
        assert seen["states"].count("published") == 1
        if "healed" in row:
            assert (row["healed"]["run"], row["healed"]["defects"], row["healed"]["flares"]) == (f"H{row['at']}", [], 1)
    last = [row for row in rows if row.get("killed") is False]
    assert [row["seen"]["run"] for row in last] == [row["mine"] for row in last]
    # Without room for files: refused and told, nothing shown, nothing half written.
    assert [(row["code"], row["seen"]["run"]) for row in rows if "limit" in row] == [(3, last[0]["healed"]["run"])] * 3
    assert not list((tmp_path / "archive").rglob("*/manifest.json.*"))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = open_archive(tmp_path / "archive", create=True)
    add(made, [day_of(DAYS[0], n_time=8)], DAYS[0])
    return made


def _shown(archive: Archive) -> str:
    return archive.catalog.partitions()[0].run_id


def test_two_publishers_at_once(archive: Archive) -> None:
    """Both have written and staged; one is shown, the other is told, and may run again."""
    ids = [stage(archive, [day_of(DAYS[0], n_time=8, seed=n)], DAYS[0], f"P{n}") for n in (1, 2)]
    outcome: dict[int, str] = {}

    def publish(number: int) -> None:
        catalog = Catalog(f"sqlite:///{archive.root}/catalog.sqlite")
        try:
            catalog.publish(ids[number])
            outcome[number] = "published"
        except PublishConflict:
            outcome[number] = "told"
        finally:
            catalog.close()

    threads = [threading.Thread(target=publish, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.values()) == ["published", "told"]
    assert archive.verify() == []
    add(archive, [day_of(DAYS[0], n_time=8, seed=3)], DAYS[0], "P3")
    assert _shown(archive) == "P3"


def test_a_catalog_that_stays_locked_is_told(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stixflow.archive.transactions._BUSY_MS", 50)
    url = f"sqlite:///{archive.root}/catalog.sqlite"
    other, mine = Catalog(url), Catalog(url)
    with writing(other.engine), pytest.raises(StoreError, match="does not answer: database is locked"):
        mine.begin_run("R2", "process", code_version="1")
    mine.begin_run("R2", "process", code_version="1")
    assert [row["run_id"] for row in mine.runs()] == ["R2"]
    other.close()
    mine.close()


def test_a_database_that_is_gone_is_told(postgres_url: str) -> None:
    catalog = Catalog(postgres_url)
    catalog.close()
    with pytest.raises(StoreError, match="does not answer"):
        Catalog(postgres_url.rsplit("/", 1)[0] + "/none")


@pytest.mark.parametrize("step_ns", [-(10**18), -1])
def test_a_clock_that_goes_backwards_changes_nothing_shown(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, step_ns: int
) -> None:
    """What replaces what is told by ids and pointers, never by time."""
    now = tables.now_ns()
    monkeypatch.setattr("stixflow.archive.tables.now_ns", lambda: now + step_ns)
    add(archive, [day_of(DAYS[0], n_time=8, seed=3)], DAYS[0], "R2", input_digest="more")
    assert _shown(archive) == "R2"
    assert archive.catalog.rolled_back() == set()
    assert archive.catalog.rollback("ql_lightcurve", DAYS[0].isoformat()).run_id == "R1"
    assert {item[0] for item in archive.catalog.rolled_back()} == {"ql_lightcurve"}


def test_guards_against_shrinking_and_drift_fire_and_leave_what_was(archive: Archive) -> None:
    from dataclasses import replace

    fewer = stage(archive, [day_of(DAYS[0], n_time=7)], DAYS[0], "R2")
    with pytest.raises(BalanceError, match="would shrink from 8 to 7"):
        archive.catalog.publish(fewer)
    other = archive.catalog.partition(stage(archive, [day_of(DAYS[0], n_time=9)], DAYS[0], "R3"))
    drifted = archive.catalog.stage(replace(other, path=other.path + "x", structure="other"))
    with pytest.raises(SchemaError, match="other variables or dimensions"):
        archive.catalog.publish(drifted)
    assert _shown(archive) == "R1"
    archive.catalog.publish(fewer, shrink_reason="packets withdrawn")
    assert _shown(archive) == "R2"
    assert archive.catalog.partition(fewer).shrink_reason == "packets withdrawn"
