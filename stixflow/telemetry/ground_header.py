"""The header of 76 bytes that the ground system puts before each packet of a SOC XML delivery."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry.ccsds import HEADER_SIZE
from stixflow.telemetry.layouts import known_types
from stixflow.telemetry.packets import Packets
from stixflow.time import scet_to_utc

PREFIX_SIZE = 76
NO_TIME = np.datetime64("NaT", "us")
"""Of a packet whose header does not date it."""

_SPACECRAFT = 0x028A


def ground_headers(packets: Packets) -> NDArray[Any]:
    """Make the headers of packets, as far as their meaning is known, shape (packets, 76)."""
    microseconds = scet_to_utc(packets.scet).astype("datetime64[us]").astype(np.int64)
    words = np.zeros((len(packets), PREFIX_SIZE // 4), dtype=">u4")
    for column in (1, 3):
        words[:, column], words[:, column + 1] = np.divmod(microseconds, 1_000_000)
    words[:, 6] = _SPACECRAFT << 16
    words[:, 7] = packets.length + PREFIX_SIZE
    words[:, 9] = np.arange(1, len(packets) + 1)
    types, inverse = packets.types()
    words[:, 10] = np.array([known_types()[packet_type][0].spid for packet_type in types] or [0])[inverse]
    rows = words.view(np.uint8).reshape(len(packets), PREFIX_SIZE)
    for at, number in ((70, packets.apid), (72, packets.sequence_count)):
        rows[:, at], rows[:, at + 1] = number >> 8, number & 0xFF
    rows[:, 74], rows[:, 75] = packets.service, packets.subtype
    return rows


def packet_time(data: bytes, at: int) -> np.datetime64:
    """Packet time in the ground header before `at`, if that is the header of this packet and no copy of another."""
    packet = data[at : at + HEADER_SIZE]
    apid = (packet[0] << 8 | packet[1]) & 0x7FF
    count = (packet[2] << 8 | packet[3]) & 0x3FFF
    own = apid.to_bytes(2, "big") + count.to_bytes(2, "big") + packet[7:9]
    if at != PREFIX_SIZE or data[70:76] != own or int.from_bytes(data[28:32], "big") != len(data):
        return NO_TIME
    seconds, microseconds = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
    return np.datetime64(seconds * 1_000_000 + microseconds, "us")
