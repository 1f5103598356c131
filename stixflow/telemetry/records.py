"""Decoded packets of one type as tables, and such tables made by hand.

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

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import UsageError
from stixflow.telemetry.ccsds import ALONE, HEADER_SIZE, SYNC_LOST, build_headers
from stixflow.telemetry.compression import pack_skm
from stixflow.telemetry.engineering import engineering_values
from stixflow.telemetry.fields import Column
from stixflow.telemetry.layouts import (
    find_layout,
    known_types,
    layouts,
    parse_product,
    selectors,
)
from stixflow.telemetry.packets import big_endian
from stixflow.telemetry.runs import starts_of, take_runs
from stixflow.telemetry.schemes import decompress_packets, is_compressed, layout_scheme, with_sign
from stixflow.telemetry.structure import NO_SELECTOR, ROOT, TAIL, Field, Layout, PacketType, Scope


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
        return big_endian(self.header[:, 10:16]) & ~SYNC_LOST

    @property
    def sequence_count(self) -> NDArray[np.int64]:
        return big_endian(self.header[:, 2:4]) & 0x3FFF

    @property
    def sequence_flag(self) -> NDArray[np.int64]:
        return big_endian(self.header[:, 2:4]) >> 14

    def packets_with(self, name: str) -> NDArray[np.bool_]:
        """Tell which packets have a field that not every layout of their type has."""
        present = np.unique(self.layout).tolist()
        return np.isin(self.layout, [index for index in present if layouts()[index].has_field(name)])

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
                packed = with_sign(pack_skm(*(self[part] for part in scheme)), self.field(name).sign)
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
        if raw.dtype != np.uint8 or not any(is_compressed(index, name) for index in np.unique(self.layout).tolist()):
            return raw
        return decompress_packets(raw, self.skm(name), self.bounds(level))

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
            "; ".join(problems), expected=f"levels {', '.join(layout.levels)}", advice="see stixflow.telemetry.records"
        )
