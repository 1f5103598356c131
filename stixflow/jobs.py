"""The units of work: one function each, idempotent, frozen arguments in, one small record out; they never see the catalog.

`frame` sorts the packets of one input file into packet sets, `build` makes one partition from its packet sets,
`detect` finds the flares of one day, `image` images one flare. Any of them may run twice, on any worker.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stixflow.archive.layout import day_key, join_url, request_key, store_path
from stixflow.cubes.store import StoreRecord, count_boxes, open_store, verify_store, write_store
from stixflow.errors import BalanceError, InputFileError, StixflowError, StoreError
from stixflow.telemetry import Packets, Quarantined, Records, concat, consistent, decode, read_packets
from stixflow.time import TICKS_PER_SECOND, TimeRange, iso, scet_to_utc

if TYPE_CHECKING:
    import xarray as xr

    from stixflow.flares import ImagingWindow
    from stixflow.imaging import SourceImages

UNDECODED = "undecoded"
"""Product of the packet sets whose type is known but not made into a cube yet; their key is the packet type."""

# A clock kernel may move the day border by this much later; packets near midnight are kept with both days.
_MIDNIGHT_MARGIN = 5 * TICKS_PER_SECOND
_LAUNCH = 634_694_400 << 16
_LONGEST_DELAY = 7 * 86400 * TICKS_PER_SECOND


# ------------------------------------------------------------------------------------------------------- framing


@dataclass(frozen=True, slots=True)
class FrameJob:
    """One telemetry file to be sorted into packet sets below `root`."""

    path: str
    root: str


@dataclass(frozen=True, slots=True)
class SetRecord:
    """A packet set that was written: the packets of one file for one partition."""

    product: str
    key: str
    digest: str
    path: str
    n_packets: int
    n_home: int
    """Packets that the books count here: one that crosses midnight stands in two sets and is counted in the first."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Bytes in quarantine: why, where they were, and where they are kept below the root."""

    reason: str
    offset: int
    n_bytes: int
    path: str


@dataclass(frozen=True, slots=True)
class Framed:
    """What became of one file."""

    packets_in: int
    used: int
    duplicates: int
    sets: tuple[SetRecord, ...]
    rejected: tuple[Reject, ...]
    not_decoded: Mapping[str, int] = field(default_factory=dict)
    """Packets of known types that are kept but have no cube yet, by type."""


@dataclass(frozen=True, slots=True)
class NotTelemetry:
    """A file that holds no packet at all, and what it seems to be."""

    reason: str


def frame(job: FrameJob) -> Framed | NotTelemetry:
    """Sort the packets of one file into packet sets.

    Every packet is decoded once here, so that a packet set holds only packets that can be decoded, and what cannot is in
    quarantine with the file it came in.
    """
    try:
        packets = read_packets(job.path)
    except InputFileError as error:
        return NotTelemetry(str(error))
    decoded = decode(packets)
    unusable = (*decoded.rejected, *_contradictory(packets, decoded), *_implausible(packets))
    good = packets.select(~np.isin(packets.offset, [entry.offset for entry in unusable]))
    sets = [_write_set(job.root, route, good) for route in _routes(good)]
    rejected = tuple(_write_reject(job.root, entry) for entry in _once((*packets.rejected, *unusable)))
    accounting = packets.accounting
    framed = Framed(
        packets_in=accounting.packets_in,
        used=sum(record.n_home for record in sets),
        duplicates=accounting.duplicates,
        sets=tuple(sets),
        rejected=rejected,
        not_decoded={record.key: record.n_home for record in sets if record.product == UNDECODED},
    )
    _check_balance(job.path, framed)
    return framed


def _once(entries: Iterable[Quarantined]) -> Iterator[Quarantined]:
    """Drop later reasons for the same bytes."""
    seen: set[tuple[str, int]] = set()
    for entry in entries:
        if (entry.file, entry.offset) not in seen:
            seen.add((entry.file, entry.offset))
            yield entry


def _check_balance(path: str, framed: Framed) -> None:
    total = framed.used + framed.duplicates + len(framed.rejected)
    if framed.packets_in != total:
        raise BalanceError(
            f"{Path(path).name}: {framed.packets_in} packets read, {total} accounted for",
            expected="read = used + duplicates + rejected",
            advice="report this with the file: a packet was lost or counted twice",
        )


def _contradictory(packets: Packets, decoded: Mapping[str, Records]) -> Iterator[Quarantined]:
    """Find packets whose masks, counts and times do not agree with each other, so that nothing could be placed from them."""
    for product, records in decoded.items():
        _, refused = consistent(records)
        if refused:
            rows = np.flatnonzero(packets.product() == product).tolist()
            where = {packets.packet_bytes(row): row for row in rows}
            yield from (packets.quarantine(where[entry.data], entry.reason, entry.expected) for entry in refused)


def _implausible(packets: Packets) -> list[Quarantined]:
    """Refuse packets whose data time contradicts their header: they would be published on a wrong day."""
    keys = packets.keys()
    delay = packets.scet - keys.start
    dated = keys.start >= 0
    wrong = dated & ((keys.start < _LAUNCH) | (delay < -TICKS_PER_SECOND) | (delay > _LONGEST_DELAY) | ~packets.synced)
    return [
        packets.quarantine(
            int(row),
            f"data time {_when(keys.start[row])} does not go with header time {_when(packets.scet[row])}",
            "a synchronised clock, data after launch and at most a week before the header",
        )
        for row in np.flatnonzero(wrong)
    ]


def _when(scet: Any) -> str:
    return iso(scet_to_utc(scet)[()])


@dataclass(frozen=True, slots=True)
class _Route:
    product: str
    key: str
    rows: Any
    n_home: int


def _routes(packets: Packets) -> Iterator[_Route]:
    """Yield which packets belong to which partition."""
    products, keys = packets.product(), packets.keys()
    for product in np.unique(products).tolist():
        rows = np.flatnonzero(products == product)
        if product == "ql_lightcurve":
            yield from _day_routes(product, rows, keys.start[rows], keys.stop[rows])
        elif product in ("sci_pixels", "sci_spectrogram"):
            pairs = np.stack([keys.request_id[rows], keys.seq_control[rows]], axis=1)
            for request_id, seq_control in np.unique(pairs, axis=0).tolist():
                mine = rows[(pairs == (request_id, seq_control)).all(axis=1)]
                yield _Route(product, request_key(request_id, seq_control), mine, len(mine))
        else:
            yield _Route(UNDECODED, product.replace(",", "-"), rows, len(rows))


def _day_routes(product: str, rows: Any, start: Any, stop: Any) -> Iterator[_Route]:
    home = scet_to_utc(start).astype("datetime64[D]")
    first = scet_to_utc(start - _MIDNIGHT_MARGIN).astype("datetime64[D]")
    last = scet_to_utc(stop + _MIDNIGHT_MARGIN).astype("datetime64[D]")
    for day in np.unique(np.concatenate([first, last])):
        touched = (first <= day) & (last >= day)
        yield _Route(product, day_key(day.astype(date)), rows[touched], int((home == day).sum()))


def _write_set(root: str, route: _Route, packets: Packets) -> SetRecord:
    chosen = packets.select(route.rows)
    blob = chosen.to_bytes()
    digest = hashlib.sha256(blob).hexdigest()
    path = f"packets/{route.product}/{route.key}/{digest[:32]}.bin"
    _write_once(join_url(root, path), blob)
    return SetRecord(route.product, route.key, digest, path, len(chosen), route.n_home)


def _write_reject(root: str, entry: Quarantined) -> Reject:
    path = f"quarantine/{hashlib.sha256(entry.data).hexdigest()[:32]}.bin"
    _write_once(join_url(root, path), entry.data)
    reason = f"{entry.reason}; expected {entry.expected}" if entry.expected else entry.reason
    return Reject(reason, entry.offset, len(entry.data), path)


def _write_once(path: str, blob: bytes) -> None:
    """Write a file whose name is the digest of its content, so that it is there whole or not at all."""
    target = Path(path)
    if target.exists() and target.stat().st_size == len(blob):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    with partial.open("wb") as stream:
        stream.write(blob)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(target)


# ------------------------------------------------------------------------------------------------------ building


@dataclass(frozen=True, slots=True)
class BuildJob:
    """One partition to be made: of the packet sets at `inputs`, or for the ephemeris of the file there."""

    product: str
    key: str
    inputs: tuple[tuple[str, str], ...]
    """Path below the root and SHA-256 of each packet set."""
    root: str
    run_id: str


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


def build(job: BuildJob) -> Built | None:
    """Make one partition: read its packets, build its cubes, write the store and verify it.

    Returns
    -------
    None if the packets hold no bin of the day: all of them only come near its border.

    Raises
    ------
    BalanceError
        If the counts in the cubes are not those of the records.
    StoreError
        If a packet set is damaged, or the written store does not verify.
    """
    if job.product == "ephemeris":
        return _build_ephemeris(job)
    packets = concat([_read_set(job.root, path, digest) for path, digest in job.inputs])
    records = decode(packets)[job.product]
    if job.product == "ql_lightcurve":
        return _build_day(job, records, packets)
    return _build_request(job, records, len(packets))


def _read_set(root: str, path: str, digest: str) -> Packets:
    blob = Path(join_url(root, path)).read_bytes()
    if hashlib.sha256(blob).hexdigest() != digest:
        raise StoreError(
            f"the packet set {path} does not have the content that was recorded",
            expected=f"SHA-256 {digest}",
            advice="restore it from a copy, or remove it and ingest its file again",
        )
    return Packets.from_bytes(blob, file=path)


def _build_day(job: BuildJob, records: Records, packets: Packets) -> Built | None:
    from stixflow.cubes.build import build_lightcurve

    day = date.fromisoformat(job.key)
    cube = build_lightcurve(records)
    inside = TimeRange.of_day(day).covers(cube["time"].to_numpy())
    if not inside.any():
        return None
    n_home = int((scet_to_utc(packets.keys().start).astype("datetime64[D]") == np.datetime64(day)).sum())
    kept = cube.isel(time=np.flatnonzero(inside))
    books = dict(cube.attrs["books"])
    kept.attrs["books"] = books | {
        "counts": int(kept["counts"].values.sum(dtype=np.uint64)),
        "counts_of_neighbouring_days": int(cube["counts"].values[~inside].sum(dtype=np.uint64)),
    }
    unplaced = int(books["unplaced_packets"])
    missing = f"{unplaced} packets with other energy bins than the rest of the day" if unplaced else ""
    return _write(job, day, [kept], n_home, complete=not unplaced, missing=missing)


def _build_request(job: BuildJob, records: Records, n_packets: int) -> Built:
    from stixflow.cubes.build import build_requests

    requests = build_requests(records)
    if len(requests) != 1:
        raise BalanceError(
            f"the packet sets of {job.product} {job.key} hold {len(requests)} requests",
            expected="one",
            advice="report this with the packet sets",
        )
    request = requests[0]
    day = request.datasets[0]["time_start"].to_numpy()[0].astype("datetime64[D]").astype(date)
    return _write(
        job,
        day,
        request.datasets,
        n_packets,
        summary=_summary(request.datasets),
        complete=request.complete,
        missing="; ".join(request.missing),
    )


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


def _build_ephemeris(job: BuildJob) -> Built:
    from stixflow.ephemeris import observer, read_ancillary

    ((path, _),) = job.inputs
    dataset = read_ancillary(join_url(job.root, path))
    day = TimeRange.of_day(date.fromisoformat(job.key))
    place = observer(dataset, day.middle)
    return _write(
        job, day.start.astype("datetime64[D]").astype(date), [dataset], 0, summary={"distance_m": place.distance_m}
    )


def _write(job: BuildJob, day: date, datasets: Sequence[xr.Dataset], n_home: int, **more: Any) -> Built:
    path = store_path(job.product, job.key, day, job.run_id)
    url = join_url(job.root, path)
    store = write_store(url, datasets)
    defects = verify_store(url, store.digest)
    if defects:
        raise StoreError(
            f"the new store has {len(defects)} defects, the first: {defects[0]}",
            expected="what was written",
            advice="check the disk, then run again",
        )
    return Built(job.product, job.key, day, path, store, n_home, **more)


# ----------------------------------------------------------------------------------------------------- ephemeris


@dataclass(frozen=True, slots=True)
class AncillaryFile:
    """An ephemeris file of one UTC day, kept below the root."""

    key: str
    path: str


def keep_ancillary(source: str, digest: str, root: str) -> AncillaryFile:
    """Copy an L2 ancillary FITS file into the archive and tell its day.

    Raises
    ------
    InputFileError
        If the file is no such product or holds no sample.
    """
    from stixflow.ephemeris import read_ancillary

    times = read_ancillary(source)["time"].to_numpy()
    if not len(times):
        raise InputFileError(
            f"{Path(source).name} holds no sample", expected="a day of ephemeris", advice="leave it out"
        )
    day = times[len(times) // 2].astype("datetime64[D]").astype(date)
    path = f"packets/ephemeris/{day_key(day)}/{digest[:32]}.fits"
    _write_once(join_url(root, path), Path(source).read_bytes())
    return AncillaryFile(day_key(day), path)


# ----------------------------------------------------------------------------------------------------- detection


@dataclass(frozen=True, slots=True)
class DetectJob:
    """One day whose light curve is to be searched."""

    day: str
    partition_id: int
    url: str
    distance_au: float | None
    method: str = "snip"


@dataclass(frozen=True, slots=True)
class Detected:
    """The flares of one day, as rows of plain values."""

    partition_id: int
    flares: tuple[Mapping[str, Any], ...]


def detect(job: DetectJob) -> Detected:
    """Find the flares of one day's light curve."""
    from stixflow import flares

    table = flares.detect(open_store(job.url).load(), job.method, distance_au=job.distance_au)
    return Detected(job.partition_id, tuple(table.to_dict("records")))


# ------------------------------------------------------------------------------------------------------- imaging


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One flare to be imaged from one pixel request."""

    flare_id: str
    start: np.datetime64
    peak: np.datetime64
    stop: np.datetime64
    pixels: str
    """URL of the store of the request."""
    boxes: int
    background: str | None
    background_id: str
    background_reason: str
    ephemeris: str | None
    root: str
    run_id: str
    energy_ranges: tuple[tuple[float, float], ...]
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Imaged:
    """What was made of one flare: rows for the catalog, the position, and why a band has no image."""

    images: tuple[Mapping[str, Any], ...]
    location: Mapping[str, Any]
    skipped: Mapping[str, str] = field(default_factory=dict)


def image(job: ImageJob) -> Imaged:
    """Locate one flare and write its maps as FITS files below the root."""
    from stixflow.flares import ImagingWindow
    from stixflow.imaging import image_source

    pixels, background = _open_one(job.pixels, job.peak), job.background and _open_one(job.background)
    windows = {energies: _window(pixels, job, energies) for energies in job.energy_ranges}
    chosen = [window for window in windows.values() if isinstance(window, ImagingWindow)]
    skipped = {_band(energies): window for energies, window in windows.items() if isinstance(window, str)}
    if not chosen:
        return Imaged((), {}, skipped)
    source = image_source(
        pixels,
        [(window.time_range, window.energy_range) for window in chosen],
        background=background or None,
        ephemeris=open_store(job.ephemeris).load() if job.ephemeris else None,
        methods=job.methods,
    )
    location = _location_row(job, source)
    rows = [
        _write_image(job, source, stack, index, location)
        for stack in source.images
        for index in range(stack.sizes["image"])
    ]
    return Imaged(tuple(rows), location, skipped)


def _open_one(url: str, time: np.datetime64 | None = None) -> xr.Dataset:
    """Read the box of a request that holds a time, or the first one."""
    boxes = [open_store(url, box) for box in range(count_boxes(url))]
    holding = [
        box
        for box in boxes
        if time is not None and bool((box["time_start"] <= time).any() & (box["time"] >= time).any())
    ]
    return (holding or boxes)[0].load()


def _window(pixels: xr.Dataset, job: ImageJob, energies: tuple[float, float]) -> ImagingWindow | str:
    """Choose the window of one band, or say why there is none."""
    from stixflow.flares import NoWindow, imaging_window

    try:
        window = imaging_window(pixels, {"start": job.start, "stop": job.stop}, energies)
    except StixflowError as error:
        return str(error)
    return window.reason if isinstance(window, NoWindow) else window


def _band(energies: tuple[float, float]) -> str:
    return f"{energies[0]:g}-{energies[1]:g} keV"


def _location_row(job: ImageJob, source: SourceImages) -> dict[str, Any]:
    hpc, sigma = source.hpc or (None, None), source.hpc_sigma or (None, None)
    location = source.location
    return {
        "x_stix": location.x,
        "y_stix": location.y,
        "sigma_x_stix": location.sigma_x,
        "sigma_y_stix": location.sigma_y,
        "x_hpc": hpc[0],
        "y_hpc": hpc[1],
        "sigma_x_hpc": sigma[0],
        "sigma_y_hpc": sigma[1],
        "sidelobe_ratio": location.sidelobe_ratio,
        "is_ambiguous": location.ambiguous,
        "background_request": job.background_id,
        "background_reason": job.background_reason,
        "pointing": source.pointing.source if source.pointing else "unknown",
        "warnings": "; ".join(source.warnings),
    }


def _write_image(
    job: ImageJob, source: SourceImages, stack: xr.Dataset, index: int, location: Mapping[str, Any]
) -> dict[str, Any]:
    from stixflow.imaging import write_map

    one = stack.isel(image=index)
    method = str(stack.attrs["method"])
    low, high = float(one["energy_low"]), float(one["energy_high"])
    image_id = f"{job.flare_id}-{low:g}-{high:g}keV-{method}"
    path = f"images/20{job.flare_id[:2]}/{job.flare_id[2:4]}/{job.flare_id[4:6]}/{job.flare_id}/{job.run_id}/{image_id}.fits"
    target = Path(join_url(job.root, path))
    extra = {"FLARE_ID": (job.flare_id, "UTC minute of the peak"), "BKG_REQ": (job.background_id, "background request")}
    history = [f"pixel data: {Path(job.pixels).name}", f"background: {job.background_reason}"]
    write_map(target, stack, index, pointing=source.pointing, observer=source.observer, extra=extra, history=history)
    names = ("x_hpc", "y_hpc", "sidelobe_ratio", "is_ambiguous", "background_request", "background_reason")
    return {
        "image_id": image_id,
        "flare_id": job.flare_id,
        "method": method,
        "energy_low": low,
        "energy_high": high,
        "start": one["time_start"].values,
        "stop": one["time_stop"].values,
        "path": path,
        "digest": hashlib.sha256(target.read_bytes()).hexdigest(),
        "hpc_x": location["x_hpc"],
        "hpc_y": location["y_hpc"],
        "counts": float(one["counts"]),
        "net_counts": float(one["net_counts"]),
        "total_flux": float(one["total_flux"]),
        **{name: location[name] for name in names},
    }
