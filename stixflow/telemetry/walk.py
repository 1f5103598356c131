"""Where every block of every row of every level of packets begins, and the levels cut from there.

The walk follows the layout, not the packets. First it finds where every group of every packet begins, reading only the
counts: packets advance together, one step per item of the longest group. Then each level's bytes are copied as
rows and cut into columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry.ccsds import HEADER_SIZE
from stixflow.telemetry.fields import Column, read_field
from stixflow.telemetry.records import Level
from stixflow.telemetry.runs import gather_rows, gather_runs, positions_in, starts_of
from stixflow.telemetry.structure import ROOT, TAIL, Block, Field, Layout, Repeat, Scope


class Walk:
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
        return self._items(_Groups(repeat.scope, packet, cursor.copy(), count, first))

    def _items(self, groups: _Groups) -> NDArray[np.int64]:
        """Walk all items of the groups; return where each group ends."""
        scope, packet, cursor, count, first = groups
        rest = np.arange(count.size)
        if len(scope.parts) == 2 and scope.repeats and scope.repeats[0].scope.is_fixed:
            equal = self._equal_items(groups)
            rest = np.flatnonzero(~equal)
            rest = self._chain_items(groups, rest)
        for item in range(int(count[rest].max(initial=0))):
            active = rest[count[rest] > item]
            active = active[~self.bad[packet[active]]] if self.reasons else active
            cursor[active] = self._rows(scope, packet[active], cursor[active], first + active, item)
        return cursor

    def _equal_items(self, groups: _Groups) -> NDArray[np.bool_]:
        """Walk at once the groups whose items turn out to be all as long as the first; advance the cursor of those."""
        scope, packet, cursor, count, first = groups
        block, (repeat,) = scope.blocks[0], scope.repeats
        rows = np.flatnonzero(count > 0)
        number = self._count(scope, repeat.count, [cursor[rows]])
        size = block.size + number * repeat.scope.min_size
        fits = cursor[rows] + count[rows] * size <= self.end[packet[rows]]
        rows, number, size = rows[fits], number[fits], size[fits]
        items = positions_in(count[rows])
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

    def _chain_items(self, groups: _Groups, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Follow items of any length from one to the next, in all groups `rows` at once; advance their cursor.

        The groups stand in order of their number of items, so that those that go on are always the first ones. Returns
        the groups that do not fit into their packet, untouched.
        """
        scope, packet, cursor, count, first = groups
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
            self._chain_items(groups, fitting)
            return rows[order[over]]
        cursor[rows[order]] = at
        item = positions_in(number)
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


class _Groups(NamedTuple):
    """One group of items in each of some packets."""

    scope: Scope
    """What one item holds."""
    packet: NDArray[np.intp]
    cursor: NDArray[np.int64]
    """Where each goes on; advanced as items are walked."""
    number: NDArray[np.int64]
    """Items of each."""
    first: int
    """Row of the first of the rows above, one a group, that count the items."""


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
        columns[one.name] = read_field(rows, one)
    if any(np.any(rows[:, byte] & mask) for byte, mask in enumerate(block.unused) if mask):
        unused[position] = rows & np.array(block.unused, dtype=np.uint8)
