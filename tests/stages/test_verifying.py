"""An archive is verified a share a day: nothing is read twice before all is read once."""

from __future__ import annotations

import itertools
from datetime import date, timedelta
from pathlib import Path

import pytest
from example_archive import add, day_of

from stixflow.archive import Archive, open_archive
from stixflow.stages import verifying
from stixflow.stages.verifying import stores_due, verify_share

DAYS = [date(2022, 11, 1) + timedelta(days=n) for n in range(14)]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    clock = itertools.count()
    monkeypatch.setattr(verifying, "_now", lambda: f"2023-01-01T00:00:{next(clock):06d}")
    made = open_archive(tmp_path / "archive", create=True)
    for day in DAYS:
        add(made, [day_of(day)], day)
    return made


def _keys(archive: Archive, every_days: float) -> list[str]:
    return [item.key for item in stores_due(archive, every_days)]


def test_every_store_is_read_once_before_one_is_read_again(archive: Archive) -> None:
    read: list[str] = []
    for _ in range(7):
        due = _keys(archive, 7.0)
        assert len(due) <= 3, "a seventh, and what is left of a store"
        read += due
        assert list(verify_share(archive, 7.0)) == []
    assert set(read) == {str(day) for day in DAYS}
    assert len(set(read[: len(DAYS)])) == len(DAYS)
    assert len(_keys(archive, 1.0)) == len(DAYS)


def test_what_is_published_anew_comes_first(archive: Archive) -> None:
    list(verify_share(archive, 1.0))
    add(archive, [day_of(DAYS[9], seed=99)], DAYS[9], run_id="R2")
    assert _keys(archive, 14.0)[0] == str(DAYS[9])


def test_a_damaged_store_is_told_each_day_until_it_is_healed(archive: Archive) -> None:
    victim = stores_due(archive, 7.0)[0]
    path = next(one for one in Path(archive.url(victim.path)).rglob("*") if one.is_file() and one.suffix != ".json")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for _ in range(3):
        assert {defect.url for defect in verify_share(archive, 7.0)} == {archive.url(victim.path)}
    assert _keys(archive, 7.0)[0] == victim.key


def test_one_that_is_stopped_goes_on_where_it_was(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "_MARKED_TOGETHER", 3)
    shown: list[int] = []

    def stop(_stage: str, done: int, _total: int) -> None:
        shown.append(done)
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(verify_share(archive, 1.0, stop))
    assert shown == [3, 6]
    assert _keys(archive, 14.0)[0] == str(DAYS[6])
