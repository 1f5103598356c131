from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from example_records import NEW, OLD, light_curve, pixels, spectrogram
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.cubes.build import TRIGGER_DETECTORS, Books, build_day, build_requests
from stixflow.cubes.check import check_dataset
from stixflow.errors import BalanceError, UsageError
from stixflow.telemetry import Packets, Records, decode, encode, read_packets
from stixflow.telemetry.compression import unpack_skm
from stixflow.time import scet_to_utc

BINS = [[(0, [1, 2, 3])], [(0, [4]), (10, [1, 2])], [(10, [3, 4]), (20, [1, 2, 3, 4])]]


def _sum(dataset: xr.Dataset) -> int:
    return int(dataset["counts"].values.sum(dtype=np.uint64))


def _only(records: Records, rows: list[int]) -> Records:
    return records.select(np.array(rows))


def test_books_must_balance() -> None:
    with pytest.raises(BalanceError, match="10 counts in"):
        Books(10, 9)


def test_light_curve_of_the_real_file(shared: Path) -> None:
    packets = read_packets(next((shared / "data/telemetry").glob("*_LB_*.fits")))
    records = decode(packets)["ql_lightcurve"]
    dataset = build_day("ql_lightcurve", _only(records, list(reversed(range(36)))))
    check_dataset(dataset)
    with np.load(shared / "oracle/telemetry/lb_lightcurve.npz") as oracle:
        assert np.array_equal(dataset["counts"], oracle["data.counts"])
        assert np.array_equal(dataset["triggers"], oracle["data.triggers"])
        assert np.array_equal(dataset["rcr"], oracle["data.rcr"])
        middle = oracle["data.time.coarse"].astype(np.int64) << 16 | oracle["data.time.fine"]
        assert np.array_equal(dataset["scet"] + 2 * 65536, middle)
        assert np.array_equal(dataset["time"], scet_to_utc(middle))
    assert dataset["energy_low"].values.tolist() == [4, 10, 15, 25, 50]
    assert dataset["energy_high"].values.tolist() == [10, 15, 25, 50, 84]
    assert dataset["counts"].dtype == np.uint64
    assert dataset.attrs["books"]["counts"] == _sum(dataset) == records.values("counts").sum()


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(4)), st.lists(st.integers(0, 3), max_size=4))
def test_light_curve_has_every_sample_once(order: list[int], again: list[int]) -> None:
    records = light_curve((3, 4, 0, 5))
    whole = build_day("ql_lightcurve", records)
    assert whole.sizes["time"] == 12
    assert whole["timedel"].values.tolist() == [4.0] * 12
    found = build_day("ql_lightcurve", _only(records, list(order) + again))
    xr.testing.assert_identical(found.drop_attrs(), whole.drop_attrs())
    books = found.attrs["books"]
    assert books["repeated_bins"] == sum((3, 4, 0, 5)[row] for row in again)
    assert books["counts_in"] == books["counts"] + books["repeated_counts"]
    assert books["conflicting_bins"] == 0


def test_conflicting_samples_are_counted() -> None:
    first, other = light_curve((5,), seed=1), light_curve((5,), seed=2, count=7)
    dataset = build_day("ql_lightcurve", decode(Packets.from_bytes(encode([first, other])))["ql_lightcurve"])
    assert dataset.attrs["books"]["conflicting_bins"] == 5
    assert np.array_equal(dataset["counts"], build_day("ql_lightcurve", first)["counts"])


def test_packets_with_other_energies_are_not_mixed_in() -> None:
    records = light_curve((3, 4, 5))
    records["energy_edge_mask_0_31"][1] = 0b111111
    dataset = build_day("ql_lightcurve", records)
    assert dataset.sizes["time"] == 8
    books = dataset.attrs["books"]
    assert books["unplaced_packets"] == 1
    assert books["unplaced_counts"] == _only(records, [1]).values("counts").sum()


def test_light_curve_without_a_sample_is_refused() -> None:
    with pytest.raises(UsageError, match="no light-curve sample"):
        build_day("ql_lightcurve", light_curve((0,)))


def test_small_schemes_give_small_counts() -> None:
    records = light_curve((3,))
    records["counts_k"][:], records["counts_m"][:] = 4, 4
    dataset = build_day("ql_lightcurve", records)
    assert dataset["counts"].dtype == np.uint32
    assert [int(part) for part in unpack_skm(dataset["counts_skm"].values[0])] == [0, 4, 4]


@pytest.mark.parametrize("name", ["l1_22634", "l1_22635"])
def test_synthetic_pixel_request_equals_the_truth(shared: Path, name: str) -> None:
    folder = shared / "oracle/telemetry/requests"
    records = decode(read_packets(folder / f"{name}.bin"))["sci_pixels"]
    (request,) = build_requests(records)
    (dataset,) = request.datasets
    check_dataset(dataset)
    with np.load(folder / f"{name}_truth.npz") as truth:
        counts = dataset["counts"].values[:, :, truth["detectors"], :].transpose(0, 2, 3, 1)
        assert np.array_equal(counts, truth["counts"])
        assert _sum(dataset) == truth["counts"].sum() == request.books.counts
        assert np.array_equal(dataset["triggers"], truth["triggers"])
        assert np.array_equal(np.rint(dataset["timedel"].values * 10), truth["duration_raw"])
        assert np.array_equal(dataset["channel_start"], truth["e_low"])
        assert np.array_equal(dataset["channel_stop"], truth["e_high"] + 1)
        offset = 1 if name.endswith("35") else 0
        start = (int(truth["time_stamp"]) << 16) + np.rint((truth["delta_time_raw"] + offset) * 6553.6)
        assert np.array_equal(dataset["scet"], start)
    assert dataset["observed"].values.all()
    assert dataset.attrs["complete"] is True
    assert dataset.attrs["missing"] == []


@pytest.mark.parametrize("name", ["spec_22634", "spec_22635"])
def test_synthetic_spectrogram_equals_the_truth(shared: Path, name: str) -> None:
    folder = shared / "oracle/telemetry/requests"
    (request,) = build_requests(decode(read_packets(folder / f"{name}.bin"))["sci_spectrogram"])
    (dataset,) = request.datasets
    check_dataset(dataset)
    with np.load(folder / f"{name}_truth.npz") as truth:
        assert np.array_equal(dataset["counts"], truth["counts"])
        assert np.array_equal(dataset["triggers"], truth["triggers"])
        assert np.array_equal(np.rint(dataset["timedel"].values * 10), np.diff(truth["edges_raw"]))
        steps = int(truth["e_low"]) + int(truth["e_unit"]) * np.arange(int(truth["n_e"]))
        assert np.array_equal(dataset["channel_start"], steps)


def test_real_packets_become_cubes(shared: Path) -> None:
    decoded = decode(read_packets(shared / "data/telemetry"))
    requests = build_requests(decoded["sci_pixels"]) + build_requests(decoded["sci_spectrogram"])
    assert {request.request_id for request in requests} == {74661904, 1267045904, 1266516544}
    for request in requests:
        for dataset in request.datasets:
            check_dataset(dataset)
        assert request.books.counts == request.books.counts_in == sum(map(_sum, request.datasets)) > 0
    open_ended = next(request for request in requests if request.ssid == 24)
    assert open_ended.datasets[0].attrs["estimated_durations"] == 1


@pytest.mark.parametrize("coarse", [OLD, NEW])
def test_counts_land_on_their_detector_and_pixel(coarse: int) -> None:
    detectors, pixel_mask = 0b1011, 0b110000000011
    records = pixels(BINS, coarse=coarse, detectors=detectors, pixel_mask=pixel_mask)
    (request,) = build_requests(_only(records, [2, 0, 1]))
    (dataset,) = request.datasets
    check_dataset(dataset)
    values = records.values("counts").reshape(-1, 3, 4)
    cells = np.ix_([0, 1, 3], [0, 1, 10, 11])
    places = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]
    for value, (time, energy) in zip(values, places, strict=True):
        assert np.array_equal(dataset["counts"].values[time, energy][cells], value)
    assert _sum(dataset) == values.sum()
    assert (dataset["detector_mask"] == detectors).all()
    assert (dataset["pixel_mask"] == pixel_mask).all()
    assert dataset["triggers"].shape == (3, 16)


def test_missing_packet_leaves_a_hole_that_is_not_zero() -> None:
    (request,) = build_requests(_only(pixels(BINS), [0, 2]))
    (dataset,) = request.datasets
    check_dataset(dataset)
    assert not request.complete
    assert dataset.attrs["complete"] is False
    assert "between counts 16382 and 0" in dataset.attrs["missing"][0]
    expected = [[True, True, True, False], [False, False, True, True], [True] * 4]
    assert dataset["observed"].values.tolist() == expected
    assert request.books.counts == _sum(dataset)


def test_repeated_and_conflicting_bins() -> None:
    first, again = pixels(BINS), pixels(BINS, count=500)
    again.header[:, 13] += 1
    again["counts"][:12] += 1
    records = decode(Packets.from_bytes(encode([first, again])))["sci_pixels"]
    (request,) = build_requests(records)
    (dataset,) = request.datasets
    assert np.array_equal(dataset["counts"], build_requests(first)[0].datasets[0]["counts"])
    assert request.books.repeated_bins == 12
    assert request.books.conflicting_bins == 1
    assert request.books.counts_in == request.books.counts + request.books.repeated_counts


def test_contradicting_packet_makes_its_request_incomplete() -> None:
    records = pixels(BINS)
    records["e_high"][3] = 0
    (request,) = build_requests(records)
    assert not request.complete
    (entry,) = request.refused
    assert "below the lower" in entry.reason
    assert request.books.unplaced_packets == 1
    assert request.books.counts_in == records.values("counts").sum()
    assert request.books.counts == _sum(request.datasets[0])
    assert any("contradicts itself" in text for text in request.datasets[0].attrs["missing"])


def test_request_of_which_nothing_can_be_placed() -> None:
    records = pixels([[(0, [5])]])
    records["e_high"][0] = 0
    (request,) = build_requests(records)
    assert request.datasets == ()
    assert request.books.unplaced_counts == records.values("counts").sum()


def test_boxes_of_a_spectrogram_are_never_padded() -> None:
    fine, other = ((1, 10, 1), [0, 5, 10, 15], 5), ((11, 20, 5), [0, 10], 10)
    records = spectrogram([[fine, other]])
    (request,) = build_requests(records)
    assert [tuple(dataset.sizes.values()) for dataset in request.datasets] == [(4, 10), (2, 2)]
    assert [dataset.attrs["box"] for dataset in request.datasets] == [0, 1]
    assert {dataset.attrs["boxes"] for dataset in request.datasets} == {2}
    assert sum(map(_sum, request.datasets)) == records.values("counts").sum()
    for dataset in request.datasets:
        check_dataset(dataset)


def test_triggers_scaled_on_board_become_estimates() -> None:
    records = pixels([[(0, [1])]], detectors=0b11)
    records["triggers_k"][:], records["triggers_m"][:] = 0, 7
    codes = records["trigger"][0]
    (request,) = build_requests(records)
    expected = np.where(np.arange(16) == 0, (codes + 0.5) * 30 * 10, 0)
    assert request.datasets[0]["triggers"].values[0].tolist() == expected.tolist()
    summed = spectrogram([[((1, 2, 1), [0], 20)]])
    summed["triggers_k"][:], summed["triggers_m"][:] = 0, 7
    (request,) = build_requests(summed)
    assert request.datasets[0]["triggers"].values.tolist() == [(int(summed["triggers"][0]) + 0.5) * 30 * 20 * 16]


def test_accumulators_cover_every_detector_once() -> None:
    assert sorted(sum(TRIGGER_DETECTORS, ())) == list(range(32))


def test_overflow_channel_has_no_upper_edge() -> None:
    (request,) = build_requests(spectrogram([[((30, 31, 1), [0], 5)]]))
    dataset = request.datasets[0]
    assert dataset["energy_high"].values[-1] == np.inf
    assert dataset["energy"].values[-1] == dataset["energy_low"].values[-1]
