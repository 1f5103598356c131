"""The whole mission, or a part of it, built again into a release beside what readers see, validated, then switched to.

Everything that is to be done is told by the catalog: what the open release has, by which code and clock, of which
packets. So the same command goes on after a crash, builds nothing twice, and takes in what came in the meantime.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from stixflow.archive import REBUILT, Archive, Scope, list_releases, open_archive, switch
from stixflow.archive.releases import (
    adopt,
    begin_candidate,
    candidate_plan,
    drop_release,
    mark_validated,
    switch_back,
    take_over,
)
from stixflow.archive.turns import take_turn
from stixflow.compute import Pool, Serial
from stixflow.compute.processes import core_count
from stixflow.cubes.files import open_files
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import PublishConflict, UsageError
from stixflow.provenance import code_version
from stixflow.stages import estimate
from stixflow.stages.care import CURRENT
from stixflow.stages.cubes import NOTHING_INSIDE, build_cubes, is_made_by, packets_digest, stale_partitions
from stixflow.stages.flares import find_flares, plan_days
from stixflow.stages.images import METHODS, make_images, plan_images
from stixflow.stages.months import join_months
from stixflow.stages.run import Candidate, Progress, Run, open_run, timed
from stixflow.stages.science import USUAL, Science
from stixflow.stages.validate import Gates, Unfinished, Validation, format_validation, markdown, validate
from stixflow.time import to_utc

STAGES = ("begin", "cubes", "flares", "images", "validate", "switch")
"""Every stage of a reprocess, in order; each may be called again, and does then only what is left."""

_ROUNDS = 5
"""How often what came in the meantime is taken in before a switch, until that is given up."""


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


@dataclass(slots=True)
class Reprocess:
    """A reprocess that goes on: the run that builds it, what readers see, and what has come of it so far."""

    asked: Reprocessing
    run: Run
    present: Archive
    place: Mapping[str, Any]
    """Root and catalog of the archive, as they were given."""
    validation: Validation | None = None
    switched: dict[str, Any] | None = None

    def stages(self) -> dict[str, Callable[[], None]]:
        """Return every stage by name, timed, so that anything can call them in the order of `STAGES`."""
        plan = {
            "begin": self.begin,
            "cubes": self.build,
            "flares": lambda: find_flares(self.run),
            "images": lambda: make_images(self.run),
            "validate": self.validate,
            "switch": self.switch,
        }
        return {name: timed(self.run, name, plan[name]) for name in STAGES}

    def begin(self) -> None:
        """Bring the release into step with what readers see, and take over what need not be built again."""
        name, catalog = self.asked.release, self.present.catalog
        taken = take_over(catalog, name)
        self.run.candidate = _candidate(name, self.asked.scope, self.present)
        if not self.asked.rebuild_all:
            ready = _adoptable(self.run, self.present)
            if ready:
                adopt(catalog, name, ready)
            self.run.counts["adopted"] += len(ready)
        self.run.counts["taken_over"] += taken

    def build(self) -> None:
        """Build every partition that is missing; of official files where its packets turn out to hold less."""
        build_cubes(self.run)
        if self.unfinished_cubes():
            build_cubes(self.run)

    def unfinished_cubes(self) -> list[str]:
        """Return the partitions that are still to be built and have not failed in this run."""
        failed = {note["item"] for note in self.run.failed if note["stage"] == "cubes"}
        labels = [f"{job.product} {job.key}" for job, _ in stale_partitions(self.run)]
        return [label for label in labels if label not in failed]

    def validate(self) -> None:
        """Compare the release with what it shall replace, and keep the report with it and below the root."""
        join_months(self.run)
        asked = self.asked
        against = self.present if asked.against == CURRENT else open_archive(**self.place, release=asked.against)
        self.validation = validate(
            against.catalog,
            self.run.archive.catalog,
            release=asked.release,
            against=asked.against,
            scope=asked.scope,
            unfinished=self.unfinished(),
            gates=asked.gates,
            accept=asked.accept,
        )
        mark_validated(self.present.catalog, asked.release, self.validation.summary(), passed=self.validation.passed)
        write_report(self.present.root, self.validation)

    def unfinished(self) -> Unfinished:
        """Return what is still to be done, has failed in this run, or is lost."""
        run = self.run
        failed = {f"{note['stage']} {note['item']}" for note in run.failed}
        todo = [f"cubes {job.product} {job.key}" for job, _ in stale_partitions(run)]
        todo += [f"flares {job.day}" for job, _ in plan_days(run)]
        todo += [f"images flare {job.flare_id}" for job, _ in plan_images(run)]
        lost = [item.path for item in run.archive.lost()]
        return Unfinished([one for one in todo if one not in failed], [one for one in todo if one in failed], lost)

    def switch(self) -> None:
        """Show the release to readers; what came since it was validated is taken in first, some times at most.

        Raises
        ------
        PublishConflict
            If the release is not validated, perhaps for what was just taken in, or more comes than can be taken in.
        """
        for last in (*[False] * (_ROUNDS - 1), True):
            if self.validation is not None and not self.validation.passed:
                refused = [gate.name for gate in self.validation.gates if not gate.passed]
                raise PublishConflict(
                    f"the release {self.asked.release} is not validated: {', '.join(refused)}",
                    expected="every gate passed",
                    advice="look at the report; give --accept REASON if it is as wanted",
                )
            try:
                inside = _nothing_inside(self.run)
                self.switched = asdict(switch(self.present.catalog, self.asked.release, nothing_inside=inside))
                break
            except PublishConflict:
                if last:
                    raise
                self.catch_up()

    def catch_up(self) -> None:
        """Take in what came since: only that is built."""
        self.run.round += 1
        self.begin()
        self.build()
        find_flares(self.run)
        make_images(self.run)
        self.validate()

    def report(self) -> dict[str, Any]:
        """Return the report of the run, with what was validated and switched."""
        checked = None if self.validation is None else self.validation.as_json()
        return self.run.report() | {"release": self.asked.release, "validation": checked, "switched": self.switched}


def _candidate(release: str, scope: Scope, present: Archive) -> Candidate:
    catalog = present.catalog
    shown = {(item.product, item.key): item for item in catalog.partitions()}
    return Candidate(release, scope, shown, catalog.days())


def _adoptable(run: Run, present: Archive) -> list[int]:
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


def _nothing_inside(run: Run) -> list[tuple[str, str]]:
    """Return the partitions whose packets turned out to hold no bin of them."""
    there = {(item.product, item.key) for item in run.archive.catalog.partitions()}
    marked = (label.partition(" ")[::2] for label in run.archive.catalog.done(NOTHING_INSIDE))
    return [(product, key) for product, key in marked if (product, key) not in there]


@contextmanager
def open_reprocess(
    root: str,
    asked: Reprocessing,
    *,
    pool: Pool,
    catalog: str | None = None,
    progress: Progress | None = None,
    science: Science = USUAL,
) -> Iterator[Reprocess]:
    """Begin a reprocess, or go on with one, for the time of a ``with`` block; arguments as for `open_run`.

    Raises
    ------
    ArchiveBusy
        If another process builds the same release.
    UsageError
        If the release is final, or was begun for something else, or by another code, clock or detector.
    """
    present = open_archive(root, catalog=catalog)
    made_by = _made_by(science)
    try:
        with take_turn(present.catalog, release=asked.release):
            begin_candidate(
                present.catalog, asked.release, asked.scope, made_by=made_by, note=asked.note, restart=asked.restart
            )
            with open_run(
                root,
                pool=pool,
                command=f"stixflow reprocess {asked.release}",
                catalog=catalog,
                progress=progress,
                science=science,
                candidate=_candidate(asked.release, asked.scope, present),
            ) as run:
                yield Reprocess(asked, run, present, {"root": root, "catalog": catalog})
    finally:
        present.close()


def _made_by(science: Science) -> dict[str, str]:
    return {
        "code": code_version(),
        "clock": science.clock().name,
        "detector": science.finder(),
        "methods": " ".join(science.methods or METHODS),
        "tuning": science.tuned().name,
    }


def run_reprocess(
    root: str, asked: Reprocessing, *, pool: Pool, switches: bool = False, **engine: Any
) -> dict[str, Any]:
    """Reprocess without Prefect and return the report; a release that is not validated is left open.

    Parameters
    ----------
    switches
        Show the release to readers when every gate is passed.
    engine
        As for `open_reprocess`.
    """
    with open_reprocess(root, asked, pool=pool, **engine) as made:
        stages = made.stages()
        for name in STAGES[:-1]:
            stages[name]()
        if switches and made.validation is not None and made.validation.passed:
            stages["switch"]()
    return made.report()


def write_report(root: str, validation: Validation) -> None:
    """Write the report of a validation below the root: ``releases/NAME.md`` for people, ``.json`` for programs."""
    payload = validation.as_json()
    place = f"releases/{validation.release}"
    page, values = markdown(payload), json.dumps(payload, indent=1, default=str)
    open_files(root).write({f"{place}.md": page.encode(), f"{place}.json": values.encode()})


# Planning ---------------------------------------------------------------------------------------------------------


def plan_reprocess(
    root: str,
    asked: Reprocessing,
    *,
    workers: int = 0,
    catalog: str | None = None,
    science: Science = USUAL,
) -> dict[str, Any]:
    """Return what a reprocess would do, or has left to do, and what it will take; nothing is changed.

    Raises
    ------
    MissingFile
        If there is no archive.
    """
    present = open_archive(root, catalog=catalog)
    exists = _is_open(present, asked.release)
    scope = candidate_plan(present.catalog, asked.release).scope if exists else asked.scope
    pinned = open_archive(root, asked.release, catalog=catalog) if exists else present
    run = Run(pinned, Serial(), "", detector=science.finder(), clock=science.clock())
    run.candidate = _candidate(asked.release, scope, present)
    stale = stale_partitions(run, from_nothing=asked.rebuild_all and not exists)
    ready = set() if asked.rebuild_all or not exists else set(_adoptable(run, present))
    shown = present.catalog.partitions()
    adopted = {(item.product, item.key) for item in shown if item.id in ready}
    todo = {(job.product, job.key): sets for job, sets in stale if (job.product, job.key) not in adopted}
    rates = estimate.read_rates(present)
    parts = estimate.cube_parts(present, rates, todo, shown) + _finding_parts(run, present, rates, exists=exists)
    return {
        "release": asked.release,
        "scope": str(scope),
        "exists": exists,
        "ready": len([item for item in pinned.catalog.partitions() if scope.covers(item.product, item.day)]) - len(todo)
        if not exists
        else len(pinned.catalog.partitions()),
        "parts": [part.as_row() for part in parts if part.items],
        "total": estimate.total(parts, rates, workers or core_count()) | {"free_bytes": _free_bytes(root)},
        "left_out": _left_out(present),
    }


def _is_open(present: Archive, name: str) -> bool:
    states = {row["name"]: row["state"] for row in list_releases(present.catalog)}
    if states.get(name) == "final":
        raise UsageError(
            f"the release {name} exists and is final",
            expected="a new name: releases never change",
            advice="choose another",
        )
    return name in states


def _finding_parts(run: Run, present: Archive, rates: estimate.Rates, *, exists: bool) -> list[estimate.Part]:
    """Estimate searches and images by what readers see: what of it the release has not made yet."""
    assert run.candidate is not None
    scope, mine = run.candidate.scope, run.archive.catalog
    searched = {job.key for job in mine.partitions("ql_lightcurve")} if exists else set()
    left = {job.day for job, _ in plan_days(run)} if exists else set()
    days = [
        day
        for day in present.catalog.partitions("ql_lightcurve")
        if scope.covers("flares", day.day) and (day.key not in searched or day.key in left)
    ]
    imaged = mine.done("images") if exists else {}
    flares = {
        str(row["flare_id"])
        for row in present.catalog.flares()
        if scope.covers("images", row["day"]) and str(row["flare_id"]) not in imaged
    }
    images = [row for row in present.catalog.images() if row["flare_id"] in flares]
    wanted = len({row["flare_id"] for row in images}) or len(flares & set(present.catalog.done("images")))
    return estimate.finding_parts(rates, days, wanted, len(images), present.catalog.partitions("sci_pixels"))


def _left_out(present: Archive) -> dict[str, int]:
    """Count what a reprocess cannot rebuild: partitions without packets, packets of types without a cube."""
    sets = present.catalog.packet_sets()
    keys = {(item.product, item.key) for item in sets}
    orphans = sum((item.product, item.key) not in keys for item in present.catalog.partitions())
    unknown = sum(item.n_packets for item in sets if item.product not in PRODUCTS)
    found = {"partitions of which the archive has no packets": orphans, "packets of types that have no cube": unknown}
    return {name: number for name, number in found.items() if number}


def _free_bytes(root: str) -> int | None:
    """Return the room on the disc of an archive; None in a bucket."""
    return None if "://" in root else shutil.disk_usage(root).free


# Releases ---------------------------------------------------------------------------------------------------------


def switch_release(root: str, name: str, *, catalog: str | None = None) -> dict[str, Any]:
    """Show a validated release to readers in one transaction; see `archive.switch`."""
    present = open_archive(root, catalog=catalog)
    with take_turn(present.catalog, release=name):
        pinned = open_archive(root, name, catalog=catalog)
        inside = _nothing_inside(Run(pinned, Serial(), ""))
        told = asdict(switch(present.catalog, name, nothing_inside=inside))
    return told


def return_release(root: str, name: str, *, catalog: str | None = None) -> dict[str, Any]:
    """Take the switch to a release back in one transaction; see `archive.switch_back`."""
    return asdict(switch_back(open_archive(root, catalog=catalog).catalog, name))


def forget_release(root: str, name: str, *, force: bool = False, catalog: str | None = None) -> dict[str, Any]:
    """Drop a release; see `archive.drop_release`."""
    present = open_archive(root, catalog=catalog)
    with take_turn(present.catalog, release=name):
        return {"name": name, **drop_release(present.catalog, name, force=force)}


def format_switched(payload: Mapping[str, Any]) -> str:
    """Write what a switch did as text."""
    return (
        f"readers see {payload['release']}: {payload['moved']} partitions changed, {payload['added']} added, "
        f"{payload['removed']} removed, {payload['kept']} as they were; {payload['flares']} flares, "
        f"{payload['images']} images\nwhat they saw before is the release {payload['before']}"
    )


def format_reprocess(payload: Mapping[str, Any]) -> str:
    """Write the report of a reprocess as text."""
    from stixflow.stages.report import format_report

    lines = [format_report(payload)]
    if payload["validation"]:
        lines.append(format_validation(payload["validation"]))
    name = payload["release"]
    if payload["switched"]:
        lines.append(format_switched(payload["switched"]))
    elif payload["validation"] and payload["validation"]["passed"]:
        lines.append(f"readers still see what they saw; `stixflow release switch {name}` shows them {name}")
    else:
        lines.append("readers still see what they saw; the same command goes on, --accept REASON accepts differences")
    return "\n".join(lines)
