"""Damage of every kind to files of every kind: nothing crashes, nothing is lost silently, the books balance.

All seeds are fixed, so that a failure comes back; each damage is truncations, flips, moves, copies and foreign bytes.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stixflow.errors import InputFileError, MissingFile
from stixflow.telemetry import (
    Packets,
    concat,
    consistent,
    decode,
    encode,
    iter_packets,
    read_packets,
    regroup,
    write_xml,
)
from stixflow.telemetry.tree import describe_packets

ROUNDS = 60
SCIENCE = {(21, 6, ssid) for ssid in range(20, 25)}


@pytest.fixture(scope="module")
def packets(shared: Path, synthetic: list[dict[str, Any]]) -> Packets:
    """One packet or a few of every type that there is."""
    made = Packets.from_bytes(b"".join(bytes.fromhex(entry["hex"]) for entry in synthetic[::3]))
    requests = read_packets(sorted((shared / "oracle/telemetry/requests").glob("l[12]_22635.bin")))
    joined = concat([read_packets(shared / "data/telemetry/packets"), made, requests])
    return joined.select(np.random.default_rng(1).permutation(len(joined)))


def _truncate(blob: bytearray, rng: np.random.Generator) -> None:
    del blob[int(rng.integers(len(blob) // 2, len(blob))) :]


def _flip(blob: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(0, len(blob), int(rng.integers(1, 30))).tolist():
        blob[at] ^= 1 << int(rng.integers(0, 8))


def _move(blob: bytearray, rng: np.random.Generator) -> None:
    start, size, target = (int(number) for number in rng.integers(0, len(blob), 3))
    piece = blob[start : start + size % 5000]
    del blob[start : start + size % 5000]
    blob[target:target] = piece


def _copy(blob: bytearray, rng: np.random.Generator) -> None:
    start, target = rng.integers(0, len(blob), 2).tolist()
    blob[target:target] = blob[start : start + int(rng.integers(1, 9000))]


def _foreign(blob: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(0, len(blob)))
    blob[at:at] = rng.bytes(int(rng.integers(1, 3000)))


def _remove(blob: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(0, len(blob)))
    del blob[at : at + int(rng.integers(1, 3000))]


DAMAGES = (_truncate, _flip, _move, _copy, _foreign, _remove)


def _damaged(blob: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    changed = bytearray(blob)
    for which in rng.integers(0, len(DAMAGES), int(rng.integers(1, 5))).tolist():
        DAMAGES[which](changed, rng)
    return bytes(changed)


def _use(packets: Packets) -> None:
    """Do all that is done with packets; whatever they hold, it must be accounted for and unchanged."""
    products = packets.product()
    decoded = decode(packets, products=set(products.tolist()))
    assert decoded.accounting.packets_in == packets.accounting.used == len(packets)
    assert decoded.not_decoded == {}
    rejected = {(entry.file, entry.offset): entry for entry in decoded.rejected}
    assert len(rejected) == len(decoded.rejected)
    names = np.array(packets.files)[packets.file].tolist()
    bad = np.array([key in rejected for key in zip(names, packets.position.tolist(), strict=True)], dtype=bool)
    assert bad.sum() == len(rejected)
    for product, records in decoded.items():
        assert encode(records) == packets.select((products == product) & ~bad).to_bytes()
    for records in decoded.values():
        usable, refused = consistent(records)
        assert len(usable) + len(refused) == len(records)
        if records.type in SCIENCE:
            assert sum(len(request.records) for request in regroup(usable)) == len(usable)
    keys = packets.keys()
    assert keys.start.size == len(packets)


def _check_bytes(packets: Packets, size: int) -> None:
    """Every byte of a binary file is in a packet, a copy of one, or quarantine."""
    kept = int(packets.length.sum()) + sum(len(entry.data) for entry in packets.rejected)
    copies = packets.accounting.duplicates
    assert kept == size if copies == 0 else kept <= size - 16 * copies


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_damaged_binary(packets: Packets, tmp_path: Path, seed: int) -> None:
    blob = _damaged(packets.to_bytes(), seed)
    path = tmp_path / "a.bin"
    path.write_bytes(blob)
    found = read_packets(path)
    _check_bytes(found, len(blob))
    _use(found)


def test_undamaged_packets_are_found_beside_damaged_ones(packets: Packets) -> None:
    rng = np.random.default_rng(5)
    for _ in range(ROUNDS):
        blob = bytearray(packets.to_bytes())
        bad = rng.choice(len(packets), 10, replace=False)
        start = np.cumsum(packets.length) - packets.length
        for row in bad.tolist():
            at = int(start[row] + rng.integers(0, packets.length[row]))
            blob[at] ^= 1 << int(rng.integers(0, 8))
        found = Packets.from_bytes(bytes(blob))
        kept = {found.packet_bytes(row) for row in range(len(found))}
        good = [packets.packet_bytes(row) for row in range(len(packets)) if row not in bad]
        assert sum(packet not in kept for packet in good) <= 1, "at most one behind a length that leads to a header"


def _lines(path: Path, packets: Packets) -> None:
    rows = (f"2021-02-03T04:05:06.7Z {packets.packet_bytes(row).hex()}\n" for row in range(len(packets)))
    path.write_text("".join(rows))


def _hex(path: Path, packets: Packets) -> None:
    path.write_text("".join(f"0x{packets.packet_bytes(row).hex()}\n" for row in range(len(packets))))


@pytest.mark.parametrize("write", [write_xml, _lines, _hex])
@pytest.mark.parametrize("seed", range(12))
def test_damaged_text(packets: Packets, tmp_path: Path, write: Callable[[Path, Packets], object], seed: int) -> None:
    path = tmp_path / "a.dat"
    write(path, packets.select(slice(seed * 4, seed * 4 + 20)))
    path.write_bytes(_damaged(path.read_bytes(), 1000 + seed))
    try:
        found = read_packets(path)
    except InputFileError:
        return
    assert found.accounting.used == len(found)
    _use(found)
    _check_text(packets, path.read_bytes().lower(), found)
    batches = list(iter_packets(path))
    assert b"".join(batch.to_bytes() for batch in batches) == found.to_bytes()


def _check_text(packets: Packets, text: bytes, found: Packets) -> None:
    """Every packet that still stands in a text in full was read, or is in quarantine."""
    read = set(map(_hexadecimal, _each(found)))
    refused = b"\n".join(entry.data.lower() for entry in found.rejected)
    there = [hexadecimal for hexadecimal in map(_hexadecimal, _each(packets)) if hexadecimal in text]
    assert there
    assert [one for one in there if one not in read and one not in refused] == []


def _each(packets: Packets) -> list[bytes]:
    return [packets.packet_bytes(row) for row in range(len(packets))]


def _hexadecimal(packet: bytes) -> bytes:
    return packet.hex().encode()


def test_many_damaged_files_together(packets: Packets, tmp_path: Path) -> None:
    for seed in range(6):
        (tmp_path / f"{seed}.bin").write_bytes(_damaged(packets.to_bytes(), 2000 + seed))
        (tmp_path / f"{seed}.copy").write_bytes((tmp_path / f"{seed}.bin").read_bytes())
    found = read_packets(tmp_path)
    assert found.accounting.duplicates >= 0.8 * 11 * len(packets)
    _use(found)
    order = np.random.default_rng(9).permutation(12)
    shuffled = read_packets([sorted(tmp_path.iterdir())[number] for number in order.tolist()])
    assert shuffled.accounting.packets_in == found.accounting.packets_in
    undamaged = {packets.packet_bytes(row) for row in range(len(packets))}
    same = undamaged & {found.packet_bytes(row) for row in range(len(found))}
    assert same <= {shuffled.packet_bytes(row) for row in range(len(shuffled))} | {
        entry.data for entry in shuffled.rejected
    }


@pytest.mark.parametrize("seed", range(10))
def test_trees_of_damaged_packets(packets: Packets, seed: int) -> None:
    found = Packets.from_bytes(_damaged(packets.to_bytes(), 3000 + seed))
    some = found.select(np.random.default_rng(seed).permutation(len(found))[:25])
    described = list(describe_packets(some))
    assert len(described) == len(some)
    assert json.loads(json.dumps(described, allow_nan=False)) == described


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_telemetry(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / "noise"
    path.write_bytes(rng.bytes(int(rng.integers(1, 100_000))))
    try:
        found = read_packets(path)
    except InputFileError:
        return
    _check_bytes(found, path.stat().st_size)
    _use(found)
    with pytest.raises(MissingFile):
        read_packets(tmp_path / "none")


def test_counts_that_promise_too_much_cost_no_memory(packets: Packets) -> None:
    blob = bytearray(packets.to_bytes())
    start = np.cumsum(packets.length) - packets.length
    for at, size in zip(start.tolist(), packets.length.tolist(), strict=True):
        body = np.random.default_rng(at).integers(0, 256, max(size - 19, 0), dtype=np.uint8)
        blob[at + 19 : at + size] = body.tobytes()
    tracemalloc.start()
    found = Packets.from_bytes(bytes(blob))
    _use(found)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * len(blob) + 10_000_000
