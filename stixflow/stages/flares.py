"""Published light curves to flares in the catalog."""

from __future__ import annotations

from stixflow import jobs
from stixflow.archive import Partition
from stixflow.provenance import input_digest
from stixflow.stages.run import Run

AU_M = 149_597_870_700.0
METHOD = "snip"
_STAGE = "flares"


def find_flares(run: Run) -> None:
    """Search every day whose light curve, or distance from the Sun, is not the one it was searched with."""
    catalog = run.archive.catalog
    searched = catalog.done(_STAGE)
    distances = _distances(run)
    todo, digests = [], {}
    for day in catalog.partitions("ql_lightcurve"):
        distance = distances.get(day.key)
        digest = _digest(day, distance)
        if searched.get(str(day.id)) != digest:
            todo.append(jobs.DetectJob(day.key, day.id, run.archive.url(day.path), distance, METHOD))
            digests[day.id] = digest
    for job, found in run.fan_out(_STAGE, jobs.detect, todo, lambda job: job.day):
        catalog.replace_flares(job.partition_id, found.flares)
        catalog.mark_done(_STAGE, {str(job.partition_id): digests[job.partition_id]}, run_id=run.run_id)
        run.counts["flares"] += len(found.flares)
        run.counts["days_searched"] += 1


def _distances(run: Run) -> dict[str, float]:
    """Distance of the spacecraft from the Sun by day, in au, where an ephemeris was ingested."""
    known = run.archive.catalog.partitions("ephemeris")
    return {p.key: float(p.attrs["distance_m"]) / AU_M for p in known if "distance_m" in p.attrs}  # type: ignore[arg-type]


def _digest(day: Partition, distance_au: float | None) -> str:
    return input_digest([day.digest, f"distance {distance_au}", f"method {METHOD}"])
