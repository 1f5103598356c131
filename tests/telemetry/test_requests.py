from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from example_records import NEW, pixels, spectrogram
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.telemetry import Packets, Records, decode, encode, read_packets, regroup
from stixflow.telemetry.bin_times import bin_starts
from stixflow.telemetry.compression import join_count_bytes

BINS = [[(0, [1, 2, 3])], [(0, [4]), (10, [1, 2])], [(10, [3, 4]), (20, [1, 2, 3, 4])]]


def _only(records: Records, rows: list[int]) -> Records:
    return records.select(np.array(rows))


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(3)), st.integers(0, 16383))
def test_packets_in_any_order_and_with_wrapped_counts(order: list[int], count: int) -> None:
    (request,) = regroup(_only(pixels(BINS, count=count), order))
    assert request.complete
    assert request.missing == ()
    (box,) = request.boxes
    assert box.start.tolist() == [(NEW << 16) + round((x / 10 + 0.1) * 65536) for x in (0, 10, 20)]
    assert box.duration.tolist() == [10, 10, 10]
    assert box.channels.tolist() == [[1, 2], [2, 3], [3, 4], [4, 5]]
    assert sorted(zip(box.time.tolist(), box.energy.tolist(), strict=True)) == [
        (t, e) for t in range(3) for e in range(4)
    ]
    assert not box.repeated.any()


@pytest.mark.parametrize(
    ("rows", "missing", "shape"),
    [
        ([1, 2], ["before count 16383"], (3, 4)),
        ([0, 1], ["after count 16383"], (2, 4)),
        ([0, 2], ["1 packet(s) between counts 16382 and 0"], (3, 4)),
        ([2], ["before count 0"], (2, 4)),
    ],
)
def test_missing_packets_are_named(rows: list[int], missing: list[str], shape: tuple[int, int]) -> None:
    (request,) = regroup(_only(pixels(BINS), rows))
    assert not request.complete
    assert [text in found for text, found in zip(missing, request.missing, strict=True)] == [True] * len(missing)
    (box,) = request.boxes
    assert (box.start.size, len(box.channels)) == shape
    assert box.row.size == request.records.levels["num_energy_groups"].size


def test_requests_are_told_apart() -> None:
    first, second = pixels(BINS, request_id=1), pixels(BINS, request_id=2, count=100, coarse=NEW - 5000)
    records = decode(Packets.from_bytes(encode(first) + encode(second)))["sci_pixels"]
    found = regroup(_only(records, [3, 0, 4, 1, 2, 5]))
    assert [request.request_id for request in found] == [2, 1]
    assert [len(request.records) for request in found] == [3, 3]
    assert all(request.complete for request in found)


def test_two_energy_binnings_make_two_boxes() -> None:
    (request,) = regroup(pixels([[(0, [1, 2]), (10, [1, 2])], [(20, [5, 6, 7])]]))
    assert [box.channels.tolist() for box in request.boxes] == [[[1, 2], [2, 3]], [[5, 6], [6, 7], [7, 8]]]
    assert [box.start.size for box in request.boxes] == [2, 1]


def test_same_energies_in_two_time_steps_make_two_boxes() -> None:
    binning = (1, 10, 1)
    fine, coarse = (binning, [0, 5, 10, 15], 5), (binning, [0, 10], 10)
    other = ((11, 20, 5), [0, 5], 5)
    (request,) = regroup(spectrogram([[fine, coarse, other]]))
    found = [(box.duration.tolist(), len(box.channels)) for box in request.boxes]
    assert sorted(found) == [([5, 5], 2), ([5, 5, 5, 5], 10), ([10, 10], 10)]
    assert sorted(row for box in request.boxes for row in box.row.tolist()) == list(range(8))


def test_last_energy_bin_ends_at_the_upper_channel() -> None:
    (request,) = regroup(spectrogram([[((1, 10, 4), [0], 5)]]))
    assert request.boxes[0].channels.tolist() == [[1, 5], [5, 9], [9, 11]]


def test_repeated_packets_of_a_second_dump() -> None:
    first, again = pixels(BINS), pixels(BINS, count=500, coarse=NEW)
    again.header[:, 13] += 1
    records = decode(Packets.from_bytes(encode(first) + encode(again)))["sci_pixels"]
    assert len(records) == 6
    (request,) = regroup(records)
    (box,) = request.boxes
    assert box.repeated.sum() == 12
    assert box.start.size == 3


def test_time_bin_without_energies_keeps_its_place() -> None:
    (request,) = regroup(pixels([[(0, [1, 2]), (10, []), (20, [1, 2])]]))
    (box,) = request.boxes
    assert box.duration.tolist() == [10, 10, 10]
    assert box.header.tolist() == [0, 1, 2]
    assert 1 not in box.time


@pytest.mark.parametrize("name", ["l1_22634", "l1_22635", "spec_22634", "spec_22635"])
def test_synthetic_requests_are_one_complete_box(shared: Path, name: str) -> None:
    folder = shared / "oracle/telemetry/requests"
    facts = json.loads((folder / "requests.json").read_text())[name]
    (records,) = decode(read_packets(folder / f"{name}.bin")).values()
    (request,) = regroup(records)
    assert request.complete
    assert len(request.records) == facts["packets"]
    (box,) = request.boxes
    assert box.start.size == facts["truth_shape"][0]
    assert len(box.channels) == facts["truth_shape"][-1]


@pytest.mark.parametrize("name", ["l0_22634", "l0_22635"])
def test_raw_pixel_requests_hold_every_count_of_the_truth(shared: Path, name: str) -> None:
    folder = shared / "oracle/telemetry/requests"
    packets = read_packets(folder / f"{name}.bin")
    (records,) = decode(packets, products=set(packets.product().tolist())).values()
    times = bin_starts(records)
    time = np.unique(times, return_inverse=True)[1][records.parents("num_samples")]
    with np.load(folder / f"{name}_truth.npz") as truth:
        counts = np.zeros_like(truth["counts"])
        cell = (time, records["detector_id"], records["pixel_id"], records["energy_id"])
        np.add.at(counts, cell, join_count_bytes(records["num_count_bytes"], records["count_byte"]))
        assert np.array_equal(counts, truth["counts"])
        first = np.unique(times, return_index=True)[1]
        assert np.array_equal(records["trigger"][first], truth["triggers"])
        assert np.array_equal(records["integration_time"][first], truth["duration_raw"])


@pytest.mark.parametrize("name", ["l2_22634", "l2_22635"])
def test_summed_pixel_requests_hold_every_count_of_the_truth(shared: Path, name: str) -> None:
    folder = shared / "oracle/telemetry/requests"
    packets = read_packets(folder / f"{name}.bin")
    (records,) = decode(packets, products=set(packets.product().tolist())).values()
    times = bin_starts(records)
    with np.load(folder / f"{name}_truth.npz") as truth:
        _, detectors, sets, _ = truth["counts"].shape
        time = np.unique(times, return_inverse=True)[1][records.parents("num_energy_groups")]
        counts = np.zeros_like(truth["counts"])
        cells = records.values("counts").reshape(-1, detectors, sets)
        counts[time, :, :, records["e_low"]] = cells
        assert np.array_equal(counts, truth["counts"])
        assert counts.sum() > 0
