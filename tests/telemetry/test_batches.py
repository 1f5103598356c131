"""Reading in batches: the same packets, rejects and books as reading at once, in memory that does not grow."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from example_records import light_curve, pixels
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.errors import InputFileError, MissingFile, UsageError
from stixflow.telemetry import Accounting, Packets, decode, encode, iter_packets, read_packets, write_binary, write_xml
from stixflow.telemetry.ccsds import frame

MEGABYTE = 1_000_000
BATCH = 300_000


def _stream(megabytes: float, seed: int = 0) -> bytes:
    """Make packets with times and counts of their own."""
    parts = [light_curve((600,) * 40, seed=seed), pixels([[(0, list(range(8)))]] * 20, seed=seed)]
    once = np.frombuffer(encode(parts), dtype=np.uint8)
    copies = int(megabytes * MEGABYTE / once.size) + 1
    stream = np.tile(once, (copies, 1))
    offset = frame(once.tobytes()).offset
    coarse = seed * 1_000_000 + np.arange(copies)[:, None] * offset.size + np.arange(offset.size) + 720_000_000
    for byte in range(4):
        stream[:, offset + 10 + byte] = coarse >> (24 - 8 * byte) & 0xFF
    return stream.tobytes()


STREAM = _stream(1.5)
PACKETS = Packets.from_bytes(STREAM)


def _lines(path: Path, packets: Packets) -> None:
    lines = [f"2024-03-01T00:00:{row % 60:02d}.5Z {packets.packet_bytes(row).hex()}\n" for row in range(len(packets))]
    path.write_text("".join(lines))


def _hex_rows(path: Path, packets: Packets) -> None:
    path.write_text("".join(f"{packets.packet_bytes(row).hex(' ')}\n" for row in range(len(packets))))


def _one_line(path: Path, packets: Packets) -> None:
    path.write_text(packets.to_bytes().hex())


WRITERS: dict[str, Callable[[Path, Packets], object]] = {
    "binary": write_binary,
    "xml": write_xml,
    "lines": _lines,
    "hex": _hex_rows,
    "one line": _one_line,
}


def _same_as_at_once(paths: Path | Sequence[Path], batch_bytes: int = BATCH) -> list[Packets]:
    whole, batches = read_packets(paths), list(iter_packets(paths, batch_bytes=batch_bytes))
    assert b"".join(batch.to_bytes() for batch in batches) == whole.to_bytes()
    assert sum((batch.accounting for batch in batches), Accounting(0, 0)) == whole.accounting
    for name in ("position", "scet", "sequence_count", "ground_time"):
        joined = np.concatenate([getattr(batch, name) for batch in batches])
        assert np.array_equal(joined, getattr(whole, name), equal_nan=name == "ground_time"), name
    described = [(entry.file, entry.offset, entry.reason, entry.data) for batch in batches for entry in batch.rejected]
    expected = [(entry.file, entry.offset, entry.reason, entry.data) for entry in whole.rejected]
    assert sorted(described) == sorted(expected)
    assert sum((batch.skipped for batch in batches), ()) == whole.skipped
    return batches


@pytest.mark.parametrize("kind", WRITERS)
def test_batches_of_every_container(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "delivery.dat"
    WRITERS[kind](path, PACKETS)
    batches = _same_as_at_once(path)
    assert len(batches) > 3
    assert sum(len(batch) for batch in batches) == len(PACKETS)
    assert {batch.files for batch in batches} == {(str(path),)}


def test_real_files_in_batches(shared: Path) -> None:
    _same_as_at_once(shared / "data/telemetry")
    assert len(_same_as_at_once(next((shared / "data/telemetry").glob("*_LB_*.fits")), 262232 + 100)) >= 1


def test_duplicates_are_known_over_files_and_batches(tmp_path: Path) -> None:
    changed = bytearray(STREAM)
    changed[int(PACKETS.offset[300]) + int(PACKETS.length[300]) - 1] ^= 1
    for name, blob in (("a", STREAM), ("b", bytes(changed)), ("c", STREAM[-900_000:])):
        (tmp_path / name).write_bytes(blob)
    batches = _same_as_at_once([tmp_path / name for name in "abc"])
    books = sum((batch.accounting for batch in batches), Accounting(0, 0))
    assert books.used == len(PACKETS)
    assert books.rejected == 2
    (differs,) = [entry for batch in batches for entry in batch.rejected if "differs" in entry.reason]
    assert differs.offset == PACKETS.offset[300]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_damaged_streams_in_batches(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    blob = bytearray(STREAM[: 900_000 + int(rng.integers(0, 500_000))])
    for _ in range(int(rng.integers(0, 6))):
        at, size = int(rng.integers(0, len(blob))), int(rng.integers(1, 9000))
        action = rng.integers(0, 4)
        if action == 0:
            del blob[at : at + size]
        elif action == 1:
            blob[at:at] = rng.bytes(size)
        elif action == 2:
            blob[at : at + 1] = rng.bytes(1)
        else:
            blob[at:at] = blob[at : at + size]
    path = tmp_path_factory.mktemp("damaged") / "a.bin"
    path.write_bytes(bytes(blob))
    _same_as_at_once(path, BATCH + int(rng.integers(0, 1000)))


def test_long_stretches_without_packets_come_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(PACKETS.packet_bytes(0) + bytes(1_000_000) + PACKETS.packet_bytes(1))
    batches = list(iter_packets(path, batch_bytes=BATCH))
    assert b"".join(batch.to_bytes() for batch in batches) == PACKETS.packet_bytes(0) + PACKETS.packet_bytes(1)
    bad = [entry for batch in batches for entry in batch.rejected]
    assert 2 <= len(bad) <= 6
    assert b"".join(entry.data for entry in bad) == bytes(1_000_000)
    assert bad[0].offset == PACKETS.length[0]


def test_elements_that_never_end_come_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    write_xml(path, PACKETS.select(slice(0, 2)))
    path.write_text(path.read_text().replace("</Packet>", "", 1) + "<Packet>" + "0" * 2_000_000)
    batches = list(iter_packets(path, batch_bytes=BATCH))
    assert sum(len(batch) for batch in batches) == 2, "a packet that is whole needs no end of its element"
    bad = [entry for batch in batches for entry in batch.rejected]
    assert len(bad) > 2
    assert b"".join(entry.data for entry in bad) == b"0" * 2_000_000


def test_wrong_use_of_batches(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batches of 1000 bytes"):
        iter_packets(tmp_path, batch_bytes=1000)
    with pytest.raises(MissingFile):
        list(iter_packets(tmp_path / "nowhere"))
    with pytest.raises(MissingFile):
        list(iter_packets([]))
    (tmp_path / "a.txt").write_text("prose")
    with pytest.raises(InputFileError):
        list(iter_packets(tmp_path / "a.txt"))
    with pytest.raises(MissingFile, match="1 other files"):
        list(iter_packets(tmp_path))


def _peak(path: Path) -> tuple[int, int]:
    """Largest memory while a file is read and decoded batch by batch, and the packets in it."""
    packets = 0
    tracemalloc.start()
    for batch in iter_packets(path, batch_bytes=4 * MEGABYTE):
        packets += decode(batch).accounting.used
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, packets


def test_memory_stays_flat_over_200_megabytes(tmp_path: Path) -> None:
    path, written = tmp_path / "long.bin", 0
    with path.open("wb") as file:
        for part in range(20):
            stream = _stream(10, seed=part)
            written += frame(stream).offset.size
            file.write(stream)
            file.truncate(file.tell() + 100_000)
            file.seek(0, 2)
    assert path.stat().st_size > 200 * MEGABYTE
    peak, packets = _peak(path)
    assert packets == written
    assert peak < 60 * MEGABYTE
