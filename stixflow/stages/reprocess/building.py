"""The stages of a reprocess: a release is begun, built, validated, then shown.

Everything that is to be done is told by the catalog: what the open release has, by which code and clock, of which
packets. So the same command goes on after a crash, builds nothing twice, and takes in what came in the meantime.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from stixflow.archive import Archive, open_archive, switch
from stixflow.archive.releases import adopt, begin_candidate, mark_validated, take_over
from stixflow.archive.turns import take_turn
from stixflow.compute import Pool
from stixflow.cubes.files import open_files
from stixflow.errors import PublishConflict
from stixflow.provenance import code_version
from stixflow.stages.care import CURRENT
from stixflow.stages.cubes import build_cubes, stale_partitions
from stixflow.stages.flares import find_flares, plan_days
from stixflow.stages.images import METHODS, make_images, plan_images
from stixflow.stages.months import join_months
from stixflow.stages.reprocess.asked import Reprocessing, adoptable, candidate_of
from stixflow.stages.reprocess.showing import format_switched, nothing_inside
from stixflow.stages.run import Progress, Run, open_run, timed
from stixflow.stages.science import USUAL, Science
from stixflow.stages.validate import Unfinished, Validation, format_validation, markdown, validate

STAGES = ("begin", "cubes", "flares", "images", "validate", "switch")
"""Every stage of a reprocess, in order; each may be called again, and does then only what is left."""

_ROUNDS = 5
"""How often what came in the meantime is taken in before a switch, until that is given up."""


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
        self.run.candidate = candidate_of(name, self.asked.scope, self.present)
        if not self.asked.rebuild_all:
            ready = adoptable(self.run, self.present)
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
                inside = nothing_inside(self.run)
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
                candidate=candidate_of(asked.release, asked.scope, present),
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
