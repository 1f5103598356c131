"""Flares with pixel data to positions, images and FITS maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stixflow import jobs
from stixflow.archive import Archive, Partition
from stixflow.archive.marks import IMAGED
from stixflow.errors import NotFound, UsageError
from stixflow.flares import BackgroundNeed, Candidates
from stixflow.jobs.kept import kept_of
from stixflow.provenance import input_digest
from stixflow.stages.run import Run, gathered
from stixflow.time import TimeRange

ENERGY_RANGES = ((4.0, 10.0), (16.0, 28.0))
"""Bands of the mission's preview images, keV."""
METHODS = ("bp", "clean", "em", "forward_fit")
"""Methods of the mission's preview images; "mem_ge" is the other one that there is."""
_STAGE = "images"
_TOGETHER = 8
"""Flares whose maps are reconstructed as one stack (docs/decisions.md, "Flares are imaged by eight")."""


def make_images(run: Run) -> None:
    """Locate and image every flare with pixel data whose maps are missing, or were made of other inputs."""
    _forget_lost_flares(run)
    todo = plan_images(run)
    digests = {job.flare_id: digest for job, digest in todo}
    for some in gathered(_imaged(run, [job for job, _ in todo])):
        with run.archive.catalog.together():
            _record(run, _still_shown(run, some), digests)


def plan_images(run: Run) -> list[tuple[jobs.ImageJob, str]]:
    """Return the flares that are to be imaged, each with the digest of what goes into its maps."""
    catalog = run.archive.catalog
    made = catalog.images()
    kept = kept_of(run.archive.root, [image["path"] for image in made])
    lost = {image["flare_id"] for image in made if image["path"] not in kept}
    imaged = {flare_id: digest for flare_id, digest in catalog.done(IMAGED).items() if flare_id not in lost}
    plan = _Plan(run.archive, run.store_id, run.methods or METHODS)
    planned = [(job, digest) for job, digest in map(plan.job, catalog.flares()) if job is not None]
    return [(job, digest) for job, digest in planned if imaged.get(job.flare_id) != digest]


def _imaged(run: Run, todo: Sequence[jobs.ImageJob]) -> Iterator[tuple[jobs.ImageJob, jobs.Imaged | jobs.NotImaged]]:
    """Yield every flare with what came of it; where some that went together were lost, each of them goes alone."""
    groups = _groups(todo, run.pool.slots)
    lost: list[tuple[jobs.ImageJob, ...]] = []
    for group, results in run.fan_out(_STAGE, jobs.image_together, groups, _label, lost=lost):
        yield from zip(group, results, strict=True)
    alone = [(job,) for group in lost for job in group]
    for group, results in run.fan_out(_STAGE, jobs.image_together, alone, _label):
        yield from zip(group, results, strict=True)


def _groups(todo: Sequence[jobs.ImageJob], slots: int) -> list[tuple[jobs.ImageJob, ...]]:
    """Cut flares into stacks that get smaller towards the end, so that no worker waits long for the last of another."""
    groups, start = [], 0
    while start < len(todo):
        size = min(max((len(todo) - start) // (4 * slots), 1), _TOGETHER)
        groups.append(tuple(todo[start : start + size]))
        start += size
    return groups


def _label(group: Sequence[jobs.ImageJob]) -> str:
    return f"flare {' '.join(job.flare_id for job in group)}"


def flare_job(archive: Archive, flare_id: str) -> jobs.ImageJob:
    """Which request, background and ephemeris go with one flare of an archive.

    Raises
    ------
    NotFound
        If there is no such flare, or no pixel data of its peak.
    """
    flare = next((row for row in archive.catalog.flares() if str(row["flare_id"]) == flare_id), None)
    if flare is None:
        raise NotFound(
            f"there is no flare {flare_id!r}", expected="one of the flare list", advice="see `stixflow flares`"
        )
    job, _ = _Plan(archive, "", METHODS).job(flare)
    if job is None:
        raise NotFound(
            f"no pixel data of the peak of flare {flare_id}",
            expected="a pixel request that holds it",
            advice="see `stixflow status`, or give an official pixel file instead",
        )
    return job


def _forget_lost_flares(run: Run) -> None:
    """Withdraw the images of flares that are no longer found, as when more of their day has come down."""
    catalog = run.archive.catalog
    shown = {str(flare["flare_id"]) for flare in catalog.flares()}
    lost = sorted({str(image["flare_id"]) for image in catalog.images() if image["flare_id"]} - shown)
    if lost:
        catalog.replace_images(dict.fromkeys(lost, ()), run_id=run.run_id)
        catalog.mark_done(IMAGED, dict.fromkeys(lost, ""), run_id=run.run_id)


def _still_shown(
    run: Run, ended: Sequence[tuple[jobs.ImageJob, jobs.Imaged | jobs.NotImaged]]
) -> Iterator[tuple[jobs.ImageJob, jobs.Imaged]]:
    """Yield what was imaged of pixel data that readers still see; of the rest, say why it is left out."""
    paths = {job.flare_id: job.pixels.removeprefix(f"{run.archive.root}/") for job, _ in ended}
    shown = run.archive.catalog.shown_of(paths.values())
    for job, result in ended:
        if isinstance(result, jobs.NotImaged):
            run.fail(_STAGE, f"flare {job.flare_id}", result.error, kind=result.kind)
        elif paths[job.flare_id] in shown:
            yield job, result
        else:
            run.skip(_STAGE, f"flare {job.flare_id}", "its pixel data were published anew meanwhile: the next run")


def _record(run: Run, made: Iterable[tuple[jobs.ImageJob, jobs.Imaged]], digests: Mapping[str, str]) -> None:
    catalog = run.archive.catalog
    results = {job.flare_id: result for job, result in made}
    catalog.replace_images({name: result.images for name, result in results.items()}, run_id=run.run_id)
    catalog.locate_flares({name: result.location for name, result in results.items()})
    catalog.mark_done(IMAGED, {name: digests[name] for name in results}, run_id=run.run_id)
    for name, result in results.items():
        run.counts["flares_imaged"] += bool(result.images)
        run.counts["images"] += len(result.images)
        for band, reason in result.skipped.items():
            run.skip(_STAGE, f"flare {name} {band}", reason)


class _Plan:
    """Which request, background and ephemeris go with a flare, from one reading of the catalog."""

    def __init__(self, archive: Archive, run_id: str, methods: tuple[str, ...]) -> None:
        catalog = archive.catalog
        self.archive, self.run_id, self.methods = archive, run_id, methods
        self.requests = catalog.partitions("sci_pixels")
        self.ephemeris = {partition.key: partition for partition in catalog.partitions("ephemeris")}
        # Sorted by start, as the catalog gives them: the few that may hold a moment are found without asking all.
        self.start, self.stop = (
            np.array([getattr(item, name) for item in self.requests], "datetime64[ns]") for name in ("start", "stop")
        )
        self.longest = (self.stop - self.start).max(initial=np.timedelta64(0, "ns"))
        self.candidates = Candidates(_table(self.requests), pd.DataFrame(catalog.flares()))
        self.backgrounds: dict[str, tuple[Partition | None, str]] = {}

    def job(self, flare: Mapping[str, Any]) -> tuple[jobs.ImageJob | None, str]:
        """Return the work of one flare and the digest of what goes into it; None without pixel data of its peak."""
        request = self._request(flare)
        if request is None:
            return None, ""
        background, reason = self._background(request)
        ephemeris = self.ephemeris.get(pd.Timestamp(flare["peak"]).strftime("%Y-%m-%d"))
        parts = [part for part in (request, background, ephemeris) if part]
        url = self.archive.url
        job = jobs.ImageJob(
            flare_id=str(flare["flare_id"]),
            start=np.datetime64(flare["start"], "ns"),
            peak=np.datetime64(flare["peak"], "ns"),
            stop=np.datetime64(flare["stop"], "ns"),
            pixels=url(request.path),
            boxes=request.boxes,
            background=url(background.path) if background else None,
            background_id=background.key if background else "",
            background_reason=reason,
            ephemeris=url(ephemeris.path) if ephemeris else None,
            root=self.archive.root,
            run_id=self.run_id,
            energy_ranges=ENERGY_RANGES,
            methods=self.methods,
            inputs=tuple(f"{part.product} {part.key}, SHA-256 {part.digest}" for part in parts),
        )
        inputs = [part.digest for part in parts]
        settings = f"{job.start} {job.stop} {job.energy_ranges} {job.methods}"
        return job, input_digest([*inputs, settings])

    def _request(self, flare: Mapping[str, Any]) -> Partition | None:
        """Choose, among the requests that hold the peak, the one with the finest time bins."""
        peak = np.datetime64(flare["peak"], "ns")
        first, last = np.searchsorted(self.start, peak - self.longest), np.searchsorted(self.start, peak, "right")
        near = self.requests[first:last]
        holding = [item for item in near if item.start <= peak < item.stop and item.n_time]
        return min(holding, key=lambda item: ((item.stop - item.start) / item.n_time, item.key), default=None)

    def _background(self, request: Partition) -> tuple[Partition | None, str]:
        """Choose the background of a request, once for all flares in it."""
        if request.key not in self.backgrounds:
            self.backgrounds[request.key] = self._best_background(request)
        return self.backgrounds[request.key]

    def _best_background(self, request: Partition) -> tuple[Partition | None, str]:
        span = TimeRange(request.start, request.stop)
        best = self.candidates.best(BackgroundNeed(span, *_channels(request), request_id=request.request_id))
        assert best is not None, "the request itself is a candidate"
        chosen = self.requests[best.row]
        if not best.usable:
            return None, f"no background: the best candidate {chosen.key} {best.reasons}"
        return chosen, f"score {best.score:.2f}, {best.apart_days:.1f} days away {best.reasons}".strip()


def _channels(request: Partition) -> tuple[int, int]:
    """Science channels of a request inside the bands that are imaged."""
    attrs: Mapping[str, Any] = request.attrs
    return max(int(attrs["channel_start"]), 1), min(int(attrs["channel_stop"]), 18)


def _table(requests: Sequence[Partition]) -> pd.DataFrame:
    rows = [_candidate(partition) for partition in requests]
    return pd.DataFrame(rows, columns=_CANDIDATE_COLUMNS)


_KNOWN = ("channel_start", "channel_stop", "detector_mask", "rcr_max", "duration_s")
_CANDIDATE_COLUMNS = ["key", "request_id", "start", "stop", *_KNOWN]


def _candidate(partition: Partition) -> dict[str, Any]:
    if partition.request_id is None:
        raise UsageError(f"{partition.key} has no request number", expected="a science request", advice="report this")
    known = {name: partition.attrs[name] for name in _KNOWN}
    return {
        "key": partition.key,
        "request_id": partition.request_id,
        "start": partition.start,
        "stop": partition.stop,
        **known,
    }
