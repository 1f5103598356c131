from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_records import light_curve, pixels
from reference_packets import read_json

from stixflow.cli import main
from stixflow.cubes.sources import SOURCES
from stixflow.errors import UsageError
from stixflow.telemetry import Packets, Records, encode, read_packets, write_binary
from stixflow.telemetry.inspect import Inspection
from stixflow.telemetry.layouts import known_types, layouts, listed_name, type_name
from stixflow.telemetry.tree import describe_packets, format_tree, is_of_type, packet_trees

SYNC_BIT_INSIDE = "db0184_239_14"
"""The reference decoder leaves the synchronisation flag in the seconds of this packet."""


def _oracles(shared: Path) -> list[tuple[str, Any, Packets]]:
    found = []
    housekeeping = read_packets(shared / "data/telemetry/20aaf3_PktTmRaw.xml")
    for path in sorted((shared / "oracle/telemetry/packets").glob("*.json.gz")):
        label, oracle = path.name.removesuffix(".json.gz"), read_json(path)
        if "PktTmRaw" in label:
            packets = housekeeping.select(housekeeping.scet >> 16 == oracle["header"]["scet_coarse"])
        else:
            packets = read_packets(shared / f"data/telemetry/packets/{label}.hex")
        found.append((label, oracle, packets))
    return found


def _without_engineering(nodes: list[Any]) -> list[Any]:
    return [[name, raw, _without_engineering(children)] for name, raw, _, children in nodes]


def _with_children(nodes: list[Any]) -> list[Any]:
    return [[node[0], node[1], _with_children(node[2] if len(node) > 2 else [])] for node in nodes]


def test_trees_and_headers_equal_the_reference_decoder(shared: Path) -> None:
    oracles = _oracles(shared)
    assert len(oracles) == 32
    for label, oracle, packets in oracles:
        (described,) = describe_packets(packets)
        assert _without_engineering(described["parameters"]) == _with_children(oracle["tree"]), label
        expected = oracle["header"]
        if label == SYNC_BIT_INSIDE:
            expected["scet_coarse"] &= 0x7FFFFFFF
        header = described["header"]
        assert {name: header[name] for name in expected} == expected, label
        undescribed = header.get("undescribed", "")
        assert len(undescribed) * 4 == oracle["total_bits"] - oracle["consumed_bits"]


def test_trees_of_synthetic_packets(synthetic: list[dict[str, Any]]) -> None:
    for entry in synthetic:
        packets = Packets.from_bytes(bytes.fromhex(entry["hex"]))
        (described,) = describe_packets(packets)
        found: dict[str, list[int]] = {}
        stack = list(reversed(described["parameters"]))
        while stack:
            name, raw, _, children = stack.pop()
            found.setdefault(name, []).append(raw)
            stack += reversed(children)
        values = {name: numbers for name, numbers in entry["values"].items() if numbers and name in found}
        assert {name: found[name] for name in values} == values
        assert {name for name in found if not name.startswith("NIXG")} <= entry["values"].keys()


def test_engineering_values_stand_beside_the_raw_ones() -> None:
    (tree,) = packet_trees(light_curve((3,)))
    nodes = {node[0]: node for node in tree}
    assert nodes["NIX00120"][:3] == ["NIX00120", 30, "QL sum LC"]
    assert nodes["NIX00405"][:3] == ["NIX00405", 39, 4.0]
    energies = nodes["NIX00270"]
    assert energies[1:3] == [5, None]
    assert [child[:3] for child in energies[3]] == [["NIX00271", 3, None]] * 5
    records = light_curve((3,))
    values = records.values("counts").tolist()
    assert [child[2] for energy in energies[3] for child in energy[3]] == values
    assert json.loads(json.dumps(tree)) == tree


def test_old_and_new_layouts_keep_their_order() -> None:
    packets = Packets.from_bytes(
        encode(pixels([[(7, [4])]], coarse=720_000_000)) + encode(pixels([[(9, [4, 5])]], coarse=650_000_000))
    )
    new, old = describe_packets(packets)
    assert new["parameters"][-1][3][0][0] == "NIX00404"
    assert old["parameters"][-1][3][0][0] == "NIX00441"


@pytest.mark.parametrize("coarse", [634_000_000, 642_300_000, 650_000_000, 680_000_000, 700_000_000])
def test_every_parameter_of_a_type_is_a_node(coarse: int) -> None:
    for packet_type in known_types():
        records = Records.from_levels(type_name(packet_type), {}, scet=[coarse << 16], sequence_count=0)
        scope = layouts()[records.layout[0]].scope
        (tree,) = packet_trees(records)
        assert len(tree) == sum(max(one.repeat, 1) for one in scope.fields) + len(scope.words)
        assert all(children == [] for *_, children in tree)


def test_packets_that_cannot_be_decoded_say_so() -> None:
    blob = bytearray(encode(light_curve((3, 4))))
    blob[16 + 21] = 200
    first, second = describe_packets(Packets.from_bytes(bytes(blob)))
    assert first["header"]["rejected"].startswith("num_energies is 200")
    assert first["parameters"] == []
    assert "rejected" not in second["header"]
    assert any("not decoded: num_energies is 200" in line for line in format_tree(first))


@pytest.fixture
def delivery(tmp_path: Path) -> Path:
    packets = Packets.from_bytes(encode(light_curve((3, 4, 5))) + encode(pixels([[(0, [1, 2])], [(10, [1])]])))
    return write_binary(tmp_path / "delivery.bin", packets)


def test_command_lists_packets(delivery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["packets", str(delivery)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 5 + 1
    length = Packets.from_bytes(delivery.read_bytes()).length[0]
    assert lines[1].split()[2:] == ["21,6,30", "ql_lightcurve", "1500", str(length), "alone", "16380"]
    assert lines[-1] == "5 packets; 0 duplicates, 0 rejected"


def test_command_prints_chosen_packets(delivery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["packets", str(delivery), "--type", "sci_pixels"]) == 0
    out = capsys.readouterr().out
    assert out.count("packet 3, sci_pixels") == 1
    assert "packet 4" not in out
    assert "Xray L1 user" in out
    assert main(["packets", str(delivery), "--type", "21", "--limit", "4"]) == 0
    assert capsys.readouterr().out.count("\npacket ") == 4
    assert main(["packets", str(delivery), "--index", "2"]) == 0
    assert "packet 2, ql_lightcurve" in capsys.readouterr().out


def test_command_writes_one_json_object(delivery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["packets", str(delivery), "--json", "--type", "21,6,30", "--limit", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["packets"]
    assert [packet["header"]["index"] for packet in found["packets"]] == [0, 1]
    assert all(set(packet) == {"header", "parameters"} for packet in found["packets"])
    assert all(len(node) == 4 for node in found["packets"][0]["parameters"])
    assert main(["packets", str(delivery), "--json", "--type", "3,25"]) == 0
    assert json.loads(capsys.readouterr().out) == {"packets": []}


@pytest.mark.parametrize("wrong", [["--type", "21,7"], ["--type", "x"], ["--index", "5"], ["--limit", "0"]])
def test_command_refuses_what_makes_no_sense(delivery: Path, wrong: list[str]) -> None:
    assert main(["packets", str(delivery), *wrong]) == 2


def test_command_tells_what_was_rejected(delivery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    delivery.write_bytes(delivery.read_bytes() + b"\x0d\x0d")
    assert main(["packets", str(delivery)]) == 0
    captured = capsys.readouterr()
    assert "5 packets; 0 duplicates, 1 rejected" in captured.out
    assert "at byte" in captured.err
    assert main(["packets", str(delivery.parent / "nowhere")]) == 1


def test_command_lists_telecommands(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["packets", str(shared / "data/telemetry/b421e2_PktTcReport.xml")]) == 0
    out = capsys.readouterr().out
    assert "STIX Load Memory" in out
    assert "2 telecommands; 0 rejected" in out


def test_ground_times_are_those_of_genuine_headers(shared: Path) -> None:
    index = json.loads((shared / "oracle/telemetry/xml_index.json").read_text())
    compared = 0
    for path in sorted((shared / "data/telemetry").glob("*PktTmRaw.xml")):
        packets = read_packets(path)
        genuine = [entry["prefix_unix"] for entry in index[path.name] if entry.get("prefix_consistent")]
        times = packets.ground_time[~np.isnat(packets.ground_time)].astype(np.int64) / 1e6
        assert set(np.round(times, 3)) == set(np.round(genuine, 3))
        compared += len(times)
    assert compared >= 10


def test_choice_of_unknown_types() -> None:
    with pytest.raises(UsageError, match="no packet type"):
        Inspection([], types=["21,6,99"])


def test_a_reader_that_has_enough_is_no_failure(delivery: Path) -> None:
    command = f"'{sys.executable}' -m stixflow.cli packets '{delivery}' --json | head -c 10 > /dev/null"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_product_is_listed_by_its_name() -> None:
    made = {text for text in (listed_name(packet_type) for packet_type in known_types()) if not text[0].isdigit()}
    assert made == SOURCES.keys()
    assert listed_name((239, 3, -1)) == "239,3"
    both = [packet_type for packet_type in known_types() if is_of_type(packet_type, "sci_pixels")]
    assert sorted(both) == [(21, 6, 20), (21, 6, 21)]
