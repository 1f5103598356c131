"""The layouts of all packet types, chosen by type and packet time.

The table in ``tables/layouts.json`` is compiled once, when first asked for, to `Layout` objects.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import NotFound, UsageError
from stixflow.telemetry.structure import (
    NO_SELECTOR,
    ROOT,
    TAIL,
    Block,
    Field,
    Layout,
    PacketType,
    Repeat,
    Scope,
    Status,
    Word,
)

PRODUCT_TYPES = {
    "ql_lightcurve": (21, 6, 30),
    "sci_pixels": (21, 6, 21),
    "sci_spectrogram": (21, 6, 24),
}
"""Products that become cubes, and the packet type (service, subtype, selector) each is made of."""

CUBES_OF_TYPES = {
    (21, 6, 30): "ql_lightcurve",
    (21, 6, 31): "ql_background",
    (21, 6, 32): "ql_spectra",
    (21, 6, 33): "ql_variance",
    (21, 6, 34): "ql_flareflag",
    (21, 6, 41): "cal_spectrum",
    (21, 6, 42): "aspect",
    (21, 6, 43): "tm_status",
    (21, 6, 20): "sci_pixels",
    (21, 6, 21): "sci_pixels",
    (21, 6, 22): "sci_pixel_sums",
    (21, 6, 23): "sci_visibilities",
    (21, 6, 24): "sci_spectrogram",
    (3, 25, 1): "hk_mini",
    (3, 25, 2): "hk_maxi",
}
"""The product that the packets of each type become part of."""


def type_name(packet_type: PacketType) -> str:
    """Name a packet type: its product, or ``service,subtype[,selector]``."""
    return _names().get(packet_type) or ",".join(str(part) for part in packet_type if part != NO_SELECTOR)


def parse_product(product: str) -> PacketType:
    """Packet type of a product name, or of ``service,subtype[,selector]``.

    Raises
    ------
    UsageError
        If there is no such type.
    """
    found = PRODUCT_TYPES.get(product) or _types_by_name().get(product)
    if found is None:
        raise UsageError(f"{product!r} is no packet type", expected=f"{', '.join(PRODUCT_TYPES)} or a type as 21,6,30")
    return found


@functools.cache
def _types_by_name() -> dict[str, PacketType]:
    return {type_name(packet_type): packet_type for packet_type in known_types()} | {
        ",".join(map(str, packet_type)): packet_type for packet_type in known_types()
    }


def listed_name(packet_type: PacketType) -> str:
    """Name a packet type for people: the product that it becomes part of, or ``service,subtype[,selector]``."""
    return CUBES_OF_TYPES.get(packet_type) or type_name(packet_type)


@functools.cache
def _names() -> dict[PacketType, str]:
    return {packet_type: name for name, packet_type in PRODUCT_TYPES.items()}


@functools.cache
def layouts() -> tuple[Layout, ...]:
    """Every layout, each at the position of its `index`."""
    table = _table()
    variants = [
        (_parse_type(name), entry, variant) for name, entry in table["types"].items() for variant in entry["variants"]
    ]
    return tuple(_compile(index, *variant, table["skm"]) for index, variant in enumerate(variants))


@functools.cache
def known_types() -> dict[PacketType, tuple[Layout, ...]]:
    """The layouts of each packet type, by database version."""
    found: dict[PacketType, tuple[Layout, ...]] = {}
    for layout in layouts():
        found[layout.type] = (*found.get(layout.type, ()), layout)
    return found


@functools.cache
def selectors() -> dict[tuple[int, int], tuple[int, int]]:
    """Where the second identifier of a (service, subtype) is: first byte in the packet, number of bytes."""
    return {
        (int(service), int(subtype)): (at, bits // 8)
        for key, (at, bits) in _table()["selectors"].items()
        for service, subtype in [key.split(",")]
    }


def idb_version(coarse: int) -> tuple[int, ...]:
    """Version of the instrument database that was valid at an onboard time in seconds."""
    starts, versions = _periods()
    return versions[max(int(np.searchsorted(starts, coarse, side="right")) - 1, 0)]


@functools.cache
def _periods() -> tuple[NDArray[np.int64], tuple[tuple[int, ...], ...]]:
    periods = _table()["idb"]
    return np.array([start for start, _ in periods]), tuple(_version(version) for _, version in periods)


def layout_indices(
    packet_type: PacketType, coarse: NDArray[np.int64], *, latest: str | None = None
) -> NDArray[np.int16]:
    """Index of the layout of each packet of one type, by the packets' onboard seconds.

    Parameters
    ----------
    packet_type
        Service, subtype and second identifier.
    coarse
        Onboard seconds of each packet.
    latest
        Database version that also holds for later packets, as ``"2.26.35"``; None lets each packet have its own.

    Raises
    ------
    NotFound
        If the type is unknown or no layout covers a time.
    UsageError
        If there is no such database version.
    """
    starts, by_period = _choices(packet_type, latest)
    chosen = by_period[np.maximum(np.searchsorted(starts, coarse, side="right") - 1, 0)]
    return np.asarray(chosen, dtype=np.int16)


@functools.cache
def _choices(packet_type: PacketType, latest: str | None) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    starts, versions = _periods()
    last = max(versions) if latest is None else _known_version(latest)
    chosen = [_choose(packet_type, min(version, last)).index for version in versions]
    return starts, np.array(chosen, dtype=np.int16)


def _known_version(text: str) -> tuple[int, ...]:
    _, versions = _periods()
    for version in versions:
        if version_text(version) == text:
            return version
    names = sorted({version_text(version) for version in versions})
    raise UsageError(f"database version {text!r}", expected=f"one of {', '.join(names)}")


def version_text(version: tuple[int, ...]) -> str:
    """Write a database version as usual, ``2.26.35``."""
    return ".".join(map(str, version))


def _choose(packet_type: PacketType, version: tuple[int, ...]) -> Layout:
    for layout in known_types().get(packet_type, ()):
        if layout.idb_from <= version <= layout.idb_to:
            return layout
    raise NotFound(
        f"no layout of packet type {packet_type} in database {version_text(version)}",
        expected=f"one of {len(known_types())} known types",
    )


def find_layout(packet_type: PacketType, coarse: int) -> Layout:
    """Layout of one packet type at an onboard time in seconds.

    Raises
    ------
    NotFound
        If the type is unknown.
    """
    return _choose(packet_type, idb_version(coarse))


def curve(name: str) -> NDArray[np.float64]:
    """Points (raw, value) of a calibration curve, shape (points, 2)."""
    return np.array(_table()["curves"][name], dtype=np.float64)


def text_table(name: str) -> tuple[tuple[int, int, str], ...]:
    """First number, last number and text of each entry of a text table."""
    return tuple((int(first), int(last), str(text)) for first, last, text in _table()["enums"][name])


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("tables/layouts.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _parse_type(name: str) -> PacketType:
    numbers = [int(part) for part in name.split(",")]
    return numbers[0], numbers[1], numbers[2] if len(numbers) == 3 else NO_SELECTOR


def _compile(
    index: int, packet_type: PacketType, entry: dict[str, Any], variant: dict[str, Any], skm: dict[str, list[str]]
) -> Layout:
    names = {item[1]: item[0] for item in _items(variant["layout"])}
    schemes = {
        group: (names[ids[0]], names[ids[1]], names[ids[2]]) for group, ids in skm.items() if names.keys() >= set(ids)
    }
    first, last = (_version(text) for text in variant["idb"])
    status: Status = variant.get("status", "confirmed")
    scope = _compile_scope(ROOT, variant, variant["layout"], schemes)
    if variant.get("tail"):
        scope = replace(scope, parts=(*scope.parts, _TAIL))
    return Layout(index, packet_type, entry["apid"], entry["spid"], first, last, status, scope, entry["kind"])


_TAIL = Repeat(TAIL, Scope(TAIL, (Block((Field("undescribed", "", 0, 8),), 1, (0,)),)))


def _items(items: list[Any]) -> list[list[Any]]:
    flat = []
    for item in items:
        if isinstance(item, dict):
            flat += _items(item["of"])
        elif isinstance(item, list):
            flat.append(item)
    return flat


def _compile_scope(
    level: str, entry: dict[str, Any], items: list[Any], schemes: dict[str, tuple[str, str, str]]
) -> Scope:
    parts: list[Block | Repeat] = []
    pending: list[Any] = []
    for item in items:
        if isinstance(item, dict):
            _close_block(parts, pending, schemes)
            pending = []
            parts.append(Repeat(item["repeat"], _compile_scope(item["repeat"], item, item["of"], schemes)))
        else:
            pending.append(item)
    _close_block(parts, pending, schemes)
    return Scope(level, tuple(parts), tuple(Word(*word) for word in entry.get("words", ())))


def _close_block(parts: list[Block | Repeat], items: list[Any], schemes: dict[str, tuple[str, str, str]]) -> None:
    if not items:
        return
    at, end, fields = 0, 0, []
    for item in items:
        if isinstance(item, int):
            at += item
        else:
            field = _field(item, at, schemes)
            fields.append(field)
            at = field.at + field.bits
        end = max(end, at)
    parts.append(Block(_join_neighbours(fields), end // 8, _unused(fields, end // 8)))


def _field(item: list[Any], at: int, schemes: dict[str, tuple[str, str, str]]) -> Field:
    name, identifier, bits = item[:3]
    extra = item[3] if len(item) > 3 else {}
    engineering = extra.get("eng", {})
    return Field(
        name,
        identifier,
        extra.get("at", at),
        bits,
        signed=extra.get("type") == "i",
        scheme=schemes.get(extra.get("skm", "")),
        sign=extra.get("sign", ""),
        enum=extra.get("enum"),
        curve=engineering.get("curve"),
        scale=(engineering["scale"], engineering["offset"]) if "scale" in engineering else None,
        unit=engineering.get("unit", ""),
    )


def _unused(fields: list[Field], size: int) -> tuple[int, ...]:
    owned = np.zeros(size * 8, dtype=np.uint8)
    for field in fields:
        owned[field.at : field.at + field.bits] = 1
    return tuple(int(byte) for byte in np.packbits(1 - owned))


def _join_neighbours(fields: list[Field]) -> tuple[Field, ...]:
    """Make one column of ``name_0 .. name_n`` where they are whole bytes of the same kind."""
    joined: list[Field] = []
    position = 0
    while position < len(fields):
        run = _numbered_run(fields, position)
        first = fields[position]
        if run > 1:
            name = re.sub(r"_?0$", "", first.name)
            first = replace(first, name=name, repeat=run)
        joined.append(first)
        position += max(run, 1)
    return tuple(joined)


def _numbered_run(fields: list[Field], position: int) -> int:
    first = fields[position]
    stem, number = re.fullmatch(r"(.*?)(\d*)", first.name).groups()  # type: ignore[union-attr]
    if number != "0" or first.bits % 8 or first.at % 8:
        return 0
    run = 0
    for field in fields[position:]:
        if (field.name, field.bits, field.at) != (f"{stem}{run}", first.bits, first.at + run * first.bits):
            break
        run += 1
    return run if run > 3 else 0
