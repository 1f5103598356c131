"""The inbox: a folder or a bucket prefix that deliveries are dropped into, and what of it is still to be taken in.

Nothing in the inbox is moved, renamed or removed. What was taken, and what was refused and why, is remembered in the
catalog by name, length and time of writing, so that a look costs one listing; what makes a file known is its content.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stixflow.archive import Catalog
from stixflow.cubes.files import Files, LocalFiles, open_files
from stixflow.errors import MissingFile
from stixflow.stages.ingest import TRUTH_NAME, file_digest, ingest
from stixflow.stages.run import Run

SETTLE_SECONDS = 10.0
"""How long a file must stay as it is before it is taken for whole."""

TRIES = 3
"""How often a file is tried whose failure may pass, as when storage does not answer."""

_TAKEN, _REFUSED = "inbox", "inbox refused"
_HALF_WRITTEN = (".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".incomplete", ".lock", ".swp", "~")
_PASSING = ("OSError", "ConnectionError", "TimeoutError", "StoreError")


@dataclass(frozen=True, slots=True)
class Drop:
    """A file of an inbox as it was seen: name below the inbox, and what changes when it is written again."""

    name: str
    size: int
    mark: str

    @property
    def stamp(self) -> str:
        return f"{self.size} {self.mark}"


@dataclass(frozen=True, slots=True)
class Inbox:
    """What a look into an inbox found."""

    url: str
    ready: tuple[Drop, ...]
    """New and settled, by name."""
    waiting: Mapping[str, str]
    """Not taken yet, and why: still being written, or empty."""
    refused: Mapping[str, str]
    """Tried before, not changed since, and why they failed."""
    taken: int
    """Files that the archive has."""


def look(
    url: str,
    catalog: Catalog,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    retry: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Inbox:
    """List an inbox, and where there is something new, list it again after a time: what did not change is ready.

    Names that are hidden, or end as programs name what they are still writing, are not seen at all.

    Parameters
    ----------
    url
        A folder, or an ``s3://`` prefix; objects of a bucket appear whole, so nothing is waited for.
    retry
        Look at refused files as if they were new.

    Raises
    ------
    MissingFile
        If the folder does not exist: an inbox that is not mounted is not an empty one.
    """
    files = open_files(url)
    if isinstance(files, LocalFiles) and not files.path.is_dir():
        raise MissingFile(f"there is no inbox {url}", expected="a folder", advice="make it, or mount it")
    taken = _remembered(catalog, _TAKEN, url)
    refused = {} if retry else {name: Refusal.read(text) for name, text in _remembered(catalog, _REFUSED, url).items()}
    seen = _list(files)
    new, held = [], {}
    for drop in seen.values():
        if taken.get(drop.name) == drop.stamp:
            continue
        refusal = refused.get(drop.name)
        if refusal and refusal.stamp == drop.stamp and refusal.is_final:
            held[drop.name] = refusal.reason
        else:
            new.append(drop)
    ready, waiting = _settle(files, new, settle_seconds, sleep)
    return Inbox(url, ready, waiting, held, len(seen) - len(new) - len(held))


def take_in(run: Run, inbox: Inbox) -> None:
    """Ingest what is ready, and remember of each file what became of it."""
    with _at_hand(inbox) as places:
        there = {name: path for name, path in places.items() if path.is_file()}
        before = len(run.failed)
        if there:
            ingest(run, list(there.values()))
        _remember(run, inbox, there, _failures(run.failed[before:]))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file could not be taken, and how often it was tried."""

    stamp: str
    tries: int
    reason: str

    @property
    def is_final(self) -> bool:
        return self.tries >= TRIES

    @classmethod
    def read(cls, text: str) -> Refusal:
        tries, stamp, reason = text.split("\n", 2)
        return cls(stamp, int(tries), reason)

    def __str__(self) -> str:
        return f"{self.tries}\n{self.stamp}\n{self.reason}"


def _list(files: Files) -> dict[str, Drop]:
    stamps = sorted(files.stamps().items())
    return {name: Drop(name, size, mark) for name, (size, mark) in stamps if name and not _is_no_input(name)}


def _is_no_input(name: str) -> bool:
    return name.lower().endswith((*_HALF_WRITTEN, TRUTH_NAME)) or any(part.startswith(".") for part in name.split("/"))


def _settle(
    files: Files, new: Sequence[Drop], seconds: float, sleep: Callable[[float], None]
) -> tuple[tuple[Drop, ...], dict[str, str]]:
    """Split what is new into what is whole and what may still be written."""
    if new and isinstance(files, LocalFiles):
        sleep(seconds)
        later = _list(files)
    else:
        later = {drop.name: drop for drop in new}
    ready, waiting = [], {}
    for drop in new:
        if later.get(drop.name) != drop:
            waiting[drop.name] = "it is still being written"
        elif not drop.size:
            waiting[drop.name] = "it is empty"
        else:
            ready.append(drop)
    return tuple(ready), waiting


@contextmanager
def _at_hand(inbox: Inbox) -> Iterator[dict[str, Path]]:
    """Give the local path of every file that is ready: its own, or that of a copy for the time of a ``with`` block."""
    files = open_files(inbox.url)
    if isinstance(files, LocalFiles):
        yield {drop.name: files.path / drop.name for drop in inbox.ready}
        return
    with tempfile.TemporaryDirectory(prefix="stixflow-inbox-") as folder:
        places = {}
        for name, data in files.get_many([drop.name for drop in inbox.ready]):
            places[name] = Path(folder, name)
            places[name].parent.mkdir(parents=True, exist_ok=True)
            places[name].write_bytes(data)
        yield places


def _failures(failed: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    return {note["item"]: note for note in failed if note["stage"] == "ingest"}


def _remember(run: Run, inbox: Inbox, there: Mapping[str, Path], failed: Mapping[str, Mapping[str, str]]) -> None:
    """Write down what was taken and what was refused, but nothing of a file that was written again meanwhile."""
    catalog = run.archive.catalog
    earlier = {name: Refusal.read(text) for name, text in _remembered(catalog, _REFUSED, inbox.url).items()}
    now = _list(open_files(inbox.url))
    digests = {name: file_digest(path) for name, path in there.items()}
    known = catalog.known_files(digests.values())
    taken, refused = {}, {}
    for drop in inbox.ready:
        path = there.get(drop.name)
        if path is None or now.get(drop.name) != drop:
            continue
        if digests[drop.name] in known:
            taken[drop.name] = drop.stamp
        else:
            note = failed.get(path.name, {"error": "it was left out"})
            refused[drop.name] = str(_refuse(drop, earlier.get(drop.name), note))
    for stage, items in ((_TAKEN, taken), (_REFUSED, refused)):
        catalog.mark_done(stage, {_item(inbox.url, name): text for name, text in items.items()}, run_id=run.run_id)


def _refuse(drop: Drop, earlier: Refusal | None, note: Mapping[str, str]) -> Refusal:
    """Count a try; what its own content condemns is not tried again."""
    if note.get("kind", "") not in _PASSING:
        return Refusal(drop.stamp, TRIES, note["error"])
    before = earlier.tries if earlier and earlier.stamp == drop.stamp else 0
    return Refusal(drop.stamp, before + 1, note["error"])


def _remembered(catalog: Catalog, stage: str, url: str) -> dict[str, str]:
    prefix = _item(url, "")
    return {item.removeprefix(prefix): text for item, text in catalog.done(stage).items() if item.startswith(prefix)}


def _item(url: str, name: str) -> str:
    return f"{url.rstrip('/')}/{name}"
