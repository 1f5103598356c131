"""How numbers are packed into packets: runs of samples, codes of compressed numbers, headers, room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.telemetry.compression import SCALED, Scheme, compress, decompress, scheme_of, unpack_skm
from stixflow.time import TICKS_PER_SECOND

Columns = dict[str, NDArray[Any]]
Levels = dict[str, Columns]
Arranged = tuple[Levels, NDArray[Any], NDArray[Any]]
"""Columns by level, header times and sequence flags of packets."""

MAX_PACKET_BYTES = 4112
HEADER_BYTES = 16
TICKS_PER_STEP = TICKS_PER_SECOND / 10
MIDDLE, FIRST, LAST, ALONE = range(4)


def segment(number: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Header times after the end of the data, rising inside one second, and sequence flags of `number` packets."""
    step = max(TICKS_PER_SECOND // max(number, 2), 1)
    scet = (header_second(end) << 16) + step * np.arange(number, dtype=np.int64)
    flags = np.full(number, MIDDLE)
    flags[0], flags[-1] = FIRST, LAST
    return scet, flags if number > 1 else np.array([ALONE])


def fill_packets(
    sizes: NDArray[np.int64], heads: NDArray[np.int64], owners: NDArray[np.int64], room: int
) -> NDArray[np.int64]:
    """Give each unit its packet: units in order, as many as fit, a head for every owner in every packet.

    Raises
    ------
    UsageError
        If a unit with its head is larger than a packet.
    """
    if (sizes + heads).max(initial=0) > room:
        raise UsageError(f"a piece of {int((sizes + heads).max())} bytes", expected=f"at most {room} bytes in a packet")
    packets = np.empty(len(sizes), dtype=np.int64)
    used, packet, last = 0, 0, -1
    for index, (size, head, owner) in enumerate(zip(sizes.tolist(), heads.tolist(), owners.tolist(), strict=True)):
        needed = size if owner == last else size + head
        if used + needed > room:
            packet, used, needed = packet + 1, 0, size + head
        used, last = used + needed, owner
        packets[index] = packet
    return packets


def equal_runs(
    scet: NDArray[np.int64], spacing: NDArray[np.floating[Any]], states: Sequence[NDArray[Any]], longest: int
) -> NDArray[np.int64]:
    """Cut samples into runs of constant state whose times are start + round(j * spacing); returns their starts."""
    changes = np.zeros(len(scet), dtype=bool)
    for state in states:
        changes[1:] |= state[1:] != state[:-1]
    next_change = np.append(np.flatnonzero(changes), len(scet))
    starts = [0]
    while True:
        start = starts[-1]
        stop = min(start + longest, int(next_change[np.searchsorted(next_change, start, side="right")]))
        expected = scet[start] + np.rint(np.arange(stop - start) * spacing[start]).astype(np.int64)
        wrong = np.flatnonzero(scet[start:stop] != expected)
        stop = start + int(wrong[0]) if wrong.size else stop
        if stop >= len(scet):
            return np.array(starts, dtype=np.int64)
        starts.append(stop)


def codes_of(values: NDArray[Any], skm: NDArray[Any], name: str, quantise: bool) -> NDArray[np.uint8]:
    """Compress with the scheme of each time bin.

    Raises
    ------
    UsageError
        If a number would come back changed and `quantise` is off, or the scheme is one that scales.
    """
    codes = np.empty(values.shape, dtype=np.uint8)
    for packed in np.unique(skm):
        rows = slice(None) if (skm == packed).all() else np.flatnonzero(skm == packed)
        codes[rows] = _compressed(values[rows], scheme_of(int(packed)), name, quantise)
    return codes


def _compressed(values: NDArray[Any], scheme: Scheme, name: str, quantise: bool) -> NDArray[np.uint8]:
    if scheme == SCALED:
        raise UsageError(f"{name} scaled on board (0,0,7)", expected="compressed numbers", advice="use scheme (0,5,3)")
    codes: NDArray[np.uint8] = compress(values, scheme)
    if not quantise:
        changed = decompress(codes, scheme) != values
        if changed.any():
            raise UsageError(
                f"{int(changed.sum())} of {values.size} {name} have no code in scheme {scheme}, first "
                f"{values[changed].flat[0]}",
                expected="decompressed numbers",
                advice="compress them on the way with quantise=True",
            )
    return codes


def tenths_of(seconds: NDArray[np.float64], low: int, high: int, name: str, quantise: bool) -> NDArray[np.int64]:
    """Seconds as a whole number of 0.1 s.

    Raises
    ------
    UsageError
        If they are off that raster and `quantise` is off, or are not from `low` to `high`.
    """
    exact = seconds * 10.0
    tenths = np.rint(exact).astype(np.int64)
    if (np.abs(exact - tenths) > 1e-3).any() and not quantise:
        raise UsageError(
            f"{name} of {seconds[np.abs(exact - tenths) > 1e-3][0]} s",
            expected="multiples of 0.1 s",
            advice="round them on the way with quantise=True",
        )
    if tenths.min() < low or tenths.max() > high:
        raise UsageError(
            f"{name} from {seconds.min()} to {seconds.max()} s",
            expected=f"{low / 10} to {high / 10} s",
            advice="split or join bins",
        )
    return tenths


def edge_masks(start: NDArray[np.uint8], stop: NDArray[np.uint8]) -> tuple[int, int]:
    """Edges of the energy bins as bits 0 to 31, and bit 32.

    Raises
    ------
    UsageError
        If a bin does not begin where the one before ends.
    """
    if (start[1:] != stop[:-1]).any():
        raise UsageError("light curves with a gap between energy bins", expected="each bin to begin where one ends")
    edges = [int(edge) for edge in (*start, stop[-1])]
    return sum(1 << edge for edge in edges if edge < 32), int(32 in edges)


def skm_fields(prefix: str, skm: NDArray[Any]) -> Columns:
    """Columns with the letters of a compression scheme."""
    return {f"{prefix}_{letter}": part for letter, part in zip("skm", unpack_skm(skm), strict=True)}


def bits_of(masks: NDArray[Any], width: int) -> NDArray[np.bool_]:
    """Tell which bits of each mask are set, shape (masks, width)."""
    return np.asarray((masks.astype(np.int64)[:, np.newaxis] >> np.arange(width)) & 1, dtype=bool)


def popcount(masks: NDArray[Any], width: int) -> NDArray[np.int64]:
    """Count the bits of each mask."""
    return np.asarray(bits_of(masks, width).sum(axis=1), dtype=np.int64)


def header_second(end: int) -> int:
    """Onboard second in which data that end at an onboard time are packed."""
    return (end >> 16) + 1
