"""Published light curves to flares in the catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from stixflow import jobs
from stixflow.archive import Partition
from stixflow.archive.layout import day_key
from stixflow.archive.marks import SEARCHED
from stixflow.ephemeris import distance_au
from stixflow.ephemeris.constants import AU_M
from stixflow.provenance import input_digest
from stixflow.stages.run import Run, gathered
from stixflow.time import TimeRange

_STAGE = "flares"
_DETECTOR = 2
"""Raised when the detector finds other flares in the same data, so that all days are searched again."""


def find_flares(run: Run) -> None:
    """Search every day whose light curve, neighbours, background, distance or detector are new since its search."""
    catalog = run.archive.catalog
    todo = plan_days(run)
    digests = {job.partition_id: digest for job, digest in todo}
    for some in gathered(run.fan_out(_STAGE, jobs.detect, [job for job, _ in todo], lambda job: job.day)):
        with catalog.together():
            for job, found in some:
                catalog.replace_flares(job.partition_id, found.flares)
                run.counts["flares"] += len(found.flares)
            run.counts["days_searched"] += len(some)
            searched = {str(job.partition_id): digests[job.partition_id] for job, _ in some}
            catalog.mark_done(SEARCHED, searched, run_id=run.run_id)


def plan_days(run: Run) -> list[tuple[jobs.DetectJob, str]]:
    """Return the days that are to be searched, each with the digest of what its search depends on."""
    method, catalog = run.detector, run.archive.catalog
    searched, measured = catalog.done(SEARCHED), _distances(run)
    days = {day.key: day for day in catalog.partitions("ql_lightcurve")}
    monitored = {day.key: day for day in catalog.partitions("ql_background")} if method == "poisson" else {}
    todo = []
    for day in days.values():
        around = _neighbours(day, days)
        distance = measured.get(day.key, _orbit_distance(day))
        monitors = [monitored[key] for key in (day.key, *(other.key for other in around)) if key in monitored]
        digest = _digest(day, around, monitors, distance, method)
        if searched.get(str(day.id)) != digest:
            url, *context = (run.archive.url(one.path) for one in (day, *around))
            beside = tuple(run.archive.url(one.path) for one in monitors)
            todo.append((jobs.DetectJob(day.key, day.id, url, distance, method, tuple(context), beside), digest))
    return todo


def _neighbours(day: Partition, days: Mapping[str, Partition]) -> list[Partition]:
    """Days before and after, where they are published: a flare at midnight is seen whole from both."""
    own = date.fromisoformat(day.key)
    keys = [day_key(own + timedelta(days=step)) for step in (-1, 1)]
    return [days[key] for key in keys if key in days]


def _distances(run: Run) -> dict[str, float]:
    """Distance of the spacecraft from the Sun by day, in au, where an ephemeris was ingested."""
    known = run.archive.catalog.partitions("ephemeris")
    return {p.key: float(p.attrs["distance_m"]) / AU_M for p in known if "distance_m" in p.attrs}  # type: ignore[arg-type]


def _orbit_distance(day: Partition) -> float:
    """Distance by the built-in orbit, good to 0.01 au, for a day without ephemeris."""
    return round(float(distance_au(TimeRange.of_day(day.day).middle)), 4)


def _digest(
    day: Partition, around: Sequence[Partition], monitors: Sequence[Partition], distance_au: float | None, method: str
) -> str:
    context = [f"beside {other.digest}" for other in around]
    context += [f"background {other.digest}" for other in monitors]
    return input_digest([day.digest, *context, f"distance {distance_au}", f"method {method} {_DETECTOR}"])
