from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from example_archive import DAYS, add, day_of, stage
from example_delivery import process, published
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from services.s3 import Bucket

from stixflow.archive import (
    Archive,
    FileEntry,
    PacketSet,
    Quarantined,
    collect,
    create_release,
    garbage,
    open_archive,
)
from stixflow.cubes.files import open_files
from stixflow.cubes.store import is_there
from stixflow.errors import NotFound, UsageError

DAY_NS = 86_400 * 10**9
KEY = "2022-11-09"


class Clock:
    """The present, as the catalog asks for it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000 * 10**9

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("stixflow.archive.tables.now_ns", made)
    return made


@pytest.fixture
def archive(tmp_path: Path, clock: Clock) -> Archive:
    made = open_archive(tmp_path / "archive", create=True)
    assert add(made, [day_of(DAYS[1])], DAYS[1], "R1").created.astype(int) == clock.now
    return made


def test_only_what_nothing_points_to_is_removed_after_its_grace_time(archive: Archive, clock: Clock) -> None:
    for run in ("R2", "R3"):
        add(archive, [day_of(DAYS[1], seed=int(run[1]))], DAYS[1], run)
    first = collect(archive)
    oldest = archive.catalog.history("ql_lightcurve", KEY)[0].path
    assert (first.marked, first.waiting, first.removed) == ((oldest,), (), ())
    clock.now += 6 * DAY_NS
    assert collect(archive).waiting == (oldest,)
    assert collect(archive, grace_days=3, dry_run=True).removed == ()
    clock.now += 2 * DAY_NS
    assert collect(archive).removed == (oldest,)
    assert not is_there(archive.url(oldest))
    assert archive.verify() == []
    assert collect(archive) == garbage.Collected((), (), (), ())


def test_roll_back_goes_as_far_as_stores_are_kept(archive: Archive, clock: Clock) -> None:
    for run in ("R2", "R3"):
        add(archive, [day_of(DAYS[1], seed=int(run[1]))], DAYS[1], run)
    collect(archive)
    clock.now += 8 * DAY_NS
    collect(archive)
    assert archive.catalog.rollback("ql_lightcurve", KEY).run_id == "R2"
    assert archive.verify() == []
    with pytest.raises(NotFound, match="collected as garbage"):
        archive.catalog.rollback("ql_lightcurve", KEY)


def test_a_release_keeps_its_stores(archive: Archive, clock: Clock) -> None:
    create_release(archive.catalog, "2026.1", code_version="1")
    for run in ("R2", "R3"):
        add(archive, [day_of(DAYS[1], seed=int(run[1]))], DAYS[1], run)
    collect(archive)
    clock.now += 80 * DAY_NS
    assert collect(archive).removed == ()
    assert open_archive(archive.root, release="2026.1").verify() == []


def test_what_runs_leave_behind(archive: Archive, clock: Clock) -> None:
    root = Path(archive.root)
    store = root / "ql_lightcurve/v1/2022/11/09"
    left = {
        "packets/ql_lightcurve/2022-11-09/orphan.bin": "packets of a run that was killed before it registered them",
        "packets/ql_lightcurve/2022-11-09/.x.bin.0badcafe.part": "half a packet set",
        "ql_lightcurve/v1/2022/11/09/.R9.zarr.0badcafe.part/0/zarr.json": "half a store",
        "ql_lightcurve/v1/2022/11/09/R8.zarr/0/zarr.json": "a store without a manifest",
        "images/2022/11/09/gone.fits": "the map of a flare that is no longer found",
    }
    for name, text in left.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "prefect").mkdir()
    (root / "prefect/prefect.db").write_text("not ours")
    kept = root / "packets/ql_lightcurve/2022-11-09/kept.bin"
    kept.write_bytes(b"1")
    (root / "quarantine").mkdir()
    (root / "quarantine/q.bin").write_bytes(b"2")
    archive.catalog.register_file(
        FileEntry("f", "a.xml", "telemetry", 1),
        run_id="R1",
        packet_sets=[PacketSet("ql_lightcurve", KEY, "p", str(kept.relative_to(root)), 1, "f")],
        quarantined=[Quarantined("a.xml", "why", 0, 1, "quarantine/q.bin")],
    )
    staged = stage(archive, [day_of(DAYS[1], seed=4)], DAYS[1], "R7")
    assert len(collect(archive).marked) == len(left) + 1
    clock.now += 8 * DAY_NS
    assert len(collect(archive).removed) == len(left) + 1
    assert not any((root / name).exists() for name in left)
    assert sorted(path.name for path in store.iterdir()) == ["R1.zarr"]
    assert kept.exists()
    assert (root / "quarantine/q.bin").exists()
    assert (root / "prefect/prefect.db").exists()
    assert archive.catalog.partition(staged).state == "failed"
    with pytest.raises(UsageError, match="is failed"):
        archive.catalog.publish(staged)


def test_nothing_is_removed_while_a_run_goes_on(archive: Archive, clock: Clock) -> None:
    staged = stage(archive, [day_of(DAYS[1], seed=4)], DAYS[1], "R7")
    collect(archive)
    clock.now += 30 * DAY_NS
    archive.catalog.begin_run("R8", "process", code_version="1")
    told = collect(archive)
    assert (told.removed, told.active_runs, len(told.waiting)) == ((), ("R8",), 1)
    archive.catalog.publish(staged)
    archive.catalog.finish_run("R8")
    assert collect(archive).removed == ()
    assert archive.verify() == []


@pytest.mark.parametrize("jump_days", [-400, -1])
def test_a_clock_that_goes_backwards_only_makes_garbage_wait(archive: Archive, clock: Clock, jump_days: int) -> None:
    stage(archive, [day_of(DAYS[1], seed=4)], DAYS[1], "R7")
    collect(archive)
    clock.now += jump_days * DAY_NS
    assert len(collect(archive).waiting) == 1
    clock.now += 6 * DAY_NS
    assert collect(archive).removed == ()
    clock.now += 2 * DAY_NS
    assert len(collect(archive).removed) == 1


def test_a_collector_that_is_killed_goes_on_the_next_time(
    archive: Archive, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (4, 5, 6):
        stage(archive, [day_of(DAYS[1], seed=seed)], DAYS[1], f"R{seed}")
    collect(archive)
    clock.now += 8 * DAY_NS
    original, calls = garbage._remove_one, iter(range(9))

    def dying(archive: Archive, path: str) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        original(archive, path)

    with monkeypatch.context() as patch:
        patch.setattr(garbage, "_remove_one", dying)
        with pytest.raises(KeyboardInterrupt):
            collect(archive)
    assert len(collect(archive).removed) == 2
    assert archive.verify() == []


def test_on_a_bucket_and_postgresql(s3: Bucket, postgres_url: str, clock: Clock) -> None:
    archive = open_archive(f"{s3.url}/root", catalog=postgres_url, create=True)
    for run in ("R1", "R2", "R3"):
        add(archive, [day_of(DAYS[1], n_time=2, seed=int(run[1]))], DAYS[1], run)
    oldest = archive.catalog.history("ql_lightcurve", KEY)[0].path
    assert collect(archive).marked == (oldest,)
    clock.now += 8 * DAY_NS
    assert collect(archive).removed == (oldest,)
    assert open_files(archive.url(oldest)).list() == {}
    assert archive.verify() == []
    archive.catalog.rollback("ql_lightcurve", KEY)
    with pytest.raises(NotFound, match="collected as garbage"):
        archive.catalog.rollback("ql_lightcurve", KEY)


def test_a_negative_grace_time(archive: Archive) -> None:
    with pytest.raises(UsageError, match="grace time"):
        collect(archive, grace_days=-1)


class GarbageMachine(RuleBasedStateMachine):
    """Publishing, rolling back, releasing and collecting in any order: whatever is shown is whole."""

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.archive = open_archive(self.folder.name, create=True)
        self.patch, self.clock = pytest.MonkeyPatch(), Clock()
        self.patch.setattr("stixflow.archive.tables.now_ns", self.clock)
        self.n, self.releases = 0, list[str]()
        self.publish(DAYS[0])

    def teardown(self) -> None:
        self.patch.undo()
        self.archive.close()
        self.folder.cleanup()

    @rule(day=st.sampled_from(DAYS[:2]))
    def publish(self, day: date) -> None:
        self.n += 1
        add(self.archive, [day_of(day, n_time=2, seed=self.n)], day, f"R{self.n}")

    @rule(day=st.sampled_from(DAYS[:2]))
    def leave_staged(self, day: date) -> None:
        self.n += 1
        stage(self.archive, [day_of(day, n_time=2, seed=self.n)], day, f"R{self.n}")

    @rule(day=st.sampled_from(DAYS[:2]))
    def rollback(self, day: date) -> None:
        try:
            self.archive.catalog.rollback("ql_lightcurve", day.isoformat())
        except NotFound:
            return

    @precondition(lambda self: len(self.releases) < 2)
    @rule()
    def release(self) -> None:
        self.releases.append(f"r{len(self.releases)}")
        create_release(self.archive.catalog, self.releases[-1], code_version="1")

    @rule(days=st.sampled_from([-3, 1, 8]))
    def collect(self, days: int) -> None:
        self.clock.now += days * DAY_NS
        collect(self.archive)

    @invariant()
    def everything_shown_is_whole(self) -> None:
        if hasattr(self, "archive"):
            assert self.archive.lost() == []
            for name in self.releases:
                pinned = open_archive(self.archive.root, release=name)
                assert pinned.lost() == []
                pinned.close()


GarbageMachine.TestCase.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)
TestGarbageMachine = GarbageMachine.TestCase


def test_collecting_changes_nothing_for_readers(archive_copy: Path, delivery: Path, processed: Path) -> None:
    """A real archive: only images and stores that nobody sees may go; the next run has nothing to do."""
    archive = open_archive(archive_copy)
    everything = {path for path in archive_copy.rglob("*") if path.is_file()}
    assert collect(archive, grace_days=0).marked == ()
    assert {path for path in archive_copy.rglob("*") if path.is_file()} >= everything
    assert process(archive_copy, delivery)["counts"] == {}
    assert published(archive_copy) == published(processed)
