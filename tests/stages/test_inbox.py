"""Deliveries dropped into a folder or a bucket: each file once, whole, and never tried for ever."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from example_delivery import assert_balanced, published
from services.s3 import Bucket

from stixflow import jobs, stages
from stixflow.archive import Catalog, open_archive
from stixflow.archive.turns import take_turn
from stixflow.compute import Serial
from stixflow.errors import MissingFile
from stixflow.stages import inbox as inboxes
from stixflow.stages.inbox import Inbox, look, take_in

JUNK = b"these are no packets at all"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    place = tmp_path / "inbox"
    place.mkdir()
    return place


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "archive")


@contextmanager
def catalog_of(root: str) -> Iterator[Catalog]:
    archive = open_archive(root, create=True)
    try:
        yield archive.catalog
    finally:
        archive.close()


def peek(root: str, url: str | Path, *, retry: bool = False) -> Inbox:
    with catalog_of(root) as catalog:
        return look(str(url), catalog, retry=retry, sleep=lambda _: None)


def take(root: str, url: str | Path, *, retry: bool = False) -> tuple[Inbox, dict[str, object]]:
    found = peek(root, url, retry=retry)
    with stages.open_run(root, pool=Serial(), command="test") as run:
        take_in(run, found)
    report = run.report()
    assert_balanced(report["balance"])
    return found, report


def names(found: Inbox) -> list[str]:
    return [drop.name for drop in found.ready]


def test_a_delivery_is_taken_once_and_left_where_it_is(root: str, box: Path, delivery: Path, processed: Path) -> None:
    shutil.copytree(delivery / "telemetry", box / "telemetry")
    shutil.copytree(delivery / "ephemeris", box / "ephemeris")
    before = sorted(box.rglob("*"))
    found, report = take(root, box)
    assert len(found.ready) == 6
    assert report["failed"] == []
    again = peek(root, box)
    assert (again.ready, again.taken, again.waiting, again.refused) == ((), 6, {}, {})
    assert sorted(box.rglob("*")) == before
    with stages.open_run(root, pool=Serial(), command="test") as run:
        stages.build_cubes(run)
    assert published(Path(root)) == published(processed)


def test_a_file_that_is_still_written_waits(root: str, box: Path, delivery: Path) -> None:
    """Each look finds it longer; only when nobody writes any more it is whole."""
    whole = next((delivery / "telemetry").glob("*lightcurve*")).read_bytes()
    target = box / "day.xml"
    target.write_bytes(whole[:1000])

    def more(_: float) -> None:
        with target.open("ab") as stream:
            stream.write(whole[target.stat().st_size :][:100_000])

    with catalog_of(root) as catalog:
        found = look(str(box), catalog, sleep=more)
        assert (names(found), dict(found.waiting)) == ([], {"day.xml": "it is still being written"})
        while target.stat().st_size < len(whole):
            assert names(look(str(box), catalog, sleep=more)) == []
        assert names(look(str(box), catalog, sleep=lambda _: None)) == ["day.xml"]
    _, report = take(root, box)
    assert report["failed"] == []
    assert report["balance"]["rejected"] == 0  # type: ignore[index]


def test_a_file_that_keeps_its_length_but_not_its_time_waits(root: str, box: Path) -> None:
    (box / "day.bin").write_bytes(JUNK)
    with catalog_of(root) as catalog:
        found = look(str(box), catalog, sleep=lambda _: (box / "day.bin").write_bytes(JUNK[::-1]))
    assert list(found.waiting) == ["day.bin"]


def test_a_file_that_went_away_or_is_empty_waits(root: str, box: Path) -> None:
    (box / "gone.bin").write_bytes(JUNK)
    (box / "empty.bin").touch()
    with catalog_of(root) as catalog:
        found = look(str(box), catalog, sleep=lambda _: (box / "gone.bin").unlink())
    assert names(found) == []
    assert found.waiting["empty.bin"] == "it is empty"


def test_a_file_that_goes_away_before_it_is_taken_is_no_failure(root: str, box: Path) -> None:
    (box / "gone.bin").write_bytes(JUNK)
    found = peek(root, box)
    (box / "gone.bin").unlink()
    with stages.open_run(root, pool=Serial(), command="test") as run:
        take_in(run, found)
    assert (run.failed, run.skipped) == ([], [])


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.xml",
        ".part/a.xml",
        "a.xml.tmp",
        "a.xml.part",
        "A.XML.FILEPART",
        "a.xml~",
        "sub/b.crdownload",
        "truth.json",
    ],
)
def test_names_of_unfinished_files_are_not_seen(root: str, box: Path, name: str) -> None:
    (box / name).parent.mkdir(exist_ok=True)
    (box / name).write_bytes(JUNK)
    found = peek(root, box)
    assert (found.ready, found.waiting, found.taken) == ((), {}, 0)


def test_a_refused_file_is_named_and_tried_again_only_when_it_changes(root: str, box: Path, delivery: Path) -> None:
    (box / "day.xml").write_bytes(JUNK)
    _, report = take(root, box)
    (failure,) = report["failed"]  # type: ignore[misc]
    assert failure["item"] == "day.xml"
    again = peek(root, box)
    assert again.ready == ()
    assert again.refused["day.xml"] == failure["error"]
    assert names(peek(root, box, retry=True)) == ["day.xml"]
    shutil.copy(next((delivery / "telemetry").glob("*lightcurve*")), box / "day.xml")
    assert names(peek(root, box)) == ["day.xml"]
    _, report = take(root, box)
    assert report["failed"] == []
    assert peek(root, box).refused == {}


def test_a_failure_that_may_pass_is_tried_three_times(
    root: str, box: Path, delivery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(next((delivery / "telemetry").glob("*lightcurve*")), box / "day.xml")

    def broken(_job: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "frame", broken)
        for _ in range(inboxes.TRIES):
            assert names(peek(root, box)) == ["day.xml"]
            _, report = take(root, box)
            assert report["failed"]
        assert peek(root, box).ready == ()
    _, report = take(root, box, retry=True)
    assert report["failed"] == []
    assert peek(root, box).taken == 1


def test_a_file_changed_while_it_was_read_is_read_again(
    root: str, box: Path, delivery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = next((delivery / "telemetry").glob("*lightcurve*")).read_bytes()
    (box / "day.xml").write_bytes(whole)
    usual = inboxes.ingest

    def then_change(run: stages.Run, paths: list[Path]) -> None:
        usual(run, paths)
        (box / "day.xml").write_bytes(whole + b"\n")

    with monkeypatch.context() as patch:
        patch.setattr(inboxes, "ingest", then_change)
        take(root, box)
    assert names(peek(root, box)) == ["day.xml"]


def test_the_same_content_under_another_name_is_known(root: str, box: Path, delivery: Path) -> None:
    source = next((delivery / "telemetry").glob("*lightcurve*"))
    shutil.copy(source, box / "one.xml")
    shutil.copy(source, box / "two.xml")
    _, report = take(root, box)
    assert report["counts"]["files"] == 1  # type: ignore[index]
    assert peek(root, box).taken == 2


def test_two_watchers_at_once_take_each_file_once(root: str, box: Path, delivery: Path, processed: Path) -> None:
    shutil.copytree(delivery, box, dirs_exist_ok=True)
    (box / "truth.json").unlink()
    reports: list[dict[str, object]] = []
    looked = threading.Barrier(2)

    def watch() -> None:
        found = peek(root, box)
        looked.wait()  # both see everything as new
        with catalog_of(root) as catalog, take_turn(catalog, wait_seconds=60):
            with stages.open_run(root, pool=Serial(), command="test") as run:
                take_in(run, found)
                stages.build_cubes(run)
            reports.append(run.report())

    with catalog_of(root):
        threads = [threading.Thread(target=watch) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [len(report["failed"]) for report in reports] == [0, 0]  # type: ignore[arg-type]
    assert sum(report["counts"].get("files", 0) for report in reports) == 6  # type: ignore[attr-defined]
    assert published(Path(root)) == published(processed)
    assert peek(root, box).taken == 6


def test_an_inbox_that_is_not_there_is_not_an_empty_one(root: str, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no inbox"):
        peek(root, tmp_path / "nowhere")


def test_an_inbox_in_a_bucket(root: str, s3: Bucket, delivery: Path) -> None:
    import s3fs

    s3fs.S3FileSystem().put(str(delivery / "telemetry"), f"{s3.url}/drop/", recursive=True)
    s3fs.S3FileSystem().pipe(f"{s3.url}/drop/bad.xml", JUNK)
    with catalog_of(root) as catalog:
        found = look(f"{s3.url}/drop", catalog, sleep=lambda _: pytest.fail("objects appear whole"))
    assert len(found.ready) == 5
    _, report = take(root, f"{s3.url}/drop")
    assert [note["item"] for note in report["failed"]] == ["bad.xml"]  # type: ignore[attr-defined]
    assert report["counts"]["files"] == 4  # type: ignore[index]
    with s3.counted() as requests:
        again = peek(root, f"{s3.url}/drop")
    assert (again.taken, list(again.refused)) == (4, ["bad.xml"])
    assert requests == {"GET": 1}, "a look is one listing"
