"""Packets as an analyst of the raw stream reads them: every parameter in packet order, nested as it was sent.

A node is ``[name, raw, engineering, children]``. The name is the database identifier; containers of bit fields
(NIXG...) are nodes too. Engineering is the calibrated number, the text, or the decompressed number; None where there
is none. The children of a counter are the parameters that it counts, all items one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry.decode import decode
from stixflow.telemetry.encode import pack_block
from stixflow.telemetry.engineering import engineering_values
from stixflow.telemetry.layouts import known_types, layouts, listed_name, type_name
from stixflow.telemetry.packets import Packets
from stixflow.telemetry.records import Records
from stixflow.telemetry.structure import NO_SELECTOR, ROOT, TAIL, Field, Layout, PacketType, Scope, Word
from stixflow.time import scet_to_utc

Node: TypeAlias = list[Any]
"""``[name, raw, engineering, children]``."""


def packet_trees(records: Records) -> list[list[Node]]:
    """Every parameter of each packet, in packet order."""
    trees: list[list[Node]] = [[] for _ in range(len(records))]
    for index in np.unique(records.layout).tolist():
        rows = np.flatnonzero(records.layout == index)
        part = records if rows.size == len(records) else records.select(rows)
        nodes, width = _nodes(part, layouts()[index], ROOT, layouts()[index].scope)
        for position, row in enumerate(rows.tolist()):
            trees[row] = nodes[position * width : (position + 1) * width]
    return trees


def _nodes(records: Records, layout: Layout, level: str, scope: Scope) -> tuple[list[Node], int]:
    """Nodes of all rows of a level, one row after the other, and how many a row has."""
    columns: list[list[Node]] = []
    counters: dict[str, list[Node]] = {}
    for position, block in enumerate(scope.blocks):
        words = scope.words if position == 0 else ()
        for one in _in_order(layout, (*block.fields, *words)):
            if isinstance(one, Word):
                columns.append(_word_nodes(pack_block(records, level, block, position), one))
            else:
                made = _field_nodes(records, one)
                counters[one.name] = made[0]
                columns += made
    for repeat in scope.repeats:
        if repeat.count != TAIL:
            below, width = _nodes(records, layout, repeat.count, repeat.scope)
            _attach(counters[repeat.count], below, width, records.lengths(repeat.count))
    return [node for row in zip(*columns, strict=True) for node in row], len(columns)


def _in_order(layout: Layout, items: tuple[Field | Word, ...]) -> list[Field | Word]:
    """Sort as the database lists them: in fixed packets by byte and identifier, in others containers before fields."""
    if layout.kind == "fixed":
        return sorted(items, key=lambda one: (one.at // 8, one.id))
    return sorted(items, key=lambda one: (one.at, not isinstance(one, Word)))


def _field_nodes(records: Records, field: Field) -> list[list[Node]]:
    """One column of nodes, or as many as a field has numbers."""
    raw = records[field.name]
    engineering = _engineering(records, field, raw)
    if not field.repeat:
        return [_column(field.id, raw, engineering)]
    first = int(field.id[4:])
    return [
        _column(f"{field.id[:4]}{first + n:04d}", raw[:, n], None if engineering is None else engineering[:, n])
        for n in range(field.repeat)
    ]


def _engineering(records: Records, field: Field, raw: NDArray[Any]) -> NDArray[Any] | None:
    if not (field.enum or field.curve or field.scale or field.scheme):
        return None
    return engineering_values(field, raw, records.values(field.name))


def _column(name: str, raw: NDArray[Any], engineering: NDArray[Any] | None) -> list[Node]:
    if engineering is None:
        return [[name, number, None, []] for number in raw.tolist()]
    values = engineering.tolist()
    if engineering.dtype.kind == "f":
        values = [None if value != value else value for value in values]
    return [[name, number, value, []] for number, value in zip(raw.tolist(), values, strict=True)]


def _word_nodes(rows: NDArray[np.uint8], word: Word) -> list[Node]:
    first, last = word.at // 8, (word.at + word.bits - 1) // 8 + 1
    spare, mask = last * 8 - word.at - word.bits, (1 << word.bits) - 1
    numbers = (int.from_bytes(row.tobytes(), "big") for row in rows[:, first:last])
    return [[word.id, number >> spare & mask, None, []] for number in numbers]


def _attach(counters: list[Node], below: list[Node], width: int, count: NDArray[np.int64]) -> None:
    stops = (np.cumsum(count) * width).tolist()
    for counter, stop, items in zip(counters, stops, count.tolist(), strict=True):
        counter[3] = below[stop - items * width : stop]


def describe_packets(packets: Packets) -> Iterator[dict[str, Any]]:
    """Yield ``{"header": {...}, "parameters": [node, ...]}`` for each packet, ready for JSON.

    A packet that cannot be decoded has no parameters, and the reason in its header under ``rejected``; bytes that the
    database does not describe are there in hexadecimal under ``undescribed``.

    """
    names = packets.product().tolist()
    decoded = decode(packets, products=set(names))
    rejected = {(entry.file, entry.offset): entry.reason for entry in decoded.rejected}
    trees = {product: iter(_trees_and_tails(records)) for product, records in decoded.items()}
    for name, header in zip(names, packet_headers(packets), strict=True):
        reason = rejected.get((header["file"], header["position"]))
        if reason is not None:
            yield {"header": {**header, "rejected": reason}, "parameters": []}
            continue
        tree, tail = next(trees[name])
        yield {"header": {**header, "undescribed": tail} if tail else header, "parameters": tree}


def _trees_and_tails(records: Records) -> Iterator[tuple[list[Node], str]]:
    tails = [""] * len(records)
    if TAIL in records.levels:
        edges = records.bounds(TAIL).tolist()
        tails = [records["undescribed"][start:stop].tobytes().hex() for start, stop in itertools.pairwise(edges)]
    return zip(packet_trees(records), tails, strict=True)


def packet_headers(packets: Packets) -> list[dict[str, Any]]:
    """Header of each packet, field by field, with its type, its UTC and where it was found."""
    utc = np.datetime_as_string(scet_to_utc(packets.scet), unit="ms").tolist()
    ground = np.datetime_as_string(packets.ground_time, unit="ms").tolist()
    types, inverse = packets.types()
    columns = {
        name: getattr(packets, name).tolist()
        for name in ("apid", "length", "sequence_flag", "sequence_count", "scet", "synced", "file", "position")
    }
    first, pus, destination = packets.headers()[:, [0, 6, 9]].T.tolist()
    return [
        {
            "index": row,
            **_type_fields(types[inverse[row]]),
            "version": first[row] >> 5,
            "packet_type": first[row] >> 4 & 1,
            "header_flag": first[row] >> 3 & 1,
            "packet_id": (first[row] >> 3 & 1) << 11 | apid,
            "apid": apid,
            "process_id": apid >> 4,
            "packet_category": apid & 0xF,
            "length": length,
            "data_length": length - 7,
            "sequence_flag": flag,
            "sequence_count": count,
            "pus_version": pus[row] >> 4 & 7,
            "destination_id": destination[row],
            "scet_coarse": scet >> 16,
            "scet_fine": scet & 0xFFFF,
            "time_sync": synced,
            "utc": utc[row] if synced else None,
            "ground_time": None if ground[row] == "NaT" else ground[row],
            "file": packets.files[file],
            "position": position,
        }
        for row, (apid, length, flag, count, scet, synced, file, position) in enumerate(
            zip(*columns.values(), strict=True)
        )
    ]


def _type_fields(packet_type: PacketType) -> dict[str, Any]:
    service, subtype, selector = packet_type
    return {
        "name": listed_name(packet_type),
        "service_type": service,
        "service_subtype": subtype,
        "ssid": None if selector == NO_SELECTOR else selector,
        "spid": known_types()[packet_type][0].spid,
    }


_FLAGS = {0: "middle", 1: "first", 2: "last", 3: "alone"}
_HEADINGS = ("index", "UTC", "type", "name", "APID", "bytes", "flags", "count", "ground time")


def format_headers(headers: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of a table of packets."""
    yield "{:>7}  {:23}  {:11}  {:16}  {:>5}  {:>5}  {:6}  {:>5}  {}".format(*_HEADINGS).rstrip()
    for header in headers:
        packet_type = (header["service_type"], header["service_subtype"], header["ssid"])
        kind = ",".join(str(part) for part in packet_type if part is not None)
        yield (
            f"{header['index']:7d}  {header['utc'] or 'clock not synchronised':23}  {kind:11}  {header['name']:16}  "
            f"{header['apid']:5d}  {header['length']:5d}  {_FLAGS[header['sequence_flag']]:6}  "
            f"{header['sequence_count']:5d}  {header['ground_time'] or ''}"
        ).rstrip()


def format_tree(described: dict[str, Any]) -> Iterator[str]:
    """Lines of one described packet: identifier, raw, engineering, name; counted parameters indented."""
    header = described["header"]
    yield f"packet {header['index']}, {header['name']}, {header['utc'] or 'clock not synchronised'}"
    if "rejected" in header:
        yield f"  not decoded: {header['rejected']}"
    names = _parameter_names((header["service_type"], header["service_subtype"], header["ssid"]))
    yield from _tree_lines(described["parameters"], names, 1)
    if "undescribed" in header:
        yield f"  undescribed bytes: {header['undescribed']}"


def _tree_lines(nodes: list[Node], names: dict[str, tuple[str, str]], depth: int) -> Iterator[str]:
    for name, raw, engineering, children in nodes:
        label, unit = names.get(name, ("", ""))
        number = f"{engineering:.6g}" if isinstance(engineering, float) else engineering
        value = "" if engineering is None else f"{number} {unit}".strip()
        yield f"{'  ' * depth}{name:9} {raw:<12} {value:20} {label}".rstrip()
        yield from _tree_lines(children, names, depth + 1)


def _parameter_names(packet_type: tuple[int, int, int | None]) -> dict[str, tuple[str, str]]:
    """Field name and unit of each database identifier in packets of a type."""
    service, subtype, selector = packet_type
    found: dict[str, tuple[str, str]] = {}
    for layout in known_types()[service, subtype, NO_SELECTOR if selector is None else selector]:
        for _, scope in layout.levels.values():
            for one in scope.fields:
                found[one.id] = (one.name, one.unit)
                for n in range(one.repeat):
                    found[f"{one.id[:4]}{int(one.id[4:]) + n:04d}"] = (f"{one.name}_{n}", one.unit)
    return found


def choose_types(packets: Packets, wanted: list[str]) -> NDArray[np.bool_]:
    """Tell which packets are of the wanted types: product names, or types as ``21,6,30``, ``3,25`` or ``239``."""
    types, inverse = packets.types()
    chosen = [any(is_of_type(packet_type, text) for text in wanted) for packet_type in types]
    return np.array(chosen or [False])[inverse] if wanted else np.ones(len(packets), dtype=np.bool_)


def is_of_type(packet_type: PacketType, text: str) -> bool:
    """Tell whether a packet type is the one named: by product, or by its first numbers."""
    numbers = [part.strip() for part in text.split(",")]
    return (
        text in (listed_name(packet_type), type_name(packet_type))
        or [str(part) for part in packet_type[: len(numbers)]] == numbers
    )
