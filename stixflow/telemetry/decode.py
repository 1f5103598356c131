"""Packets to records: one layout-driven decoder for every packet type, all packets of a type at once.

A packet whose counts ask for more bytes than it has, or whose layout ends before its last byte, is rejected with the
reason; the others are not touched by it. `stixflow.telemetry.records` says what the records of each product hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry.fields import Column
from stixflow.telemetry.layouts import PRODUCT_TYPES, known_types, layout_indices, layouts, type_name, version_text
from stixflow.telemetry.packets import Accounting, Packets, Quarantined
from stixflow.telemetry.records import Level, Records
from stixflow.telemetry.structure import Layout
from stixflow.telemetry.walk import Walk


class Decoded(dict[str, Records]):
    """Records by product, with what could not be decoded and the books of it."""

    def __init__(
        self, records: Mapping[str, Records], rejected: Sequence[Quarantined], other: Mapping[str, int]
    ) -> None:
        super().__init__(records)
        self.rejected = tuple(rejected)
        self.not_decoded = dict(other)
        """Packets of known types that were not asked for, by type."""
        used = sum(len(one) for one in records.values()) + sum(other.values())
        self.accounting = Accounting(used + len(rejected), used, rejected=len(rejected))


def decode(
    packets: Packets, *, products: Collection[str] = tuple(PRODUCT_TYPES), latest_database: str | None = None
) -> Decoded:
    """Decode packets into records by product.

    Parameters
    ----------
    packets
        Framed packets of any types and times.
    products
        Which to decode: product names, or types as ``"21,6,31"``.
    latest_database
        Decode later packets by this version of the instrument database; ``"2.26.35"`` turns off the layouts of later
        versions, which are inferred. None takes for each packet the version that was valid at its time.

    Returns
    -------
    Mapping of product to `Records` in the order of `packets`, with `rejected` packets and `not_decoded` numbers.
    """
    coarse = _usable_seconds(packets)
    records: dict[str, Records] = {}
    rejected: list[Quarantined] = []
    others: dict[str, int] = {}
    types, inverse = packets.types()
    for position, packet_type in enumerate(types):
        name, rows = type_name(packet_type), np.flatnonzero(inverse == position)
        if name not in products:
            others[name] = rows.size
            continue
        found, bad = _decode_type(
            packets.select(rows), layout_indices(packet_type, coarse[rows], latest=latest_database)
        )
        rejected += bad
        if len(found):
            records[name] = found
    return Decoded(records, rejected, others)


def _usable_seconds(packets: Packets) -> NDArray[np.int64]:
    """Header seconds; where the clock was not synchronised, the last good ones before, or after."""
    coarse = packets.scet >> 16
    if packets.synced.all() or not packets.synced.any():
        return coarse
    good = np.flatnonzero(packets.synced)
    before = np.maximum(np.searchsorted(good, np.arange(len(packets)), side="right") - 1, 0)
    return np.asarray(np.where(packets.synced, coarse, coarse[good[before]]))


def _decode_type(packets: Packets, layout: NDArray[np.int16]) -> tuple[Records, list[Quarantined]]:
    """Decode packets of one type, each by the layout of the given index; also return the rejected ones."""
    rejected: list[Quarantined] = []
    parts, orders = [], []
    for index in np.unique(layout).tolist():
        rows = np.flatnonzero(layout == index)
        part = packets if rows.size == len(packets) else packets.select(rows)
        found, kept, bad = _decode_layout(part, layouts()[index])
        rejected += bad
        parts.append(found)
        orders.append(rows[kept])
    if len(parts) == 1:
        return parts[0], rejected
    merged, order = _merge(parts), np.concatenate(orders)
    if (np.diff(order) > 0).all():
        return merged, rejected
    return merged.select(np.argsort(order, kind="stable")), rejected


def _merge(parts: Sequence[Records]) -> Records:
    """Records of several layouts of one type; a field that a layout does not have is zero there."""
    levels = {}
    for name in dict.fromkeys(level for part in parts for level in part.levels):
        members = [part.levels[name] for part in parts]
        levels[name] = Level(members[0].parent, _merge_columns(members), _merge_unused(members))
    header = np.concatenate([part.header for part in parts])
    return Records(parts[0].product, parts[0].type, header, np.concatenate([part.layout for part in parts]), levels)


def _merge_columns(members: Sequence[Level]) -> dict[str, Column]:
    columns = {}
    for key in dict.fromkeys(key for member in members for key in member.columns):
        model = next(member.columns[key] for member in members if key in member.columns)
        empty = [np.zeros((member.size, *model.shape[1:]), model.dtype) for member in members]
        columns[key] = np.concatenate(
            [member.columns.get(key, blank) for member, blank in zip(members, empty, strict=True)]
        )
    return columns


def _merge_unused(members: Sequence[Level]) -> dict[int, NDArray[np.uint8]]:
    merged = {}
    for block in {block for member in members for block in member.unused}:
        width = max(member.unused[block].shape[1] for member in members if block in member.unused)
        rows = np.zeros((sum(member.size for member in members), width), dtype=np.uint8)
        start = 0
        for member in members:
            if block in member.unused:
                bits = member.unused[block]
                rows[start : start + member.size, : bits.shape[1]] = bits
            start += member.size
        merged[block] = rows
    return merged


def _decode_layout(packets: Packets, layout: Layout) -> tuple[Records, NDArray[np.intp], list[Quarantined]]:
    kept = np.arange(len(packets))
    rejected: list[Quarantined] = []
    walk = Walk(packets.buffer, packets.offset, packets.length, layout)
    if walk.bad.any():
        rejected = [packets.quarantine(row, *walk.reasons[row]) for row in np.flatnonzero(walk.bad).tolist()]
        rejected = _name_fitting(packets.select(np.flatnonzero(walk.bad)), layout, rejected)
        kept = np.flatnonzero(~walk.bad)
        packets = packets.select(kept)
        walk = Walk(packets.buffer, packets.offset, packets.length, layout)
    levels = dict(walk.levels())
    index = np.full(len(packets), layout.index, dtype=np.int16)
    return Records(type_name(layout.type), layout.type, packets.headers(), index, levels), kept, rejected


def _name_fitting(packets: Packets, layout: Layout, rejected: list[Quarantined]) -> list[Quarantined]:
    """Say which database version a rejected packet would fit: its time may be wrong, or the layout inferred."""
    for other in known_types()[layout.type]:
        if other is not layout:
            fits = ~Walk(packets.buffer, packets.offset, packets.length, other).bad
            version = f"{version_text(other.idb_from)} to {version_text(other.idb_to)}"
            rejected = [
                replace(entry, expected=f"{entry.expected}; the layout of database {version} fits") if fit else entry
                for entry, fit in zip(rejected, fits.tolist(), strict=True)
            ]
    return rejected
