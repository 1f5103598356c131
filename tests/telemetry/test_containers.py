from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from example_records import light_curve, pixels

from stixflow.errors import InputFileError, MissingFile
from stixflow.telemetry import Accounting, Packets, encode, read_packets, write_binary, write_xml

STREAM = encode(light_curve((3, 4, 5))) + encode(pixels([[(0, [1, 2])], [(10, [1, 2])]]))
PACKETS = Packets.from_bytes(STREAM)


def _hex(path: Path) -> None:
    path.write_text("0x" + STREAM.hex())


def _hex_lines(path: Path) -> None:
    path.write_text("\n".join(f"0x{PACKETS.packet_bytes(row).hex(' ')}" for row in range(5)) + "\n")


WRITERS: dict[str, Callable[[Path], object]] = {
    "binary": lambda path: write_binary(path, PACKETS),
    "xml": lambda path: write_xml(path, PACKETS),
    "hex": _hex,
    "hex lines": _hex_lines,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_containers_are_told_apart_by_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "delivery.dat"
    WRITERS[kind](path)
    packets = read_packets(path)
    assert packets.to_bytes() == STREAM
    assert packets.accounting == Accounting(5, 5)
    assert packets.files == (str(path),)


def test_many_files_and_folders(tmp_path: Path) -> None:
    write_binary(tmp_path / "b.bin", PACKETS)
    (tmp_path / "deep").mkdir()
    write_xml(tmp_path / "deep" / "a.xml", PACKETS.select(slice(0, 3)))
    (tmp_path / "readme.txt").write_text("nothing of interest")
    packets = read_packets(tmp_path)
    assert packets.accounting == Accounting(8, 5, duplicates=3)
    assert packets.skipped == ((str(tmp_path / "readme.txt"), packets.skipped[0][1]),)
    listed = read_packets([tmp_path / "deep" / "a.xml", str(tmp_path / "b.bin"), tmp_path / "b.bin"])
    assert listed.accounting == Accounting(8, 5, duplicates=3)
    assert [Path(name).name for name in np.array(listed.files)[listed.file]] == ["a.xml"] * 3 + ["b.bin"] * 2


PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
WRONG: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "blank": (b"  \n ", "is empty"),
    "png": (PNG, "a PNG image"),
    "prose": (b"Dear colleague, the packets are attached.", "no telemetry"),
    "other xml": (b"<?xml version='1.0'?><note>hello</note>", "XML without packets"),
    "telecommand report": (b"<?xml version='1.0'?><a><PktTcReportResponse/></a>", "telecommand report"),
    "other hex": (b"deadbeef" * 20, "without a packet header"),
    "not quite fits": (b"SIMPLE  =                    T" + bytes(200), "FITS"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_files_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    content, message = WRONG[kind]
    path = tmp_path / "wrong.dat"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=message) as caught:
        read_packets(path)
    assert str(path) in str(caught.value)
    assert "Do:" in str(caught.value)


def test_missing_and_empty_places(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="does not exist"):
        read_packets(tmp_path / "nowhere")
    with pytest.raises(MissingFile, match="holds no telemetry"):
        read_packets(tmp_path)
    (tmp_path / "image.png").write_bytes(PNG)
    with pytest.raises(MissingFile, match="1 other files"):
        read_packets(tmp_path)
    with pytest.raises(MissingFile):
        read_packets([])


def _xml(*elements: str) -> str:
    body = "".join(f'<PktRawResponseElement packetID="{i}"><Packet>{e}</Packet>' for i, e in enumerate(elements))
    return f"<x:ResponsePart xmlns:x='a'><Response><PktRawResponse>{body}"


@pytest.mark.parametrize("prefix", [76, 0, 75, 40, 77, 120])
def test_prefix_of_any_length_is_passed(tmp_path: Path, prefix: int) -> None:
    path = tmp_path / "a.xml"
    path.write_text(_xml("00" * prefix + PACKETS.packet_bytes(0).hex(), "0d" * 76 + PACKETS.packet_bytes(1).hex()))
    packets = read_packets(path)
    assert packets.to_bytes() == PACKETS.packet_bytes(0) + PACKETS.packet_bytes(1)


def test_bad_elements_are_quarantined_and_the_rest_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    good = ["00" * 76 + PACKETS.packet_bytes(row).hex() for row in range(4)]
    text = _xml(good[0], good[1][:-8], good[2].replace("0", "g"), "", good[3])
    path.write_text(text[:-9] + f"<Packet>{good[0][:100]}")
    packets = read_packets(path)
    assert packets.to_bytes() == PACKETS.packet_bytes(0) + PACKETS.packet_bytes(3)
    assert packets.accounting.packets_in == 6
    assert packets.accounting.rejected == 4
    reasons = [entry.reason for entry in packets.rejected]
    assert "element 2: no packet that fits" in reasons[0]
    assert "element 3: not hexadecimal" in reasons[1]
    assert "ends inside it" in reasons[3]
    assert packets.rejected[0].data.decode() == good[1][:-8]


def test_packets_beside_damaged_tags_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    text = _xml(*(PACKETS.packet_bytes(row).hex() for row in range(3)))
    path.write_text(text.replace("<Packet>", "<Pqcket>", 1).replace("</Packet>", "<.Packet>", 2))
    packets = read_packets(path)
    assert packets.accounting == Accounting(3, 3)
    middle = text.index(PACKETS.packet_bytes(1).hex()) + 100
    path.write_text(text[:middle] + "<" + text[middle + 1 :])
    packets = read_packets(path)
    assert packets.accounting == Accounting(4, 2, rejected=2)
    whole = PACKETS.packet_bytes(1).hex()
    assert [entry.data.decode() for entry in packets.rejected] == [whole[:100], whole[101:]]


def test_namespaced_packet_elements(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(f"<ns2:a><ns2:Packet x='1'>\n{PACKETS.packet_bytes(0).hex()}\n</ns2:Packet></ns2:a>")
    assert len(read_packets(path)) == 1


@pytest.mark.parametrize("width", [1, 7, 76, 77])
def test_hex_text_broken_anywhere(tmp_path: Path, width: int) -> None:
    path = tmp_path / "a.hex"
    text = STREAM.hex()
    path.write_text("\n".join(text[start : start + width] for start in range(0, len(text), width)))
    packets = read_packets(path)
    assert packets.to_bytes() == STREAM
    assert packets.accounting == Accounting(5, 5)


def test_hex_line_that_is_no_hex(tmp_path: Path) -> None:
    path = tmp_path / "a.hex"
    lines = [PACKETS.packet_bytes(row).hex() for row in range(3)]
    path.write_text("\n".join([lines[0], lines[1][:-1], lines[2]]))
    packets = read_packets(path)
    assert packets.to_bytes() == PACKETS.packet_bytes(0) + PACKETS.packet_bytes(2)
    assert packets.accounting == Accounting(3, 2, rejected=1)


def test_offsets_of_rejects_count_from_the_start_of_their_file(tmp_path: Path) -> None:
    write_binary(tmp_path / "a.bin", PACKETS)
    (tmp_path / "b.bin").write_bytes(STREAM[:-3])
    changed = bytearray(STREAM)
    changed[-1] ^= 1
    (tmp_path / "c.bin").write_bytes(bytes(changed))
    packets = read_packets(tmp_path)
    offsets = {Path(entry.file).name: entry.offset for entry in packets.rejected}
    assert offsets == {"b.bin": int(PACKETS.offset[-1]), "c.bin": int(PACKETS.offset[-1])}


def test_prefixes_written_are_those_of_the_ground_system(tmp_path: Path, shared: Path) -> None:
    original = read_packets(shared / "data/telemetry/20aaf3_PktTmRaw.xml")
    text = write_xml(tmp_path / "a.xml", original).read_text()
    index = json.loads((shared / "oracle/telemetry/xml_index.json").read_text())["20aaf3_PktTmRaw.xml"]
    elements = [bytes.fromhex(part.split("<")[0]) for part in text.split("<Packet>")[1:]]
    for written, known in zip(elements, index, strict=True):
        words = np.frombuffer(written[:76], dtype=">u4").astype(int)
        assert abs(words[1] + words[2] * 1e-6 - known["prefix_unix"]) < 0.06
        assert words[7] == known["total_bytes"] == len(written)
        assert words[10] == known["prefix_spid"]
        assert written[70:72] == (1444).to_bytes(2, "big")
        assert tuple(written[74:76]) == (3, 25)


def test_real_containers(shared: Path) -> None:
    folder = shared / "data/telemetry"
    index = json.loads((shared / "oracle/telemetry/xml_index.json").read_text())
    for path in sorted(folder.glob("*PktTmRaw.xml")):
        assert read_packets(path).accounting.packets_in == len(index[path.name])
    binary = Packets.from_bytes((shared / "oracle/telemetry/lb_packets.bin").read_bytes())
    assert read_packets(next(folder.glob("*_LB_*.fits"))).to_bytes() == binary.to_bytes()
    whole = read_packets(folder)
    assert {Path(name).name[:6] for name, _ in whole.skipped} == {"01c065", "5327d7", "b421e2"}
    assert whole.rejected == ()
    level0 = next(folder.glob("5327d7*"))
    with pytest.raises(InputFileError, match="a FITS file of level L0"):
        read_packets(level0)
