from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_records import NEW, OLD, light_curve, pixels, spectrogram
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.errors import UsageError
from stixflow.telemetry import Packets, Records, decode, encode, read_packets
from stixflow.telemetry.layouts import find_layout, known_types, layouts, type_name
from stixflow.telemetry.structure import TAIL, Layout, Scope


def _come_back(packets: Packets) -> None:
    products = set(packets.product().tolist())
    decoded = decode(packets, products=products)
    assert decoded.rejected == ()
    for product, records in decoded.items():
        assert encode(records) == packets.of_product(product).to_bytes(), product
    assert encode(decoded) == b"".join(packets.of_product(product).to_bytes() for product in decoded)


def test_real_packets_come_back_byte_for_byte(shared: Path) -> None:
    _come_back(read_packets([shared / "data/telemetry", shared / "oracle/telemetry/lb_packets.bin"]))


def test_synthetic_packets_and_requests_come_back(shared: Path, synthetic: list[dict[str, Any]]) -> None:
    _come_back(Packets.from_bytes(b"".join(bytes.fromhex(entry["hex"]) for entry in synthetic)))
    for path in sorted((shared / "oracle/telemetry/requests").glob("*.bin")):
        _come_back(read_packets(path))


def test_unused_bits_that_are_set_come_back(shared: Path) -> None:
    packets = read_packets(shared / "data/telemetry/packets/279ff1_239_18.hex")
    records = decode(packets, products=["239,18"])["239,18"]
    assert records.levels["number_of_structures"].unused
    stripped = dict(records.levels)
    level = stripped["number_of_structures"]
    stripped["number_of_structures"] = type(level)(level.parent, level.columns)
    bare = Records(records.product, records.type, records.header, records.layout, stripped)
    assert encode(bare) != packets.to_bytes()
    assert encode(records) == packets.to_bytes()


@pytest.mark.parametrize("order", [(OLD, NEW), (NEW, OLD), (OLD, OLD + 5)])
def test_unused_bits_of_old_and_new_layouts_come_back(order: tuple[int, int]) -> None:
    stream = bytearray()
    for coarse in order:
        stream += encode(pixels([[(0, [1, 2]), (10, [3])]], coarse=coarse))
        stream[-16] |= 0x80
    stream[16 + 9] |= 0x80
    records = decode(Packets.from_bytes(bytes(stream)))["sci_pixels"]
    assert {name for name, level in records.levels.items() if level.unused} == {"packet", "num_energy_groups"}
    assert encode(records) == bytes(stream)


def test_unused_bits_of_blocks_that_grew(synthetic: list[dict[str, Any]]) -> None:
    blobs = [bytearray.fromhex(entry["hex"]) for entry in synthetic if entry["key"] == "21,6,20"]
    for blob in blobs:
        blob[16 + 19 + (5 if int.from_bytes(blob[10:14], "big") < 677774249 else 6)] |= 0x80
    packets = Packets.from_bytes(b"".join(map(bytes, blobs)))
    records = decode(packets, products=["21,6,20"])["21,6,20"]
    assert records.levels["num_substructures"].unused
    assert encode(records) == packets.to_bytes()


def _random_levels(scope: Scope, rows: int, rng: np.random.Generator, found: dict[str, Any], most: int = 3) -> None:
    counted = {repeat.count: repeat for repeat in scope.repeats}
    columns = {}
    for one in scope.fields:
        shape = (rows, one.repeat) if one.repeat else (rows,)
        low, high = (-(1 << one.bits - 1), 1 << one.bits - 1) if one.signed else (0, 1 << one.bits)
        high = min(high, most + 1) if one.name in counted else high
        columns[one.name] = rng.integers(low, high, shape, dtype=np.int64)
    if TAIL in counted:
        columns[TAIL] = rng.integers(0, 20, rows)
    found[scope.level] = columns
    for repeat in scope.repeats:
        _random_levels(repeat.scope, int(columns[repeat.count].sum()), rng, found, most)


def _coarse_of(layout: Layout) -> int:
    candidates = [634_000_000, 640_200_000, 642_300_000, 650_000_000, 680_000_000, 700_000_000]
    return next(coarse for coarse in candidates if find_layout(layout.type, coarse).index == layout.index)


OVERLAPPING = (1, 8, 48428)


def _random_records(layout: Layout, seed: int, *, packets: int, most: int = 3, first: int = 0) -> Records:
    """Make packets of one layout with random numbers everywhere and up to `most` items in each group."""
    levels: dict[str, Any] = {}
    _random_levels(layout.scope, packets, np.random.default_rng(seed), levels, most)
    if layout.type == OVERLAPPING:
        levels["packet"]["enabled_groups"] = (levels["packet"]["grps_req_for_operation"] & 0xFFFF) << 16
    number = first + np.arange(packets)
    scet = (_coarse_of(layout) << 16) + number
    return Records.from_levels(type_name(layout.type), levels, scet=scet, sequence_count=number)


@pytest.mark.parametrize("layout", layouts(), ids=lambda layout: f"{layout.type}-{layout.index}")
def test_every_layout_writes_what_it_reads(layout: Layout) -> None:
    made = _random_records(layout, layout.index, packets=5)
    packets = Packets.from_bytes(encode(made))
    assert len(packets) == 5
    assert packets.selector.tolist() == [layout.type[2]] * 5
    found = decode(packets, products=[made.product])[made.product]
    for name, level in made.levels.items():
        for column, values in level.columns.items():
            assert np.array_equal(found.levels[name].columns[column], values), (name, column)
    assert encode(found) == encode(made)


def _same(made: Records, found: Records) -> None:
    assert np.array_equal(made.layout, found.layout)
    for name, level in made.levels.items():
        for column, values in level.columns.items():
            assert np.array_equal(found.levels[name].columns[column], values), (made.product, name, column)


parts_of_a_stream = st.lists(
    st.tuples(st.sampled_from(layouts()), st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 5)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100, deadline=None)
@given(parts_of_a_stream, st.booleans())
def test_any_packets_of_any_types_come_back(parts: list[tuple[Layout, int, int, int]], one_type: bool) -> None:
    """Decoding after encoding gives every number back, alone or among other types and versions."""
    if one_type:
        variants = known_types()[parts[0][0].type]
        parts = [(variants[seed % len(variants)], seed, number, most) for _, seed, number, most in parts]
    made = [
        _random_records(layout, seed, packets=number, most=most, first=10 * position)
        for position, (layout, seed, number, most) in enumerate(parts)
    ]
    packets = Packets.from_bytes(b"".join(encode(records) for records in made))
    assert packets.accounting.used == sum(len(records) for records in made)
    decoded = decode(packets, products={records.product for records in made})
    assert decoded.rejected == ()
    for records in made:
        found = decoded[records.product]
        _same(records, found.select(np.flatnonzero(np.isin(found.scet, records.scet))))
        assert encode(found) == packets.of_product(records.product).to_bytes()


channels = st.lists(st.integers(0, 31), max_size=6)
starts = st.integers(0, 60000)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.tuples(starts, channels), max_size=3), min_size=1, max_size=4),
    st.sampled_from([OLD, NEW]),
    st.integers(0, 2**12 - 1),
    st.integers(0, 2**10 - 1),
)
def test_any_pixel_request_comes_back(bins: list[Any], coarse: int, pixel_mask: int, detectors: int) -> None:
    made = pixels(bins, coarse=coarse, pixel_mask=pixel_mask, detectors=detectors)
    stream = encode(made)
    assert encode(decode(Packets.from_bytes(stream))) == stream


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.tuples(st.integers(0, 5), st.integers(6, 31), st.integers(1, 8)),
                st.lists(starts, max_size=5),
                st.integers(0, 65535),
            ),
            min_size=1,
            max_size=3,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_spectrogram_comes_back(substructures: list[Any]) -> None:
    stream = encode(spectrogram(substructures))
    assert encode(decode(Packets.from_bytes(stream))) == stream


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 600), min_size=1, max_size=6))
def test_any_light_curve_comes_back(samples: list[int]) -> None:
    stream = encode(light_curve(tuple(samples)))
    packets = Packets.from_bytes(stream)
    assert encode(decode(packets)) == packets.to_bytes()


def test_selected_packets_encode_as_themselves() -> None:
    records = pixels([[(0, [1, 2]), (10, [3])], [(10, [4, 5])], [(20, [])]])
    packets = Packets.from_bytes(encode(records))
    for rows in ([2, 0], [1], [0, 1, 2], []):
        chosen = records.select(np.array(rows, dtype=np.int64))
        assert encode(chosen) == b"".join(packets.packet_bytes(row) for row in rows)


def test_packet_too_long_for_its_length_field() -> None:
    with pytest.raises(UsageError, match="at most 65542"):
        encode(light_curve((20000,)))


def test_rows_that_the_counts_do_not_cover() -> None:
    records = light_curve((3,))
    records["num_triggers"][:] = 4
    with pytest.raises(UsageError, match="level num_triggers has 3 rows"):
        encode(records)
