"""Packets as columns: one buffer of bytes, and beside it where each packet lies and what its header says."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import BalanceError
from stixflow.telemetry.ccsds import (
    HEADER_SIZE,
    SEQUENCE_MODULO,
    SYNC_LOST,
    frame,
    packet_lengths,
    read_selectors,
)
from stixflow.telemetry.layouts import PRODUCT_TYPES, known_types, type_name
from stixflow.telemetry.runs import gather_rows
from stixflow.telemetry.structure import PacketType

_COLUMNS = (
    "offset",
    "length",
    "apid",
    "service",
    "subtype",
    "selector",
    "sequence_flag",
    "sequence_count",
    "scet",
    "synced",
    "file",
    "position",
    "ground_time",
)


GROUND = np.dtype("datetime64[us]")
"""Type of ground times."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Bytes that could not be used: why, and where they were."""

    reason: str
    file: str
    offset: int
    """Byte in the file; for text containers, in the binary content of all its packets."""
    data: bytes = field(repr=False)
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Accounting:
    """What became of the packets that were read; refuses books that do not balance.

    Raises
    ------
    BalanceError
        If `packets_in` is not the sum of the others.
    """

    packets_in: int
    used: int
    duplicates: int = 0
    rejected: int = 0

    def __post_init__(self) -> None:
        if self.packets_in != self.used + self.duplicates + self.rejected:
            raise BalanceError(
                f"{self.packets_in} packets in, but {self.used} used, {self.duplicates} duplicates, "
                f"{self.rejected} rejected",
                expected="the parts to add up to the whole",
                advice="report this with the input files: a packet was lost or counted twice",
            )

    def __add__(self, other: Accounting) -> Accounting:
        return Accounting(
            self.packets_in + other.packets_in,
            self.used + other.used,
            self.duplicates + other.duplicates,
            self.rejected + other.rejected,
        )


@dataclass(frozen=True, slots=True)
class SequenceAccount:
    """Continuity of one APID's counter: `gaps` places where it jumps, `missing` numbers that never came."""

    packets: int
    gaps: int
    missing: int


@dataclass(frozen=True, slots=True)
class PacketKeys:
    """What decides the partition of a packet, read without decoding it; one entry per packet.

    Light curves have the data's `start` and `stop` (onboard time, half open), science data the request. Entries that
    do not apply, lie beyond the end of a packet, or come from a clock that was not synchronised, are -1.
    """

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    request_id: NDArray[np.int64]
    seq_control: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Packets:
    """Framed packets of known types; every array has one entry per packet."""

    buffer: NDArray[np.uint8]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    apid: NDArray[np.uint16]
    service: NDArray[np.uint8]
    subtype: NDArray[np.uint8]
    selector: NDArray[np.int32]
    """SSID, SID, event, memory or failure identifier; -1 where the type has none."""
    sequence_flag: NDArray[np.uint8]
    sequence_count: NDArray[np.uint16]
    scet: NDArray[np.int64]
    """Header time, ``coarse << 16 | fine`` without the sync bit."""
    synced: NDArray[np.bool_]
    """False where the clock was not synchronised: such a `scet` dates nothing."""
    file: NDArray[np.int32]
    """Index into `files`."""
    position: NDArray[np.int64]
    """Byte in its file; for text containers, in the binary content of all its packets."""
    ground_time: NDArray[np.datetime64]
    """UTC that the ground system noted beside the packet, in its header if that is genuine or as receipt; else NaT."""
    files: tuple[str, ...]
    accounting: Accounting
    rejected: tuple[Quarantined, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    """Files of a walked folder that are no telemetry, with the reason."""

    def __len__(self) -> int:
        return int(self.offset.size)

    @classmethod
    def from_bytes(cls, blob: bytes, *, file: str = "") -> Packets:
        """Frame back-to-back packets; duplicates are taken out, bad bytes are quarantined."""
        frames = frame(blob)
        rejected = tuple(
            Quarantined(bad.reason, file, bad.start, blob[bad.start : bad.stop], bad.expected) for bad in frames.bad
        )
        buffer = np.frombuffer(blob, dtype=np.uint8)
        return from_frames(buffer, frames.offset, np.zeros(frames.offset.size, np.int32), (file,), rejected)

    def to_bytes(self) -> bytes:
        """Return the packets back to back, in order."""
        starts, stops = self.offset.tolist(), (self.offset + self.length).tolist()
        if len(self) and stops[:-1] == starts[1:]:
            return self.buffer[starts[0] : stops[-1]].tobytes()
        view = memoryview(np.ascontiguousarray(self.buffer))  # type: ignore[arg-type]
        return b"".join([view[start:stop] for start, stop in zip(starts, stops, strict=True)])

    def packet_bytes(self, index: int) -> bytes:
        """One packet, headers included."""
        return self.buffer[self.offset[index] : self.offset[index] + self.length[index]].tobytes()

    def select(self, rows: NDArray[Any] | slice) -> Packets:
        """Choose packets by mask, index or slice; shares the buffer, and starts with clean books."""
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        used = int(columns["offset"].size)
        return replace(self, **columns, accounting=Accounting(used, used), rejected=(), skipped=())

    def batches(self, size: int = 8_000_000) -> Iterator[Packets]:
        """Cut into pieces of about `size` bytes, so that decoding stays in memory that is already there."""
        piece = (np.cumsum(self.length) - self.length) // size
        edges = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), len(self)]
        for start, stop in itertools.pairwise(edges):
            yield self.select(slice(start, stop))

    def product(self) -> NDArray[np.str_]:
        """Name the product of each packet, or ``service,subtype[,selector]`` for types that are not decoded yet."""
        types, inverse = self.types()
        return np.array([type_name(packet_type) for packet_type in types] or [""])[inverse]

    def of_product(self, product: str) -> Packets:
        """Choose the packets of one product, named as by `product`."""
        return self.select(self.product() == product)

    def types(self) -> tuple[list[PacketType], NDArray[np.intp]]:
        """List the packet types present, and the position of each packet's type in that list."""
        codes, inverse = np.unique(self._type_codes(), return_inverse=True)
        return [_decode_type(int(code)) for code in codes], inverse

    def _type_codes(self) -> NDArray[np.int64]:
        return self.service.astype(np.int64) << 40 | self.subtype.astype(np.int64) << 32 | (self.selector + 2)

    def headers(self) -> NDArray[np.uint8]:
        """The 16 header bytes of each packet, shape (packets, 16)."""
        return gather_rows(self.buffer, self.offset, HEADER_SIZE)

    def quarantine(self, index: int, reason: str, expected: str = "") -> Quarantined:
        """Describe one packet as unusable."""
        file = self.files[self.file[index]]
        return Quarantined(reason, file, int(self.position[index]), self.packet_bytes(index), expected)

    def sequence(self) -> dict[int, SequenceAccount]:
        """Follow the sequence counter of each APID in time; gaps alone mean no loss, files rarely hold all types."""
        found = {}
        for apid in np.unique(self.apid).tolist():
            rows = np.flatnonzero((self.apid == apid) & self.synced)
            count = self.sequence_count[rows[np.argsort(self.scet[rows], kind="stable")]].astype(np.int64)
            jump = (np.diff(count) - 1) % SEQUENCE_MODULO
            found[apid] = SequenceAccount(
                int((self.apid == apid).sum()), int((jump > 0).sum()), int(jump[jump < SEQUENCE_MODULO // 2].sum())
            )
        return found

    def keys(self) -> PacketKeys:
        """Read what decides each packet's partition, without decoding."""
        keys = PacketKeys(*(np.full(len(self), -1, dtype=np.int64) for _ in range(4)))
        for product, (service, subtype, selector) in PRODUCT_TYPES.items():
            mask = (self.service == service) & (self.subtype == subtype) & (self.selector == selector)
            if product == "ql_lightcurve":
                _light_curve_keys(self, np.flatnonzero(mask & (self.length >= HEADER_SIZE + 24)), keys)
            else:
                _request_keys(self, np.flatnonzero(mask & (self.length >= HEADER_SIZE + 9)), keys)
        return keys


def _light_curve_keys(packets: Packets, rows: NDArray[np.intp], keys: PacketKeys) -> None:
    body = gather_rows(packets.buffer, packets.offset[rows] + HEADER_SIZE, 24)
    rows, body = rows[body[:, 1] < 0x80], body[body[:, 1] < 0x80]
    keys.start[rows] = big_endian(body[:, 1:7])
    ticks = ((big_endian(body[:, 7:9]) + 1) * big_endian(body[:, 22:24]) * 65536 + 5) // 10
    keys.stop[rows] = keys.start[rows] + ticks


def _request_keys(packets: Packets, rows: NDArray[np.intp], keys: PacketKeys) -> None:
    body = gather_rows(packets.buffer, packets.offset[rows] + HEADER_SIZE, 9)
    keys.seq_control[rows] = big_endian(body[:, 3:5])
    keys.request_id[rows] = big_endian(body[:, 5:9])


def big_endian(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Rows of bytes as numbers."""
    value = rows[:, 0].astype(np.int64)
    for byte in range(1, rows.shape[1]):
        value = value << 8 | rows[:, byte]
    return value


def _decode_type(code: int) -> PacketType:
    return code >> 40, code >> 32 & 0xFF, (code & 0xFFFFFFFF) - 2


def concat(parts: Sequence[Packets]) -> Packets:
    """Join packets of several reads; duplicates between them are taken out."""
    sizes = np.cumsum([0, *(part.buffer.size for part in parts)])
    names = list(dict.fromkeys(name for part in parts for name in part.files))
    position = {name: index for index, name in enumerate(names)}
    file = [np.array([position[name] for name in part.files] or [0], np.int32)[part.file] for part in parts]
    offset = [part.offset + base for part, base in zip(parts, sizes[:-1], strict=True)]
    rejected = tuple(entry for part in parts for entry in part.rejected)
    joined = from_frames(
        _join([part.buffer for part in parts]),
        np.concatenate([np.empty(0, np.int64), *offset]),
        np.concatenate([np.empty(0, np.int32), *file]),
        tuple(names),
        rejected,
        position=np.concatenate([np.empty(0, np.int64), *(part.position for part in parts)]),
        ground_time=np.concatenate([np.empty(0, GROUND), *(part.ground_time for part in parts)]),
    )
    earlier = sum(part.accounting.duplicates for part in parts)
    books = joined.accounting + Accounting(earlier, 0, duplicates=earlier)
    return replace(joined, accounting=books, skipped=tuple(entry for part in parts for entry in part.skipped))


def _join(buffers: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return buffers[0] if len(buffers) == 1 else np.concatenate([np.empty(0, np.uint8), *buffers])


def from_frames(
    buffer: NDArray[np.uint8],
    offset: NDArray[np.int64],
    file: NDArray[np.int32],
    files: tuple[str, ...],
    rejected: Iterable[Quarantined] = (),
    *,
    position: NDArray[np.int64] | None = None,
    ground_time: NDArray[np.datetime64] | None = None,
    seen: Seen | None = None,
) -> Packets:
    """Read the headers at `offset`, reject unknown types, take out duplicates, and balance the books.

    Parameters
    ----------
    buffer
        Bytes that hold all packets.
    offset, file, files
        Where each packet begins, and which of the files it is from.
    rejected
        What is known to be no packet.
    position, ground_time
        As in `Packets`; default: the offset, and no time.
    seen
        Packets of earlier calls, which are duplicates here; the new ones are added.
    """
    packets = _parse(buffer, offset, file, files, offset if position is None else position, ground_time)
    earlier = tuple(rejected)
    total = len(packets) + len(earlier)
    unknown = _unknown(packets)
    keep, duplicates, conflicts = _unique(packets, np.flatnonzero(~unknown))
    if seen is not None:
        keep, more, again = seen.sift(packets, keep)
        duplicates, conflicts = duplicates + more, [*conflicts, *again]
    refused = [packets.quarantine(int(row), _unknown_reason(packets, int(row))) for row in np.flatnonzero(unknown)]
    refused += [
        packets.quarantine(row, "differs from an earlier packet of the same type, time and count", "an identical copy")
        for row in conflicts
    ]
    books = Accounting(total, int(keep.size), duplicates, len(earlier) + len(refused))
    chosen = packets if keep.size == len(packets) else packets.select(keep)
    return replace(chosen, accounting=books, rejected=(*earlier, *refused))


def _parse(
    buffer: NDArray[np.uint8],
    offset: NDArray[np.int64],
    file: NDArray[np.int32],
    files: tuple[str, ...],
    position: NDArray[np.int64],
    ground_time: NDArray[np.datetime64] | None,
) -> Packets:
    rows = gather_rows(buffer, offset, HEADER_SIZE)
    length = packet_lengths(buffer, offset)
    service, subtype = rows[:, 7].copy(), rows[:, 8].copy()
    sequence = big_endian(rows[:, 2:4])
    scet = big_endian(rows[:, 10:16])
    return Packets(
        buffer,
        offset,
        length,
        (big_endian(rows[:, 0:2]) & 0x7FF).astype(np.uint16),
        service,
        subtype,
        read_selectors(buffer, offset, length, service, subtype),
        (sequence >> 14).astype(np.uint8),
        (sequence & 0x3FFF).astype(np.uint16),
        scet & ~SYNC_LOST,
        scet < SYNC_LOST,
        file,
        position,
        np.full(offset.size, "NaT", dtype=GROUND) if ground_time is None else ground_time,
        files,
        Accounting(offset.size, offset.size),
    )


def _unknown(packets: Packets) -> NDArray[np.bool_]:
    types, inverse = packets.types()
    return np.array([packet_type not in known_types() for packet_type in types] or [False])[inverse]


def _unknown_reason(packets: Packets, row: int) -> str:
    service, subtype, selector = (int(column[row]) for column in (packets.service, packets.subtype, packets.selector))
    if selector == -2:
        return f"packet of type ({service},{subtype}) ends before its second identifier"
    return f"unknown packet type ({type_name((service, subtype, selector))})"


def _unique(packets: Packets, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], int, list[int]]:
    """Rows to keep, number of true duplicates, rows that contradict an earlier one of the same key.

    The key is the team's: header time and sequence count inside one packet type.
    """
    stamp = (packets.scet << 1 | packets.synced)[rows]
    kind = (packets._type_codes() << 14 | packets.sequence_count)[rows]
    order = np.lexsort((kind, stamp))
    same = np.flatnonzero((np.diff(stamp[order]) == 0) & (np.diff(kind[order]) == 0)) + 1
    if same.size == 0:
        return rows, 0, []
    first = np.arange(order.size)
    first[same] = 0
    first = np.maximum.accumulate(first)
    conflicts = [
        int(rows[order[row]])
        for row in same
        if packets.packet_bytes(rows[order[row]]) != packets.packet_bytes(rows[order[first[row]]])
    ]
    return np.delete(rows, order[same]), same.size - len(conflicts), conflicts


class Seen:
    """The packets of a long reading so far, 20 bytes each, so that later copies are known as duplicates."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[NDArray[np.uint64], NDArray[np.uint32]]] = {}

    def sift(self, packets: Packets, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], int, list[int]]:
        """Rows that are new, number of copies of earlier packets, rows that contradict an earlier packet."""
        codes = packets._type_codes()[rows]
        known, differs = np.zeros(rows.size, dtype=np.bool_), np.zeros(rows.size, dtype=np.bool_)
        for code in np.unique(codes).tolist():
            chosen = np.flatnonzero(codes == code)
            known[chosen], differs[chosen] = self._sift_type(code, packets, rows[chosen])
        conflicts = rows[known & differs].tolist()
        return rows[~known], int(known.sum()) - len(conflicts), conflicts

    def _sift_type(
        self, code: int, packets: Packets, rows: NDArray[np.intp]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        key = (packets.scet[rows].astype(np.uint64) << 1 | packets.synced[rows]) << 14 | packets.sequence_count[rows]
        check = np.array([crc32(packets.packet_bytes(int(row))) for row in rows], dtype=np.uint32)
        old, sums = self._sums.get(code, (np.empty(0, np.uint64), np.empty(0, np.uint32)))
        place = np.searchsorted(old, key)
        inside = np.minimum(place, max(old.size - 1, 0))
        known = (old[inside] == key) if old.size else np.zeros(key.size, dtype=np.bool_)
        differs = (sums[inside] != check) if old.size else known
        new = np.flatnonzero(~known)
        new = new[np.argsort(key[new])]
        at = np.searchsorted(old, key[new])
        self._sums[code] = np.insert(old, at, key[new]), np.insert(sums, at, check[new])
        return known, differs


__all__ = ["Accounting", "PacketKeys", "Packets", "Quarantined", "Seen", "SequenceAccount", "concat", "from_frames"]
