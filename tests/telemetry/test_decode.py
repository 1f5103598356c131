from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_records import NEW, OLD, light_curve, pixels, spectrogram
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_packets import by_parameter, of_tree, read_json

from stixflow.errors import UsageError
from stixflow.telemetry import Packets, Records, decode, encode, read_packets
from stixflow.telemetry.compression import unpack_skm, variance
from stixflow.telemetry.layouts import layouts


def _decode_all(packets: Packets) -> dict[str, Records]:
    return decode(packets, products=set(packets.product().tolist()))


def _real_labels() -> list[str]:
    folder = Path(__file__).resolve().parents[3] / "shared/data/telemetry/packets"
    return sorted(path.stem for path in folder.glob("*.hex")) or ["none"]


@pytest.mark.parametrize("label", _real_labels())
def test_real_packets_equal_the_reference_decoder(shared: Path, label: str) -> None:
    oracle = read_json(shared / f"oracle/telemetry/packets/{label}.json.gz")
    packets = read_packets(shared / f"data/telemetry/packets/{label}.hex")
    decoded = decode(packets, products=set(packets.product().tolist()))
    (records,) = decoded.values()
    found, expected = by_parameter(records), of_tree(oracle["tree"])
    undescribed = found.pop("", [])
    assert len(undescribed) == (oracle["total_bits"] - oracle["consumed_bits"]) // 8
    assert {name: values for name, values in found.items() if values} == {
        name: values for name, values in expected.items() if name in found
    }
    assert expected.keys() - found.keys() <= {name for name in expected if name.startswith("NIXG")}
    _compare_decompressed(records, oracle["params"])


def _compare_decompressed(records: Records, params: dict[str, Any]) -> None:
    wrong_in_the_oracle = {"NIX00261", "NIX00263", "NIX00264"}
    compared = 0
    for _, scope in layouts()[records.layout[0]].levels.values():
        for field in scope.fields:
            entry = params.get(field.id, {})
            if field.scheme and "decompressed" in entry and field.id not in wrong_in_the_oracle:
                values = records.values(field.name)
                for number in range(max(field.repeat, 1)):
                    name = f"{field.id[:4]}{int(field.id[4:]) + number:04d}"
                    column = values[:, number] if field.repeat else values
                    assert column.tolist() == params[name]["decompressed"], name
                    scheme = tuple(int(part[0]) for part in unpack_skm(records.skm(field.name)))
                    assert np.allclose(variance(column, scheme), params[name]["variance"], rtol=1e-6)
                    compared += 1
    assert compared > 0 or records.type[2] not in (21, 24, 30)


def test_synthetic_packets_equal_the_reference_decoder(synthetic: list[dict[str, Any]]) -> None:
    for entry in synthetic:
        (records,) = _decode_all(Packets.from_bytes(bytes.fromhex(entry["hex"]))).values()
        found = by_parameter(records)
        assert found.keys() <= entry["values"].keys() | {name for name, values in found.items() if not values}
        for name, values in found.items():
            assert values == entry["values"].get(name, []), (entry["key"], entry["idb"], name)


def test_synthetic_packets_decode_together_as_alone(synthetic: list[dict[str, Any]]) -> None:
    packets = Packets.from_bytes(b"".join(bytes.fromhex(entry["hex"]) for entry in synthetic))
    assert len(packets) == len(synthetic)
    for product, records in _decode_all(packets).items():
        alone = packets.of_product(product)
        for row in range(len(alone)):
            (single,) = _decode_all(alone.select(np.array([row]))).values()
            _same(single, records.select(np.array([row])))


def _same(single: Records, chosen: Records) -> None:
    assert np.array_equal(single.header, chosen.header)
    for name, level in single.levels.items():
        for column, values in level.columns.items():
            assert np.array_equal(values, chosen.levels[name].columns[column]), (name, column)


def test_every_sample_of_the_light_curve_file(lb_packets: Packets, lb_oracle: dict[str, Any]) -> None:
    records = decode(lb_packets)["ql_lightcurve"]
    samples = records.lengths("num_triggers")
    assert np.array_equal(samples, lb_oracle["packet_nsamples"])
    parts = np.split(records["counts"], records.bounds("num_samples")[1:-1])
    raw = np.concatenate([part.reshape(5, -1).T for part in parts])
    assert np.array_equal(raw, lb_oracle["raw_counts"])
    values = np.split(records.values("counts"), records.bounds("num_samples")[1:-1])
    assert np.array_equal(np.concatenate([part.reshape(5, -1).T for part in values]), lb_oracle["data.counts"])
    assert np.array_equal(records["triggers"], lb_oracle["raw_triggers"])
    assert np.array_equal(records.values("triggers"), lb_oracle["data.triggers"])
    assert np.array_equal(records["rcr"], lb_oracle["rcr"])
    assert np.array_equal(records.sequence_count, lb_oracle["packet_seqcount"])


@pytest.mark.parametrize("coarse", [OLD, NEW])
def test_records_made_by_hand_come_back(coarse: int) -> None:
    made = [
        light_curve((3, 0, 7), coarse=coarse),
        pixels([[(0, [1, 2, 3]), (10, [1])], [(10, [2, 3])]], coarse=coarse),
        spectrogram([[((1, 20, 1), [0, 10], 10), ((1, 20, 4), [], 1)]], coarse=coarse),
    ]
    decoded = decode(Packets.from_bytes(encode(made)))
    assert decoded.accounting.used == 6
    for records in made:
        found = decoded[records.product]
        assert np.array_equal(found.header[:, :4], records.header[:, :4])
        for name, level in records.levels.items():
            for column, values in level.columns.items():
                assert np.array_equal(found.levels[name].columns[column], values), (name, column)


def test_old_and_new_layouts_in_one_stream_keep_the_order() -> None:
    parts = [pixels([[(7, [4])]], coarse=coarse, seed=seed) for seed, coarse in enumerate([NEW, OLD, NEW + 1, OLD + 1])]
    stream = encode(parts)
    records = decode(Packets.from_bytes(stream))["sci_pixels"]
    assert (records.scet >> 16).tolist() == [NEW + 1000, OLD + 1000, NEW + 1001, OLD + 1001]
    assert records["start_time"].tolist() == [7, 0, 7, 0]
    assert records["delta_time"].tolist() == [0, 7, 0, 7]
    assert np.array_equal(records["counts"], np.concatenate([part["counts"] for part in parts]))
    assert encode(records) == stream
    old, new = records.skm("trigger")[[1, 0]].tolist()
    assert (old, new) == (0x053, 0x044)


def test_schemes_that_change_from_packet_to_packet() -> None:
    parts = [light_curve((50,), seed=seed, coarse=NEW + 1000 * seed) for seed in range(4)]
    for number, part in enumerate(parts):
        part["counts_k"][:] = 5 if number % 2 else 3
        part["counts_m"][:] = 3 if number % 2 else 5
    records = decode(Packets.from_bytes(encode(parts)))["ql_lightcurve"]
    assert records.values("counts").tolist() == [v for part in parts for v in part.values("counts").tolist()]


def test_schemes_that_change_all_the_time() -> None:
    parts = [light_curve((7,), seed=seed, coarse=NEW + 1000 * seed) for seed in range(150)]
    for number, part in enumerate(parts):
        part["counts_k"][:] = (5, 3, 4)[number % 3]
        part["counts_m"][:] = (3, 5, 4)[number % 3]
    records = decode(Packets.from_bytes(encode(parts)))["ql_lightcurve"]
    expected = [value for part in parts for value in part.values("counts").tolist()]
    assert records.values("counts").tolist() == expected
    pixel_parts = [pixels([[(0, [3])]], seed=seed, coarse=NEW + 1000 * seed) for seed in range(150)]
    for number, part in enumerate(pixel_parts):
        part["triggers_k"][:] = (4, 5)[number % 2]
    records = decode(Packets.from_bytes(encode(pixel_parts)))["sci_pixels"]
    assert records.values("trigger").shape == (150, 16)
    assert records.values("trigger").tolist() == [
        row for part in pixel_parts for row in part.values("trigger").tolist()
    ]


def _damage(stream: bytes, at: int, value: int) -> Packets:
    changed = bytearray(stream)
    changed[at] = value
    return Packets.from_bytes(bytes(changed))


LIGHT = encode(light_curve((3, 4, 5)))
PIXEL = encode(pixels([[(0, [1, 2])], [(10, [1, 2])], [(20, [1])]]))
GRAM = encode(spectrogram([[((1, 20, 1), [0, 10], 10)], [((1, 20, 1), [20, 30], 10)]]))


@pytest.mark.parametrize(
    ("stream", "at", "value", "reason"),
    [
        (LIGHT, 16 + 21, 200, "num_energies is 200, more than the packet can hold"),
        (LIGHT, 16 + 21, 4, "layout does not fit"),
        (LIGHT, 16 + 22, 255, "num_samples is 65283, more than the packet can hold"),
        (PIXEL, 16 + 17, 200, "num_substructures is 51201, more than"),
        (PIXEL, 16 + 18, 3, ""),
        (PIXEL, 16 + 19 + 4, 250, "num_pixel_sets is 250, more than"),
        (GRAM, 16 + 18, 0, "layout does not fit"),
        (GRAM, 16 + 19 + 9, 100, "num_samples is 25602, more than"),
    ],
)
def test_bad_counts_reject_the_packet_and_no_other(stream: bytes, at: int, value: int, reason: str) -> None:
    packets = _damage(stream, at, value)
    decoded = decode(packets)
    (entry,) = decoded.rejected
    assert reason in entry.reason
    assert entry.expected
    assert entry.data == packets.packet_bytes(0)
    assert decoded.accounting.packets_in == len(packets)
    (records,) = decoded.values()
    assert encode(records) == stream[int(packets.length[0]) :]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_flipped_bits_leave_the_books_balanced(data: st.DataObject) -> None:
    stream = bytearray(LIGHT + PIXEL + GRAM)
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    packets = Packets.from_bytes(bytes(stream))
    decoded = decode(packets)
    assert packets.accounting.used == decoded.accounting.packets_in
    for product, records in decoded.items():
        kept = encode(records)
        assert kept in packets.of_product(product).to_bytes() or decoded.rejected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.sampled_from([21, 24, 30]), st.binary(max_size=40))
def test_tiny_packets_are_rejected_not_read_beyond(size: int, ssid: int, body: bytes) -> None:
    body = bytes([ssid]) + body[:size]
    header = (
        bytes([0x0D, 0xBC, 0xC0, 0]) + (len(body) + 9).to_bytes(2, "big") + bytes([0x10, 21, 6, 0, 40, 0, 0, 0, 0, 0])
    )
    decoded = decode(Packets.from_bytes(header + body))
    assert decoded.accounting.packets_in == 1


def test_clock_that_was_not_synchronised_takes_the_database_of_its_neighbours() -> None:
    lost = bytearray(encode(pixels([[(20, [1, 2])]], coarse=NEW, seed=3)))
    lost[10:14] = (0x80000000 | 5000).to_bytes(4, "big")
    stream = bytes(lost) + PIXEL
    decoded = decode(Packets.from_bytes(stream))
    assert decoded.rejected == ()
    assert decoded["sci_pixels"]["start_time"].tolist() == [20, 0, 10, 20]


def test_types_that_were_not_asked_for_are_named() -> None:
    decoded = decode(Packets.from_bytes(LIGHT + PIXEL), products=["sci_pixels"])
    assert set(decoded) == {"sci_pixels"}
    assert decoded.not_decoded == {"ql_lightcurve": 3}
    assert decoded.accounting.used == 6
    assert decode(Packets.from_bytes(b"")) == {}


def test_records_by_hand_are_checked() -> None:
    good = {"packet": {"num_flares": [1]}, "num_flares": {"tm_byte_volume": [5]}}
    arguments = {"scet": [NEW << 16], "sequence_count": 0}
    assert len(Records.from_levels("21,6,43", good, **arguments)) == 1
    for levels, message in [
        (
            {"packet": {"num_flares": [2]}, "num_flares": {"tm_byte_volume": [5]}},
            "has 1 rows where its parent counts 2",
        ),
        ({"packet": {"num_flares": [1], "colour": [1]}, "num_flares": {"tm_byte_volume": [5]}}, "colour is no field"),
        ({"packet": {"num_flares": [1]}, "flares": {}, "num_flares": {"average_z": [200]}}, "average_z from 200"),
    ]:
        with pytest.raises(UsageError, match=message):
            Records.from_levels("21,6,43", levels, **arguments)
    with pytest.raises(UsageError, match="no packet type"):
        Records.from_levels("ql_spectra", good, **arguments)
    pixels_of_two_times = {"packet": {"num_substructures": [0, 0]}}
    with pytest.raises(UsageError, match="2 layouts"):
        Records.from_levels("sci_pixels", pixels_of_two_times, scet=[OLD << 16, NEW << 16], sequence_count=0)


def test_levels_know_their_packets() -> None:
    records = pixels([[(0, [1, 2]), (10, [3])], [(10, [4, 5])]])
    assert records.parents("num_substructures").tolist() == [0, 0, 1]
    assert records.ancestors("num_energy_groups").tolist() == [0, 0, 0, 1, 1]
    assert records.bounds("num_energy_groups").tolist() == [0, 3, 5]
    assert records.ancestors("num_data").size == records["counts"].size
    with pytest.raises(UsageError, match="no field 'colour'"):
        records["colour"]


def test_housekeeping_of_the_xml_equals_the_reference_decoder(shared: Path) -> None:
    records = _decode_all(read_packets(shared / "data/telemetry/20aaf3_PktTmRaw.xml"))["3,25,2"]
    found = [by_parameter(records.select(np.array([row]))) for row in range(len(records))]
    paths = sorted((shared / "oracle/telemetry/packets").glob("20aaf3_*.json.gz"))
    oracles = [of_tree(read_json(path)["tree"]) for path in paths]
    assert len(found) == len(oracles) == 10
    for oracle in oracles:
        assert {name: values for name, values in oracle.items() if name in found[0]} in found
