"""Records to packets: the exact inverse of `decode`, for every layout.

Sizes are summed from the innermost level outwards, positions from the outermost inwards; then each level's rows are
packed and written all at once. Also the writers of the containers that `read_packets` reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.telemetry.ccsds import HEADER_SIZE
from stixflow.telemetry.fields import pack_field
from stixflow.telemetry.ground_header import ground_headers
from stixflow.telemetry.layouts import layouts
from stixflow.telemetry.packets import Packets
from stixflow.telemetry.records import Records
from stixflow.telemetry.runs import gather_runs, scatter_rows, scatter_runs, starts_of
from stixflow.telemetry.structure import ROOT, Block, Layout, Repeat, Scope


def encode(records: Records | Iterable[Records] | Mapping[str, Records]) -> bytes:
    """Write records as back-to-back packets, headers included.

    Parameters
    ----------
    records
        One `Records`, several, or what `decode` returned: packets come out in the same order, product by product.

    Raises
    ------
    UsageError
        If a packet would be longer than its length field can say, or counts and rows disagree.
    """
    if isinstance(records, Records):
        return _encode(records)
    parts = records.values() if isinstance(records, Mapping) else records
    return b"".join(_encode(part) for part in parts)


def _encode(records: Records) -> bytes:
    found = np.unique(records.layout).tolist()
    if len(found) == 1:
        return _write(records, layouts()[found[0]])[0].tobytes()
    order, parts, lengths = [], [], []
    for index in found:
        rows = np.flatnonzero(records.layout == index)
        data, length = _write(records.select(rows), layouts()[index])
        order.append(rows)
        parts.append(data)
        lengths.append(length)
    length, place = np.concatenate([np.empty(0, np.int64), *lengths]), np.argsort(np.concatenate([[], *order]))
    joined = np.concatenate([np.empty(0, np.uint8), *parts])
    return gather_runs(joined, starts_of(length)[place], length[place]).tobytes()


def _write(records: Records, layout: Layout) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Bytes of packets of one layout, and their lengths."""
    sizes = _row_sizes(records, layout)
    length = sizes[ROOT] + HEADER_SIZE
    if length.size and length.max() > 65535 + 7:
        raise UsageError(
            f"a packet of {length.max()} bytes", expected="at most 65542", advice="put fewer items into one packet"
        )
    out = np.empty(int(length.sum()), dtype=np.uint8)
    start = starts_of(length)
    header = records.header.copy()
    header[:, 4], header[:, 5] = length - 7 >> 8, length - 7 & 0xFF
    scatter_rows(out, start, header)
    _write_rows(out, records, layout.scope, start + HEADER_SIZE, sizes)
    return out, length


def _row_sizes(records: Records, layout: Layout) -> dict[str, NDArray[np.int64]]:
    """Bytes of each row of each level that has groups, with all that lies below it."""
    sizes: dict[str, NDArray[np.int64]] = {}
    for name, (_, scope) in reversed(layout.levels.items()):
        if name != ROOT and scope.is_fixed:
            continue
        size = np.full(len(records) if name == ROOT else records.levels[name].size, scope.min_size, dtype=np.int64)
        for repeat in scope.repeats:
            size += _run_sizes(records, repeat, sizes)
        sizes[name] = size
    return sizes


def _run_sizes(records: Records, repeat: Repeat, sizes: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Bytes of a whole group in each row that has it."""
    count = records.lengths(repeat.count)
    if count.sum() != records.levels[repeat.count].size:
        raise UsageError(
            f"level {repeat.count} has {records.levels[repeat.count].size} rows",
            expected=f"{count.sum()} as the level above counts",
        )
    if repeat.scope.is_fixed:
        return count * repeat.scope.min_size
    total, first = np.concatenate([[0], np.cumsum(sizes[repeat.count])]), starts_of(count)
    return np.asarray(total[first + count] - total[first], dtype=np.int64)


def _write_rows(
    out: NDArray[np.uint8],
    records: Records,
    scope: Scope,
    cursor: NDArray[np.int64],
    sizes: Mapping[str, NDArray[np.int64]],
) -> None:
    position = 0
    for part in scope.parts:
        if isinstance(part, Block):
            scatter_rows(out, cursor, pack_block(records, scope.level, part, position))
            cursor = cursor + part.size
            position += 1
            continue
        run = _run_sizes(records, part, sizes)
        if part.scope.is_fixed:
            data = pack_block(records, part.count, part.scope.blocks[0], 0).reshape(-1)
            scatter_runs(out, cursor, run, data)
        else:
            count = records.lengths(part.count)
            inside = starts_of(sizes[part.count]) - np.repeat(starts_of(run), count)
            _write_rows(out, records, part.scope, np.repeat(cursor, count) + inside, sizes)
        cursor = cursor + run


def pack_block(records: Records, level: str, block: Block, position: int) -> NDArray[np.uint8]:
    """Bytes of one block of every row of a level, shape (rows, bytes); `position` counts the blocks of the level."""
    rows_of = records.levels[level]
    if block.size == 1 and len(block.fields) == 1 and block.fields[0].bits == 8:
        return rows_of.columns[block.fields[0].name].view(np.uint8)[:, None]
    size = len(records) if level == ROOT else rows_of.size
    rows = np.zeros((size, block.size), dtype=np.uint8)
    for one in block.fields:
        pack_field(rows, one, rows_of.columns[one.name])
    if position in rows_of.unused:
        bits = rows_of.unused[position][:, : block.size]
        rows[:, : bits.shape[1]] |= bits
    return rows


def write_binary(path: str | Path, packets: Packets) -> Path:
    """Write packets back to back."""
    target = Path(path)
    target.write_bytes(packets.to_bytes())
    return target


def write_xml(path: str | Path, packets: Packets) -> Path:
    """Write packets as a SOC XML delivery (`PktTmRaw`), each with a valid 76-byte ground header."""
    prefixes = ground_headers(packets)
    elements = [
        f'<PktRawResponseElement packetID="{number + 1}">\n    <Packet>{prefix.tobytes().hex()}'
        f"{packets.packet_bytes(number).hex()}</Packet>\n</PktRawResponseElement>\n"
        for number, prefix in enumerate(prefixes)
    ]
    target = Path(path)
    target.write_text(_XML_HEAD + "".join(elements) + _XML_TAIL, encoding="ascii")
    return target


_XML_HEAD = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<ns2:ResponsePart xmlns:ns2="http://edds.egos.esa/model">
    <Response>
        <PktRawResponse>
"""
_XML_TAIL = """        </PktRawResponse>
    </Response>
</ns2:ResponsePart>
"""
