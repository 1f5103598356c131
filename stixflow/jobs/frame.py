"""One input file to packet sets, quarantine, and books that balance."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.archive.layout import day_key, request_key, run_key
from stixflow.cubes.build import Place, place
from stixflow.cubes.model import PRODUCTS
from stixflow.cubes.sources import SOURCES, product_of, record_names
from stixflow.errors import BalanceError, InputFileError
from stixflow.jobs.kept import Refused, Reject, write_all_kept, write_kept, write_rejects
from stixflow.telemetry import Accounting, Decoded, Packets, Quarantined, Records, consistent, decode, iter_packets
from stixflow.telemetry.layouts import type_name
from stixflow.time import ANCHOR_CLOCK, TICKS_PER_SECOND, Clock, iso, scet_to_utc, to_utc

UNDECODED = "undecoded"
"""Product of the packet sets whose type is known but not made into a cube yet; their key is the packet type."""

# Bytes of a file that are sorted at a time: a delivery is rarely longer, so that it makes one set for each partition.
_BATCH_BYTES = 64_000_000

# What one batch took at most, and somewhat more: tables, then packets, their fields and counts beside each other.
_IDLE_BYTES = 80_000_000
_TIMES_LARGER = 8

# A clock kernel, also one given later, may move the day border by this much: packets near it are kept with both days.
_MIDNIGHT_MARGIN = 5 * TICKS_PER_SECOND
_LAUNCH = 634_694_400 << 16
# Real packets of light curves are written 0.3 to 6.8 s after their last sample.
_LONGEST_DELAY = 3600 * TICKS_PER_SECOND
_ON_REQUEST = ("aspect",)


@dataclass(frozen=True, slots=True)
class FrameJob:
    """One telemetry file to be sorted into packet sets below `root`."""

    path: str
    root: str
    clock: Clock = ANCHOR_CLOCK

    @property
    def estimated_bytes(self) -> int:
        """Bytes that sorting it takes at most, of a local file; files are read in batches, so it does not grow on."""
        try:
            size = Path(self.path).stat().st_size
        except OSError:
            return 0
        return _IDLE_BYTES + _TIMES_LARGER * min(size, _BATCH_BYTES)


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
class Framed:
    """What became of one file."""

    packets_in: int
    used: int
    duplicates: int
    sets: tuple[SetRecord, ...]
    rejected: tuple[Reject, ...]
    not_decoded: Mapping[str, int] = field(default_factory=dict)
    """Packets of known types that are kept but have no cube yet, by type."""


def frame(job: FrameJob) -> Framed | Refused:
    """Sort the packets of one file into packet sets.

    Every packet is decoded once here, so that a packet set holds only packets that can be decoded, and what cannot be
    is in quarantine with the file it came in. Long files are read in batches, each of which makes packet sets of its
    own, so that the memory needed does not grow with the file.
    """
    accounting = Accounting(0, 0)
    sets: list[SetRecord] = []
    rejected: list[Reject] = []
    try:
        for packets in iter_packets(job.path, batch_bytes=_BATCH_BYTES):
            found, unusable = _sort(job, packets)
            sets += found
            rejected += write_rejects(job.root, (*packets.rejected, *unusable))
            accounting += packets.accounting
    except InputFileError as error:
        return Refused(str(error))
    framed = Framed(
        packets_in=accounting.packets_in,
        used=sum(record.n_home for record in sets),
        duplicates=accounting.duplicates,
        sets=tuple(sets),
        rejected=tuple(rejected),
        not_decoded=_not_decoded(sets),
    )
    _check_balance(job.path, framed)
    return framed


def _sort(job: FrameJob, packets: Packets) -> tuple[list[SetRecord], list[Quarantined]]:
    """Write the packet sets of one batch; also return the packets that cannot be used."""
    decoded = decode(packets, products=record_names())
    places = _places(packets, decoded)
    unusable = list(_once((*decoded.rejected, *_contradictory(packets, decoded), *_implausible(packets, places))))
    good = ~np.isin(packets.position, [entry.offset for entry in unusable])
    routes = _routes(packets, places, good, job.clock)
    made = [_make_set(route, packets) for route in routes]
    write_all_kept(job.root, {record.path: blob for record, blob in made})
    return [record for record, _ in made], unusable


def _not_decoded(sets: Iterable[SetRecord]) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in sets:
        if record.product == UNDECODED:
            found[record.key] = found.get(record.key, 0) + record.n_home
    return found


def _once(entries: Iterable[Quarantined]) -> Iterator[Quarantined]:
    """Drop later reasons for the same packet."""
    seen: set[int] = set()
    for entry in entries:
        if entry.offset not in seen:
            seen.add(entry.offset)
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
    """Find packets whose masks, counts and times contradict each other, so that nothing could be placed from them."""
    for product, records in decoded.items():
        _, refused = consistent(records)
        if refused:
            rows = np.flatnonzero(packets.product() == product).tolist()
            where = {packets.packet_bytes(row): row for row in rows}
            yield from (packets.quarantine(where[entry.data], entry.reason, entry.expected) for entry in refused)


def _places(packets: Packets, decoded: Decoded) -> Place:
    """Say where each packet belongs; -1 where its type has no cube or it could not be decoded."""
    found = Place(*(np.full(len(packets), -1, dtype=np.int64) for _ in range(4)))
    names = packets.product()
    decodable = ~np.isin(packets.position, [entry.offset for entry in decoded.rejected])
    for name, records in decoded.items():
        rows = np.flatnonzero((names == name) & decodable)
        mine = place(records)
        for part in ("start", "stop", "first", "second"):
            getattr(found, part)[rows] = getattr(mine, part)
    return found


def _implausible(packets: Packets, places: Place) -> list[Quarantined]:
    """Refuse packets whose data time contradicts their header: they would be published on a wrong day."""
    dated, delay = places.start >= 0, packets.scet - places.stop
    early, late = packets.scet < places.start, (delay > _LONGEST_DELAY) & ~_is_any_age(packets)
    wrong = dated & ((places.start < _LAUNCH) | early | late | ~packets.synced)
    return [
        packets.quarantine(
            int(row),
            f"data time {_when(places.start[row])} does not go with header time {_when(packets.scet[row])}",
            "a synchronised clock, data after launch that end at most an hour before the header",
        )
        for row in np.flatnonzero(wrong)
    ]


def _is_any_age(packets: Packets) -> NDArray[np.bool_]:
    """Tell which packets hold data that may have been asked for long after they were taken."""
    on_request = [type_name(one) for product in _ON_REQUEST for one in SOURCES[product]]
    return np.isin(packets.product(), on_request)


def _when(scet: Any) -> str:
    return iso(to_utc(scet_to_utc(scet)[()]))


@dataclass(frozen=True, slots=True)
class _Route:
    product: str
    key: str
    rows: Any
    n_home: int


def _routes(packets: Packets, places: Place, good: NDArray[np.bool_], clock: Clock) -> Iterator[_Route]:
    """Yield which packets belong to which partition."""
    types, kinds = packets.types()
    names = [product_of(packet_type) for packet_type in types]
    for product in sorted({name for name in names if name}):
        rows = np.flatnonzero(good & np.isin(kinds, [index for index, name in enumerate(names) if name == product]))
        if not rows.size:
            continue
        if PRODUCTS[product].partition == "day":
            yield from _day_routes(product, rows, places.start[rows], places.stop[rows], clock)
        else:
            yield from _numbered_routes(product, rows, places.first[rows], places.second[rows])
    for index, packet_type in enumerate(types):
        rows = np.flatnonzero(good & (kinds == index))
        if names[index] is None and rows.size:
            yield _Route(UNDECODED, type_name(packet_type).replace(",", "-"), rows, len(rows))


def _numbered_routes(product: str, rows: Any, first: Any, second: Any) -> Iterator[_Route]:
    name = run_key if PRODUCTS[product].partition == "run" else request_key
    pairs = np.stack([first, second], axis=1)
    for one, other in np.unique(pairs, axis=0).tolist():
        mine = rows[(pairs == (one, other)).all(axis=1)]
        yield _Route(product, name(one, other), mine, len(mine))


def _day_routes(product: str, rows: Any, start: Any, stop: Any, clock: Clock) -> Iterator[_Route]:
    # The books count by the anchor table, whatever clock dates the cubes: a later kernel leaves them as they are.
    home = scet_to_utc(start).astype("datetime64[D]")
    first = np.minimum(clock.utc(start - _MIDNIGHT_MARGIN).astype("datetime64[D]"), home)
    last = np.maximum(clock.utc(stop + _MIDNIGHT_MARGIN).astype("datetime64[D]"), home)
    for day in np.unique(np.concatenate([_days_from_to(*span) for span in set(zip(first, last, strict=True))])):
        touched = (first <= day) & (last >= day)
        yield _Route(product, day_key(day.astype(date)), rows[touched], int((home == day).sum()))


def _days_from_to(first: np.datetime64, last: np.datetime64) -> NDArray[np.datetime64]:
    return np.arange(first, last + np.timedelta64(1, "D"))


def _make_set(route: _Route, packets: Packets) -> tuple[SetRecord, bytes]:
    chosen = packets.select(route.rows)
    blob = chosen.to_bytes()
    digest = hashlib.sha256(blob).hexdigest()
    path = f"packets/{route.product}/{route.key}/{digest[:32]}.bin"
    return SetRecord(route.product, route.key, digest, path, len(chosen), route.n_home), blob


@dataclass(frozen=True, slots=True)
class AncillaryFile:
    """An ephemeris file of one UTC day, kept below the root."""

    key: str
    path: str


@dataclass(frozen=True, slots=True)
class AncillaryJob:
    """One ephemeris file to be kept below `root`."""

    path: str
    digest: str
    root: str


def keep_ancillary(job: AncillaryJob) -> AncillaryFile:
    """Copy an L2 ancillary FITS file into the archive and tell its day.

    Raises
    ------
    InputFileError
        If the file is no such product or holds no sample.
    """
    from stixflow.ephemeris import read_ancillary

    times = read_ancillary(job.path)["time"].to_numpy()
    if not len(times):
        raise InputFileError(
            f"{Path(job.path).name} holds no sample", expected="a day of ephemeris", advice="leave it out"
        )
    day = times[len(times) // 2].astype("datetime64[D]").astype(date)
    path = f"packets/ephemeris/{day_key(day)}/{job.digest[:32]}.fits"
    write_kept(job.root, path, Path(job.path).read_bytes())
    return AncillaryFile(day_key(day), path)
