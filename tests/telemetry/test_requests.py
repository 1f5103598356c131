from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from example_records import NEW, OLD, light_curve, pixels, spectrogram
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.errors import UsageError
from stixflow.telemetry import Packets, Records, consistent, decode, encode, read_packets, regroup
from stixflow.telemetry.compression import join_count_bytes
from stixflow.telemetry.requests import bin_starts, spectrogram_durations

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


def test_old_time_field_has_no_offset_and_the_new_one_a_switch() -> None:
    base = (OLD << 16, NEW << 16)
    old, new = (pixels([[(20, [1])]], coarse=coarse) for coarse in (OLD, NEW))
    assert bin_starts(old).tolist() == [base[0] + 2 * 65536]
    assert bin_starts(new).tolist() == [base[1] + round(2.1 * 65536)]
    assert bin_starts(new, start_offset=0.0).tolist() == [base[1] + 2 * 65536]
    both = decode(Packets.from_bytes(encode([new, old])))["sci_pixels"]
    assert bin_starts(both).tolist() == [base[1] + round(2.1 * 65536), base[0] + 2 * 65536]


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


def test_durations_of_spectrogram_samples() -> None:
    binning = (1, 4, 1)
    records = spectrogram([[(binning, [0, 5, 15], 7), (binning, [22, 30], 0)], [(binning, [50, 60], 0)]])
    assert spectrogram_durations(records).tolist() == [5, 10, 7, 8, 20, 10, 10]
    assert spectrogram_durations(spectrogram([[(binning, [5], 0)]])).tolist() == [1]
    assert spectrogram_durations(spectrogram([[(binning, [0, 6], 0), ((5, 6, 1), [20], 4)]])).tolist() == [6, 6, 4]


def test_durations_of_a_real_packet_without_closing_offset(shared: Path) -> None:
    records = decode(read_packets(shared / "data/telemetry/packets/965d5b_21_6_24.hex"))["sci_spectrogram"]
    durations = spectrogram_durations(records)
    assert durations[:3].tolist() == [194, 198, 190]
    assert (durations > 0).all()


def _spoiled(records: Records, name: str, row: int, value: int) -> Records:
    records[name][row] = value
    return records


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (_spoiled(pixels(BINS), "detector_mask", 1, 1), "not detectors times pixels"),
        (_spoiled(pixels(BINS), "pixel_mask", 5, 1), "rising order"),
        (_spoiled(pixels(BINS), "pixel_mask", 5, 3), "rising order"),
        (_spoiled(pixels(BINS), "e_high", 3, 0), "below the lower"),
        (_spoiled(pixels(BINS), "integration_time", 1, 0), "integration time is zero"),
        (_spoiled(pixels(BINS), "time_stamp", 1, 1 << 47), "not synchronised"),
        (_spoiled(light_curve((2, 3, 4)), "num_energies", 1, 4), "energy edges"),
        (_spoiled(light_curve((2, 3, 4)), "scet_coarse", 1, 1 << 31), "not synchronised"),
    ],
)
def test_contradictions_take_out_one_packet(records: Records, reason: str) -> None:
    if records.type[2] == 30 and "edges" in reason:
        records["num_energies"][1] = 5
        records["energy_edge_mask_0_31"][1] = 0b111
    kept, (entry,) = consistent(records)
    assert reason in entry.reason
    assert entry.data == encode(_only(records, [1]))
    assert encode(kept) == encode(_only(records, [0, 2]))


def test_contradictions_of_spectrograms() -> None:
    binning = (1, 4, 1)
    good = (binning, [0, 5], 5)
    for bad, reason in [((binning, [5, 5], 5), "do not rise"), ((binning, [9, 5], 5), "do not rise")]:
        kept, (entry,) = consistent(spectrogram([[good], [bad]]))
        assert reason in entry.reason
        assert len(kept) == 1
    records = _spoiled(spectrogram([[good], [good]]), "e_high", 1, 5)
    assert "number of energies" in consistent(records)[1][0].reason
    assert consistent(spectrogram([[good]]))[1] == []


def test_samples_of_different_numbers_contradict() -> None:
    records = light_curve((2, 3))
    records["num_samples"][5:7] = [2, 4]
    kept, (entry,) = consistent(records)
    assert entry.reason == "numbers of samples differ"
    assert len(kept) == 1


def test_bins_of_other_records_are_refused(shared: Path) -> None:
    records = decode(read_packets(shared / "data/telemetry/packets/05bfed_21_6_41.hex"), products=["21,6,41"])
    with pytest.raises(UsageError, match="21,6,41"):
        bin_starts(records["21,6,41"])


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
