from __future__ import annotations

import numpy as np
import pytest
from example_records import NEW, light_curve, pixels
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.errors import BalanceError
from stixflow.telemetry import Accounting, Packets, concat, encode
from stixflow.telemetry.packets import SequenceAccount

STREAM = encode(light_curve((3, 4, 5, 6), count=16382)) + encode(pixels([[(0, [1, 2])], [(10, [1, 2])]]))
PACKETS = Packets.from_bytes(STREAM)


def test_books_must_balance() -> None:
    with pytest.raises(BalanceError, match="5 packets in"):
        Accounting(5, 3, 1, 0)
    assert Accounting(3, 1, 1, 1) + Accounting(2, 2) == Accounting(5, 3, 1, 1)


def test_bytes_come_back() -> None:
    assert PACKETS.to_bytes() == STREAM
    chosen = PACKETS.select(np.array([5, 0]))
    assert chosen.to_bytes() == PACKETS.packet_bytes(5) + PACKETS.packet_bytes(0)
    assert chosen.buffer is PACKETS.buffer
    assert chosen.accounting == Accounting(2, 2)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12))
def test_duplicates_are_counted_and_taken_out(rows: list[int]) -> None:
    blob = b"".join(PACKETS.packet_bytes(row) for row in rows)
    found = Packets.from_bytes(blob)
    assert len(found) == len(set(rows))
    assert found.accounting == Accounting(len(rows), len(set(rows)), duplicates=len(rows) - len(set(rows)))


def test_contradicting_copy_is_quarantined() -> None:
    second = bytearray(PACKETS.packet_bytes(1))
    second[-1] ^= 1
    found = Packets.from_bytes(STREAM + bytes(second) + STREAM)
    assert found.accounting == Accounting(13, 6, duplicates=6, rejected=1)
    (entry,) = found.rejected
    assert entry.data == bytes(second)
    assert entry.offset == len(STREAM)
    assert "differs from an earlier packet" in entry.reason
    assert found.to_bytes() == STREAM


def test_unknown_type_is_quarantined_with_its_bytes() -> None:
    strange = bytearray(PACKETS.packet_bytes(0))
    strange[16] = 99
    found = Packets.from_bytes(bytes(strange) + STREAM)
    assert found.accounting == Accounting(7, 6, rejected=1)
    assert found.rejected[0].reason == "unknown packet type (21,6,99)"
    assert found.rejected[0].data == bytes(strange)


def test_packet_without_room_for_its_identifier() -> None:
    short = bytearray(PACKETS.packet_bytes(0)[:16])
    short[4:6] = (9).to_bytes(2, "big")
    found = Packets.from_bytes(bytes(short) + STREAM)
    assert "second identifier" in found.rejected[0].reason


def test_routing() -> None:
    assert PACKETS.product().tolist() == ["ql_lightcurve"] * 4 + ["sci_pixels"] * 2
    assert len(PACKETS.of_product("sci_pixels")) == 2
    assert Packets.from_bytes(b"").product().size == 0


def test_sequence_counters_wrap() -> None:
    account = PACKETS.sequence()
    assert account[1500] == SequenceAccount(4, 0, 0)
    without = PACKETS.select(np.array([0, 1, 3])).sequence()
    assert without[1500] == SequenceAccount(3, 1, 1)


def test_partition_keys() -> None:
    keys = PACKETS.keys()
    start = (NEW << 16) + 100 + np.array([0, 12, 28, 48]) * 65536
    assert keys.start[:4].tolist() == start.tolist()
    assert keys.stop[:4].tolist() == (start + np.array([12, 16, 20, 24]) * 65536).tolist()
    assert keys.request_id.tolist() == [-1] * 4 + [2211090042] * 2
    assert keys.seq_control.tolist() == [-1] * 4 + [54678] * 2
    assert keys.start[4:].tolist() == [-1, -1]


def test_keys_of_a_clock_that_was_not_synchronised() -> None:
    lost = bytearray(PACKETS.packet_bytes(0))
    lost[10] |= 0x80
    lost[17] |= 0x80
    packets = Packets.from_bytes(bytes(lost) + PACKETS.packet_bytes(1))
    assert packets.synced.tolist() == [False, True]
    assert packets.keys().start[0] == -1
    assert packets.keys().start[1] > 0


def test_concat_takes_out_what_came_twice() -> None:
    both = concat([PACKETS.select(slice(0, 3)), PACKETS.select(slice(2, 6))])
    assert both.accounting == Accounting(7, 6, duplicates=1)
    assert both.to_bytes() == STREAM


@given(st.integers(1, 2000))
def test_batches_are_the_whole(size: int) -> None:
    assert b"".join(part.to_bytes() for part in PACKETS.batches(size)) == STREAM
