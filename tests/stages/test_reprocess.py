"""The mission built again beside what readers see: resumed after any end, validated, switched to, taken back."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_delivery import DAYS, flare_rows, process, telemetry, write

from stixflow import cli
from stixflow.archive import Archive, list_releases, open_archive
from stixflow.compute import Serial
from stixflow.errors import ArchiveBusy, MissingFile, PublishConflict, UsageError
from stixflow.stages import Science
from stixflow.stages.reprocess import (
    STAGES,
    Reprocessing,
    open_reprocess,
    plan_reprocess,
    return_release,
    run_reprocess,
    switch_release,
)

NAME = "2026.2"
ALL = Reprocessing(NAME, rebuild_all=True)
_HERE = Path(__file__).parent


def reprocess(root: Path, asked: Reprocessing = ALL, *, switches: bool = False, **engine: Any) -> dict[str, Any]:
    """Reprocess in this process."""
    return run_reprocess(str(root), asked, pool=Serial(), switches=switches, **engine)


def seen(root: Path, release: str | None = None) -> dict[str, Any]:
    """What readers see: digests of partitions and images, flares with their places."""
    archive = open_archive(root, release)
    found = {
        "partitions": {f"{p.product} {p.key}": p.digest for p in archive.catalog.partitions()},
        "flares": flare_rows(archive),
        "places": archive.flares()[["x_hpc", "y_hpc", "goes_class"]].to_numpy().tolist(),
        "images": {row["image_id"]: row["digest"] for row in archive.catalog.images()},
    }
    archive.close()
    return found


def runs_of(root: Path, release: str | None = None) -> set[str]:
    """Runs that made what readers see."""
    archive = open_archive(root, release)
    found = {item.run_id for item in archive.catalog.partitions()} | {row["run_id"] for row in archive.catalog.images()}
    archive.close()
    return found


def state_of(archive: Archive, name: str = NAME) -> str:
    return next(row["state"] for row in list_releases(archive.catalog) if row["name"] == name)


def test_readers_see_the_old_until_the_switch_and_all_of_the_new_after_it(archive_copy: Path) -> None:
    before, old = seen(archive_copy), runs_of(archive_copy)
    report = reprocess(archive_copy)
    assert report["validation"]["passed"]
    assert (runs_of(archive_copy), seen(archive_copy)) == (old, before)
    # By the same code of the same packets: the same, digest for digest, images too.
    assert seen(archive_copy, NAME) == before
    told = switch_release(str(archive_copy), NAME)
    assert (told["moved"], told["added"], told["removed"], told["kept"]) == (7, 0, 0, 0)
    assert runs_of(archive_copy) == {report["run_id"]}
    assert seen(archive_copy) == seen(archive_copy, f"{NAME}-before") == before
    assert process(archive_copy)["counts"] == {}
    assert open_archive(archive_copy).verify() == []
    return_release(str(archive_copy), NAME)
    assert (runs_of(archive_copy), seen(archive_copy)) == (old, before)
    assert process(archive_copy)["counts"] == {}


def test_killed_at_random_points_it_goes_on_and_builds_nothing_twice(archive_copy: Path, processed: Path) -> None:
    """Real processes that end by SIGKILL; the release in the end is that of an undisturbed run, digest for digest."""
    paths = os.pathsep.join([str(_HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, _HERE / "kill_reprocess.py", archive_copy, "3"],
        env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    attempts = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(attempts) >= 4
    assert seen(archive_copy) == seen(archive_copy, NAME) == seen(processed)
    archive = open_archive(archive_copy)
    assert archive.verify() == []
    for item in archive.catalog.partitions():
        states = [one.state for one in archive.catalog.history(item.product, item.key)]
        # What is published is one of the old and one of the new; a process that was killed between its store and its
        # pointer leaves a staged one, which readers never saw.
        assert sorted(set(states) - {"staged"}) == ["published", "superseded"]
        assert states.count("published") == states.count("superseded") == 1
    assert sum(run["state"] == "dead" for run in archive.catalog.runs()) == len(attempts) - 1
    assert process(archive_copy)["counts"] == {}


def test_what_is_recorded_is_not_built_again(archive_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reprocess(archive_copy)
    for name in ("build", "detect", "image_together"):
        monkeypatch.delattr(f"stixflow.jobs.{name}")
        monkeypatch.setattr(f"stixflow.jobs.{name}", _never, raising=False)
    report = reprocess(archive_copy)
    assert (report["validation"]["passed"], report["failed"]) == (True, [])


def _never(_: object) -> None:
    raise AssertionError("was done already")


@pytest.fixture
def half(delivery: Path, tmp_path: Path) -> Path:
    """Return an archive of the first packets of light curves, and the science data."""
    packets = telemetry(delivery)
    parts = {name: packets.of_product(name) for name in ("ql_lightcurve", "sci_pixels", "sci_spectrogram")}
    parts["ql_lightcurve"] = parts["ql_lightcurve"].select(slice(0, 12))
    files = [write(tmp_path / f"{name}.bin", part) for name, part in parts.items()]
    process(tmp_path / "archive", *files, delivery / "ephemeris")
    return tmp_path / "archive"


def test_telemetry_that_comes_meanwhile_is_in_the_release(half: Path, delivery: Path, processed: Path) -> None:
    """It comes between any two stages, is published by another run, and is part of the release before the switch."""
    with open_reprocess(str(half), ALL, pool=Serial()) as made:
        stages = made.stages()
        for name in STAGES[:-1]:
            stages[name]()
        assert made.validation is not None
        assert made.validation.passed
        process(half, delivery)
        with pytest.raises(PublishConflict, match=r"ql_lightcurve 2022-06-16 came after"):
            switch_in_another_process(half)
        stages["switch"]()
    assert seen(half) == seen(processed)
    assert runs_of(half) == {made.run.run_id}
    assert process(half)["counts"] == {}


def switch_in_another_process(root: Path) -> None:
    """Switch as another command would, which does not hold the release."""
    from stixflow.archive import switch

    switch(open_archive(root).catalog, NAME)


def test_a_run_that_imaged_what_is_no_longer_shown_leaves_the_new_images(
    archive_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daily run has planned before the switch, and ends after it."""
    from stixflow import jobs

    (archive_copy / open_archive(archive_copy).images()["path"][0]).unlink()
    real = jobs.image_together

    def overtaken(group: Any) -> Any:
        monkeypatch.setattr("stixflow.jobs.image_together", real)
        reprocess(archive_copy, switches=True)
        return real(group)

    monkeypatch.setattr("stixflow.jobs.image_together", overtaken)
    report = process(archive_copy)
    assert "published anew meanwhile" in report["skipped"][-1]["reason"]
    assert len(runs_of(archive_copy)) == 1
    assert process(archive_copy)["counts"] == {}


def test_two_reprocesses_of_one_release(archive_copy: Path) -> None:
    with open_reprocess(str(archive_copy), ALL, pool=Serial()):
        with pytest.raises(ArchiveBusy, match=f"another run builds the release {NAME}"):
            reprocess(archive_copy)
        with pytest.raises(ArchiveBusy, match=f"another run builds the release {NAME}"):
            switch_release(str(archive_copy), NAME)
        assert reprocess(archive_copy, replace(ALL, release="other"))["validation"]["passed"]


def test_a_part_of_the_mission(archive_copy: Path) -> None:
    """Days outside stay as they are; what follows from a rebuilt day is made again with it."""
    asked = replace(ALL, start=DAYS[1], stop=f"{DAYS[1]}T12:00", products=("ql_lightcurve",))
    old = {item.id for item in open_archive(archive_copy).catalog.partitions()}
    report = reprocess(archive_copy, asked, switches=True)
    assert report["counts"]["ql_lightcurve"] == 1
    assert report["counts"]["taken_over"] == 6
    new = [item for item in open_archive(archive_copy).catalog.partitions() if item.id not in old]
    assert [(item.product, item.key) for item in new] == [("ql_lightcurve", DAYS[1])]
    assert process(archive_copy)["counts"] == {}


def test_what_the_present_code_has_built_is_taken_as_it_is(archive_copy: Path) -> None:
    report = reprocess(archive_copy, Reprocessing(NAME))
    assert report["counts"]["adopted"] == 7
    assert "ql_lightcurve" not in report["counts"]
    assert report["counts"]["flares_imaged"] == 1  # findings are made anew: they have no code version of their own


def test_differences_are_refused_until_they_are_accepted(archive_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that loses a flare: refused, then accepted, with the reason kept."""
    from stixflow.stages import flares

    real = flares.jobs.detect
    monkeypatch.setattr("stixflow.jobs.detect", lambda job: replace(real(job), flares=()))
    report = reprocess(archive_copy, switches=True)
    refused = [gate["name"] for gate in report["validation"]["gates"] if not gate["passed"]]
    assert (refused, report["switched"]) == (["share of flares lost"], None)
    archive = open_archive(archive_copy)
    assert state_of(archive) == "open"
    with pytest.raises(UsageError, match="is open"):
        switch_release(str(archive_copy), NAME)
    report = reprocess(archive_copy, replace(ALL, accept="there was no flare"), switches=True)
    assert report["switched"]["flares"] == 0
    row = next(row for row in list_releases(archive.catalog) if row["name"] == NAME)
    assert (row["state"], row["report"]["accepted"]) == ("final", "there was no flare")
    page = (archive_copy / f"releases/{NAME}.md").read_text()
    assert "there was no flare" in page
    assert "share of flares lost" in page


def test_a_full_disc_fails_what_cannot_be_written_and_is_healed(
    archive_copy: Path, processed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stixflow.jobs import build

    def full(job: Any) -> Any:
        if job.product == "sci_pixels":
            raise OSError(errno.ENOSPC, "No space left on device")
        return build(job)

    with monkeypatch.context() as patch:
        patch.setattr("stixflow.jobs.build", full)
        report = reprocess(archive_copy, switches=True)
    assert len(report["failed"]) == 2
    gates = {gate["name"]: gate["passed"] for gate in report["validation"]["gates"]}
    assert (gates["items that failed"], gates["partitions missing"], gates["items to do"]) == (False, False, True)
    assert seen(archive_copy) == seen(processed)
    assert reprocess(archive_copy, switches=True)["switched"]["moved"] == 7
    assert seen(archive_copy) == seen(processed)


def test_a_release_is_made_by_one_code_clock_and_detector(archive_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reprocess(archive_copy)
    with pytest.raises(UsageError, match="begun with detector snip"):
        reprocess(archive_copy, science=Science(detector="poisson"))
    monkeypatch.setattr("stixflow.stages.reprocess.building.code_version", lambda: "later")
    monkeypatch.setattr("stixflow.stages.cubes.code_version", lambda: "later")
    with pytest.raises(UsageError, match="begun with code"):
        reprocess(archive_copy)
    report = reprocess(archive_copy, replace(ALL, restart=True))
    assert report["counts"]["ql_lightcurve"] == 2
    assert {item.code_version for item in open_archive(archive_copy, NAME).catalog.partitions()} == {"later"}


def test_a_plan_tells_what_is_left_and_changes_nothing(archive_copy: Path) -> None:
    files = {path for path in archive_copy.rglob("*") if path.is_file()}
    plan = plan_reprocess(str(archive_copy), ALL, workers=2)
    parts = {(part["stage"], part["product"]): part for part in plan["parts"]}
    assert {key: part["items"] for key, part in parts.items()} == {
        ("cubes", "ephemeris"): 2, ("cubes", "ql_lightcurve"): 2, ("cubes", "sci_pixels"): 2,
        ("cubes", "sci_spectrogram"): 1, ("flares", ""): 2, ("images", ""): 1,
    }  # fmt: skip
    sets = open_archive(archive_copy).catalog.packet_sets("sci_pixels")
    pixels = parts["cubes", "sci_pixels"]
    assert pixels["packets"] == sum(item.n_packets for item in sets)
    assert pixels["bytes_read"] == sum((archive_copy / item.path).stat().st_size for item in sets)
    assert all(part["rate"].endswith("recorded") and part["low"] <= part["high"] for part in plan["parts"])
    assert plan["total"]["guessed"] == []
    assert {path for path in archive_copy.rglob("*") if path.is_file()} <= files | {
        archive_copy / f"catalog.sqlite-{end}" for end in ("wal", "shm")
    }
    reprocess(archive_copy)
    left = plan_reprocess(str(archive_copy), ALL)
    assert (left["exists"], left["parts"], left["ready"]) == (True, [], 7)
    with pytest.raises(MissingFile):
        plan_reprocess(str(archive_copy / "none"), ALL)


def test_a_plan_warns_where_the_disc_is_too_small(archive_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stixflow.stages.estimate import format_plan

    assert "WARNING" not in format_plan(plan_reprocess(str(archive_copy), ALL))
    monkeypatch.setattr("stixflow.stages.reprocess.planning._free_bytes", lambda _: 100_000)
    assert "WARNING: the disc has room for 0.1 MB" in format_plan(plan_reprocess(str(archive_copy), ALL))


def test_rates_that_no_run_has_recorded_are_guesses(archive_copy: Path) -> None:
    import sqlite3

    with sqlite3.connect(archive_copy / "catalog.sqlite") as database:
        database.execute("UPDATE run SET summary = '{}'")
    plan = plan_reprocess(str(archive_copy), ALL)
    assert {part["rate"] for part in plan["parts"]} == {"guess"}
    assert plan["total"]["guessed"] == ["cubes", "flares", "images"]
    assert plan["total"]["high"] > 1.3 * plan["total"]["cpu_seconds"]


def test_from_the_command_line(archive_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.main([*arguments, "--archive", str(archive_copy)])
        return code, capsys.readouterr().out

    def told(*arguments: str) -> dict[str, Any]:
        code, out = run(*arguments, "--json")
        assert code == 0, out
        payload: dict[str, Any] = json.loads(out)
        return payload

    again = ("reprocess", "--release", NAME, "--serial", "--quiet")
    code, out = run(*again, "--dry-run")
    assert code == 0
    assert "with 1 workers about" in out
    assert told(*again, "--dry-run")["total"]["items"] == 3  # by this code already: only findings are made anew
    code, out = run(*again, "--rebuild-all", "--report", str(tmp_path / "report.md"))
    assert (code, "stixflow release switch" in out) == (0, True)
    assert (tmp_path / "report.md").read_text().startswith(f"# Release {NAME} against current: passed")
    assert "validated" in run("release", "list")[1]
    assert told("release", "show", NAME)["report"]["passed"]
    assert told("release", "switch", NAME)["moved"] == 7
    assert run("release", "switch", NAME)[0] == 2
    assert "shown" in run("release", "list")[1]
    assert told("release", "rollback", NAME)["moved"] == 7
    assert run("release", "drop", NAME)[0] == 2
    assert told("release", "drop", NAME, "--force")["partitions"] == 7
    assert run(*again, "--start", "2022-06-17", "--stop", "2022-06-16")[0] == 2
    assert run(*again, "--products", "sci_pixel")[0] == 2
