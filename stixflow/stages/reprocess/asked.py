"""What is asked for: a release and what goes into it, and what of it readers see already."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stixflow.archive import REBUILT, Archive, Scope
from stixflow.stages.care import CURRENT
from stixflow.stages.cubes import is_made_by, packets_digest, stale_partitions
from stixflow.stages.run import Candidate, Run
from stixflow.stages.validate import Gates
from stixflow.time import to_utc


@dataclass(frozen=True, slots=True)
class Reprocessing:
    """What is asked for: a release and what goes into it."""

    release: str
    start: str | None = None
    """First day, UTC; by default the first there is."""
    stop: str | None = None
    """Day after the last one."""
    products: tuple[str, ...] = ()
    """Products, ``flares`` and ``images``; by default all of them. What follows from them is made again too."""
    against: str = CURRENT
    """What the release is validated against: what readers see, or another release."""
    gates: Gates = field(default_factory=Gates)
    accept: str = ""
    """Why differences beyond the gates are wanted."""
    note: str = ""
    restart: bool = False
    """Go on with another code, clock or detector than the release was begun with."""
    rebuild_all: bool = False
    """Build also what readers see already as this code and clock made it of the same packets."""

    @property
    def scope(self) -> Scope:
        """Return the days and products that are rebuilt, whole days."""
        everything = Scope()
        return Scope(
            everything.start if self.start is None else str(to_utc(self.start).astype("datetime64[D]")),
            everything.stop if self.stop is None else _day_after(self.stop),
            tuple(self.products) or REBUILT,
        )


def _day_after(stop: str) -> str:
    """Return the first whole day that does not begin before `stop`."""
    time = to_utc(stop)
    day = time.astype("datetime64[D]")
    return str(day if day == time else day + np.timedelta64(1, "D"))


def candidate_of(release: str, scope: Scope, present: Archive) -> Candidate:
    """Return what a run needs to know of the open release that it builds."""
    catalog = present.catalog
    shown = {(item.product, item.key): item for item in catalog.partitions()}
    return Candidate(release, scope, shown, catalog.days())


def adoptable(run: Run, present: Archive) -> list[int]:
    """Return what readers see already as this run would build it."""
    assert run.candidate is not None
    shown = run.candidate.shown
    lost = {item.id for item in present.lost()}
    found = []
    for job, _ in stale_partitions(run):
        item = shown.get((job.product, job.key))
        if item and item.id not in lost and is_made_by(run, item) and item.input_digest == packets_digest(job.inputs):
            found.append(item.id)
    return found
