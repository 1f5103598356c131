"""Verifying an archive a share at a time: the stores that were read longest ago first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from stixflow.archive import Archive, Partition
from stixflow.archive.verifying import verify_months
from stixflow.cubes.store import Defect

MARK = "verified"
"""What the catalog calls the stores that were found sound, each with when and as what."""
_STORE_BYTES = 150_000
"""What reading any store costs, however small, in bytes of a large one (benchmarks/bench_verify.py)."""
_MARKED_TOGETHER = 100

Shown = Callable[[str, int, int], None]


def stores_due(archive: Archive, every_days: float) -> list[Partition]:
    """Return the published stores to read today for each to be read once in so many days, the longest unread first.

    What was published since it was read counts as never read.
    """
    marks = archive.catalog.done(MARK)
    items = sorted(archive.catalog.partitions(), key=lambda item: (_read_at(marks, item), item.start))
    weights = [item.n_bytes + _STORE_BYTES for item in items]
    share = sum(weights) / max(every_days, 1.0)
    before = itertools.accumulate(weights, initial=0)
    return [item for item, done in zip(items, before, strict=False) if done < share]


def verify_share(archive: Archive, every_days: float, shown: Shown = lambda *_: None) -> Iterator[Defect]:
    """Read the stores that are due, and joined months; yield every defect, and note in the catalog what is sound.

    What is not sound stays due. One that is stopped goes on where it was.
    """
    due = stores_due(archive, every_days)
    for done in range(0, len(due), _MARKED_TOGETHER):
        some = due[done : done + _MARKED_TOGETHER]
        found = [archive.verify([item]) for item in some]
        sound = {
            _name(item): f"{_now()} {item.digest}" for item, defects in zip(some, found, strict=True) if not defects
        }
        archive.catalog.mark_done(MARK, sound, run_id=MARK)
        shown("verify", min(done + _MARKED_TOGETHER, len(due)), len(due))
        yield from itertools.chain.from_iterable(found)
    yield from verify_months(archive.catalog, archive.root)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _name(item: Partition) -> str:
    return f"{item.product} {item.key}"


def _read_at(marks: dict[str, str], item: Partition) -> str:
    when, _, digest = marks.get(_name(item), "").partition(" ")
    return when if digest == item.digest else ""
