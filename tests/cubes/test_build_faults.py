"""Packets with flipped bits: whatever is left after decoding is placed, repeated, or counted as unplaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from example_products import aspect, background, calibration, flareflag, housekeeping, spectra, status, variance
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.cubes.build import build_calibration, build_day, build_requests, place
from stixflow.cubes.check import find_problems
from stixflow.cubes.model import PRODUCTS
from stixflow.cubes.sources import product_of, record_names
from stixflow.errors import UsageError
from stixflow.telemetry import Packets, Records, consistent, decode, encode, read_packets

MADE = {
    "ql_background": lambda: background((5, 7)),
    "ql_spectra": lambda: spectra([[(d, 0) for d in range(20)], [(d, 0) for d in range(20, 32)]]),
    "ql_variance": lambda: variance(20),
    "ql_flareflag": lambda: flareflag(20),
    "aspect": lambda: aspect(20),
    "tm_status": lambda: status((2, 1)),
    "hk_mini": housekeeping,
    "cal_spectrum": lambda: calibration([[(0, 0, 0), (0, 1, 1)], [(1, 0, 0), (1, 1, 1)]]),
}
REAL = (
    "6268bc_21_6_20",
    "cb9ab8_21_6_22",
    "e5e0a7_21_6_23",
    "d8b0ed_21_6_23_nstr_2",
    "05bfed_21_6_41",
    "83c11d_21_6_42",
)
flips = st.lists(st.tuples(st.integers(0, 3), st.integers(16, 90), st.integers(0, 7)), min_size=1, max_size=4)


def spoil(packets: Packets, changes: list[tuple[int, int, int]]) -> Packets:
    blobs = [bytearray(packets.packet_bytes(row)) for row in range(len(packets))]
    for packet, byte, bit in changes:
        blob = blobs[packet % len(blobs)]
        blob[16 + (byte - 16) % (len(blob) - 16)] ^= 1 << bit
    return Packets.from_bytes(b"".join(bytes(blob) for blob in blobs))


def cubes_of(records: Records) -> Iterator[object]:
    """Every cube of the records; its own checks of the books run on the way."""
    product = str(product_of(records.type))
    partition = PRODUCTS[product].partition
    if partition == "run":
        yield from build_calibration(records)
    elif partition == "request":
        for request in build_requests(records):
            yield from request.datasets
    else:
        yield build_day(product, records)


def assert_sound(packets: Packets) -> None:
    decoded = decode(packets, products=record_names())
    for records in decoded.values():
        where = place(records)
        assert (where.stop >= where.start).all()
        usable, refused = consistent(records)
        assert len(usable) + len(refused) == len(records)
        if not _has_samples(usable):
            with pytest.raises(UsageError, match="can be placed"):
                list(cubes_of(records))
            continue
        for cube in cubes_of(records):
            assert find_problems(cube) == [], records.product  # type: ignore[arg-type]


def _has_samples(records: Records) -> bool:
    """Tell whether a day product has anything to place; requests and runs without anything are just no cube."""
    if PRODUCTS[str(product_of(records.type))].partition != "day":
        return True
    level = "num_triggers" if "num_triggers" in records.levels else "num_samples"
    if level not in records.levels:
        return len(records) > 0
    return records.levels[level].size > 0


@settings(max_examples=25, deadline=None)
@given(changes=flips)
@pytest.mark.parametrize("product", list(MADE))
def test_made_packets(product: str, changes: list[tuple[int, int, int]]) -> None:
    assert_sound(spoil(Packets.from_bytes(encode(MADE[product]())), changes))


@pytest.mark.parametrize("name", REAL)
def test_real_packets(shared: Path, name: str) -> None:
    packets = read_packets(shared / f"data/telemetry/packets/{name}.hex")
    rng = np.random.default_rng(len(name))
    for _ in range(12):
        size = int(packets.length[0])
        changes = [(0, int(rng.integers(16, min(size, 400))), int(rng.integers(8))) for _ in range(3)]
        assert_sound(spoil(packets, changes))
