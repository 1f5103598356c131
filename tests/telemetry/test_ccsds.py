from __future__ import annotations

import numpy as np
import pytest
from example_records import light_curve, pixels
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.telemetry import Packets, encode
from stixflow.telemetry.ccsds import build_headers, frame

STREAM = encode(light_curve((3, 4, 5, 6))) + encode(pixels([[(0, [1, 2])], [(10, [1, 2])]]))
PACKETS = Packets.from_bytes(STREAM)


def _books(stream: bytes) -> None:
    frames = frame(stream)
    pieces = [(int(a), int(a + n)) for a, n in zip(frames.offset, frames.length, strict=True)]
    pieces += [(bad.start, bad.stop) for bad in frames.bad]
    at = 0
    for start, stop in sorted(pieces):
        assert start == at
        assert stop > start
        at = stop
    assert at == len(stream)


def test_clean_stream() -> None:
    frames = frame(STREAM)
    assert frames.offset.size == 6
    assert frames.bad == ()
    _books(STREAM)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_frames_and_bad_bytes_cover_any_stream(junk: bytes) -> None:
    _books(junk)
    _books(STREAM[:100] + junk + STREAM[100:])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 6), st.binary(min_size=1, max_size=60))
def test_junk_between_packets_costs_no_packet(position: int, junk: bytes) -> None:
    ends = [0, *np.cumsum(PACKETS.length).tolist()]
    stream = STREAM[: ends[position]] + b"\x00" + junk + b"\x00" + STREAM[ends[position] :]
    frames = frame(stream)
    assert frames.offset.size == 6
    assert sum(bad.stop - bad.start for bad in frames.bad) == len(junk) + 2


@given(st.integers(1, len(STREAM) - 1))
def test_truncation_costs_only_the_last_packet(size: int) -> None:
    whole = int((np.cumsum(PACKETS.length) <= size).sum())
    frames = frame(STREAM[:size])
    assert frames.offset.size == whole
    assert len(frames.bad) == (0 if size in np.cumsum(PACKETS.length) else 1)


@pytest.mark.parametrize("bit", range(16))
def test_flipped_length_costs_one_packet(bit: int) -> None:
    at, after = int(PACKETS.offset[2]), int(PACKETS.offset[3])
    stream = bytearray(STREAM)
    stream[at + 4 + bit // 8] ^= 0x80 >> bit % 8
    frames = frame(bytes(stream))
    (bad,) = frames.bad
    others = set(PACKETS.offset.tolist()) - {at}
    assert others <= set(frames.offset.tolist())
    claimed = (stream[at + 4] << 8 | stream[at + 5]) + 7
    if claimed < after - at:
        assert (bad.start, bad.stop) == (at + claimed, after)
    else:
        assert (bad.start, bad.stop) == (at, after)
        assert "length" in bad.reason
        assert f"{claimed} bytes" in bad.expected
    _books(bytes(stream))


@pytest.mark.parametrize("byte", [0, 6])
def test_damaged_marker_costs_one_packet(byte: int) -> None:
    stream = bytearray(STREAM)
    stream[int(PACKETS.offset[2]) + byte] ^= 0x40
    frames = frame(bytes(stream))
    assert frames.offset.size == 5
    (bad,) = frames.bad
    assert (bad.start, bad.stop) == (PACKETS.offset[2], PACKETS.offset[3])


def test_headers_read_back() -> None:
    headers = build_headers((21, 6), apid=1500, scet=[(1 << 46) + 5, 7], sequence_count=[16383, 16384], sequence_flag=2)
    packets = Packets.from_bytes(b"".join(bytes([*row[:4], 0, 10, *row[6:], 30]) for row in headers))
    assert packets.apid.tolist() == [1500, 1500]
    assert packets.sequence_count.tolist() == [16383, 0]
    assert packets.sequence_flag.tolist() == [2, 2]
    assert packets.scet.tolist() == [(1 << 46) + 5, 7]
    assert packets.selector.tolist() == [30, 30]
