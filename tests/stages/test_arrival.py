"""Telemetry arrives late, twice, in pieces and in any container: the cubes are always those of all that came."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from example_delivery import DAYS, assert_balanced, deliver, flare_rows, pick, process, published, telemetry, write

from stixflow.archive import open_archive
from stixflow.telemetry import Packets

CUBES = ("ingest", "cubes")


@pytest.fixture(scope="module")
def packets(delivery: Path) -> Packets:
    return telemetry(delivery)


def totals(root: Path) -> dict[str, int]:
    """Sum of the books over all runs of an archive."""
    runs = open_archive(root).catalog.runs()
    return {name: sum(run["summary"]["balance"][name] for run in runs) for name in runs[0]["summary"]["balance"]}


def test_everything_is_done_once(processed: Path, delivery: Path, archive_copy: Path) -> None:
    before = published(archive_copy)
    files = {path for path in archive_copy.rglob("*") if path.is_file() and "catalog" not in path.name}
    report = process(archive_copy, delivery / "telemetry", delivery / "ephemeris")
    assert report["counts"] == {}
    assert set(report["balance"].values()) == {0}
    assert len(report["skipped"]) == 6
    assert published(archive_copy) == before == published(processed)
    assert {path for path in archive_copy.rglob("*") if path.is_file() and "catalog" not in path.name} == files


def test_the_books_of_the_first_run(processed: Path, packets: Packets) -> None:
    books = totals(processed)
    assert books == {"packets_in": len(packets), "used": len(packets), "duplicates": 0, "rejected": 0}


def test_the_sum_of_counts_is_what_was_simulated(processed: Path, delivery: Path) -> None:
    import json

    truth = json.loads((delivery / "truth.json").read_text())
    found: dict[str, int] = {}
    for name, (_, _, counts) in published(processed).items():
        found[name.split()[0]] = found.get(name.split()[0], 0) + counts
    for product, total in truth["totals"].items():
        assert found[product] == total["counts"]


def test_the_same_packets_in_another_container_are_duplicates(
    archive_copy: Path, packets: Packets, tmp_path: Path
) -> None:
    before = published(archive_copy)
    report = process(archive_copy, write(tmp_path / "again.bin", packets))
    n = len(packets)
    assert report["balance"] == {"packets_in": n, "used": 0, "duplicates": n, "rejected": 0}
    assert report["counts"] == {"files": 1}
    assert published(archive_copy) == before


def test_the_same_packets_in_another_order_are_duplicates(archive_copy: Path, packets: Packets, tmp_path: Path) -> None:
    """Another order makes other packet sets: the partitions are built again, and are the same."""
    before = published(archive_copy)
    report = process(archive_copy, write(tmp_path / "again.bin", pick(packets, np.arange(len(packets))[::-1])))
    n = len(packets)
    assert report["balance"] == {"packets_in": n, "used": 0, "duplicates": n, "rejected": 0}
    assert published(archive_copy) == before
    assert process(archive_copy, stages=CUBES[1:])["counts"] == {}


@pytest.mark.parametrize("seed", [0, 1])
def test_late_telemetry_gives_the_cubes_of_all_at_once(
    processed: Path, packets: Packets, delivery: Path, tmp_path: Path, seed: int
) -> None:
    """Any half first, any overlap after: the digests in the end are those of the whole."""
    rng = np.random.default_rng(seed)
    first = rng.random(len(packets)) < 0.5
    second = ~first | (rng.random(len(packets)) < 0.3)
    root = tmp_path / "archive"
    report = process(root, write(tmp_path / "1.bin", pick(packets, first)), delivery / "ephemeris", stages=CUBES)
    assert report["balance"]["used"] == first.sum()
    assert report["counts"]["incomplete"]
    report = process(root, write(tmp_path / "2.bin", pick(packets, second)))
    assert report["balance"] == {
        "packets_in": second.sum(),
        "used": (~first).sum(),
        "duplicates": (first & second).sum(),
        "rejected": 0,
    }
    assert published(root) == published(processed)
    assert flare_rows(open_archive(root)) == flare_rows(open_archive(processed))
    assert not open_archive(root).requests()["complete"].eq(False).any()


def test_many_small_deliveries_give_the_same(processed: Path, packets: Packets, tmp_path: Path) -> None:
    root, light = tmp_path / "archive", packets.of_product("ql_lightcurve")
    for row in range(len(light)):
        process(root, write(tmp_path / f"{row}.bin", pick(light, [row, min(row + 1, len(light) - 1)])), stages=CUBES)
    whole = {name: value for name, value in published(processed).items() if name.startswith("ql_")}
    assert published(root) == whole
    books = totals(root)
    assert (books["used"], books["rejected"]) == (len(light), 0)
    assert books["packets_in"] == 2 * len(light)
    assert_balanced(books)


def test_a_request_is_completed_when_its_piece_arrives(packets: Packets, tmp_path: Path) -> None:
    root, science = tmp_path / "archive", packets.of_product("sci_spectrogram")
    middle = np.arange(len(science)) == 6
    report = process(root, write(tmp_path / "most.bin", pick(science, ~middle)), stages=CUBES)
    (request,) = open_archive(root).requests().to_dict("records")
    assert not request["complete"]
    assert request["missing"] == "1 packet(s) between counts 183 and 185"
    assert any("published incomplete: 1 packet(s)" in note["reason"] for note in report["skipped"])
    assert not report["failed"]
    process(root, write(tmp_path / "rest.bin", pick(science, middle)), stages=CUBES)
    (now,) = open_archive(root).requests().to_dict("records")
    assert now["complete"]
    assert now["missing"] == ""
    assert now["n_time"] > request["n_time"]


def test_a_missing_packet_is_a_gap_not_zero_counts(packets: Packets, tmp_path: Path) -> None:
    light = packets.of_product("ql_lightcurve")
    keep = np.arange(len(light)) != 8
    process(tmp_path / "archive", write(tmp_path / "gap.bin", pick(light, keep)), stages=CUBES)
    day = open_archive(tmp_path / "archive").lightcurves(DAYS[1], "2022-06-17")
    steps = np.diff(day["time_start"].values) / np.timedelta64(1, "s")
    assert (steps > 5).sum() == 1
    assert (day["counts"].values.sum(axis=1) > 0).all()


def test_a_packet_that_contradicts_the_published_one_is_rejected(packets: Packets, tmp_path: Path) -> None:
    """One of the two is damaged, and nobody can tell which: one is used, the other kept, and the books say so."""
    root, science = tmp_path / "archive", packets.of_product("sci_spectrogram")
    process(root, write(tmp_path / "first.bin", science), stages=CUBES)
    blob = bytearray(science.to_bytes())
    blob[int(science.length[:4].sum()) - 1] ^= 8
    (tmp_path / "other.bin").write_bytes(blob)
    report = process(root, tmp_path / "other.bin", stages=CUBES)
    n = len(science)
    assert report["balance"] == {"packets_in": n, "used": 0, "duplicates": n - 1, "rejected": 1}
    (entry,) = open_archive(root).quarantine().to_dict("records")
    assert "differs from an earlier packet" in entry["reason"]
    assert (root / entry["path"]).stat().st_size == science.length[3] == entry["n_bytes"]
    assert process(root, stages=("cubes",))["counts"] == {}


def test_border_packets_do_not_make_their_day_stale_for_ever(packets: Packets, tmp_path: Path) -> None:
    """A packet that ends within seconds of midnight is kept with the next day, which may have no bin of it."""
    root, light = tmp_path / "archive", packets.of_product("ql_lightcurve")
    border = _shifted_to_end_at_midnight(light)
    report = process(root, write(tmp_path / "border.bin", border), stages=CUBES)
    assert list(published(root)) == [f"ql_lightcurve {DAYS[0]}"]
    assert [note["item"] for note in report["skipped"]] == [f"ql_lightcurve {DAYS[1]}"]
    assert process(root, stages=("cubes",))["skipped"] == []
    process(root, write(tmp_path / "rest.bin", pick(light, np.arange(6, len(light)))), stages=CUBES)
    assert f"ql_lightcurve {DAYS[1]}" in published(root)
    assert process(root, stages=("cubes",))["counts"] == {}


def _shifted_to_end_at_midnight(light: Packets) -> Packets:
    """The first packet, with its data moved so that they end one second before midnight."""
    from stixflow.time import to_utc, utc_to_scet

    one = light.select(slice(0, 1))
    keys = one.keys()
    shift = int(utc_to_scet(to_utc(DAYS[1]))) - (1 << 16) - int(keys.stop[0])
    blob = bytearray(one.to_bytes())
    for at in (10, 17):
        blob[at : at + 6] = (int.from_bytes(blob[at : at + 6], "big") + shift).to_bytes(6, "big")
    return Packets.from_bytes(bytes(blob))


def test_images_of_a_flare_that_is_no_longer_found_are_withdrawn(archive_copy: Path) -> None:
    """With more of its day a flare may get another peak minute, and with it another name."""
    catalog = open_archive(archive_copy).catalog
    (flare,) = catalog.flares()
    ((day, _),) = [(p.id, p.key) for p in catalog.partitions("ql_lightcurve") if p.key == DAYS[1]]
    kept = {key: value for key, value in flare.items() if key not in ("day", "run_id")}
    catalog.replace_flares(day, [kept | {"flare_id": "2206160059"}])
    assert process(archive_copy, stages=("images",))["counts"] == {"flares_imaged": 1, "images": 8}
    assert {image["flare_id"] for image in catalog.images()} == {"2206160059"}
    catalog.replace_flares(day, [kept])
    assert process(archive_copy, stages=("images",))["counts"] == {"flares_imaged": 1, "images": 8}
    assert {image["flare_id"] for image in catalog.images()} == {"2206160100"}


def test_known_types_that_come_again_are_duplicates(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/telemetry/packets/279ff1_239_18.hex"
    report = process(tmp_path / "archive", source, stages=CUBES)
    n = report["balance"]["packets_in"]
    assert report["not_decoded_yet"] == {"239-18": n}
    (tmp_path / "again.bin").write_bytes(bytes.fromhex(source.read_text()))
    report = process(tmp_path / "archive", tmp_path / "again.bin", stages=CUBES)
    assert report["balance"] == {"packets_in": n, "used": 0, "duplicates": n, "rejected": 0}
    assert report["not_decoded_yet"] == {}


def test_a_scenario_is_deterministic(delivery: Path, tmp_path: Path) -> None:
    again = deliver(tmp_path / "again").path.parent
    files = sorted(path.relative_to(delivery) for path in delivery.rglob("*") if path.is_file())
    assert all((again / path).read_bytes() == (delivery / path).read_bytes() for path in files)
