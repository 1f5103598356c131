"""One file to packet sets and quarantine: where packets go, how often they count, what is kept."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from example_delivery import DAYS, assert_balanced, pick, telemetry, write

from stixflow import jobs
from stixflow.jobs.frame import Framed
from stixflow.telemetry import Packets


@pytest.fixture(scope="module")
def packets(delivery: Path) -> Packets:
    return telemetry(delivery)


def frame(path: Path, root: Path) -> Framed:
    framed = jobs.frame(jobs.FrameJob(str(path), str(root)))
    assert isinstance(framed, Framed)
    return framed


def books(framed: Framed) -> dict[str, int]:
    found = {name: getattr(framed, name) for name in ("packets_in", "used", "duplicates")}
    return found | {"rejected": len(framed.rejected)}


def xml(*elements: str) -> str:
    body = "".join(f"<PktRawResponseElement><Packet>{one}</Packet></PktRawResponseElement>" for one in elements)
    return f'<?xml version="1.0"?><ns2:ResponsePart><PktRawResponse>{body}</PktRawResponse></ns2:ResponsePart>'


def test_packets_go_to_their_day_and_request(packets: Packets, tmp_path: Path) -> None:
    framed = frame(write(tmp_path / "all.bin", packets), tmp_path)
    assert Counter(item.product for item in framed.sets) == {"ql_lightcurve": 2, "sci_pixels": 2, "sci_spectrogram": 1}
    assert {item.key for item in framed.sets if item.product == "ql_lightcurve"} == set(DAYS)
    assert books(framed) == {"packets_in": len(packets), "used": len(packets), "duplicates": 0, "rejected": 0}


def test_a_packet_that_crosses_midnight_stands_in_both_days_and_counts_once(packets: Packets, tmp_path: Path) -> None:
    light_curves = packets.of_product("ql_lightcurve")
    framed = frame(write(tmp_path / "light.bin", light_curves), tmp_path)
    before, after = sorted(framed.sets, key=lambda item: item.key)
    sets = [
        {light.packet_bytes(row) for row in range(len(light))}
        for light in (Packets.from_bytes((tmp_path / item.path).read_bytes()) for item in (before, after))
    ]
    assert len(sets[0] & sets[1]) == 1
    assert len(sets[0] | sets[1]) == len(light_curves) == before.n_home + after.n_home
    assert (before.n_packets, after.n_packets) == (before.n_home, after.n_home + 1)


def test_the_same_file_gives_the_same_sets(packets: Packets, tmp_path: Path) -> None:
    path = write(tmp_path / "all.bin", packets)
    first = frame(path, tmp_path / "one")
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "one").rglob("*.bin")}
    assert frame(path, tmp_path / "one") == first == frame(path, tmp_path / "two")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "one").rglob("*.bin")} == written
    for item in first.sets:
        assert (tmp_path / "one" / item.path).read_bytes() == (tmp_path / "two" / item.path).read_bytes()


def test_long_files_are_sorted_in_batches(packets: Packets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "all.bin", packets)
    path.write_bytes(path.read_bytes() + b"no packet" + path.read_bytes())
    whole = frame(path, tmp_path / "whole")
    monkeypatch.setattr(sys.modules[Framed.__module__], "_BATCH_BYTES", 300_000)
    batched = frame(path, tmp_path / "batched")
    assert len(batched.sets) > len(whole.sets)
    assert books(batched) == books(whole)
    assert _contents(batched, tmp_path / "batched") == _contents(whole, tmp_path / "whole")


def _contents(framed: Framed, root: Path) -> dict[tuple[str, str], Counter[bytes]]:
    found: dict[tuple[str, str], Counter[bytes]] = {}
    for item in framed.sets:
        held = Packets.from_bytes((root / item.path).read_bytes())
        packets = Counter(held.packet_bytes(row) for row in range(len(held)))
        found[item.product, item.key] = found.get((item.product, item.key), Counter()) + packets
    return found


def test_packets_of_one_set_are_whole_and_in_order(packets: Packets, tmp_path: Path) -> None:
    framed = frame(write(tmp_path / "all.bin", packets), tmp_path)
    (spectrogram,) = (item for item in framed.sets if item.product == "sci_spectrogram")
    kept = (tmp_path / spectrogram.path).read_bytes()
    assert kept == packets.of_product("sci_spectrogram").to_bytes()


def test_duplicates_in_a_file_are_counted(packets: Packets, tmp_path: Path) -> None:
    path = write(tmp_path / "twice.bin", pick(packets, [0, 1, 2, 1, 0, 1]))
    assert books(frame(path, tmp_path)) == {"packets_in": 6, "used": 3, "duplicates": 3, "rejected": 0}


def test_what_lies_between_packets_is_kept_in_quarantine(packets: Packets, tmp_path: Path) -> None:
    first, second = packets.packet_bytes(0), packets.packet_bytes(20)
    path = tmp_path / "dirty.bin"
    path.write_bytes(first + b"\xff" * 37 + second + second[:50])
    framed = frame(path, tmp_path)
    assert books(framed) == {"packets_in": 4, "used": 2, "duplicates": 0, "rejected": 2}
    kept = [(tmp_path / entry.path).read_bytes() for entry in framed.rejected]
    assert kept == [b"\xff" * 37, second[:50]]
    assert [entry.offset for entry in framed.rejected] == [len(first), len(first) + 37 + len(second)]
    assert all("expected" in entry.reason for entry in framed.rejected)


@pytest.mark.parametrize("broken", [(1,), (0, 1), (1, 2), (0, 1, 2), (4, 5)])
def test_broken_elements_of_an_xml_are_each_counted(packets: Packets, tmp_path: Path, broken: tuple[int, ...]) -> None:
    """Elements without a packet have no place among the bytes of the others: several stand at the same offset."""
    texts = [packets.packet_bytes(row).hex() for row in range(6)]
    path = tmp_path / "delivery.xml"
    path.write_text(xml(*("00" * row + "zz" if row in broken else text for row, text in enumerate(texts))))
    framed = frame(path, tmp_path)
    assert books(framed) == {"packets_in": 6, "used": 6 - len(broken), "duplicates": 0, "rejected": len(broken)}


def test_a_broken_element_before_a_packet_that_cannot_be_decoded(packets: Packets, tmp_path: Path) -> None:
    """Both stand at the same offset, and both count."""
    bad = bytearray(packets.of_product("ql_lightcurve").packet_bytes(0))
    bad[17:23] = bytes(6)
    path = tmp_path / "delivery.xml"
    path.write_text(xml("12zz", bad.hex(), packets.packet_bytes(30).hex()))
    framed = frame(path, tmp_path)
    assert books(framed) == {"packets_in": 3, "used": 1, "duplicates": 0, "rejected": 2}
    assert (tmp_path / framed.rejected[1].path).read_bytes() == bytes(bad)


@pytest.mark.parametrize("hours", [-96000, -24, -1, 2, 65536 / 3600, 192])
def test_data_that_contradict_their_header_are_refused(packets: Packets, tmp_path: Path, hours: float) -> None:
    """A flipped bit in the data time would publish a wrong day; header time is the other witness."""
    light = packets.of_product("ql_lightcurve")
    bad = bytearray(light.packet_bytes(0))
    moved = int.from_bytes(bad[17:21], "big") - round(hours * 3600)
    bad[17:21] = moved.to_bytes(4, "big")
    path = tmp_path / "moved.bin"
    path.write_bytes(bytes(bad) + light.packet_bytes(1))
    framed = frame(path, tmp_path)
    assert books(framed) == {"packets_in": 2, "used": 1, "duplicates": 0, "rejected": 1}
    assert "does not go with header time" in framed.rejected[0].reason


def test_known_types_without_a_cube_are_kept(tmp_path: Path, shared: Path) -> None:
    path = shared / "data/telemetry/packets/279ff1_239_18.hex"
    framed = frame(path, tmp_path)
    assert_balanced(books(framed))
    assert framed.not_decoded == {"239-18": framed.packets_in}
    (item,) = framed.sets
    assert item.product == jobs.UNDECODED
    assert (tmp_path / item.path).read_bytes() == bytes.fromhex(path.read_text())


def test_a_file_without_a_packet_is_not_telemetry(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    told = jobs.frame(jobs.FrameJob(str(path), str(tmp_path)))
    assert isinstance(told, jobs.Refused)
    assert "a PNG image" in told.reason
    assert "Expected" in told.reason
    assert "Do:" in told.reason


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_never_crash_and_the_books_balance(packets: Packets, tmp_path: Path, seed: int) -> None:
    """Whatever happens to the bytes, each is in a packet set or in quarantine."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(packets), 24, replace=False))
    clean = np.frombuffer(pick(packets, rows).to_bytes(), np.uint8)
    rejected = 0
    for trial in range(10):
        blob = clean.copy()
        where = rng.integers(0, blob.size * 8, 2**trial // 4 + 1)
        np.bitwise_xor.at(blob, where // 8, (1 << (where % 8)).astype(np.uint8))
        path = tmp_path / f"{trial}.bin"
        path.write_bytes(blob.tobytes())
        framed = frame(path, tmp_path / f"root{trial}")
        assert_balanced(books(framed))
        kept = sum(len(Packets.from_bytes((tmp_path / f"root{trial}" / s.path).read_bytes())) for s in framed.sets)
        assert kept == sum(item.n_packets for item in framed.sets)
        bytes_kept = sum((tmp_path / f"root{trial}" / item.path).stat().st_size for item in framed.sets)
        bytes_refused = sum(entry.n_bytes for entry in framed.rejected)
        # Light curves near midnight stand in two sets; a packet cut by a false length may lie inside another's bytes.
        assert bytes_kept + bytes_refused >= blob.size
        rejected += len(framed.rejected)
    assert rejected


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 400])
def test_a_truncated_stream_keeps_what_is_whole(packets: Packets, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.bin"
    path.write_bytes(pick(packets, [20, 21, 22]).to_bytes()[:-cut])
    framed = frame(path, tmp_path)
    assert books(framed) == {"packets_in": 3, "used": 2, "duplicates": 0, "rejected": 1}
    assert (tmp_path / framed.rejected[0].path).read_bytes() == packets.packet_bytes(22)[:-cut]
