"""CCSDS and PUS packet headers: find the packets in a stream of bytes, read and write their headers.

A STIX telemetry packet begins with 0x0D, has the PUS version in byte 6 and is ``data length + 7`` bytes long. A header
that does not lead to another header, or to the end, is suspect: the stream is then searched for the next header of
a known type, and what lies between is given back as bad bytes, never dropped.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.telemetry.layouts import known_types, selectors
from stixflow.time import SYNC_LOST_BIT

HEADER_SIZE = 16
LONGEST = 65535 + 7
"""Bytes of the longest packet that a length field can announce."""
SEQUENCE_MODULO = 16384
FIRST, MIDDLE, LAST, ALONE = 1, 0, 2, 3
"""Sequence flags."""
SYNC_LOST = SYNC_LOST_BIT << 16
"""Set in a 48-bit onboard time whose clock was not synchronised."""

_FIRST_BYTE = 0x0D
_PUS_BYTE = 0x10


@dataclass(frozen=True, slots=True)
class BadBytes:
    """Bytes of a stream that belong to no packet."""

    start: int
    stop: int
    reason: str
    expected: str


@dataclass(frozen=True, slots=True)
class Frames:
    """Where the packets of a stream are, and which of its bytes belong to none."""

    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    bad: tuple[BadBytes, ...]
    stop: int
    """Byte up to which offsets and bad bytes cover the stream."""


def frame(stream: bytes, *, final: bool = True) -> Frames:
    """Cut back-to-back packets out of `stream`; offsets and bad bytes together cover it up to `Frames.stop`.

    Parameters
    ----------
    stream
        Bytes to be searched.
    final
        False if more bytes follow: the last ones are then left for the next call, as what follows decides on them.
    """
    offsets: list[int] = []
    bad: list[BadBytes] = []
    at = 0
    while at < len(stream):
        at = _follow(stream, at, offsets, final) if is_header(stream, at) else at
        if not final and len(stream) - at < LONGEST + HEADER_SIZE:
            break
        at = _recover(stream, at, offsets, bad, final) if at < len(stream) else at
    start = np.array(offsets, dtype=np.int64)
    return Frames(start, packet_lengths(np.frombuffer(stream, dtype=np.uint8), start), tuple(bad), at)


def is_header(stream: bytes, at: int) -> bool:
    """Tell whether a telemetry header may begin at `at`: the two bytes that never change."""
    return at + HEADER_SIZE <= len(stream) and stream[at] == _FIRST_BYTE and stream[at + 6] == _PUS_BYTE


def _follow(stream: bytes, at: int, offsets: list[int], final: bool) -> int:
    """Go from header to header; stop at the first that does not lead to another one."""
    last = len(stream) - 7
    append = offsets.append
    while True:
        after = at + (stream[at + 4] << 8 | stream[at + 5]) + 7
        if after > last or stream[after] != _FIRST_BYTE or stream[after + 6] != _PUS_BYTE or after - at < HEADER_SIZE:
            break
        append(at)
        at = after
    if final and after == len(stream) and after - at >= HEADER_SIZE:
        append(at)
        return after
    return at


def _recover(stream: bytes, at: int, offsets: list[int], bad: list[BadBytes], final: bool) -> int:
    """Get past a place where the chain of headers breaks; return where the next packet begins."""
    found = next_header(stream, at + 1)
    if found == len(stream) and not final:
        found -= HEADER_SIZE - 1
    if not is_header(stream, at):
        bad.append(BadBytes(at, found, "bytes that are no packet", "a packet header, first byte 0x0D"))
        return found
    claimed = (stream[at + 4] << 8 | stream[at + 5]) + 7
    after = at + claimed
    if claimed >= HEADER_SIZE and after <= found:
        offsets.append(at)
        return after
    if after > len(stream) and found == len(stream):
        reason = f"truncated packet: {found - at} bytes left"
    else:
        reason = f"packet length leads to no header, the next one comes after {found - at} bytes"
    bad.append(BadBytes(at, found, reason, f"{claimed} bytes as its header says"))
    return found


def next_header(stream: bytes, start: int) -> int:
    """Position of the first header of a known packet type from `start` on; the length of `stream` if there is none."""
    match = _known_header().search(stream, start)
    return match.start() if match else len(stream)


@functools.cache
def _known_header() -> re.Pattern[bytes]:
    apids = {layout.apid & 0xFF for choices in known_types().values() for layout in choices}
    services = {packet_type[:2] for packet_type in known_types()}
    apid = b"[" + b"".join(re.escape(bytes([low])) for low in sorted(apids)) + b"]"
    service = b"|".join(re.escape(bytes(pair)) for pair in sorted(services))
    return re.compile(rb"\x0d" + apid + rb".{4}\x10(?:" + service + rb")\x00.{6}", re.DOTALL)


def packet_lengths(buffer: NDArray[np.uint8], offset: NDArray[np.int64]) -> NDArray[np.int64]:
    """Length in bytes that each packet's own header gives."""
    return (buffer[offset + 4].astype(np.int64) << 8 | buffer[offset + 5]) + 7


def read_selectors(
    buffer: NDArray[np.uint8],
    offset: NDArray[np.int64],
    length: NDArray[np.int64],
    service: NDArray[np.uint8],
    subtype: NDArray[np.uint8],
) -> NDArray[np.int32]:
    """Second identifier of each packet; -1 where its type has none, -2 where the packet ends before it."""
    selector = np.full(offset.size, -1, dtype=np.int32)
    code = service.astype(np.int32) << 8 | subtype
    for (first, second), (at, size) in selectors().items():
        rows = np.flatnonzero(code == (first << 8 | second))
        if rows.size:
            fits = length[rows] >= at + size
            selector[rows[~fits]] = -2
            start = offset[rows[fits]] + at
            value = buffer[start].astype(np.int32)
            selector[rows[fits]] = value if size == 1 else value << 8 | buffer[start + 1]
    return selector


def build_headers(
    packet_type: tuple[int, int],
    *,
    apid: int,
    scet: ArrayLike,
    sequence_count: ArrayLike,
    sequence_flag: ArrayLike = ALONE,
) -> NDArray[np.uint8]:
    """Headers of packets of one (service, subtype), shape (packets, 16), with the length left zero.

    Parameters
    ----------
    packet_type
        Service and subtype.
    apid
        11-bit application process id.
    scet
        Header times ``coarse << 16 | fine``, shape (packets,).
    sequence_count, sequence_flag
        One per packet, or one for all; counts wrap at 16384.
    """
    ticks = np.atleast_1d(np.asarray(scet, dtype=np.int64))
    headers = np.zeros((ticks.size, HEADER_SIZE), dtype=np.uint8)
    count = np.asarray(sequence_count, dtype=np.int64) % SEQUENCE_MODULO
    sequence = np.asarray(sequence_flag, dtype=np.int64) << 14 | count
    headers[:, 0] = 0x08 | apid >> 8
    headers[:, 1] = apid & 0xFF
    headers[:, 2] = sequence >> 8
    headers[:, 3] = sequence & 0xFF
    headers[:, 6] = _PUS_BYTE
    headers[:, 7:9] = packet_type
    for byte in range(6):
        headers[:, 10 + byte] = ticks >> (40 - 8 * byte) & 0xFF
    return headers
