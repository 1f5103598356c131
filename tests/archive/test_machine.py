"""Everything that may happen to an archive, in any order, by two writers, beside a model of what readers must see."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from datetime import date

import pytest
import sqlalchemy as sa
from example_archive import DAYS, day_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stixflow.archive import (
    Archive,
    collect,
    create_release,
    day_key,
    draft_partition,
    open_archive,
    store_path,
    tables,
)
from stixflow.archive.transactions import reading, writing
from stixflow.cubes.store import is_there, write_store
from stixflow.errors import BalanceError, NotFound, PublishConflict, SchemaError, UsageError

_DAY_NS = 86_400 * 10**9
_SOME = st.sampled_from(DAYS[:2])
_WHO = st.sampled_from([0, 1])


@dataclass(frozen=True)
class Made:
    """A partition that was written and staged."""

    id: int
    day: date
    n_time: int
    expected: int | None
    drifts: bool
    path: str


class ArchiveMachine(RuleBasedStateMachine):
    """Late data, publishers, roll backs, releases, runs that die, and garbage."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now, self.n = 1_700_000_000 * 10**9, 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(tables, "now_ns", lambda: self.now)
        self.writers = [open_archive(self.folder.name, create=True) for _ in range(2)]
        self.known = dict.fromkeys(DAYS[:2], 2)
        self.made: dict[int, Made] = {}
        self.waiting: list[Made] = []
        self.shown: dict[date, int] = {}
        self.before: dict[int, int | None] = {}
        self.releases: dict[str, dict[date, int]] = {}
        self.running: str | None = None
        # A past to begin with: a release that one day has left far behind, and both days can be rolled back.
        for day in DAYS[:2]:
            self.process(day, 0)
        self.release(0)
        for day in (*DAYS[:2], DAYS[0]):
            self.process(day, 1)

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()
            for archive in self.writers:
                archive.close()
            self.folder.cleanup()

    # Writers ----------------------------------------------------------------------------------------------------------

    @rule(day=_SOME, who=_WHO)
    def process(self, day: date, who: int) -> None:
        """More of a day arrives, and is built and published at once."""
        self.known[day] += 1
        made = self.write(day, who, self.known[day], drifts=self.drifted(day))
        self.writers[who].catalog.publish(made.id)
        self.shown[day], self.before[made.id] = made.id, made.expected

    def drifted(self, day: date) -> bool:
        return day in self.shown and self.made[self.shown[day]].drifts

    @rule(day=_SOME, who=_WHO, lost=st.sampled_from([0, 0, 0, 1]), drifts=st.sampled_from([False, False, False, True]))
    def stage(self, day: date, who: int, lost: int, drifts: bool) -> None:
        """A writer builds a day of what is known by now; by a fault it may lose a bin, or change the structure."""
        self.waiting.append(self.write(day, who, self.known[day] - lost, drifts=drifts))

    def write(self, day: date, who: int, n_time: int, *, drifts: bool) -> Made:
        self.n += 1
        archive, run_id = self.writers[who], f"R{self.n}"
        path = store_path("ql_lightcurve", day_key(day), day, run_id)
        record = write_store(archive.url(path), [day_of(day, n_time=n_time, seed=self.n)])
        draft = draft_partition(
            record, path=path, run_id=run_id, product="ql_lightcurve", key=day_key(day), day=day,
            input_digest=str(self.known[day]), code_version="1",
        )  # fmt: skip
        draft = replace(draft, structure="another") if drifts else draft
        made = Made(archive.catalog.stage(draft), day, n_time, self.shown.get(day), drifts, path)
        archive.catalog.replace_flares(made.id, [flare_of(made)])
        self.made[made.id] = made
        return made

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), who=_WHO, reason=st.sampled_from(["", "a bin was wrong"]))
    def publish(self, data: st.DataObject, who: int, reason: str) -> None:
        made = data.draw(st.sampled_from(self.waiting))
        catalog = self.writers[who].catalog
        if self.collected(made):
            with pytest.raises(UsageError, match="is failed"):
                catalog.publish(made.id, shrink_reason=reason)
            return
        old = None if made.expected is None else self.made[made.expected]
        refusal = self.refusal(made, old, reason)
        if refusal is not None:
            with pytest.raises(refusal):
                catalog.publish(made.id, shrink_reason=reason)
            return
        catalog.publish(made.id, shrink_reason=reason)
        self.shown[made.day], self.before[made.id] = made.id, made.expected
        self.waiting.remove(made)

    def refusal(self, made: Made, old: Made | None, reason: str) -> type[Exception] | None:
        if old is not None and made.n_time < old.n_time and not reason:
            return BalanceError
        if old is not None and made.drifts != old.drifts:
            return SchemaError
        return None if self.shown.get(made.day) == made.expected else PublishConflict

    def collected(self, made: Made) -> bool:
        return not is_there(self.writers[0].url(made.path))

    @precondition(lambda self: self.waiting)
    @rule(who=_WHO)
    def give_up(self, who: int) -> None:
        made = self.waiting.pop()
        if not self.collected(made):
            self.writers[who].catalog.fail(made.id)

    @rule(day=_SOME, who=_WHO)
    def roll_back(self, day: date, who: int) -> None:
        earlier = self.before.get(self.shown.get(day, -1))
        catalog = self.writers[who].catalog
        if earlier is None or self.collected(self.made[earlier]):
            with pytest.raises(NotFound):
                catalog.rollback("ql_lightcurve", day_key(day))
            return
        assert catalog.rollback("ql_lightcurve", day_key(day)).id == earlier
        self.shown[day] = earlier

    @precondition(lambda self: self.shown and len(self.releases) < 2)
    @rule(who=_WHO)
    def release(self, who: int) -> None:
        name = f"r{len(self.releases)}"
        create_release(self.writers[who].catalog, name, code_version="1")
        self.releases[name] = dict(self.shown)

    # Runs and garbage -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.running is None)
    @rule(who=_WHO)
    def begin_run(self, who: int) -> None:
        self.n += 1
        self.running = f"run {self.n}"
        self.writers[who].catalog.begin_run(self.running, "process", code_version="1")

    @precondition(lambda self: self.running is not None)
    @rule(who=_WHO, killed=st.booleans())
    def end_run(self, who: int, killed: bool) -> None:
        if killed:
            engine = self.writers[who].catalog.engine
            with writing(engine) as connection:
                mine = tables.run.c.run_id == self.running
                connection.execute(tables.run.update().where(mine).values(process="gone 1", seen=0))
        else:
            self.writers[who].catalog.finish_run(str(self.running))
        self.running = None

    @rule(who=_WHO, days=st.sampled_from([-3, 1, 8, 8]))
    def collect(self, who: int, days: int) -> None:
        self.now += days * _DAY_NS
        told = collect(self.writers[who])
        assert told.active_runs == (() if self.running is None else (self.running,))
        if self.running is not None:
            assert told.removed == ()
        kept = {self.made[number].path for number in self.needed()}
        assert not kept & {*told.removed, *told.marked, *told.waiting}

    def needed(self) -> set[int]:
        """Partitions that are shown, or that a roll back or a release shows."""
        shown = set(self.shown.values())
        pinned = {number for pointers in self.releases.values() for number in pointers.values()}
        return shown | pinned | {number for number in map(self.before.get, shown) if number is not None} - self.lost()

    def lost(self) -> set[int]:
        """Partitions collected before a roll back made them ones that could be rolled back to."""
        return {number for number, made in self.made.items() if self.collected(made)}

    # What must hold ---------------------------------------------------------------------------------------------------

    @invariant()
    def both_see_what_the_model_shows(self) -> None:
        for archive in getattr(self, "writers", ()):
            assert seen_by(archive) == self.shown
            assert archive.lost() == []
            flares = {row["flare_id"] for row in archive.catalog.flares()}
            assert flares == {f"f{number}" for number in self.shown.values()}

    @invariant()
    def releases_never_change(self) -> None:
        for name, pointers in getattr(self, "releases", {}).items():
            pinned = open_archive(self.folder.name, release=name)
            assert seen_by(pinned) == pointers
            assert pinned.lost() == []
            assert {row["flare_id"] for row in pinned.catalog.flares()} == {f"f{n}" for n in pointers.values()}
            pinned.close()

    @invariant()
    def one_pointer_a_day(self) -> None:
        if hasattr(self, "writers"):
            with reading(self.writers[0].catalog.engine) as connection:
                states = connection.execute(
                    sa.select(tables.partition.c.key).where(tables.partition.c.state == "published")
                ).scalars()
                assert sorted(states) == sorted(map(day_key, self.shown))


def flare_of(made: Made) -> dict[str, object]:
    day = day_key(made.day)
    return {"flare_id": f"f{made.id}", "start": day, "peak": day, "stop": day, "peak_counts": made.n_time}


def seen_by(archive: Archive) -> dict[date, int]:
    return {item.day: item.id for item in archive.catalog.partitions("ql_lightcurve")}


ArchiveMachine.TestCase.settings = settings(max_examples=4, stateful_step_count=15, deadline=None)
TestArchiveMachine = ArchiveMachine.TestCase
