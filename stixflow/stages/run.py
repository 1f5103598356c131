"""One run: the archive it writes to, what computes, and its totals."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from stixflow.archive import Archive, Partition, Scope, open_archive
from stixflow.compute import Cost, Outcome, Pool, map_batches, refuse_too_large
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import masked
from stixflow.provenance import code_version, new_run_id
from stixflow.stages.science import DETECTOR, USUAL, Science
from stixflow.time import ANCHOR_CLOCK, Clock
from stixflow.tuning import UNTUNED, Tuning

Progress = Callable[[str, int, int], None]
Item = TypeVar("Item")
Value = TypeVar("Value")

_BALANCE = ("packets_in", "used", "duplicates", "rejected")
_OFFICIAL = ("files", "bins", "counts", "used", "repeated", "replaced", "counts_used")
"""Official files taken in with their bins and counts; of the partitions built the bins used, repeated in another file,
and replaced by packets or a later version; and the counts used."""


def _silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """The open release that a run builds in place of what readers see."""

    name: str
    scope: Scope
    shown: Mapping[tuple[str, str], Partition] = field(default_factory=dict)
    """What readers see instead, by product and key."""
    days: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Day of each partition that was ever staged, by product and key."""

    def covers(self, product: str, key: str) -> bool:
        """Tell whether a partition is rebuilt; one of which nobody knows the day only where every day is."""
        if PRODUCTS[product].partition == "day":
            return self.scope.covers(product, key)
        day = self.days.get((product, key))
        return (
            self.scope.is_whole and product in self.scope.products if day is None else self.scope.covers(product, day)
        )


@dataclass(slots=True)
class Work:
    """What items of one kind have taken on the workers, so that later runs can be estimated."""

    items: int = 0
    seconds: float = 0.0
    squares: float = 0.0
    """Sum of the squares of the seconds of each."""

    def add(self, seconds: float, items: int = 1) -> None:
        """Add some items that were done together."""
        self.items += items
        self.seconds += seconds
        self.squares += seconds**2 / items

    def report(self) -> dict[str, Any]:
        """Return plain values, as `work_of` reads them."""
        return {"items": self.items, "seconds": round(self.seconds, 4), "squares": round(self.squares, 5)}


def work_of(values: Mapping[str, Any]) -> Work:
    """Read what a run kept of its work."""
    return Work(int(values["items"]), float(values["seconds"]), float(values["squares"]))


@dataclass(slots=True)
class Run:
    """One run on one archive, and what it has done so far."""

    archive: Archive
    pool: Pool
    run_id: str
    progress: Progress = _silent
    detector: str = DETECTOR
    """Method that finds flares, as in `flares.detect`."""
    clock: Clock = ANCHOR_CLOCK
    """What dates the cubes that this run makes."""
    redate: bool = False
    """Make cubes anew that another clock dated."""
    tuning: Tuning = UNTUNED
    """How stores are laid out and jobs are batched."""
    candidate: Candidate | None = None
    """What this run builds in place of what readers see; None for the latter."""
    round: int = 0
    """How often this run has begun anew, with what came in the meantime."""
    methods: tuple[str, ...] = ()
    """How flares are imaged; none: by `stages.METHODS`."""
    balance: Counter[str] = field(default_factory=Counter)
    """Packets of this run: in, used, duplicates, rejected."""
    official: Counter[str] = field(default_factory=Counter)
    """Official files of this run, their bins and counts, and what became of the bins."""
    not_decoded: Counter[str] = field(default_factory=Counter)
    """Of the packets used, those of known types that have no cube yet, by type."""
    counts: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    cost: dict[str, Cost] = field(default_factory=dict)
    """What each stage took, of the workers and of the process that coordinates them."""
    work: dict[str, Work] = field(default_factory=dict)
    """What its items took, by stage and product."""
    stage: str = ""
    """The stage at work."""
    failed: list[dict[str, str]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)

    @property
    def store_id(self) -> str:
        """Return what stores and maps are named by: that of the run, numbered where it builds a partition again."""
        return f"{self.run_id}-{self.round}" if self.round else self.run_id

    def before(self, keys: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], Partition]:
        """Return the partitions that what this run builds is to replace, by product and key, where there is one."""
        return self.archive.catalog.current_of(keys) if self.candidate is None else self.candidate.shown

    def fail(self, stage: str, item: str, error: str, *, kind: str = "") -> None:
        """Note an item that should have worked, and where it raised an error the class of it."""
        note = {"stage": stage, "item": item, "error": error}
        self.failed.append(note | {"kind": kind} if kind else note)

    def skip(self, stage: str, item: str, reason: str) -> None:
        """Note an item that was left out on purpose."""
        self.skipped.append({"stage": stage, "item": item, "reason": reason})

    def fan_out(
        self,
        stage: str,
        function: Callable[[Item], Value],
        items: Sequence[Item],
        label: Callable[[Item], str],
        *,
        lost: list[Item] | None = None,
    ) -> Iterator[tuple[Item, Value]]:
        """Yield each item with its value as they end; an item that failed becomes a line of the report.

        Where `lost` is given, items that failed go there instead.
        """
        fitting, refused = refuse_too_large(items, self.pool)
        for item, reason in refused:
            self.fail(stage, label(item), reason, kind="MemoryRefused")
        if fitting:
            self.progress(stage, 0, len(fitting))
        cost = self.cost.setdefault(self.stage or stage, Cost())
        outcomes = map_batches(
            function, fitting, pool=self.pool, **self.tuning.batches, tag=f"stixflow-{stage}", cost=cost
        )
        for done, outcome in enumerate(outcomes, start=1):
            item = fitting[outcome.index]
            if outcome.ok:
                kind = f"{stage} {getattr(item, 'product', '')}".strip()
                together = len(item) if isinstance(item, tuple) else 1
                self.work.setdefault(kind, Work()).add(outcome.seconds, together)
                yield item, cast(Value, outcome.value)
            elif lost is not None:
                lost.append(item)
            else:
                kind, message = _told(outcome)
                self.fail(stage, label(item), message, kind=kind)
            self.progress(stage, done, len(fitting))

    def report(self) -> dict[str, Any]:
        """Return the totals as plain values, ready for JSON."""
        return {
            "run_id": self.run_id,
            "archive": masked(self.archive.root),
            "tuning": self.tuning.name,
            "balance": {name: self.balance[name] for name in _BALANCE},
            "official": {name: self.official[name] for name in _OFFICIAL},
            "not_decoded_yet": dict(sorted(self.not_decoded.items())),
            "counts": dict(sorted(self.counts.items())),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "cost": {name: cost.report() for name, cost in self.cost.items()},
            "work": {name: work.report() for name, work in sorted(self.work.items())},
            "skipped": self.skipped,
            "failed": self.failed,
        }


def _told(outcome: Outcome[Any]) -> tuple[str, str]:
    """Reduce a traceback to the class of its error and what it says: found, expected, advice."""
    lines = [line for line in (outcome.error or "").strip().splitlines() if line]
    kind, _, text = (lines[-1] if lines else "no message").partition(": ")
    name = kind.rpartition(".")[2]
    return name if name.isidentifier() else "", text or kind


@contextmanager
def open_run(
    root: str,
    *,
    pool: Pool,
    command: str,
    catalog: str | None = None,
    progress: Progress | None = None,
    science: Science = USUAL,
    candidate: Candidate | None = None,
) -> Iterator[Run]:
    """Open the archive, making it where there is none, and record a run on it for the time of a ``with`` block.

    Parameters
    ----------
    science
        What changes what the run finds and makes.
    candidate
        An open release to build; none: what readers see.
    """
    clock, tuned = science.clock(), science.tuned()  # before an archive is made
    release = None if candidate is None else candidate.name
    archive = open_archive(root, release, catalog=catalog, create=candidate is None)
    run = Run(archive, pool, new_run_id(), progress or _silent, science.finder(), clock, science.redate, tuned)
    run.methods, run.candidate = science.methods, candidate
    archive.catalog.begin_run(run.run_id, command, code_version=code_version())
    state = "failed"
    try:
        with archive.catalog.kept_alive(run.run_id):
            yield run
        state = "failed" if run.failed else "done"
    finally:
        archive.catalog.finish_run(run.run_id, state=state, summary=run.report())
        archive.close()


_MOST_TOGETHER = 32
_BREAK_S = 0.2


def gathered(ended: Iterable[Value]) -> Iterator[list[Value]]:
    """Yield what has ended several at a time, to be written in one transaction; what came after a break at once."""
    some: list[Value] = []
    before = time.monotonic()
    for one in ended:
        some.append(one)
        now = time.monotonic()
        if len(some) >= _MOST_TOGETHER or now - before > _BREAK_S:
            yield some
            some, now = [], time.monotonic()
        before = now
    if some:
        yield some


def timed(run: Run, name: str, stage: Callable[[], None]) -> Callable[[], None]:
    """Return the stage with its seconds added to the run."""

    def call() -> None:
        started, run.stage = time.perf_counter(), name
        try:
            with run.cost.setdefault(name, Cost()).coordinated(run.pool.slots):
                stage()
        finally:
            run.stage = ""
            run.seconds[name] = run.seconds.get(name, 0.0) + time.perf_counter() - started

    return call
