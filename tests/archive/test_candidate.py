"""Open releases: built beside what readers see, switched to and taken back in one transaction each."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from example_archive import add, day_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stixflow.archive import (
    Archive,
    FileEntry,
    PacketSet,
    Scope,
    collect,
    create_release,
    drop_release,
    list_releases,
    open_archive,
    switch,
    switch_back,
)
from stixflow.archive.releases import begin_candidate, mark_validated, take_over
from stixflow.archive.turns import take_turn
from stixflow.errors import ArchiveBusy, NotFound, PublishConflict, UsageError

DAYS = tuple(date(2022, 11, 8) + timedelta(days=step) for step in range(3))
CODE = {"code": "2"}
NAME = "new"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Root and catalog of an archive that readers see three days of."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    made = {"root": str(tmp_path / "archive"), "catalog": url}
    archive = open_archive(**made, create=True)
    for number, day in enumerate(DAYS):
        publish(archive, day, f"P{number}", seed=number)
    archive.close()
    return made


def publish(archive: Archive, day: date, run: str, *, seed: int, inputs: str = "in") -> int:
    """Publish a day with one flare and one image, its packets being in the archive."""
    key = day.isoformat()
    file = f"{key} {inputs}"
    sets = [PacketSet("ql_lightcurve", key, file, f"packets/ql_lightcurve/{key}/{inputs}.bin", 1, file)]
    archive.catalog.register_file(FileEntry(file, file, "telemetry", 1), run_id=run, packet_sets=sets)
    return build(archive, day, run, seed=seed, inputs=inputs)


def build(archive: Archive, day: date, run: str, *, seed: int, inputs: str = "in") -> int:
    """Build a day in what an archive shows: what readers see, or an open release."""
    made = add(archive, [day_of(day, n_time=2, seed=seed)], day, run, input_digest=inputs)
    name, hour = f"f{day:%d}", f"{day}T02"
    flare = {"flare_id": name, "start": hour, "peak": hour, "stop": hour, "peak_counts": float(seed), "run": run}
    image = {"image_id": f"i{day:%d}", "flare_id": name, "method": "bp", "energy_low": 4, "energy_high": 10}
    image |= {"start": hour, "stop": hour, "path": f"images/{run}-{day:%d}.fits", "digest": "d"}
    archive.catalog.replace_flares(made.id, [flare])
    archive.catalog.replace_images({name: [image]}, run_id=run)
    archive.catalog.locate_flares({name: {"x_hpc": float(seed)}})
    archive.catalog.mark_done("flares", {str(made.id): run}, run_id=run)
    archive.catalog.mark_done("images", {name: run}, run_id=run)
    return made.id


def shown(archive: Archive) -> dict[str, tuple[str, ...]]:
    """Runs that made the partition, the flare and the image of each day, and the mark of the image."""
    flares = {str(row["peak"])[:10]: row for row in archive.catalog.flares()}
    images = {row["flare_id"]: row["run_id"] for row in archive.catalog.images()}
    done = archive.catalog.done("images")
    found = {}
    for item in archive.catalog.partitions():
        flare = flares[item.key]
        found[item.key] = (item.run_id, flare["run"], images[flare["flare_id"]], done[flare["flare_id"]])
    assert len(found) == len(flares) == len(images)
    return found


def all_of(run: str, days: tuple[date, ...] = DAYS) -> dict[str, tuple[str, ...]]:
    return {day.isoformat(): (run.format(number),) * 4 for number, day in enumerate(days)}


def begin(archive: Archive, scope: Scope | None = None, name: str = NAME) -> Archive:
    """Open a release and return the door to it."""
    begin_candidate(archive.catalog, name, scope or Scope(), made_by=CODE)
    take_over(archive.catalog, name)
    url = archive.catalog.engine.url.render_as_string(hide_password=False)
    return open_archive(archive.root, name, catalog=url)


def test_all_moves_at_once_and_back(place: dict[str, Any]) -> None:
    archive = open_archive(**place)
    mine = begin(archive)
    assert shown(mine) == {}
    for number, day in enumerate(DAYS):
        build(mine, day, f"N{number}", seed=10 + number)
    assert shown(archive) == all_of("P{}")
    assert shown(mine) == all_of("N{}")
    mark_validated(archive.catalog, NAME, {"passed": True}, passed=True)
    told = switch(archive.catalog, NAME)
    assert (told.moved, told.added, told.removed, told.kept, told.flares, told.images) == (3, 0, 0, 0, 3, 3)
    assert shown(archive) == shown(mine) == all_of("N{}")
    assert shown(open_archive(**place, release=told.before)) == all_of("P{}")
    assert archive.flares()["x_hpc"].tolist() == [10.0, 11.0, 12.0]
    states = [[item.state for item in archive.catalog.history("ql_lightcurve", str(day))] for day in DAYS]
    assert states == [["superseded", "published"]] * 3
    rows = {row["name"]: row for row in list_releases(archive.catalog)}
    assert (rows[NAME]["state"], rows[NAME]["before"], rows[NAME]["report"]) == ("final", told.before, {"passed": True})
    # A single day goes back to what the switch replaced, with its flare.
    assert archive.catalog.rollback("ql_lightcurve", str(DAYS[0])).run_id == "P0"
    assert [row["run"] for row in archive.catalog.flares()] == ["P0", "N1", "N2"]
    back = switch_back(archive.catalog, NAME)
    assert (back.moved, back.kept) == (2, 1)
    assert shown(archive) == all_of("P{}")
    assert archive.flares()["x_hpc"].tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(UsageError, match="is not shown"):
        switch_back(archive.catalog, NAME)
    archive.close()


def test_what_is_published_meanwhile_is_never_lost(place: dict[str, Any]) -> None:
    archive = open_archive(**place)
    mine = begin(archive)
    for number, day in enumerate(DAYS):
        build(mine, day, f"N{number}", seed=10 + number)
    mark_validated(archive.catalog, NAME, {}, passed=True)
    late, fresh = DAYS[1], DAYS[-1] + timedelta(days=1)
    publish(archive, late, "L1", seed=5, inputs="more")
    publish(archive, fresh, "L2", seed=6)
    with pytest.raises(PublishConflict, match=f"ql_lightcurve {late}, ql_lightcurve {fresh} came after"):
        switch(archive.catalog, NAME)
    assert shown(archive)[str(late)][0] == "L1"
    take_over(archive.catalog, NAME)
    with pytest.raises(UsageError, match="is open"):  # what it takes in is validated again
        switch(archive.catalog, NAME)
    build(mine, late, "N4", seed=14, inputs="more")
    build(mine, fresh, "N5", seed=15)
    mark_validated(archive.catalog, NAME, {}, passed=True)
    switch(archive.catalog, NAME)
    assert {key: runs[0] for key, runs in shown(archive).items()} == dict(
        zip(map(str, (*DAYS, fresh)), ("N0", "N4", "N2", "N5"), strict=True)
    )
    # Days of later packets stay when the switch is taken back, with what was found in them.
    newest = fresh + timedelta(days=1)
    publish(archive, newest, "L3", seed=7)
    assert switch_back(archive.catalog, NAME).kept == 1
    assert {key: runs[0] for key, runs in shown(archive).items()} == dict(
        zip(map(str, (*DAYS, fresh, newest)), ("P0", "L1", "P2", "L2", "L3"), strict=True)
    )
    archive.close()


def test_switches_are_taken_back_one_after_the_other(place: dict[str, Any]) -> None:
    archive = open_archive(**place)
    for name, letter in ((NAME, "N"), ("newer", "M")):
        mine = begin(archive, name=name)
        for number, day in enumerate(DAYS):
            build(mine, day, f"{letter}{number}", seed=number)
        mark_validated(archive.catalog, name, {}, passed=True)
        switch(archive.catalog, name)
    assert shown(archive) == all_of("M{}")
    with pytest.raises(UsageError, match="new is not shown"):
        switch_back(archive.catalog, NAME)
    for name, letter in (("newer", "N"), (NAME, "P")):
        switch_back(archive.catalog, name)
        assert shown(archive) == all_of(letter + "{}")
    switch(archive.catalog, "newer")  # what was final can be shown again
    assert shown(archive) == all_of("M{}")
    archive.close()


def test_what_is_lost_after_a_switch_may_be_built_again(place: dict[str, Any]) -> None:
    """A run that has published the same packets again, before the switch, is none that was rolled back from."""
    archive = open_archive(**place)
    mine = begin(archive)
    for number, day in enumerate(DAYS):
        build(mine, day, f"N{number}", seed=10 + number)
    publish(archive, DAYS[0], "L0", seed=20)
    take_over(archive.catalog, NAME)
    mark_validated(archive.catalog, NAME, {}, passed=True)
    switch(archive.catalog, NAME)
    assert shown(archive) == all_of("N{}")
    assert archive.catalog.rolled_back() == set()
    archive.close()


def test_what_lies_outside_the_scope_is_that_of_readers(place: dict[str, Any]) -> None:
    archive = open_archive(**place)
    mine = begin(archive, Scope(start=str(DAYS[1]), stop=str(DAYS[2])))
    assert set(shown(mine)) == {str(DAYS[0]), str(DAYS[2])}
    build(mine, DAYS[1], "N1", seed=11)
    mark_validated(archive.catalog, NAME, {}, passed=True)
    publish(archive, DAYS[0], "L0", seed=5, inputs="more")
    with pytest.raises(PublishConflict, match=str(DAYS[0])):
        switch(archive.catalog, NAME)
    take_over(archive.catalog, NAME)
    assert [item.run_id for item in mine.catalog.partitions()] == ["L0", "N1", "P2"]
    mark_validated(archive.catalog, NAME, {}, passed=True)
    told = switch(archive.catalog, NAME)
    assert (told.moved, told.kept) == (1, 0)
    assert [item.run_id for item in archive.catalog.partitions()] == ["L0", "N1", "P2"]
    archive.close()


def test_what_was_not_rebuilt_stays_and_what_has_nothing_inside_goes(place: dict[str, Any]) -> None:
    archive = open_archive(**place)
    mine = begin(archive)
    build(mine, DAYS[1], "N1", seed=11)
    mark_validated(archive.catalog, NAME, {}, passed=True)
    told = switch(archive.catalog, NAME, nothing_inside=[("ql_lightcurve", str(DAYS[2]))])
    assert (told.moved, told.removed, told.kept) == (1, 1, 1)
    assert shown(archive) == {str(DAYS[0]): ("P0", "P0", "P0", "P0"), str(DAYS[1]): ("N1",) * 4}
    assert switch_back(archive.catalog, NAME).added == 1
    assert shown(archive) == all_of("P{}")
    archive.close()


def test_only_open_releases_are_written_and_dropped(place: dict[str, Any]) -> None:
    archive = open_archive(**place)
    create_release(archive.catalog, "2026.1", code_version="1")
    pinned = open_archive(**place, release="2026.1")
    with pytest.raises(UsageError, match="is final"):
        build(pinned, DAYS[0], "X", seed=1)
    with pytest.raises(UsageError, match="exists and is final"):
        begin_candidate(archive.catalog, "2026.1", Scope(), made_by=CODE)
    with pytest.raises(UsageError, match="is final"):
        drop_release(archive.catalog, "2026.1")
    mine = begin(archive)
    build(mine, DAYS[0], "N0", seed=10)
    with pytest.raises(UsageError, match="is open"):
        switch(archive.catalog, NAME)
    with pytest.raises(UsageError, match="was opened for every day"):
        begin_candidate(archive.catalog, NAME, Scope(stop="2022-01-01"), made_by=CODE)
    with pytest.raises(UsageError, match="begun with code 2"):
        begin_candidate(archive.catalog, NAME, Scope(), made_by={"code": "3"})
    assert not begin_candidate(archive.catalog, NAME, Scope(), made_by={"code": "3"}, restart=True)
    with pytest.raises(UsageError, match="not rolled back by partitions"):
        mine.catalog.rollback("ql_lightcurve", str(DAYS[0]))
    assert drop_release(archive.catalog, NAME)["partitions"] == 1
    assert [item.state for item in archive.catalog.history("ql_lightcurve", str(DAYS[0]))] == ["published", "failed"]
    with pytest.raises(NotFound, match="no release 'new'"):
        drop_release(archive.catalog, NAME)
    assert drop_release(archive.catalog, "2026.1", force=True) == {"partitions": 3, "flares": 3, "images": 3}
    assert shown(archive) == all_of("P{}")
    archive.close()


def test_garbage_keeps_what_an_open_release_has(place: dict[str, Any]) -> None:
    archive = open_archive(**place)
    mine = begin(archive)
    build(mine, DAYS[0], "N0", seed=10)
    assert collect(archive, grace_days=0).marked == ()
    drop_release(archive.catalog, NAME)
    assert collect(archive, grace_days=0).marked == (f"ql_lightcurve/v1/{DAYS[0]:%Y/%m/%d}/N0.zarr",)
    archive.close()


def test_one_process_builds_a_release_at_a_time(place: dict[str, Any]) -> None:
    """The hold of a process that is killed ends with it."""
    archive = open_archive(**place)
    code = (
        "import sys, time\n"
        "from stixflow.archive import open_archive\n"
        "from stixflow.archive.turns import take_turn\n"
        f"with take_turn(open_archive({place['root']!r}, catalog={place['catalog']!r}).catalog, release={NAME!r}):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(ArchiveBusy, match="another run builds the release new"),
            take_turn(archive.catalog, release=NAME),
        ):
            pass
        with take_turn(archive.catalog, release="another"), take_turn(archive.catalog):
            pass
        other.kill()
        other.wait()
        with take_turn(archive.catalog, release=NAME, wait_seconds=10.0):
            pass
    archive.close()


def test_readers_see_all_old_or_all_new(place: dict[str, Any]) -> None:
    """A reader of its own connection, all the time, while it is switched there and back ten times."""
    archive = open_archive(**place)
    mine = begin(archive)
    for day in DAYS:
        build(mine, day, "N", seed=10)
    mark_validated(archive.catalog, NAME, {}, passed=True)
    seen: list[tuple[str, frozenset[str]]] = []
    ended = threading.Event()

    def read() -> None:
        reader = open_archive(**place)
        while not ended.is_set():
            seen.append(("partitions", frozenset(item.run_id[0] for item in reader.catalog.partitions())))
            seen.append(("flares", frozenset(row["run"][0] for row in reader.catalog.flares())))
            seen.append(("images", frozenset(row["run_id"][0] for row in reader.catalog.images())))
        reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(10):
        switch(archive.catalog, NAME)
        switch_back(archive.catalog, NAME)
    ended.set()
    thread.join()
    assert {runs for _, runs in seen} <= {frozenset("P"), frozenset("N")}
    assert len(seen) > 10
    archive.close()


class CandidateMachine(RuleBasedStateMachine):
    """Whatever is published, built, switched, taken back, dropped and collected: readers see whole days, none lost."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.archive = open_archive(self.folder.name, create=True)
        self.n, self.inputs, self.is_open, self.final = 0, dict[date, str](), False, list[str]()
        self.publish(DAYS[0], more=False)

    def teardown(self) -> None:
        self.archive.close()
        self.folder.cleanup()

    def _run(self) -> str:
        self.n += 1
        return f"R{self.n:03d}"

    @rule(day=st.sampled_from(DAYS), more=st.booleans())
    def publish(self, day: date, more: bool) -> None:
        run = self._run()
        self.inputs[day] = run if more or day not in self.inputs else self.inputs[day]
        publish(self.archive, day, run, seed=self.n, inputs=self.inputs[day])

    @precondition(lambda self: not self.is_open)
    @rule(scope=st.sampled_from([Scope(), Scope(start=str(DAYS[1]))]))
    def begin(self, scope: Scope) -> None:
        self.name, self.scope, self.is_open = f"c{self._run()}", scope, True
        begin_candidate(self.archive.catalog, self.name, scope, made_by=CODE)
        take_over(self.archive.catalog, self.name)

    @precondition(lambda self: self.is_open)
    @rule(day=st.sampled_from(DAYS))
    def build(self, day: date) -> None:
        if day in self.inputs and self.scope.covers("ql_lightcurve", day):
            mine = open_archive(self.folder.name, self.name)
            build(mine, day, self._run(), seed=self.n, inputs=self.inputs[day])
            mine.close()

    @precondition(lambda self: self.is_open)
    @rule()
    def drop(self) -> None:
        drop_release(self.archive.catalog, self.name)
        self.is_open = False

    @precondition(lambda self: self.is_open)
    @rule(catches_up=st.booleans())
    def switch(self, catches_up: bool) -> None:
        if catches_up:
            take_over(self.archive.catalog, self.name)
        mark_validated(self.archive.catalog, self.name, {}, passed=True)
        before = {item.key: item.input_digest for item in self.archive.catalog.partitions()}
        try:
            switch(self.archive.catalog, self.name)
        except PublishConflict:
            return
        after = {item.key: item.input_digest for item in self.archive.catalog.partitions()}
        assert after.keys() >= before.keys()
        self.is_open = False
        self.final.append(self.name)

    @precondition(lambda self: self.final)
    @rule()
    def back(self) -> None:
        rows = {row["name"]: row for row in list_releases(self.archive.catalog)}
        if rows[self.final[-1]]["switched"] is not None:
            switch_back(self.archive.catalog, self.final[-1])

    @rule()
    def collect(self) -> None:
        collect(self.archive, grace_days=0)
        collect(self.archive, grace_days=0)

    @invariant()
    def what_is_shown_is_whole(self) -> None:
        if not hasattr(self, "archive"):
            return
        names = [None, *(row["name"] for row in list_releases(self.archive.catalog))]
        for name in names:
            door = open_archive(self.folder.name, name)
            assert door.lost() == []
            days = {item.key: item.run_id for item in door.catalog.partitions()}
            assert {str(row["peak"])[:10]: row["run"] for row in door.catalog.flares()} == days
            door.close()
        assert {day.isoformat() for day in self.inputs} == {item.key for item in self.archive.catalog.partitions()}
        assert {item.state for item in self.archive.catalog.partitions()} == {"published"}


CandidateMachine.TestCase.settings = settings(max_examples=6, stateful_step_count=12, deadline=None)
TestCandidateMachine = CandidateMachine.TestCase
