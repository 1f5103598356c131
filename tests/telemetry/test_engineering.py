from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_packets import read_json

from stixflow.errors import UsageError
from stixflow.telemetry import Packets, Records, decode, encode, read_packets
from stixflow.telemetry.compression import join_count_bytes, split_count_bytes
from stixflow.telemetry.engineering import calibrate, text_of
from stixflow.telemetry.layouts import curve, known_types, layouts, text_table

KELVIN = 273.15

WRONG_IN_THE_ORACLE = {
    "NIX00122": "an injected calibration of 0.1 s; the header time shows seconds",
    "NIX00123": "the same, in other units",
    "NIX00124": "milliseconds, here in seconds",
}
"""Engineering values that the facts contradict."""


def _records_of(packets: Packets) -> dict[str, Records]:
    return decode(packets, products=set(packets.product().tolist()))


def _labels() -> list[str]:
    folder = Path(__file__).resolve().parents[3] / "shared/data/telemetry/packets"
    return sorted(path.stem for path in folder.glob("*.hex")) or ["none"]


@pytest.mark.parametrize("label", _labels())
def test_engineering_values_of_real_packets(shared: Path, label: str) -> None:
    params = read_json(shared / f"oracle/telemetry/packets/{label}.json.gz")["params"]
    (records,) = _records_of(read_packets(shared / f"data/telemetry/packets/{label}.hex")).values()
    compared = 0
    for _, scope in layouts()[records.layout[0]].levels.values():
        for field in scope.fields:
            expected = params.get(field.id, {}).get("engineering")
            if expected is not None and field.id not in WRONG_IN_THE_ORACLE:
                _compare(records, field.name, expected)
                compared += 1
    assert compared == len([name for name in params if _has_engineering(params, name)])


def _has_engineering(params: dict[str, Any], name: str) -> bool:
    return "engineering" in params[name] and name not in WRONG_IN_THE_ORACLE


def _compare(records: Records, name: str, expected: list[Any]) -> None:
    field, values = records.field(name), records.engineering(name)
    if field.enum == "CIXT0401TM":
        assert values.tolist() == [f"State_{value}" for value in expected]
    elif field.enum:
        assert values.tolist() == [str(value) for value in expected]
    elif field.id == "NIX00405" and records.type[2] >= 30:
        assert np.allclose(values, np.array(expected) + 0.1, rtol=1e-12), "duration is (x + 1) * 0.1 s in quick look"
    else:
        shift = KELVIN if field.unit == "degC" else 0.0
        assert np.array_equal(values + shift, expected), name


def test_housekeeping_equals_the_reference_exactly(shared: Path) -> None:
    with (shared / "oracle/telemetry/hk_engineering.csv").open() as file:
        rows = list(csv.DictReader(file))
    packets = read_packets([shared / "data/telemetry/20aaf3_PktTmRaw.xml", shared / "data/telemetry/packets"])
    records = _records_of(packets)["3,25,2"]
    place = {int(scet): row for row, scet in enumerate(records.scet)}
    names = {field.id: field for field in layouts()[records.layout[0]].scope.fields}
    curves = set()
    for row in rows:
        field = names.get(row["id"])
        if field is None:
            assert row["id"].startswith("NIXG")
            continue
        packet = place[int(row["scet_coarse"]) << 16 | int(row["scet_fine"])]
        assert records[field.name][packet] == int(row["raw"])
        if row["engineering"]:
            value = records.engineering(field.name)[packet]
            if field.curve or field.scale:
                assert value + (KELVIN if field.unit == "degC" else 0.0) == float(row["engineering"]), field.name
                curves.add(field.id)
            else:
                assert value == row["engineering"]
    assert len(curves) == 38 + 1, "the curves and the processor load"
    assert len(place) == 11


def test_curves_pass_through_their_points_and_go_on_outside() -> None:
    for name in ("0024", "0033", "0034"):
        raw, value = curve(name).T
        assert np.allclose(calibrate(raw, name), value, rtol=1e-9, atol=1e-9)
        assert np.allclose(calibrate(raw, name, straight=True), value, rtol=1e-12, atol=1e-12)
    assert calibrate(2309, "0033") < -20
    assert 13 < calibrate(2309, "0033", straight=True) < 18.44
    assert np.isclose(calibrate(4095 * 2, "0035"), 18)
    first, second = curve("0024")[:2]
    slope = (second[1] - first[1]) / (second[0] - first[0])
    assert np.isclose(calibrate(0, "0024", straight=True), first[1] - slope * first[0])


@pytest.mark.parametrize("top", [4096, 65536])
def test_many_numbers_calibrate_as_one(top: int) -> None:
    raw = np.random.default_rng(top).integers(0, top, 5000).astype(np.uint16)
    assert np.array_equal(calibrate(raw, "0024"), calibrate(raw.astype(np.int64), "0024"))


def test_texts_of_numbers_that_no_table_lists_are_the_numbers() -> None:
    assert text_of([0, 1, 7], "CAAT0001TM").tolist() == ["Off", "On", "7"]
    assert text_of(np.zeros((0,), np.uint8), "CAAT0001TM").size == 0
    assert text_table("CIXT0022TM") == ((0, 1, "1"),) or text_of([0, 1], "CIXT0022TM").tolist() == ["1", "1"]


def test_a_field_has_one_meaning_in_all_versions() -> None:
    for variants in known_types().values():
        seen: dict[str, tuple[Any, ...]] = {}
        for layout in variants:
            for _, scope in layout.levels.values():
                for field in scope.fields:
                    meaning = (field.curve, field.scale, field.enum, field.unit, field.signed, field.sign)
                    assert seen.setdefault(field.name, meaning) == meaning


def _visibilities(scheme: tuple[int, int, int], parts: list[int], flux: int) -> Records:
    levels = {
        "packet": {
            "num_substructures": [1],
            "counts_s": scheme[0],
            "counts_k": scheme[1],
            "counts_m": scheme[2],
        },
        "num_substructures": {"num_energy_groups": [1]},
        "num_energy_groups": {"num_detectors": [len(parts)], "flux": flux},
        "num_detectors": {"vis_real": parts, "vis_imag": 0},
    }
    made = Records.from_levels("21,6,23", levels, scet=[650_000_000 << 16], sequence_count=0)
    (records,) = _records_of(Packets.from_bytes(encode(made))).values()
    return records


@pytest.mark.parametrize(
    ("scheme", "largest", "flux"),
    [((0, 3, 5), 63, (32 + 30) * 2**4 + 7), ((1, 3, 4), (16 + 15) * 2**2 + 1, (16 + 14) * 2**10 + 511)],
)
def test_visibilities_have_a_sign_whatever_the_packet_says(
    scheme: tuple[int, int, int], largest: int, flux: int
) -> None:
    records = _visibilities(scheme, [0, 1, 129, 63, 191, 128], 190)
    assert records.values("vis_real").tolist() == [0, 1, -1, largest, -largest, 0]
    assert np.isnan(records.engineering("vis_real")).tolist() == [False] * 5 + [True]
    assert records.values("flux").tolist() == [flux]


def test_uncompressed_visibilities_stay_as_they_are() -> None:
    records = _visibilities((0, 0, 0), [0, 129], 190)
    assert records.values("vis_real").tolist() == [0, 129]
    assert records.values("flux").tolist() == [190]


def test_counts_of_raw_pixel_data(shared: Path) -> None:
    records = _records_of(read_packets(shared / "data/telemetry/packets/6268bc_21_6_20.hex"))["21,6,20"]
    oracle = read_json(shared / "oracle/telemetry/packets/6268bc_21_6_20.json.gz")["params"]["NIX00065"]["raw"]
    counts = join_count_bytes(records["num_count_bytes"], records["count_byte"])
    assert counts.tolist() == oracle
    number, data = split_count_bytes(counts)
    assert np.array_equal(number, records["num_count_bytes"])
    assert np.array_equal(data, records["count_byte"])


def test_counts_and_their_bytes() -> None:
    counts = [0, 1, 2, 255, 256, 65535]
    number, data = split_count_bytes(counts)
    assert number.tolist() == [1, 0, 1, 1, 2, 2]
    assert data.tolist() == [0, 2, 255, 1, 0, 255, 255]
    assert join_count_bytes(number, data).tolist() == counts
    assert join_count_bytes(np.array([3, 0]), np.array([1, 0, 2], np.uint8)).tolist() == [65538, 1]
    for wrong in ([-1], [65536]):
        with pytest.raises(UsageError, match="0 to 65535"):
            split_count_bytes(wrong)


def test_later_databases_can_be_turned_off(shared: Path) -> None:
    blob = bytearray(read_packets(shared / "data/telemetry/packets/83c11d_21_6_42.hex").to_bytes())
    blob[10:14] = (700_000_000).to_bytes(4, "big")
    packets = Packets.from_bytes(bytes(blob))
    inferred = decode(packets, products=["21,6,42"])
    (entry,) = inferred.rejected
    assert entry.reason.startswith(("num_samples is", "layout does not fit"))
    assert entry.expected.endswith("the layout of database 2.26.33 to 2.26.35 fits")
    older = decode(packets, products=["21,6,42"], latest_database="2.26.35")
    assert older.rejected == ()
    assert older["21,6,42"]["num_samples"].tolist() == [107]
    with pytest.raises(UsageError, match=r"database version '2\.26\.99'"):
        decode(packets, products=["21,6,42"], latest_database="2.26.99")


def test_undescribed_bytes_are_kept(shared: Path) -> None:
    packets = read_packets(shared / "data/telemetry/packets/9d470c_239_21.hex")
    records = _records_of(packets)["239,21"]
    assert records["number_of_structures"].tolist() == [20]
    assert records.lengths("tail").tolist() == [160]
    assert records["undescribed"].tobytes() == packets.to_bytes()[-160:]
    assert encode(records) == packets.to_bytes()
