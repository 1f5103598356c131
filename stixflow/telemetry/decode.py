"""Packets to records: one layout-driven decoder for every packet type, all packets of a type at once.

The decoder walks the layout, not the packets. First it finds where every group of every packet begins, reading only the
counts: packets advance together, one step per item of the longest group. Then each level's bytes are copied as
rows and cut into columns. A packet whose counts ask for more bytes than it has, or whose layout ends before its last
byte, is rejected with the reason; the others are not touched by it.

`Records` are tables, one per level. The outermost level is ``packet``; every other level is named by the field that
counts its rows, and rows lie in packet order, so the rows below parent row i are the next ``parent[level][i]`` ones:

=====================  ===============================================================================================
``ql_lightcurve``      ``packet``: scet_coarse, scet_fine, integration_time, detector_mask, pixel_mask, counts_s/k/m,
(SSID 30)              triggers_s/k/m, energy_edge_mask_32, energy_edge_mask_0_31, num_energies, num_triggers, num_rcr;
                       ``num_energies``: num_samples; ``num_samples``: counts (all times of the first energy, then
                       of the next); ``num_triggers``: triggers; ``num_rcr``: rcr
``sci_pixels``         ``packet``: tc_packet_id, tc_packet_seq_control, request_id, counts_s/k/m, triggers_s/k/m,
(SSID 21)              time_stamp, num_substructures; ``num_substructures``: start_time (24 bits, since IDB
                       2.26.35) or delta_time (16 bits, before), rcr, num_pixel_sets, detector_mask,
                       integration_time, trigger (rows, 16), num_energy_groups; ``num_pixel_sets``: pixel_mask;
                       ``num_energy_groups``: e_low, e_high, num_data; ``num_data``: counts (detector slow,
                       pixel fast)
``sci_spectrogram``    ``packet`` as above; ``num_substructures``: pixel_mask, detector_mask, rcr, e_low, e_high,
(SSID 24)              e_unit_minus_1, num_samples, closing_time_offset; ``num_samples``: start_time or delta_time,
                       triggers, num_energies; ``num_energies``: counts
=====================  ===============================================================================================

All numbers are raw, compressed ones as bytes. To make records by hand, give `Records.from_levels` these columns; those
left out are zero, ``ssid`` is filled in, and the counts must agree with the rows given. `encode` then writes them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import UsageError
from stixflow.telemetry.ccsds import ALONE, HEADER_SIZE, build_headers, gather_rows, scatter_rows
from stixflow.telemetry.compression import Scheme, decompress, dtype_of, pack_skm, unpack_skm
from stixflow.telemetry.engineering import engineering_values
from stixflow.telemetry.layouts import (
    NO_SELECTOR,
    PRODUCT_TYPES,
    ROOT,
    TAIL,
    Block,
    Field,
    Layout,
    PacketType,
    Repeat,
    Scope,
    find_layout,
    known_types,
    layout_indices,
    layouts,
    selectors,
    type_name,
    version_text,
)
from stixflow.telemetry.packets import Accounting, Packets, Quarantined, big_endian

Column: TypeAlias = NDArray[Any]

_TINY_RUN = 8
_LONG_RUN = 1 << 16
_FEW_RUNS = 8
_MANY_CHANGES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """The rows of one level: raw values by field name, and the unused bits where they are not zero."""

    parent: str
    columns: Mapping[str, Column]
    unused: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)
    """By block of the level: rows of bytes with only the unused bits kept."""

    @property
    def size(self) -> int:
        return next((len(column) for column in self.columns.values()), 0)


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Decoded packets of one type."""

    product: str
    type: PacketType
    header: NDArray[np.uint8]
    """The 16 header bytes of each packet, shape (packets, 16)."""
    layout: NDArray[np.int16]
    """Index of each packet's layout in `layouts.layouts()`."""
    levels: Mapping[str, Level]

    def __len__(self) -> int:
        return len(self.header)

    def __getitem__(self, name: str) -> Column:
        """Raw values of a field; field names are unique over all levels of a type."""
        return self.levels[self.level_of(name)].columns[name]

    def __contains__(self, name: object) -> bool:
        return any(name in level.columns for level in self.levels.values())

    def level_of(self, name: str) -> str:
        """Name the level that holds a field."""
        for level_name, level in self.levels.items():
            if name in level.columns:
                return level_name
        raise UsageError(f"{self.product} has no field {name!r}", expected=f"one of {sorted(self._names())}")

    def _names(self) -> set[str]:
        return {name for level in self.levels.values() for name in level.columns}

    @property
    def scet(self) -> NDArray[np.int64]:
        """Header times, without the sync bit."""
        return big_endian(self.header[:, 10:16]) & ~(1 << 47)

    @property
    def sequence_count(self) -> NDArray[np.int64]:
        return big_endian(self.header[:, 2:4]) & 0x3FFF

    @property
    def sequence_flag(self) -> NDArray[np.int64]:
        return big_endian(self.header[:, 2:4]) >> 14

    def lengths(self, level: str) -> NDArray[np.int64]:
        """Rows of `level` below each row of its parent."""
        parent = self.levels[level].parent
        return self.levels[parent].columns[level].astype(np.int64)

    def starts(self, level: str) -> NDArray[np.int64]:
        """First row of `level` below each row of its parent."""
        return starts_of(self.lengths(level))

    def parents(self, level: str) -> NDArray[np.intp]:
        """Row of the parent level that each row of `level` belongs to."""
        return np.repeat(np.arange(self.levels[self.levels[level].parent].size), self.lengths(level))

    def ancestors(self, level: str, ancestor: str = ROOT) -> NDArray[np.intp]:
        """Row of `ancestor` that each row of `level` belongs to."""
        rows = np.arange(self.levels[level].size)
        while level != ancestor:
            rows = self.parents(level)[rows]
            level = self.levels[level].parent
        return rows

    def skm(self, name: str) -> NDArray[np.uint16]:
        """Compression scheme of a field in each packet, packed as in `compression.pack_skm`."""
        schemes = [layout_scheme(layouts()[index], name) for index in np.unique(self.layout).tolist()]
        out = np.zeros(len(self), dtype=np.uint16)
        for index, scheme in zip(np.unique(self.layout).tolist(), schemes, strict=True):
            if scheme is not None:
                packed = _with_sign(pack_skm(*(self[part] for part in scheme)), self.field(name).sign)
                out = np.where(self.layout == index, packed, out)
        return out

    def engineering(self, name: str, *, straight: bool = False) -> Column:
        """Engineering values of a field: numbers in the field's `unit`, texts, or NaN for visibilities that overflowed.

        Parameters
        ----------
        name
            Field name.
        straight
            Join the points of calibration curves by straight lines instead of the team's cubic splines, which
            run away outside their points.
        """
        values = self.values(name)
        return engineering_values(self.field(name), self[name], values, straight=straight)

    def field(self, name: str) -> Field:
        """Describe a field: its database identifier, bits, unit, text table and curve."""
        self.level_of(name)
        chosen = [layouts()[index] for index in np.unique(self.layout).tolist()] or known_types()[self.type]
        return next(
            one
            for layout in reversed(chosen)
            for _, scope in layout.levels.values()
            for one in scope.fields
            if one.name == name
        )

    def values(self, name: str) -> Column:
        """Decompressed values of a field, each packet by its own scheme; fields without scheme as they are."""
        level = self.level_of(name)
        raw = self.levels[level].columns[name]
        if raw.dtype != np.uint8 or not any(_is_compressed(index, name) for index in np.unique(self.layout).tolist()):
            return raw
        packed = self.skm(name)
        bounds = self.bounds(level)
        change = np.flatnonzero(np.diff(packed)) + 1
        if change.size > _MANY_CHANGES:
            return _looked_up(raw, packed, np.diff(bounds))
        first = np.concatenate([[0], change]) if packed.size else change
        edges = bounds[np.append(first, packed.size)].tolist()
        schemes = [_scheme(one) for one in packed[first].tolist()]
        if len(schemes) == 1:
            return decompress(raw, schemes[0])
        return _mixed(raw, schemes, edges)

    def bounds(self, level: str) -> NDArray[np.int64]:
        """First row of `level` in each packet, and one more entry: where the last packet's rows end."""
        chain = []
        while level != ROOT:
            chain.append(level)
            level = self.levels[level].parent
        edges = np.arange(len(self) + 1)
        for name in reversed(chain):
            edges = np.concatenate([[0], np.cumsum(self.lengths(name))])[edges]
        return edges

    def select(self, rows: NDArray[np.integer[Any]]) -> Records:
        """Choose packets by index, in the order given."""
        out: dict[str, Level] = {}
        picks: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        for name, level in self.levels.items():
            if name == ROOT:
                start, length = np.asarray(rows, dtype=np.int64), np.ones(len(rows), dtype=np.int64)
            else:
                start, length = self._below(name, *picks[level.parent])
            picks[name] = start, length
            columns = {key: take_runs(column, start, length) for key, column in level.columns.items()}
            unused = {block: take_runs(bits, start, length) for block, bits in level.unused.items()}
            out[name] = Level(level.parent, columns, unused)
        return replace(self, header=self.header[rows], layout=self.layout[rows], levels=out)

    def _below(
        self, level: str, start: NDArray[np.int64], length: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of `level` below runs of parent rows: again one run each."""
        edges = np.concatenate([[0], np.cumsum(self.lengths(level))])
        return edges[start], edges[start + length] - edges[start]

    @classmethod
    def from_levels(
        cls,
        product: str,
        levels: Mapping[str, Mapping[str, ArrayLike]],
        *,
        scet: ArrayLike,
        sequence_count: ArrayLike,
        sequence_flag: ArrayLike = ALONE,
    ) -> Records:
        """Make records by hand, ready for `encode`.

        Parameters
        ----------
        product
            Product name, or ``service,subtype,selector``; see the module's table.
        levels
            Columns of raw numbers by level and field; missing fields are zero.
        scet
            Header time of each packet, ``coarse << 16 | fine``; all must fall under one layout.
        sequence_count, sequence_flag
            One per packet, or one for all.

        Raises
        ------
        UsageError
            If fields are unknown, numbers do not fit their bits, or counts and rows disagree.
        """
        packet_type = parse_product(product)
        times = np.atleast_1d(np.asarray(scet, dtype=np.int64))
        found = {find_layout(packet_type, int(coarse)).index for coarse in np.unique(times >> 16)}
        if len(found) != 1:
            raise UsageError(f"packets of {len(found)} layouts", expected="one", advice="make the records in parts")
        layout = layouts()[found.pop()]
        header = build_headers(
            packet_type[:2],
            apid=layout.apid,
            scet=times,
            sequence_count=sequence_count,
            sequence_flag=sequence_flag,
        )
        made = {
            name: _make_level(parent, scope, levels.get(name, {}), times.size)
            for name, (parent, scope) in layout.levels.items()
        }
        _check_levels(layout, levels, made, times.size)
        records = cls(product, packet_type, header, np.full(times.size, layout.index, np.int16), made)
        _set_selector(layout, made, times.size)
        return records


def _set_selector(layout: Layout, made: dict[str, Level], packets: int) -> None:
    """Fill in the field that the packet type is read from."""
    service, subtype, selector = layout.type
    if selector == NO_SELECTOR:
        return
    at = (selectors()[service, subtype][0] - HEADER_SIZE) * 8
    (one,) = [one for one in layout.scope.blocks[0].fields if one.at == at]
    columns = {**made[ROOT].columns, one.name: np.full(packets, selector, one.dtype)}
    made[ROOT] = replace(made[ROOT], columns=columns)


def parse_product(product: str) -> PacketType:
    """Packet type of a product name, or of ``service,subtype[,selector]``."""
    found = PRODUCT_TYPES.get(product) or _types_by_name().get(product)
    if found is None:
        raise UsageError(f"{product!r} is no packet type", expected=f"{', '.join(PRODUCT_TYPES)} or a type as 21,6,30")
    return found


@functools.cache
def _types_by_name() -> dict[str, PacketType]:
    return {type_name(packet_type): packet_type for packet_type in known_types()} | {
        ",".join(map(str, packet_type)): packet_type for packet_type in known_types()
    }


def _make_level(parent: str, scope: Scope, given: Mapping[str, ArrayLike], packets: int) -> Level:
    lengths = {len(np.asarray(column)) for column in given.values() if np.ndim(column)}
    if len(lengths) > 1:
        raise UsageError(f"columns of {sorted(lengths)} rows in level {scope.level}", expected="one length, or scalars")
    unnamed = min(len(given), 1) if parent else packets
    size = lengths.pop() if lengths else unnamed
    columns: dict[str, Column] = {}
    if any(repeat.count == TAIL for repeat in scope.repeats):
        columns[TAIL] = np.array(np.broadcast_to(np.asarray(given.get(TAIL, 0), dtype=np.int64), (size,)))
    for one in scope.fields:
        shape = (size, one.repeat) if one.repeat else (size,)
        column = np.broadcast_to(np.asarray(given.get(one.name, 0)), shape)
        _check_range(one, column)
        columns[one.name] = np.ascontiguousarray(column, dtype=one.dtype)
    return Level(parent, columns)


def _check_range(one: Field, column: Column) -> None:
    low, high = (-(1 << one.bits - 1), (1 << one.bits - 1) - 1) if one.signed else (0, (1 << one.bits) - 1)
    if column.size and not (low <= int(column.min()) and int(column.max()) <= high):
        raise UsageError(
            f"{one.name} from {column.min()} to {column.max()}", expected=f"{low} to {high}, {one.bits} bits"
        )


def _check_levels(
    layout: Layout, given: Mapping[str, Mapping[str, ArrayLike]], made: Mapping[str, Level], packets: int
) -> None:
    problems = []
    for name, columns in given.items():
        known = {one.name for one in layout.levels[name][1].fields} if name in layout.levels else set()
        known |= {TAIL} if layout.has_tail else set()
        problems += [f"{name}.{column} is no field" for column in columns if column not in known]
    for name, level in made.items():
        asked = int(made[level.parent].columns[name].sum(dtype=np.int64)) if level.parent else packets
        if asked != level.size and not (level.size == 0 and not level.columns):
            problems.append(f"level {name} has {level.size} rows where its parent counts {asked}")
    if problems:
        raise UsageError(
            "; ".join(problems), expected=f"levels {', '.join(layout.levels)}", advice="see stixflow.telemetry.decode"
        )


def layout_scheme(layout: Layout, name: str) -> tuple[str, str, str] | None:
    """Names of the fields with s, k, m of a compressed field; None if it is not compressed."""
    return _schemes(layout.index).get(name)


@functools.cache
def _schemes(index: int) -> dict[str, tuple[str, str, str]]:
    scopes = layouts()[index].levels.values()
    return {one.name: one.scheme for _, scope in scopes for one in scope.fields if one.scheme}


def _with_sign(packed: NDArray[np.uint16], sign: str) -> NDArray[np.uint16]:
    """Schemes of codes that have a sign bit (visibilities), or none (flux), whatever the packet says."""
    s, k, m = unpack_skm(packed)
    if sign == "always":
        return np.where(packed & 0xFF, pack_skm(1, k, m), packed)
    if sign == "never":
        return pack_skm(0, np.minimum(k + s, 7), m)
    return packed


def _is_compressed(index: int, name: str) -> bool:
    return name in _schemes(index)


def _scheme(packed: int) -> Scheme:
    s, k, m = unpack_skm(packed)
    return int(s), int(k), int(m)


def _mixed(raw: NDArray[np.uint8], schemes: Sequence[Scheme], edges: Sequence[int]) -> Column:
    """Decompress stretches of packets, each by its own scheme."""
    out = np.empty(raw.shape, dtype=_mixed_dtype(raw, set(schemes)))
    for scheme, start, stop in zip(schemes, edges[:-1], edges[1:], strict=True):
        out[start:stop] = decompress(raw[start:stop], scheme)
    return out


def _looked_up(raw: NDArray[np.uint8], packed: NDArray[np.uint16], rows: NDArray[np.int64]) -> Column:
    """Decompress packets whose schemes change all the time, all in one table; `rows` of each packet."""
    found, position = np.unique(packed, return_inverse=True)
    schemes = [_scheme(one) for one in found.tolist()]
    dtype = _mixed_dtype(raw, schemes)
    codes = np.arange(256, dtype=np.uint8)
    with np.errstate(over="ignore"):
        table = np.concatenate([decompress(codes, scheme).astype(dtype) for scheme in schemes])
    base = np.repeat(position * 256, rows)
    return np.asarray(table[base.reshape(-1, *[1] * (raw.ndim - 1)) + raw])


def _mixed_dtype(raw: NDArray[np.uint8], schemes: Collection[Scheme]) -> np.dtype[Any]:
    highest = int(raw.max(initial=0))
    return np.result_type(*{dtype_of(scheme, highest) for scheme in schemes})


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
        found, bad = decode_type(
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


def decode_type(packets: Packets, layout: NDArray[np.int16]) -> tuple[Records, list[Quarantined]]:
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
    walk = _Walk(packets.buffer, packets.offset, packets.length, layout)
    if walk.bad.any():
        rejected = [packets.quarantine(row, *walk.reasons[row]) for row in np.flatnonzero(walk.bad).tolist()]
        rejected = _name_fitting(packets.select(np.flatnonzero(walk.bad)), layout, rejected)
        kept = np.flatnonzero(~walk.bad)
        packets = packets.select(kept)
        walk = _Walk(packets.buffer, packets.offset, packets.length, layout)
    levels = dict(walk.levels())
    index = np.full(len(packets), layout.index, dtype=np.int16)
    return Records(type_name(layout.type), layout.type, packets.headers(), index, levels), kept, rejected


def _name_fitting(packets: Packets, layout: Layout, rejected: list[Quarantined]) -> list[Quarantined]:
    """Say which database version a rejected packet would fit: its time may be wrong, or the layout inferred."""
    for other in known_types()[layout.type]:
        if other is not layout:
            fits = ~_Walk(packets.buffer, packets.offset, packets.length, other).bad
            version = f"{version_text(other.idb_from)} to {version_text(other.idb_to)}"
            rejected = [
                replace(entry, expected=f"{entry.expected}; the layout of database {version} fits") if fit else entry
                for entry, fit in zip(rejected, fits.tolist(), strict=True)
            ]
    return rejected


class _Walk:
    """Finds where every block of every row of every level begins, and which packets do not follow the layout."""

    def __init__(
        self, buffer: NDArray[np.uint8], offset: NDArray[np.int64], length: NDArray[np.int64], layout: Layout
    ) -> None:
        padding = np.zeros(max(HEADER_SIZE + layout.scope.min_size - buffer.size, 0), dtype=np.uint8)
        self.buffer = np.concatenate([buffer, padding]) if padding.size else buffer
        self.end, self.layout = offset + length, layout
        self.bad = np.zeros(offset.size, dtype=np.bool_)
        self.reasons: dict[int, tuple[str, str]] = {}
        self.found: dict[str, list[_Piece]] = {name: [] for name in layout.levels}
        self.sizes = dict.fromkeys(layout.levels, 0)
        packet = np.arange(offset.size)
        stop = self._rows(layout.scope, packet, offset + HEADER_SIZE, packet, packet)
        misfit = np.flatnonzero(stop != self.end)
        self._reject(
            misfit,
            [
                (
                    "layout does not fit the packet length",
                    f"{stop[row] - offset[row]} bytes by the {layout.status} layout, the packet has {length[row]}",
                )
                for row in misfit.tolist()
            ],
        )

    def _reject(self, rows: NDArray[np.intp], reasons: Iterable[tuple[str, str]]) -> None:
        for row, reason in zip(rows.tolist(), reasons, strict=True):
            if not self.bad[row]:
                self.bad[row] = True
                self.reasons[row] = reason

    def _rows(
        self,
        scope: Scope,
        packet: NDArray[np.intp],
        cursor: NDArray[np.int64],
        parent: NDArray[np.intp],
        item: NDArray[np.intp] | int,
    ) -> NDArray[np.int64]:
        """Walk one row of `scope` in each packet given; return where each ends."""
        piece = _Piece(parent, item, [], {})
        first = self.sizes[scope.level]
        self.sizes[scope.level] += packet.size
        self.found[scope.level].append(piece)
        for part in scope.parts:
            if isinstance(part, Block):
                cursor = self._block(part, packet, cursor, piece)
            else:
                cursor = self._group(part, scope, packet, cursor, piece, first)
        return cursor

    def _block(
        self, block: Block, packet: NDArray[np.intp], cursor: NDArray[np.int64], piece: _Piece
    ) -> NDArray[np.int64]:
        after = cursor + block.size
        short = after > self.end[packet]
        if short.any():
            reason = ("packet ends inside a group of fields", f"{block.size} bytes more from there")
            self._reject(packet[short], itertools.repeat(reason, int(short.sum())))
            cursor = np.where(short, self.end[packet] - block.size, cursor)
            after = np.where(short, self.end[packet], after)
            cursor = np.maximum(cursor, 0)
        piece.blocks.append(cursor)
        return after

    def _group(
        self,
        repeat: Repeat,
        scope: Scope,
        packet: NDArray[np.intp],
        cursor: NDArray[np.int64],
        piece: _Piece,
        first: int,
    ) -> NDArray[np.int64]:
        size = repeat.scope.min_size
        tail = repeat.count == TAIL
        count = self.end[packet] - cursor if tail else self._count(scope, repeat.count, piece.blocks)
        impossible = count * size > self.end[packet] - cursor
        if impossible.any():
            room = (self.end[packet] - cursor)[impossible] // size
            self._reject(packet[impossible], _too_many(repeat.count, count[impossible], room))
            count = np.where(impossible, 0, count)
        piece.counts[repeat.count] = count
        if repeat.scope.is_fixed:
            rows = _Piece(first + np.arange(packet.size), 0, [cursor], {})
            self.found[repeat.scope.level].append(rows)
            return cursor + count * size
        return self._items(repeat.scope, packet, cursor, count, first)

    def _items(
        self,
        scope: Scope,
        packet: NDArray[np.intp],
        cursor: NDArray[np.int64],
        count: NDArray[np.int64],
        first: int,
    ) -> NDArray[np.int64]:
        cursor = cursor.copy()
        rest = np.arange(count.size)
        if len(scope.parts) == 2 and scope.repeats and scope.repeats[0].scope.is_fixed:
            equal = self._equal_items(scope, packet, cursor, count, first)
            rest = np.flatnonzero(~equal)
            rest = self._chain_items(scope, packet, cursor, count, first, rest)
        for item in range(int(count[rest].max(initial=0))):
            active = rest[count[rest] > item]
            active = active[~self.bad[packet[active]]] if self.reasons else active
            cursor[active] = self._rows(scope, packet[active], cursor[active], first + active, item)
        return cursor

    def _equal_items(
        self,
        scope: Scope,
        packet: NDArray[np.intp],
        cursor: NDArray[np.int64],
        count: NDArray[np.int64],
        first: int,
    ) -> NDArray[np.bool_]:
        """Walk at once the groups whose items turn out to be all as long as the first; advance `cursor` of those."""
        block, (repeat,) = scope.blocks[0], scope.repeats
        rows = np.flatnonzero(count > 0)
        number = self._count(scope, repeat.count, [cursor[rows]])
        size = block.size + number * repeat.scope.min_size
        fits = cursor[rows] + count[rows] * size <= self.end[packet[rows]]
        rows, number, size = rows[fits], number[fits], size[fits]
        items = np.arange(int(count[rows].sum())) - np.repeat(starts_of(count[rows]), count[rows])
        start = np.repeat(cursor[rows], count[rows]) + items * np.repeat(size, count[rows])
        found = self._count(scope, repeat.count, [start])
        equal = np.ones(rows.size, dtype=np.bool_)
        if rows.size:
            matches = found == np.repeat(number, count[rows])
            equal = np.asarray(np.logical_and.reduceat(matches, starts_of(count[rows])))
        if not equal.all():
            chosen = np.repeat(equal, count[rows])
            items, start, found = items[chosen], start[chosen], found[chosen]
        rows, size = rows[equal], size[equal]
        self._add_items(scope, first + np.repeat(rows, count[rows]), items, start, found)
        cursor[rows] += count[rows] * size
        done = count == 0
        done[rows] = True
        return np.asarray(done)

    def _chain_items(
        self,
        scope: Scope,
        packet: NDArray[np.intp],
        cursor: NDArray[np.int64],
        count: NDArray[np.int64],
        first: int,
        rows: NDArray[np.intp],
    ) -> NDArray[np.intp]:
        """Follow items of any length from one to the next, in all groups `rows` at once; advance their `cursor`.

        The groups stand in order of their number of items, so that those that go on are always the first ones. Returns
        the groups that do not fit into their packet, untouched.
        """
        number = count[rows]
        begin = starts_of(number)
        order = np.argsort(-number, kind="stable")
        going = np.searchsorted(-number[order], -np.arange(int(number.max(initial=0))), side="left").tolist()
        at, slot = cursor[rows[order]], begin[order]
        start = np.empty(int(number.sum()), dtype=np.int64)
        step = self._size_reader(scope)
        for size in going:
            here, there = at[:size], slot[:size]
            start[there] = here
            here += step(here)
            there += 1
        over = at > self.end[packet[rows[order]]]
        if over.any():
            fitting = np.sort(rows[order[~over]])
            self._chain_items(scope, packet, cursor, count, first, fitting)
            return rows[order[over]]
        cursor[rows[order]] = at
        item = np.arange(start.size) - np.repeat(begin, number)
        found = self._count(scope, scope.repeats[0].count, [start])
        self._add_items(scope, first + np.repeat(rows, number), item, start, found)
        return np.empty(0, np.intp)

    def _size_reader(self, scope: Scope) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
        """Make the function that reads how long the items are that begin at given places."""
        block, repeat = scope.blocks[0], scope.repeats[0]
        (one,) = (one for one in block.fields if one.name == repeat.count)
        byte, spare = one.at // 8, 8 - one.at % 8 - one.bits
        if spare < 0:
            last = self.buffer.size - 1 - (one.at + one.bits - 1) // 8
            return lambda start: block.size + self._number(np.minimum(start, last), one) * repeat.scope.min_size
        number = np.arange(256) >> spare & ((1 << one.bits) - 1)
        sizes = (block.size + number * repeat.scope.min_size).astype(np.int64)
        buffer = self.buffer[byte:]
        return lambda start: sizes[buffer.take(start, mode="clip")]

    def _add_items(
        self,
        scope: Scope,
        parent: NDArray[np.intp],
        item: NDArray[np.intp],
        start: NDArray[np.int64],
        count: NDArray[np.int64],
    ) -> None:
        repeat = scope.repeats[0]
        rows = self.sizes[scope.level] + np.arange(start.size)
        self.sizes[scope.level] += start.size
        self.found[scope.level].append(_Piece(parent, item, [start], {repeat.count: count}))
        self.found[repeat.scope.level].append(_Piece(rows, 0, [start + scope.blocks[0].size], {}))

    def _count(self, scope: Scope, name: str, starts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Read the field `name` of rows whose blocks begin at `starts`."""
        for block, start in zip(scope.blocks, starts, strict=False):
            for one in block.fields:
                if one.name == name:
                    return self._number(start, one)
        raise AssertionError(f"{name} is counted by no earlier field of {scope.level}")

    def _number(self, start: NDArray[np.int64], one: Field) -> NDArray[np.int64]:
        first, last = one.at // 8, (one.at + one.bits - 1) // 8
        if self.reasons:
            start = np.minimum(start, max(self.buffer.size - 1 - last, 0))
        value = self.buffer[start + first].astype(np.int64)
        for byte in range(first + 1, last + 1):
            value = value << 8 | self.buffer[start + byte]
        return value >> (last * 8 + 8 - one.at - one.bits) & ((1 << one.bits) - 1)

    def levels(self) -> Iterator[tuple[str, Level]]:
        """Rows of every level in packet order, cut into columns."""
        place: dict[str, NDArray[np.int64] | None] = {}
        counts: dict[str, NDArray[np.int64]] = {}
        for name, (parent, scope) in self.layout.levels.items():
            pieces = self.found[name]
            if parent and scope.is_fixed:
                starts = _ordered_runs(pieces, place[parent], counts[name].size)
                yield name, _cut_runs(self.buffer, scope, parent, starts, counts[name])
                continue
            place[name] = _places(pieces, place.get(parent), counts.get(name))
            for repeat in scope.repeats:
                counts[repeat.count] = _ordered([piece.counts[repeat.count] for piece in pieces], place[name])
            starts_of_blocks = [
                _ordered([piece.blocks[block] for piece in pieces], place[name]) for block in range(len(scope.blocks))
            ]
            level = _cut_blocks(self.buffer, scope, parent, starts_of_blocks)
            if TAIL in counts and name == ROOT:
                level = replace(level, columns={**level.columns, TAIL: counts[TAIL]})
            yield name, level


def _too_many(name: str, count: NDArray[np.int64], room: NDArray[np.int64]) -> list[tuple[str, str]]:
    return [
        (f"{name} is {found}, more than the packet can hold", f"at most {most}")
        for found, most in zip(count.tolist(), room.tolist(), strict=True)
    ]


@dataclass(slots=True)
class _Piece:
    """Rows of one level found in one step: their parents (in the order found), and their item number."""

    parent: NDArray[np.intp]
    item: NDArray[np.intp] | int
    blocks: list[NDArray[np.int64]]
    counts: dict[str, NDArray[np.int64]]


def _places(
    pieces: Sequence[_Piece], parent_place: NDArray[np.int64] | None, count: NDArray[np.int64] | None
) -> NDArray[np.int64] | None:
    """Position in packet order of each row in the order found; None where the two are the same."""
    if count is None:
        return None
    first = starts_of(count)
    return np.concatenate(
        [np.empty(0, np.int64)]
        + [first[piece.parent if parent_place is None else parent_place[piece.parent]] + piece.item for piece in pieces]
    )


def _ordered(parts: Sequence[NDArray[np.int64]], place: NDArray[np.int64] | None) -> NDArray[np.int64]:
    joined = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])
    if place is None:
        return joined
    out = np.empty_like(joined)
    out[place] = joined
    return out


def _ordered_runs(pieces: Sequence[_Piece], parent_place: NDArray[np.int64] | None, size: int) -> NDArray[np.int64]:
    if parent_place is None:
        return pieces[0].blocks[0] if pieces else np.empty(0, np.int64)
    out = np.empty(size, dtype=np.int64)
    for piece in pieces:
        out[parent_place[piece.parent]] = piece.blocks[0]
    return out


def _cut_blocks(buffer: NDArray[np.uint8], scope: Scope, parent: str, starts: Sequence[NDArray[np.int64]]) -> Level:
    columns: dict[str, Column] = {}
    unused: dict[int, NDArray[np.uint8]] = {}
    for position, (block, start) in enumerate(zip(scope.blocks, starts, strict=True)):
        _cut(gather_rows(buffer, start, block.size), block, position, columns, unused)
    return Level(parent, columns, unused)


def _cut_runs(
    buffer: NDArray[np.uint8], scope: Scope, parent: str, start: NDArray[np.int64], count: NDArray[np.int64]
) -> Level:
    columns: dict[str, Column] = {}
    unused: dict[int, NDArray[np.uint8]] = {}
    size = scope.min_size
    data = gather_runs(buffer, start, count * size)
    if len(scope.blocks) > 1:
        raise AssertionError(f"{scope.level} has more than one block without a group between")
    for block in scope.blocks:
        _cut(data.reshape(-1, size), block, 0, columns, unused)
    return Level(parent, columns, unused)


def _cut(
    rows: NDArray[np.uint8],
    block: Block,
    position: int,
    columns: dict[str, Column],
    unused: dict[int, NDArray[np.uint8]],
) -> None:
    for one in block.fields:
        columns[one.name] = _read_field(rows, one)
    if any(np.any(rows[:, byte] & mask) for byte, mask in enumerate(block.unused) if mask):
        unused[position] = rows & np.array(block.unused, dtype=np.uint8)


def _read_field(rows: NDArray[np.uint8], one: Field) -> Column:
    first, last = one.at // 8, (one.at + one.bits - 1) // 8
    if one.repeat and one.bits == 8:
        return rows[:, first : first + one.repeat].copy()
    if one.repeat:
        size = one.bits // 8
        parts = [_join_bytes(rows[:, first + n * size : first + (n + 1) * size], one) for n in range(one.repeat)]
        return np.stack(parts, axis=1)
    value = _join_bytes(rows[:, first : last + 1], one)
    spare = (last + 1) * 8 - one.at - one.bits
    if spare or one.at % 8:
        value = (value >> spare & ((1 << one.bits) - 1)).astype(one.dtype)
    if one.signed and one.bits not in (8, 16, 32, 64):
        value = np.where(value >> one.bits - 1 & 1, value.astype(np.int64) - (1 << one.bits), value).astype(one.dtype)
    return value


def _join_bytes(rows: NDArray[np.uint8], one: Field) -> Column:
    """Rows of big-endian bytes as numbers just wide enough for the bytes."""
    width = rows.shape[1]
    if width == 1:
        return rows[:, 0].astype(one.dtype) if one.bits == 8 else rows[:, 0].copy()
    dtype = np.dtype(np.uint16 if width == 2 else np.uint32 if width <= 4 else np.uint64)
    value: Column = rows[:, 0].astype(dtype)
    for byte in range(1, width):
        value = value << 8 | rows[:, byte]
    return value.astype(one.dtype) if one.at % 8 == 0 and one.bits == width * 8 else value


def starts_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """First position of each run when runs of these lengths follow each other."""
    return np.cumsum(lengths) - lengths


def expand_runs(start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """All positions of the runs, one after the other."""
    return np.repeat(start - starts_of(length), length) + np.arange(int(length.sum()))


def take_runs(column: Column, start: NDArray[np.int64], length: NDArray[np.int64]) -> Column:
    """Copy runs of rows of a column, one after the other."""
    width = column.itemsize * int(np.prod(column.shape[1:], dtype=np.int64))
    data = np.ascontiguousarray(column).reshape(-1).view(np.uint8)
    return gather_runs(data, start * width, length * width).view(column.dtype).reshape(-1, *column.shape[1:])


def gather_runs(buffer: NDArray[np.uint8], start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Copy runs of bytes of any lengths, one after the other: many of equal length at once, tiny ones byte by byte."""
    total = int(length.sum())
    if total < _TINY_RUN * length.size and length.min() != length.max():
        return np.asarray(buffer[expand_runs(start, length)])
    sizes, alike = _count_sizes(length)
    if sizes.size == 1:
        return gather_rows(buffer, start, int(sizes[0])).reshape(-1)
    out = np.empty(total, dtype=np.uint8)
    target = starts_of(length)
    for size in sizes[sizes > 0].tolist():
        rows = np.flatnonzero((length == size) & (alike > _FEW_RUNS))
        if rows.size:
            scatter_rows(out, target[rows], gather_rows(buffer, start[rows], size))
    rest = np.flatnonzero((alike <= _FEW_RUNS) & (length > 0))
    for to, at, size in zip(target[rest].tolist(), start[rest].tolist(), length[rest].tolist(), strict=True):
        out[to : to + size] = buffer[at : at + size]
    return out


def _count_sizes(length: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lengths that occur, and for each run how many are as long as it."""
    if length.max(initial=0) > _LONG_RUN:
        sizes, inverse, members = np.unique(length, return_inverse=True, return_counts=True)
        return sizes, members[inverse]
    members = np.bincount(length)
    return np.flatnonzero(members), members[length]
