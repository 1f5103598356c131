"""One writer at a time: over threads, processes and databases, and never longer than the one who has the turn lives."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stixflow.archive import Catalog, open_archive
from stixflow.archive.turns import take_turn
from stixflow.errors import ArchiveBusy

_HOLDER = """
import sys, time
from stixflow.archive import Catalog
from stixflow.archive.turns import take_turn
with take_turn(Catalog(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/catalog.sqlite"


def test_the_second_waits_for_the_first(url: str) -> None:
    order: list[str] = []
    started = threading.Event()

    def second() -> None:
        with take_turn(Catalog(url), wait_seconds=30):
            order.append("second")

    with take_turn(Catalog(url)):
        thread = threading.Thread(target=lambda: (started.set(), second()))
        thread.start()
        started.wait()
        with pytest.raises(ArchiveBusy, match="another run builds"), take_turn(Catalog(url), wait_seconds=0.3):
            order.append("third")
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_turn_ends_with_an_error_in_it(url: str) -> None:
    with pytest.raises(ValueError, match="within"), take_turn(Catalog(url)):
        raise ValueError("within")
    with take_turn(Catalog(url)):
        pass


def test_a_turn_ends_with_the_process_that_has_it(url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLDER, url], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        with pytest.raises(ArchiveBusy), take_turn(Catalog(url)):
            pass
        holder.kill()
        with take_turn(Catalog(url), wait_seconds=30):
            pass


def test_a_turn_does_not_lock_the_catalog(url: str, tmp_path: Path) -> None:
    with take_turn(Catalog(url)):
        other = open_archive(tmp_path / "archive", catalog=url, create=True).catalog
        other.begin_run("01", "test", code_version="1")
        other.finish_run("01")
    assert [run["state"] for run in other.runs()] == ["done"]
