"""Each flow on a real Prefect server (PostgreSQL), in this process: end states, reports, retries, who is told what."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from example_archive import add
from example_delivery import DAYS, assert_balanced, published
from services.prefect import Server

from stixflow.archive import open_archive
from stixflow.archive.turns import take_turn
from stixflow.errors import StixflowError, StoreError

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("client")]

Call = Callable[..., Any]


@pytest.fixture
def run() -> Call:
    """Return what runs a flow by name and gives its end state and its report."""
    from flows import mission

    def call(name: str, **parameters: Any) -> tuple[Any, dict[str, Any]]:
        state = getattr(mission, name)(**parameters, return_state=True)
        result = state.result(raise_on_failure=False)
        return state, result.report if state.is_failed() else result

    return call


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STIXFLOW_NOTIFY", f"file:{tmp_path}/told")
    return tmp_path / "told"


SERIAL = {"serial": True}


def _table(server: Server, key: str) -> list[dict[str, Any]]:
    """The latest report of a flow."""
    found = server.ask("artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
    rows: list[dict[str, Any]] = json.loads(found[0]["data"])
    return rows


def test_from_a_drop_to_files_for_others(
    run: Call, prefect_on_postgres: Server, delivery: Path, processed: Path, told: Path, tmp_path: Path
) -> None:
    root, inbox, out = str(tmp_path / "archive"), tmp_path / "inbox", tmp_path / "out"
    shutil.copytree(delivery, inbox)
    (inbox / "notes.txt").write_text("no telemetry: fails once, and says so")
    state, report = run("ingest", archive=root, inbox=str(inbox), settle_seconds=0.1, cubes=False)
    assert state.is_failed()
    assert [note["item"] for note in report["failed"]] == ["notes.txt"]
    assert report["counts"]["files"] == 6
    assert_balanced(report["balance"])
    assert [json.loads(line)["flow"] for line in told.read_text().splitlines()] == ["ingest"]
    rows = _table(prefect_on_postgres, "ingest-report")
    assert (rows[0]["what"], rows[0]["item"]) == ("FAILED", "ingest: notes.txt")
    assert {"what": "counts", "item": "files", "value": 6} in rows

    state, _ = run("ingest", archive=root, inbox=str(inbox), settle_seconds=0.1)
    assert (state.type.value, state.message) == ("COMPLETED", "nothing new")
    assert "refused before" in {row["what"] for row in _table(prefect_on_postgres, "ingest-report")}

    products = ["ql_lightcurve"]
    state, report = run("daily", archive=root, images=False, exports=str(out), export_products=products, engine=SERIAL)
    assert state.is_completed(), state.message
    assert list(report["seconds"]) == ["cubes", "flares", "exports"]
    assert report["counts"]["exports"] == len(list(out.glob("*.fits"))) == len(DAYS)
    assert published(Path(root)) == published(processed)

    state, report = run("daily", archive=root, images=False, exports=str(out), export_products=products, engine=SERIAL)
    assert report["counts"].get("exports", 0) == 0, "what is not new is not exported again"
    assert len(told.read_text().splitlines()) == 1


def test_the_daily_run_makes_what_follows_from_what_ingest_has_published(
    run: Call, prefect_on_postgres: Server, delivery: Path, processed: Path, tmp_path: Path
) -> None:
    root, places = str(tmp_path / "archive"), {"previews": str(tmp_path / "previews"), "exports": str(tmp_path / "out")}
    for kind in ("telemetry", "ephemeris"):
        state, _ = run("ingest", archive=root, inbox=str(delivery / kind), settle_seconds=0.1)
        assert state.is_completed(), state.message
    assert published(Path(root)) == published(processed), "ingest publishes cubes by itself"
    state, report = run("daily", archive=root, engine=SERIAL, **places)
    assert state.is_completed(), state.message
    archive = open_archive(root)
    (flare,) = archive.catalog.flares()
    assert len(archive.catalog.images()) == len(open_archive(processed).catalog.images()) > 0
    assert list((tmp_path / "previews" / flare["flare_id"]).glob("*_panels.png"))
    names = " ".join(path.name for path in (tmp_path / "out").iterdir())
    assert all(kind in names for kind in ("ql-lightcurve", "sci-xray-cpd", "sci-xray-spec"))
    assert report["counts"]["exports"] == len(list((tmp_path / "out").iterdir()))
    table = {(row["what"], row["item"]): row["value"] for row in _table(prefect_on_postgres, "daily-report")}
    assert table["counts", "previews"] == 1
    parts = ("CPU of workers", "of the coordinator", "MB read", "MB written", "a worker at most")
    assert all(part in table["cost", "images"] for part in parts), table["cost", "images"]
    assert {item for what, item in table if what == "cost"} >= {"flares", "images", "previews", "exports"}

    state, report = run("daily", archive=root, engine=SERIAL, **places)
    assert (report["counts"].get("exports", 0), report["counts"].get("previews", 0)) == (0, 0)


def test_a_folder_for_a_mission_that_is_there_is_filled_piece_by_piece(
    run: Call, archive_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import upkeep

    monkeypatch.setattr(upkeep, "_EXPORTS_A_RUN", 2)
    wanted = {"exports": str(tmp_path / "out"), "export_products": ["ql_lightcurve", "sci_pixels"], "images": False}
    items = [
        item for item in open_archive(archive_copy).catalog.partitions() if item.product in wanted["export_products"]
    ]
    for left in range(len(items) - 2, -2, -2):
        _, report = run("daily", archive=str(archive_copy), engine=SERIAL, **wanted)
        told = [note["item"] for note in report["skipped"] if note["stage"] == "exports"]
        assert told == ([f"{left} more"] if left > 0 else [])
    assert len(list((tmp_path / "out").iterdir())) == len(items)


def test_ingest_leaves_an_archive_that_is_busy(run: Call, delivery: Path, archive_copy: Path, tmp_path: Path) -> None:
    source = next((delivery / "telemetry").glob("*lightcurve*"))
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "again.xml").write_bytes(source.read_bytes() + b"\n")
    archive = open_archive(archive_copy)
    before = len(archive.catalog.files())
    with take_turn(archive.catalog):
        state, _ = run("ingest", archive=str(archive_copy), inbox=str(tmp_path / "inbox"), settle_seconds=0.1)
    assert (state.name, state.type.value) == ("Busy", "COMPLETED")
    assert len(archive.catalog.files()) == before
    state, _ = run("ingest", archive=str(archive_copy), inbox=str(tmp_path / "inbox"), settle_seconds=0.1)
    assert state.is_completed()
    assert len(archive.catalog.files()) == before + 1


def test_images_that_are_lost_are_made_again(run: Call, archive_copy: Path) -> None:
    archive = open_archive(archive_copy)
    shutil.rmtree(archive_copy / "images")
    state, report = run("images", archive=str(archive_copy), engine=SERIAL)
    assert state.is_completed(), state.message
    assert report["counts"]["images"] == len(archive.catalog.images())


def test_calibration_says_what_there_is(run: Call, prefect_on_postgres: Server, archive_copy: Path) -> None:
    state, _ = run("calibration", archive=str(archive_copy))
    assert state.is_completed(), state.message
    assert {"what": "calibration", "item": "runs", "value": 0} in _table(prefect_on_postgres, "calibration-report")


def test_calibration_names_pixels_that_have_drifted(run: Call, prefect_on_postgres: Server, archive_copy: Path) -> None:
    import numpy as np
    from example_calibrations import put_run

    from stixflow.instrument import elut
    from stixflow.simulate import simulate_calibration

    table, moved = elut("2025-03-03"), np.zeros((32, 12))
    moved[4, 5] = 1.0
    spectra = simulate_calibration(table.gain, table.offset - moved / table.gain)
    archive = open_archive(archive_copy)
    put_run(archive, spectra.assign_attrs(books={}))
    archive.close()
    state, _ = run("calibration", archive=str(archive_copy))
    assert state.is_completed(), state.message
    rows = _table(prefect_on_postgres, "calibration-report")
    line = {"what": "drift beyond the limit", "item": "794271634-86400", "value": "detector 5 pixel 5"}
    assert line in rows
    assert len(list((archive_copy / "calibration/794271634-86400").iterdir())) == 4


def test_maintenance_finds_damage_and_forgets_old_runs(
    run: Call, prefect_on_postgres: Server, archive_copy: Path, told: Path
) -> None:
    stores = len(open_archive(archive_copy).catalog.partitions())
    state, report = run("maintenance", archive=str(archive_copy), grace_days=0, keep_flow_runs_days=None)
    assert state.is_completed(), state.message
    assert 0 < report["counts"]["stores"] < stores, "a share of them each day"
    victim = max((archive_copy / "sci_pixels").rglob("*"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    state, report = run("maintenance", archive=str(archive_copy), verify_days=1, keep_flow_runs_days=0)
    assert state.is_failed()
    assert victim.name in report["failed"][0]["error"]
    assert told.exists()
    assert report["counts"]["flow runs forgotten"] >= 1
    assert prefect_on_postgres.flow_runs("COMPLETED") == []


def test_reprocess_is_planned_then_made_and_switched_to(
    run: Call, prefect_on_postgres: Server, archive_copy: Path
) -> None:
    asked = {"archive": str(archive_copy), "release": "2026.1", "engine": SERIAL}
    options = {"products": ["ql_lightcurve"]}
    state, _ = run("reprocess", **asked, options=options, dry_run=True)
    assert state.is_completed(), state.message
    assert {row["what"] for row in _table(prefect_on_postgres, "reprocess-report")} == {"plan"}
    state, report = run("reprocess", **asked, options=options, switches=True)
    assert state.is_completed(), state.message
    assert report["switched"]["release"] == "2026.1"
    table = {row["item"]: row["value"] for row in _table(prefect_on_postgres, "reprocess-report")}
    assert table["2026.1"] == "yes"
    assert open_archive(archive_copy, release="2026.1").verify() == []


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (ConnectionError("the scheduler is gone"), 3),
        (OSError(5, "Input/output error"), 3),
        (StixflowError("the header lies"), 1),
        (ValueError("no number"), 1),
        (FileNotFoundError("gone"), 1),
    ],
)
def test_only_transport_is_tried_again(error: Exception, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import flow

    from flows import frame

    monkeypatch.setattr(frame, "TRANSPORT_DELAYS", [0.0, 0.0])
    seen = []

    def stage() -> None:
        seen.append(1)
        raise error

    @flow(name="trial", validate_parameters=False)
    def trial() -> None:
        frame.as_task("stage", stage)()

    with pytest.raises(type(error)):
        trial()
    assert len(seen) == calls


def _raised(error: Exception, cause: Exception | None) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (PermissionError(), False),
        (StoreError("a chunk is lost"), False),
        (_raised(StoreError("refused"), ConnectionError()), True),
        (_raised(StoreError("refused"), ValueError()), False),
        (_raised(StoreError("no room"), OSError(28, "No space left on device")), True),
        (None, False),
    ],
)
def test_what_is_transport(error: Exception | None, expected: bool) -> None:
    from flows.frame import is_transport

    assert is_transport(error) is expected


def test_progress_is_told_at_most_every_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import frame

    clock, told = [0.0], []
    monkeypatch.setattr(frame, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(frame, "create_progress_artifact", lambda *_, **more: told.append(more) or "id")
    monkeypatch.setattr(frame, "update_progress_artifact", lambda *_, **more: told.append(more))
    show = frame.Progress("daily")
    for step in range(101):
        clock[0] = step / 4
        show("cubes", step, 100)
    assert [more["description"] for more in told] == [f"cubes: {20 * n} of 100" for n in range(1, 6)]


def test_a_server_that_does_not_answer_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import frame

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no server")

    for name in ("create_progress_artifact", "create_table_artifact"):
        monkeypatch.setattr(frame, name, refuse)
    monkeypatch.setattr(frame, "PROGRESS_SECONDS", 0.0)
    frame.Progress("daily")("cubes", 1, 2)
    assert frame.conclude("daily", {"archive": "/a", "counts": {"images": 2}}).message == "2 images"


def test_a_long_report_is_cut_with_its_failures_first() -> None:
    from flows import frame

    notes = [{"stage": "cubes", "item": str(n), "reason": "rolled back"} for n in range(1000)]
    rows = frame.rows_of({"failed": [{"stage": "images", "item": "x", "error": "no room"}], "skipped": notes})
    assert rows[0] == {"what": "FAILED", "item": "images: x", "value": "no room"}
    assert len(rows) == 200
    assert rows[-1]["item"] == "802 more"


def test_failed_items_are_one_line_of_the_log() -> None:
    from flows import frame

    lines = []
    for error in (frame.SomeFailed("1 failed, the first: images: flare 1: no room"), ValueError("no number")):
        record = logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 1, "unexpected", (), (None, error, None))
        assert frame._without_trace_of_failed(record)
        lines.append((record.getMessage(), bool(record.exc_info)))
    assert lines == [("1 failed, the first: images: flare 1: no room.", False), ("unexpected", True)]


def test_days_without_calibration_are_named(tmp_path: Path) -> None:
    from datetime import date

    import numpy as np
    from example_cubes import make_dataset

    from flows.upkeep import calibration_coverage

    archive = open_archive(tmp_path / "a", create=True)
    for day, complete in ((1, True), (2, True), (9, False)):
        start = np.datetime64(f"2022-11-{day:02}T03:00:00", "ns")
        made = make_dataset("cal_spectrum", start=start)
        add(archive, [made], date(2022, 11, day), complete=complete, missing="" if complete else "2 of 8 packets")
    rows = calibration_coverage(archive, 3.0)
    assert ("calibration", "runs", 3) in rows
    gaps = [row for row in rows if row[0] == "without calibration"]
    assert len(gaps) == 1
    assert gaps[0][1].startswith("2022-11-02")
    assert [row[2] for row in rows if row[0] == "calibration incomplete"] == ["2 of 8 packets"]
