from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stixflow.archive import tables
from stixflow.archive.catalog import Catalog
from stixflow.archive.entries import FileEntry, PacketSet, Partition, Quarantined
from stixflow.archive.releases import Scope, begin_candidate
from stixflow.archive.transactions import writing
from stixflow.errors import BalanceError, NotFound, PublishConflict, SchemaError, StoreError, UsageError

DAY = date(2022, 11, 9)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a new database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    opened = Catalog(url)
    yield opened
    opened.close()


def _partition(run_id: str = "R1", *, key: str = "2022-11-09", n_time: int = 10, **more: object) -> Partition:
    day = date.fromisoformat(key)
    start = np.datetime64(day, "ns")
    made = Partition(
        run_id=run_id,
        product="ql_lightcurve",
        key=key,
        day=day,
        path=f"ql_lightcurve/v1/{key}/{run_id}.zarr",
        digest=f"digest of {run_id}",
        input_digest="in",
        code_version="1",
        n_time=n_time,
        boxes=1,
        counts_sum=5,
        n_bytes=100,
        start=start,
        stop=start + np.timedelta64(1, "D"),
        attrs={"level": "L1"},
    )
    return replace(made, **more)  # type: ignore[arg-type]


@contextmanager
def _statements() -> Iterator[list[str]]:
    """Gather every statement that is sent to a database for a ``with`` block."""
    sent: list[str] = []

    def note(_c: object, _k: object, statement: str, *_: object) -> None:
        sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def _publish(catalog: Catalog, run_id: str, **more: object) -> int:
    partition_id = catalog.stage(_partition(run_id, **more))  # type: ignore[arg-type]
    catalog.publish(partition_id)
    return partition_id


def _shown(catalog: Catalog, key: str = "2022-11-09") -> str | None:
    found = catalog.current("ql_lightcurve", key)
    return found.run_id if found else None


class TestPublishing:
    def test_staged_is_invisible_published_is_seen_as_given(self, catalog: Catalog) -> None:
        given = _partition(request_id=7, seq_control=3, complete=False, missing="one packet")
        partition_id = catalog.stage(given)
        assert catalog.current("ql_lightcurve", "2022-11-09") is None
        assert catalog.partitions() == []
        catalog.publish(partition_id)
        found = catalog.current("ql_lightcurve", "2022-11-09")
        assert found is not None
        assert replace(found, id=0, state="new", created=given.created) == given
        assert found.state == "published"

    def test_staging_the_same_store_again_is_the_same_partition(self, catalog: Catalog) -> None:
        assert catalog.stage(_partition()) == catalog.stage(_partition())
        with pytest.raises(UsageError, match="other content"):
            catalog.stage(_partition(digest="soup"))

    def test_of_two_publishers_one_conflicts(self, catalog: Catalog) -> None:
        _publish(catalog, "R0")
        first, second = catalog.stage(_partition("R1")), catalog.stage(_partition("R2"))
        catalog.publish(second)
        with pytest.raises(PublishConflict, match="run again"):
            catalog.publish(first)
        assert _shown(catalog) == "R2"

    def test_of_two_first_publishers_one_conflicts(self, catalog: Catalog) -> None:
        first, second = catalog.stage(_partition("R1")), catalog.stage(_partition("R2"))
        catalog.publish(first)
        with pytest.raises(PublishConflict):
            catalog.publish(second)
        assert _shown(catalog) == "R1"

    def test_expected_is_compared(self, catalog: Catalog) -> None:
        first = _publish(catalog, "R1")
        second = catalog.stage(_partition("R2"))
        with pytest.raises(PublishConflict):
            catalog.publish(second, expected=None)
        catalog.publish(second, expected=first)
        assert _shown(catalog) == "R2"

    def test_several_are_published_together_or_not_at_all(self, catalog: Catalog) -> None:
        good = catalog.stage(_partition("R1"))
        _publish(catalog, "R0", key="2022-11-10", n_time=50)
        shrunk = catalog.stage(_partition("R1", key="2022-11-10"))
        with pytest.raises(BalanceError):
            catalog.publish(good, shrunk)
        assert _shown(catalog) is None
        assert _shown(catalog, "2022-11-10") == "R0"

    @pytest.mark.parametrize("release", [None, "r"])
    def test_a_hundred_take_as_many_statements_as_one(self, url: str, release: str | None) -> None:
        catalog = Catalog(url)
        if release:
            begin_candidate(catalog, release, Scope(), made_by={})
            catalog = Catalog(url, release=release)
        keys = [str(date(2022, 1, 1) + timedelta(days=number)) for number in range(100)]
        for run_id in ("R1", "R2"):
            counted = []
            for some in (keys[:1], keys[1:]):
                with _statements() as statements:
                    ids = catalog.stage_all([_partition(run_id, key=key) for key in some])
                    catalog.publish(*ids)
                    catalog.mark_done("stage", dict.fromkeys(some, "x"), run_id=run_id)
                    catalog.replace_images({key: [_image(key)] for key in some}, run_id=run_id)
                    catalog.locate_flares({key: {"x_hpc": 1.0} for key in some})
                counted.append(len(statements))
            assert counted[0] == counted[1]
            assert {key: _shown(catalog, key) for key in keys} == dict.fromkeys(keys, run_id)
        catalog.close()

    def test_what_replaced_what_is_known_of_each_of_many(self, catalog: Catalog) -> None:
        keys = ["2022-11-09", "2022-11-10", "2022-11-11"]
        before = {key: _publish(catalog, "R1", key=key) for key in keys[:2]}
        ids = catalog.stage_all([_partition("R2", key=key, n_time=9) for key in keys])
        with pytest.raises(BalanceError):
            catalog.publish(*ids, shrink_reason={ids[0]: "why"})
        catalog.publish(*ids, shrink_reason={ids[0]: "why", ids[1]: "because"})
        found = [catalog.partition(number) for number in ids]
        assert [(one.state, one.replaces, one.shrink_reason) for one in found] == [
            ("published", before[keys[0]], "why"),
            ("published", before[keys[1]], "because"),
            ("published", None, ""),
        ]
        assert {catalog.partition(number).state for number in before.values()} == {"superseded"}
        shown = catalog.current_of([("ql_lightcurve", key) for key in [*keys, "2022-11-12"]])
        assert {key: one.id for (_, key), one in shown.items()} == dict(zip(keys, ids, strict=True))
        assert catalog.shown_of([one.path for one in found] + ["nothing.zarr"]) == {one.path for one in found}

    def test_two_of_one_key_conflict_with_each_other(self, catalog: Catalog) -> None:
        ids = catalog.stage_all([_partition("R1"), _partition("R2")])
        with pytest.raises(PublishConflict):
            catalog.publish(*ids)
        assert _shown(catalog) is None

    def test_shrinking_needs_a_reason(self, catalog: Catalog) -> None:
        _publish(catalog, "R1", n_time=10)
        smaller = catalog.stage(_partition("R2", n_time=9))
        with pytest.raises(BalanceError, match="from 10 to 9 time bins"):
            catalog.publish(smaller)
        assert _shown(catalog) == "R1"
        catalog.publish(smaller, shrink_reason="duplicated packets removed")
        assert catalog.partition(smaller).shrink_reason == "duplicated packets removed"
        assert _shown(catalog) == "R2"

    def test_structure_needs_a_new_model_version(self, catalog: Catalog) -> None:
        _publish(catalog, "R1", structure="a")
        with pytest.raises(SchemaError, match="other variables"):
            _publish(catalog, "R2", structure="b")
        _publish(catalog, "R3", structure="b", data_model_version=99)
        assert _shown(catalog) == "R3"

    def test_only_staged_partitions_are_published(self, catalog: Catalog) -> None:
        published = _publish(catalog, "R1")
        with pytest.raises(UsageError, match="is published"):
            catalog.publish(published)
        failed = catalog.stage(_partition("R2"))
        catalog.fail(failed)
        with pytest.raises(UsageError, match="is failed"):
            catalog.publish(failed)
        with pytest.raises(UsageError, match="not staged"):
            catalog.fail(published)
        with pytest.raises(NotFound):
            catalog.publish(999)

    def test_rollback_goes_back_step_by_step(self, catalog: Catalog) -> None:
        for run_id in ("R1", "R2", "R3"):
            _publish(catalog, run_id)
        assert catalog.rollback("ql_lightcurve", "2022-11-09").run_id == "R2"
        _publish(catalog, "R4")
        assert [catalog.rollback("ql_lightcurve", "2022-11-09").run_id for _ in range(2)] == ["R2", "R1"]
        with pytest.raises(NotFound, match="published once"):
            catalog.rollback("ql_lightcurve", "2022-11-09")
        states = {item.run_id: item.state for item in catalog.history("ql_lightcurve", "2022-11-09")}
        assert states == {"R1": "published", "R2": "superseded", "R3": "superseded", "R4": "superseded"}

    def test_rolling_back_nothing(self, catalog: Catalog) -> None:
        with pytest.raises(NotFound, match="nothing is published"):
            catalog.rollback("ql_lightcurve", "2022-11-09")


def test_spans_are_half_open(catalog: Catalog) -> None:
    for key in ("2022-11-08", "2022-11-09", "2022-11-10"):
        _publish(catalog, "R1", key=key)

    def found(start: object, stop: object) -> list[str]:
        return [item.key[-2:] for item in catalog.partitions("ql_lightcurve", start=start, stop=stop)]

    assert found("2022-11-09", "2022-11-10") == ["09"]
    assert found("2022-11-09", "2022-11-10T00:00:00.000000001") == ["09", "10"]
    assert found(None, "2022-11-09T12:00") == ["08", "09"]
    assert found(pd.Timestamp("2022-11-09T23:59:59.999999999"), None) == ["09", "10"]
    assert catalog.partitions(["sci_pixels", "sci_spectrogram"]) == []


class TestInputs:
    def test_a_file_comes_once_with_all_that_came_out_of_it(self, catalog: Catalog) -> None:
        entry = FileEntry("d1", "a.xml", "xml", 100, packets_in=6, used=3, duplicates=1, rejected=2, attrs={"n": [1]})
        sets = [PacketSet("ql_lightcurve", "2022-11-09", "s1", "packets/s1", 3, "d1")]
        bad = [Quarantined("a.xml", "bad length", 17, 4, "quarantine/x"), Quarantined("a.xml", "no header")]
        assert not catalog.known_files(["d1"])
        assert catalog.register_file(entry, run_id="R1", packet_sets=sets, quarantined=bad)
        assert not catalog.register_file(entry, run_id="R2", packet_sets=sets, quarantined=bad)
        assert catalog.known_files(["d1", "d2"]) == {"d1"}
        assert catalog.packet_sets("ql_lightcurve", "2022-11-09") == sets
        assert catalog.packet_sets("sci_pixels") == []
        assert [row["reason"] for row in catalog.quarantined()] == ["bad length", "no header"]
        assert catalog.quarantined("R2") == []
        (row,) = catalog.files()
        assert (row["packets_in"], row["run_id"], row["attrs"]) == (6, "R1", {"n": [1]})

    def test_books_that_do_not_balance_are_refused(self, catalog: Catalog) -> None:
        with pytest.raises(BalanceError, match="5 packets read, 3 used"):
            catalog.register_file(FileEntry("d1", "a", "xml", 1, packets_in=5, used=3), run_id="R1")
        assert not catalog.known_files(["d1"])

    def test_packet_sets_are_kept_once(self, catalog: Catalog) -> None:
        item = PacketSet("sci_pixels", "1-2", "s", "p", 3, "f", {"late": True})
        assert catalog.register_file(FileEntry("f", "a", "xml", 1), run_id="R", packet_sets=[item, item])
        assert catalog.register_file(FileEntry("g", "b", "xml", 1), run_id="R2", packet_sets=[item])
        assert catalog.packet_sets() == [item]


def test_runs_tell_how_they_ended(catalog: Catalog) -> None:
    catalog.begin_run("R1", "stixflow demo", code_version="1")
    assert catalog.runs()[0]["state"] == "running"
    catalog.finish_run("R1", state="failed", summary={"days": 3, "seconds": float("nan")})
    (row,) = catalog.runs()
    assert (row["state"], row["summary"]) == ("failed", {"days": 3, "seconds": None})
    assert row["finished"] >= row["started"]
    with pytest.raises(NotFound):
        catalog.finish_run("R9")
    with pytest.raises(UsageError):
        catalog.finish_run("R1", state="soup")


def _flare(name: int, peak: str, **more: object) -> dict[str, object]:
    return {"flare_id": name, "start": peak, "peak": peak, "stop": peak, "peak_counts": 5, **more}


class TestFlares:
    def test_they_come_and_go_with_their_partition(self, catalog: Catalog) -> None:
        first = catalog.stage(_partition("R1"))
        catalog.replace_flares(first, [_flare(1, "2022-11-09T01"), _flare(2, "2022-11-09T02")])
        assert catalog.flares() == []
        catalog.publish(first)
        second = catalog.stage(_partition("R2"))
        catalog.replace_flares(second, [_flare(3, "2022-11-09T03")])
        assert [row["flare_id"] for row in catalog.flares()] == ["1", "2"]
        catalog.publish(second)
        assert [row["flare_id"] for row in catalog.flares()] == ["3"]
        catalog.rollback("ql_lightcurve", "2022-11-09")
        assert [row["flare_id"] for row in catalog.flares()] == ["1", "2"]

    def test_every_column_comes_back(self, catalog: Catalog) -> None:
        exact = pd.Timestamp("2022-11-09T01:02:03.123456789")
        partition_id = _publish(catalog, "R1")
        frame = pd.DataFrame([_flare(1, "2022-11-09T01", goes="C1.2", loc=np.nan, seen=exact, ok=True, n=np.int64(3))])
        catalog.replace_flares(partition_id, frame)
        (row,) = catalog.flares(flare_id=1)
        assert (row["goes"], row["loc"], row["seen"], row["ok"], row["n"]) == ("C1.2", None, exact, True, 3)
        assert (row["day"], row["run_id"], row["peak_counts"]) == ("2022-11-09", "R1", 5.0)

    def test_a_location_outlives_the_light_curve_it_was_found_in(self, catalog: Catalog) -> None:
        catalog.replace_flares(_publish(catalog, "R1"), [_flare(1, "2022-11-09T01"), _flare(2, "2022-11-09T02")])
        catalog.locate_flares({"1": {"x_hpc": 100.0, "ambiguous": True}})
        catalog.locate_flares({"1": {"x_hpc": 200.0}})
        catalog.replace_flares(_publish(catalog, "R2"), [_flare(1, "2022-11-09T01"), _flare(2, "2022-11-09T02")])
        first, second = catalog.flares()
        assert (first["x_hpc"], first["ambiguous"]) == (200.0, True)
        assert "x_hpc" not in second

    def test_replacing_replaces(self, catalog: Catalog) -> None:
        partition_id = _publish(catalog, "R1")
        catalog.replace_flares(partition_id, [_flare(1, "2022-11-09T01")])
        catalog.replace_flares(partition_id, [])
        assert catalog.flares() == []

    def test_a_peak_belongs_to_one_span(self, catalog: Catalog) -> None:
        catalog.replace_flares(_publish(catalog, "R1"), [_flare(1, "2022-11-09T01")])
        assert len(catalog.flares("2022-11-09T01", "2022-11-09T02")) == 1
        assert catalog.flares("2022-11-09T00", "2022-11-09T01") == []

    def test_a_row_without_its_columns(self, catalog: Catalog) -> None:
        with pytest.raises(UsageError, match="lacks peak, peak_counts"):
            catalog.replace_flares(1, [{"flare_id": 1, "start": "2022-11-09", "stop": "2022-11-09"}])


def _image(name: str, **more: object) -> dict[str, object]:
    values = {"image_id": name, "method": "clean", "energy_low": 4, "energy_high": 10, "path": "i.fits", "digest": "d"}
    return values | {"start": "2022-11-09T01", "stop": "2022-11-09T02", "x_hpc": 1.5} | more


def test_the_images_of_a_flare_take_the_place_of_its_earlier_ones(catalog: Catalog) -> None:
    catalog.replace_images({"7": [_image("a")], "8": [_image("b", sigma=[1.0, 2.0])]}, run_id="R1")
    catalog.replace_images({"7": [_image("a", path="new.fits")]}, run_id="R2")
    assert [(row["image_id"], row["path"], row["run_id"]) for row in catalog.images()] == [
        ("a", "new.fits", "R2"),
        ("b", "i.fits", "R1"),
    ]
    assert [row["image_id"] for row in catalog.images(7)] == ["a"]
    assert catalog.images(image_id="b")[0]["sigma"] == [1.0, 2.0]
    assert catalog.images(start="2022-11-09T02") == []


def test_the_images_of_a_flare_are_replaced_together(catalog: Catalog) -> None:
    catalog.replace_images({"7": [_image("a"), _image("b")], "8": [_image("c")]}, run_id="R1")
    catalog.replace_images({"7": [_image("d")]}, run_id="R2")
    assert [row["image_id"] for row in catalog.images()] == ["c", "d"]
    catalog.replace_images({"8": []}, run_id="R2")
    assert [row["image_id"] for row in catalog.images()] == ["d"]


def test_what_a_stage_has_done_is_known_by_its_inputs(catalog: Catalog) -> None:
    catalog.mark_done("flares", {"1": "x", "2": "y"}, run_id="R1")
    catalog.mark_done("flares", {"2": "z"}, run_id="R2")
    catalog.mark_done("images", {"2": "other"}, run_id="R2")
    assert catalog.done("flares") == {"1": "x", "2": "z"}
    assert catalog.done("soup") == {}


def test_text_is_data_never_sql(catalog: Catalog) -> None:
    nasty = "x'; DROP TABLE run; --"
    catalog.begin_run(nasty, nasty, code_version=nasty)
    assert catalog.runs()[0]["run_id"] == nasty
    assert catalog.packet_sets(nasty, nasty) == []


def test_a_newer_catalog_is_refused(url: str) -> None:
    Catalog(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(tables.meta.update().values(value="99"))
    engine.dispose()
    with pytest.raises(StoreError, match="schema version 99"):
        Catalog(url)


_WRITER = """
import sys
from datetime import date
import numpy as np
from stixflow.archive import Catalog, Partition
from stixflow.errors import PublishConflict
url, name = sys.argv[1:]
catalog, won, lost = Catalog(url), 0, 0
t = np.datetime64("2022-11-09", "ns")
for i in range(40):
    p = Partition(f"{name}{i}", "ql_lightcurve", "2022-11-09", date(2022, 11, 9), f"{name}{i}.zarr", "d", "i", "c",
                  10, 1, 5, 9, t, t + np.timedelta64(1, "D"))
    partition_id = catalog.stage(p)
    try:
        catalog.publish(partition_id)
        won += 1
    except PublishConflict:
        lost += 1
print(won, lost)
"""


def test_two_processes_write_at_once_and_none_is_lost(url: str) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, url, name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    counts = np.array([[int(word) for word in writer.communicate(timeout=120)[0].split()] for writer in writers])
    assert [writer.returncode for writer in writers] == [0, 0]
    assert counts.sum() == 80
    catalog = Catalog(url)
    history = catalog.history("ql_lightcurve", "2022-11-09")
    states = [item.state for item in history]
    assert states.count("published") == 1
    assert states.count("superseded") == counts[:, 0].sum() - 1
    assert states.count("staged") == counts[:, 1].sum()
    with catalog.engine.connect() as connection:
        assert connection.execute(sa.select(tables.current.c.revision)).scalar() == counts[:, 0].sum()
    catalog.close()


def test_a_writer_waits_for_its_turn(url: str) -> None:
    first, second = Catalog(url), Catalog(url)
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with writing(first.engine):
            holding.set()
            done.wait(0.3)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait()
    assert second.runs() == []  # readers do not wait
    second.begin_run("R1", "late", code_version="1")
    holder.join()
    assert [row["run_id"] for row in first.runs()] == ["R1"]
    first.close()
    second.close()


def test_readers_never_see_half_a_publication(url: str) -> None:
    writer, reader = Catalog(url), Catalog(url)
    keys = ("2022-11-09", "2022-11-10")

    def publish() -> None:
        for number in range(25):
            writer.publish(*(writer.stage(_partition(f"R{number}", key=key)) for key in keys))

    thread = threading.Thread(target=publish)
    thread.start()
    seen = set()
    while thread.is_alive():
        seen.add(tuple(item.run_id for item in reader.partitions("ql_lightcurve")))
    thread.join()
    assert all(len(set(runs)) == 1 and len(runs) == 2 for runs in seen - {()})
    assert [item.run_id for item in reader.partitions()] == ["R24", "R24"]
    writer.close()
    reader.close()


class CatalogMachine(RuleBasedStateMachine):
    """The catalog beside a dictionary: key -> (what is shown, what each replaced)."""

    KEYS = ("2022-11-09", "2022-11-10")

    @initialize()
    def begin(self) -> None:
        self.catalog = Catalog("sqlite://")
        self.n_runs = 0
        self.staged: list[tuple[int, str, int, int | None]] = []
        self.shown: dict[str, int] = {}
        self.n_time: dict[int, int] = {}
        self.replaced: dict[int, int | None] = {}

    def teardown(self) -> None:
        self.catalog.close()

    @rule(key=st.sampled_from(KEYS), n_time=st.integers(8, 12))
    def stage(self, key: str, n_time: int) -> None:
        self.n_runs += 1
        partition_id = self.catalog.stage(_partition(f"R{self.n_runs}", key=key, n_time=n_time))
        self.n_time[partition_id] = n_time
        self.staged.append((partition_id, key, n_time, self.shown.get(key)))

    @precondition(lambda self: self.staged)
    @rule(data=st.data(), reason=st.sampled_from(["", "because"]))
    def publish(self, data: st.DataObject, reason: str) -> None:
        index = data.draw(st.integers(0, len(self.staged) - 1))
        partition_id, key, n_time, expected = self.staged[index]
        if expected is not None and n_time < self.n_time[expected] and not reason:
            with pytest.raises(BalanceError):
                self.catalog.publish(partition_id, shrink_reason=reason)
        elif self.shown.get(key) != expected:
            with pytest.raises(PublishConflict):
                self.catalog.publish(partition_id, shrink_reason=reason)
        else:
            self.catalog.publish(partition_id, shrink_reason=reason)
            self.shown[key], self.replaced[partition_id] = partition_id, expected
            del self.staged[index]

    @rule(key=st.sampled_from(KEYS))
    def rollback(self, key: str) -> None:
        earlier = self.replaced.get(self.shown.get(key, -1))
        if earlier is None:
            with pytest.raises(NotFound):
                self.catalog.rollback("ql_lightcurve", key)
        else:
            assert self.catalog.rollback("ql_lightcurve", key).id == earlier
            self.shown[key] = earlier

    @precondition(lambda self: self.staged)
    @rule()
    def fail(self) -> None:
        self.catalog.fail(self.staged.pop()[0])

    @invariant()
    def readers_see_what_the_model_shows(self) -> None:
        if hasattr(self, "catalog"):
            assert {item.key: item.id for item in self.catalog.partitions()} == self.shown
            assert all(item.state == "published" for item in self.catalog.partitions())


CatalogMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestCatalogMachine = CatalogMachine.TestCase


class TestTogether:
    def test_all_or_nothing_for_others(self, catalog: Catalog, url: str) -> None:
        other = Catalog(url)

        def fail() -> None:
            with catalog.together():
                catalog.mark_done("stage", {"item": "digest"}, run_id="R1")
                assert catalog.done("stage") == {"item": "digest"}
                assert other.done("stage") == {}
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert catalog.done("stage") == {}

    def test_what_fails_inside_is_taken_back_alone(self, catalog: Catalog) -> None:
        with catalog.together():
            catalog.mark_done("stage", {"one": "1"}, run_id="R1")
            with pytest.raises(NotFound):
                catalog.replace_flares(1234, [])
            catalog.mark_done("stage", {"two": "2"}, run_id="R1")
        assert catalog.done("stage") == {"one": "1", "two": "2"}

    def test_a_thread_of_its_own_is_not_part_of_it(self, catalog: Catalog) -> None:
        with catalog.together():
            catalog.mark_done("stage", {"one": "1"}, run_id="R1")
            with ThreadPoolExecutor(1) as threads:
                assert threads.submit(catalog.done, "stage").result() == {}
