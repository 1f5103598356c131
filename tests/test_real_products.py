"""Real telemetry and the real day of official files, taken into an archive: nothing lost, every product a cube."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from example_delivery import process
from example_products import START, aspect, background, flareflag, housekeeping, spectra, status, variance

from stixflow import open_archive
from stixflow.archive import Archive
from stixflow.cubes.build import amount_of
from stixflow.cubes.model import PRODUCTS
from stixflow.cubes.sources import SOURCES, product_of, record_names
from stixflow.errors import NotFound
from stixflow.fits import read_level1
from stixflow.simulate import packetise
from stixflow.telemetry import Packets, Records, concat, decode, encode, read_packets
from stixflow.telemetry.layouts import type_name
from stixflow.time import scet_to_utc

CUBES = ("ingest", "cubes")
OTHER = {"239-3": 1, "239-6": 1, "239-8": 1, "239-10": 1, "239-12": 1, "239-14": 1, "239-18": 1, "239-21": 1}


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, dict]:
    root = tmp_path_factory.mktemp("real") / "archive"
    report = process(root, shared / "data/telemetry", stages=CUBES)
    return open_archive(root), report


@pytest.fixture(scope="module")
def sent(shared: Path) -> Packets:
    """Every real packet, once."""
    folder = shared / "data/telemetry"
    paths = [*sorted(folder.glob("packets/*.hex")), *sorted(folder.glob("*PktTmRaw.xml")), *folder.glob("*_LB_*.fits")]
    return concat([read_packets(path) for path in paths])


def test_every_real_packet_is_used_once(real: tuple[Archive, dict], sent: Packets) -> None:
    _, report = real
    assert not report["failed"]
    assert report["balance"] == {"packets_in": 80, "used": len(sent), "duplicates": 80 - len(sent), "rejected": 0}
    assert report["not_decoded_yet"] == OTHER


def test_every_type_of_a_product_is_a_cube(real: tuple[Archive, dict], sent: Packets) -> None:
    """What is in the cubes of each product is what is in its packets."""
    archive, _ = real
    expected: Counter[str] = Counter()
    for records in decode(sent, products=record_names()).values():
        expected[str(product_of(records.type))] += _amount(records)
    found: Counter[str] = Counter()
    for item in archive.catalog.partitions():
        main = "flux" if item.product == "sci_visibilities" else None
        for box in _boxes(archive, item):
            found[item.product] += int(box[main].values.sum()) if main else amount_of(box)
    assert found == expected
    assert archive.verify() == []


def _boxes(archive: Archive, item) -> list[xr.Dataset]:
    from stixflow.cubes.store import open_store

    return [open_store(archive.url(item.path), box) for box in range(item.boxes)]


def _amount(records: Records) -> int:
    """Counts of records, or samples where there are none, counted without the builders."""
    if records.type == (21, 6, 20):
        from stixflow.telemetry.compression import join_count_bytes

        return int(join_count_bytes(records["num_count_bytes"], records["count_byte"]).sum(dtype=np.uint64))
    for name in ("counts", "counts_e", "flux"):
        if name in records:
            return int(records.values(name).sum(dtype=np.uint64))
    return records.levels["num_samples"].size if "num_samples" in records.levels else len(records)


def test_requests_of_every_kind_are_listed_and_open(real: tuple[Archive, dict]) -> None:
    archive, _ = real
    listed = archive.requests()
    assert Counter(listed["kind"]) == {"pixels": 3, "pixel_sums": 2, "visibilities": 2, "spectrogram": 1}
    assert sorted(archive.requests(kind="pixel_sums")["request_id"]) == [87031810, 87031826]
    assert archive.pixels(87031826).attrs["product"] == "sci_pixel_sums"
    assert archive.pixels(94014977).attrs["ssid"] == 20
    assert archive.visibilities(87031827)["visibility"].dtype == np.complex128
    with pytest.raises(NotFound, match="but sci_visibilities"):
        archive.pixels(87031827)


def test_calibration_runs_are_listed_and_open(real: tuple[Archive, dict]) -> None:
    archive, _ = real
    (row,) = archive.calibrations().to_dict("records")
    assert row["key"] == "659318520-83999"
    assert not row["complete"]
    assert int(archive.calibration(row["key"])["counts"].sum()) == row["counts"] == 1138272
    with pytest.raises(NotFound, match="no calibration run"):
        archive.calibration("1-2")


def test_housekeeping_opens_over_any_span(real: tuple[Archive, dict]) -> None:
    archive, _ = real
    found = archive.cube("hk_maxi", "2020-11-01", "2021-01-01")
    assert found.sizes["time"] == 11
    assert (found["det_q1_t"].values < 40).all()


def test_the_real_day_survives_the_whole_way(shared: Path, tmp_path: Path) -> None:
    """Official files to packets to an archive; every day product comes back with every sample."""
    names = ["ql-background", "ql-flareflag", "ql-lightcurve", "ql-ql-tmstatusflarelist", "ql-spectra", "ql-variance"]
    paths = [shared / f"data/l1/solo_L1_stix-{name}_20200506_V01.fits" for name in names]
    official = [read_level1(path) for path in [*paths, shared / "data/l1/solo_L1_stix-hk-maxi_20200501_V01.fits"]]
    blob = b"".join(encode(packetise(cube)[0]) for cube in official)
    (tmp_path / "day.bin").write_bytes(blob)
    report = process(tmp_path / "archive", tmp_path / "day.bin", stages=CUBES)
    assert not report["failed"]
    assert report["balance"]["used"] == report["balance"]["packets_in"]
    archive = open_archive(tmp_path / "archive")
    for cube in official:
        found = archive.cube(cube.attrs["product"], "2020-04-30", "2020-05-09")
        assert np.array_equal(found["scet"], cube["scet"]), cube.attrs["product"]
        assert amount_of(found) == amount_of(cube)


def _made() -> dict[str, Records]:
    return {
        "ql_background": background((300, 300)),
        "ql_spectra": spectra([[(d, 32 * n) for n in range(3) for d in range(32)]]),
        "ql_variance": variance(2000),
        "ql_flareflag": flareflag(1000),
        "aspect": aspect(400),
        "tm_status": status((1, 0, 2)),
        "hk_mini": housekeeping("hk_mini", 30),
        "hk_maxi": housekeeping("hk_maxi", 30),
    }


def _across_midnight(records: Records) -> Records:
    """Move the data so that midnight lies in the middle of its first packet, or of its packets."""
    middle = (START << 16) + (1 << 21)
    midnight = scet_to_utc(np.int64(middle)).astype("datetime64[D]") + np.timedelta64(1, "D")
    shift = int((midnight - scet_to_utc(np.int64(middle))) / np.timedelta64(1, "s"))
    packet = records.levels["packet"].columns
    if "scet_coarse" in packet:
        packet["scet_coarse"][:] += shift
    for row in range(len(records)):
        stamp = int(records.scet[row]) + (shift << 16)
        records.header[row, 10:16] = np.frombuffer(stamp.to_bytes(6, "big"), np.uint8)
    return records


@pytest.mark.parametrize("product", list(_made()))
def test_packets_that_cross_midnight_give_each_day_its_samples(product: str, tmp_path: Path) -> None:
    records = _across_midnight(_made()[product])
    (tmp_path / "night.bin").write_bytes(encode(records))
    report = process(tmp_path / "archive", tmp_path / "night.bin", stages=CUBES)
    assert not report["failed"]
    assert report["balance"]["used"] == len(records)
    assert report["counts"][product] == 2
    archive = open_archive(tmp_path / "archive")
    days = archive.catalog.partitions(product)
    assert days[1].day - days[0].day == timedelta(days=1)
    found = archive.cube(product, days[0].day, days[1].day + timedelta(days=1))
    assert amount_of(found) == _amount(records)
    assert len(np.unique(found["time"].values.astype("datetime64[D]"))) == 2


def test_a_packet_of_several_days_is_in_each_of_them(tmp_path: Path) -> None:
    """Flare flags in steps of 17 minutes: one packet holds more than two days, and counts once."""
    records = flareflag(200)
    records["integration_time"][:] = 10199
    end = int(records["scet_coarse"][0]) + 200 * 1020 << 16
    records.header[0, 10:16] = np.frombuffer(end.to_bytes(6, "big"), np.uint8)
    (tmp_path / "long.bin").write_bytes(encode(records))
    report = process(tmp_path / "archive", tmp_path / "long.bin", stages=CUBES)
    assert report["balance"]["used"] == 1
    archive = open_archive(tmp_path / "archive")
    days = archive.catalog.partitions("ql_flareflag")
    assert len(days) >= 3
    found = archive.cube("ql_flareflag", days[0].day, days[-1].day + timedelta(days=1))
    assert np.array_equal(found["loc_y"], records["location_y"])


@pytest.mark.parametrize("name", ["l0_22635", "l2_22634"])
def test_a_request_is_completed_when_its_missing_packet_comes(shared: Path, tmp_path: Path, name: str) -> None:
    packets = read_packets(shared / f"oracle/telemetry/requests/{name}.bin")
    truth = np.load(shared / f"oracle/telemetry/requests/{name}_truth.npz")["counts"]
    half = len(packets) // 2
    for part, rows in (("first", [*range(half), *range(half + 1, len(packets))]), ("late", [half])):
        (tmp_path / f"{part}.bin").write_bytes(packets.select(np.array(rows)).to_bytes())
    archive = open_archive(tmp_path / "archive", create=True)
    process(tmp_path / "archive", tmp_path / "first.bin", stages=CUBES)
    (row,) = archive.requests().to_dict("records")
    assert not row["complete"]
    assert "packet" in row["missing"]
    process(tmp_path / "archive", tmp_path / "late.bin", stages=CUBES)
    (row,) = archive.requests().to_dict("records")
    assert row["complete"]
    assert row["counts"] == int(truth.sum())


def test_every_product_of_telemetry_has_a_type_and_a_partition() -> None:
    for product, types in SOURCES.items():
        assert PRODUCTS[product].partition in ("day", "request", "run")
        assert all(type_name(kind) for kind in types)
