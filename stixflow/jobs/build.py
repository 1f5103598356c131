"""One partition from its packet sets: cubes built, written, and verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from stixflow.archive.layout import join_url, store_path
from stixflow.cubes.files import local_copy
from stixflow.cubes.model import PRODUCTS, Layout
from stixflow.cubes.sources import record_names
from stixflow.cubes.store import StoreRecord, verify_store, write_store
from stixflow.errors import BalanceError, StoreError
from stixflow.jobs.kept import Reject, read_kept, write_rejects
from stixflow.jobs.official import OfficialBooks, OfficialInput, read_inputs
from stixflow.telemetry import Packets, Records, concat, decode
from stixflow.time import ANCHOR_CLOCK, Clock, TimeRange, scet_to_utc

if TYPE_CHECKING:
    import xarray as xr


_IDLE_BYTES = 5_000_000
_BYTES_PER_PACKET = 160_000


@dataclass(frozen=True, slots=True)
class BuildJob:
    """One partition to be made: of the packet sets at `inputs`, or for the ephemeris of the file there."""

    product: str
    key: str
    inputs: tuple[tuple[str, str], ...]
    """Path below the root and SHA-256 of each packet set."""
    root: str
    run_id: str
    clock: Clock = ANCHOR_CLOCK
    official: tuple[str, ...] = ()
    """Names of the official files that the inputs are, the most trusted first; none where they are packet sets."""
    layout: Layout | None = None
    """How the store is laid out; None as the data model says."""
    tuned_by: str = ""
    """Name of the profile that says so, kept in the store."""
    n_packets: int = 0
    """Packets of the inputs, as far as they are packet sets."""

    @property
    def estimated_bytes(self) -> int:
        """Bytes that building it takes at most: what days and requests, simulated and real, took for each packet."""
        return _IDLE_BYTES + _BYTES_PER_PACKET * self.n_packets if self.n_packets else 0


@dataclass(frozen=True, slots=True)
class Built:
    """A partition that was written and verified, ready to be staged."""

    product: str
    key: str
    day: date
    path: str
    store: StoreRecord
    n_home: int
    """Different packets that the books count here; what the sets hold beyond them are duplicates."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """What planning needs to know without opening the store."""
    complete: bool = True
    missing: str = ""
    conflicts: tuple[Reject, ...] = ()
    """Packets of the sets that contradict an earlier one of the same type, time and count, now in quarantine."""
    n_conflicts: int = 0
    """How many of them the books count here."""
    official: OfficialBooks = field(default_factory=OfficialBooks)
    """What became of the bins of official files."""


def build(job: BuildJob) -> Built | None:
    """Make one partition: read its packets, build its cubes, write the store and verify it.

    Returns
    -------
    None if the packets hold no bin of it, as when all of them only come near the border of the day.

    Raises
    ------
    BalanceError
        If the counts in the cubes are not those of the records.
    StoreError
        If a packet set is damaged, or the written store does not verify.
    """
    if job.product == "ephemeris":
        return _build_ephemeris(job)
    if job.official:
        return _build_official(job)
    packets = concat([_read_set(job.root, path, digest) for path, digest in job.inputs])
    records = list(decode(packets, products=record_names(job.product)).values())
    return _BUILDERS[PRODUCTS[job.product].partition](job, records, packets)


def _read_set(root: str, path: str, digest: str) -> Packets:
    return Packets.from_bytes(read_kept(root, path, digest), file=path)


def _build_day(job: BuildJob, records: Sequence[Records], packets: Packets) -> Built | None:
    from stixflow.cubes.build import amount_of, build_day

    day = date.fromisoformat(job.key)
    (only,) = records
    cube = build_day(job.product, only, clock=job.clock)
    inside = TimeRange.of_day(day).covers(cube["time"].to_numpy())
    if not inside.any():
        return None
    kept = cube.isel(time=np.flatnonzero(inside))
    books = dict(cube.attrs["books"])
    kept.attrs["books"] = books | {
        "counts": amount_of(kept),
        "counts_of_neighbouring_days": amount_of(cube) - amount_of(kept),
    }
    unplaced = int(books["unplaced_packets"])
    missing = f"{unplaced} packets with other energy bins than the rest of the day" if unplaced else ""
    return _write(job, day, [kept], packets, complete=not unplaced, missing=missing)


def _build_run(job: BuildJob, records: Sequence[Records], packets: Packets) -> Built | None:
    from stixflow.cubes.build import build_calibration

    runs = [cube for one in records for cube in build_calibration(one, clock=job.clock)]
    _check_single(job, len(runs), "runs")
    (cube,) = runs
    day = cube["time_start"].to_numpy()[0].astype("datetime64[D]").astype(date)
    missing = "; ".join(cube.attrs["missing"])
    return _write(job, day, [cube], packets, complete=cube.attrs["complete"], missing=missing)


def _check_single(job: BuildJob, found: int, what: str) -> None:
    if found != 1:
        raise BalanceError(
            f"the packet sets of {job.product} {job.key} hold {found} {what}",
            expected="one",
            advice="report this with the packet sets",
        )


def _count_home(job: BuildJob, packets: Packets, day: date) -> int:
    """Count the packets that start on a day; those from its neighbours only lend it their samples.

    Days are told by the anchor table whatever clock dates the cubes, so that the books of framing hold.
    """
    from stixflow.cubes.build import place

    records = decode(packets, products=record_names(job.product)).values()
    start = np.concatenate([place(one).start for one in records])
    return int((scet_to_utc(start).astype("datetime64[D]") == np.datetime64(day)).sum())


def _build_request(job: BuildJob, records: Sequence[Records], packets: Packets) -> Built | None:
    from stixflow.cubes.build import build_requests

    requests = [request for one in records for request in build_requests(one, clock=job.clock)]
    _check_single(job, len(requests), "requests")
    request = requests[0]
    if not request.datasets:
        return None
    day = request.datasets[0]["time_start"].to_numpy()[0].astype("datetime64[D]").astype(date)
    return _write(
        job,
        day,
        request.datasets,
        packets,
        summary=_summary(request.datasets),
        complete=request.complete,
        missing="; ".join(request.missing),
    )


_BUILDERS: dict[str, Callable[[BuildJob, Sequence[Records], Packets], Built | None]] = {
    "day": _build_day,
    "request": _build_request,
    "run": _build_run,
}


def _summary(datasets: Sequence[xr.Dataset]) -> dict[str, Any]:
    """What the choice of a request or a background asks, over all boxes."""
    return {
        "channel_start": min(int(box["channel_start"].min()) for box in datasets),
        "channel_stop": max(int(box["channel_stop"].max()) for box in datasets),
        "detector_mask": int(
            np.bitwise_and.reduce([np.bitwise_and.reduce(box["detector_mask"].values) for box in datasets])
        ),
        "pixel_mask": int(np.bitwise_and.reduce([np.bitwise_and.reduce(box["pixel_mask"].values) for box in datasets])),
        "rcr_max": max(int(box["rcr"].max()) for box in datasets),
        "duration_s": float(max(box["timedel"].sum() for box in datasets)),
    }


def _build_official(job: BuildJob) -> Built | None:
    inputs = [OfficialInput(*place, name) for place, name in zip(job.inputs, job.official, strict=True)]
    datasets, books = read_inputs(job.root, job.product, job.key, inputs, job.clock)
    if not datasets:
        return None
    partition = PRODUCTS[job.product].partition
    first = datasets[0]["time_start" if "time_start" in datasets[0] else "time"].to_numpy()[0]
    day = date.fromisoformat(job.key) if partition == "day" else first.astype("datetime64[D]").astype(date)
    missing = _missing_boxes(datasets) if partition == "request" else ""
    if books.left:
        missing = f"{', '.join(books.left)} with other energy bins than the rest of the day"
    summary = _summary(datasets) if partition == "request" else {}
    return _write(job, day, datasets, None, summary=summary, complete=not missing, missing=missing, official=books)


def _missing_boxes(datasets: Sequence[xr.Dataset]) -> str:
    wanted = int(datasets[0].attrs.get("boxes", 1))
    return f"{wanted - len(datasets)} of {wanted} boxes" if wanted > len(datasets) else ""


def _build_ephemeris(job: BuildJob) -> Built:
    from stixflow.ephemeris import observer, read_ancillary

    ((path, _),) = job.inputs
    with local_copy(join_url(job.root, path)) as place:
        dataset = read_ancillary(place)
    day = TimeRange.of_day(date.fromisoformat(job.key))
    seen_from = observer(dataset, day.middle)
    day_of = day.start.astype("datetime64[D]").astype(date)
    return _write(job, day_of, [dataset], None, summary={"distance_m": seen_from.distance_m})


def _write(job: BuildJob, day: date, datasets: Sequence[xr.Dataset], packets: Packets | None, **more: Any) -> Built:
    path = store_path(job.product, job.key, day, job.run_id)
    url = join_url(job.root, path)
    if job.tuned_by:
        datasets = [dataset.assign_attrs(tuning=job.tuned_by) for dataset in datasets]
    store = write_store(url, datasets, layout=job.layout)
    defects = verify_store(url, store.digest)
    if defects:
        raise StoreError(
            f"the new store has {len(defects)} defects, the first: {defects[0]}",
            expected="what was written",
            advice="check the disk, then run again",
        )
    books = {} if packets is None else _packet_books(job, day, packets)
    return Built(job.product, job.key, day, path, store, **{"n_home": 0, **books}, **more)


def _packet_books(job: BuildJob, day: date, packets: Packets) -> dict[str, Any]:
    """Count the packets used and those that contradict them, and put the latter into quarantine."""
    refused = [Packets.from_bytes(entry.data) for entry in packets.rejected]
    on_day = PRODUCTS[job.product].partition == "day"
    return {
        "n_home": _count_home(job, packets, day) if on_day else len(packets),
        "conflicts": write_rejects(job.root, packets.rejected),
        "n_conflicts": sum(_count_home(job, one, day) for one in refused) if on_day else len(refused),
    }
