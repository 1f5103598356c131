from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from example_products import START, calibration
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.cubes.build import build_calibration
from stixflow.cubes.check import check_dataset
from stixflow.cubes.sources import record_names
from stixflow.errors import UsageError
from stixflow.fits import read_level1
from stixflow.simulate import packetise
from stixflow.telemetry import Packets, Records, consistent, decode, encode, read_packets

ALL = [(detector, pixel, part) for detector, pixel, part in itertools.product((0, 1), (0, 1), (0, 1))]


def through_packets(*records: Records) -> Records:
    (found,) = decode(Packets.from_bytes(encode(list(records))), products=record_names("cal_spectrum")).values()
    return found


def test_real_packet(shared: Path) -> None:
    """One packet of a run in three subspectra; every number in its place."""
    packets = read_packets(shared / "data/telemetry/packets/05bfed_21_6_41.hex")
    (records,) = decode(packets, products=record_names("cal_spectrum")).values()
    (run,) = build_calibration(records)
    check_dataset(run)
    assert run.sizes["adc"] == 25 + 200 + 23
    assert run["adc_start"].values[[0, 1, 25, 225, -1]].tolist() == [200, 202, 250, 450, 978]
    assert run["adc_stop"].values[[24, 224, -1]].tolist() == [250, 450, 1002]
    assert run.attrs["books"]["counts"] == int(run["counts"].sum()) == int(records.values("counts").sum())
    assert run.attrs["missing"] == ["1071 of 1152 spectra"]
    assert run["live_time"].values.tolist() == [39171.149]
    assert run["average_temperature"].values[0] == pytest.approx(-37.83, abs=0.01)
    first = records.lengths("num_points")[0]
    at = run["subspectrum"].values == records["subspec_id"][0]
    detector, pixel = records["detector_id"][0], records["pixel_id"][0]
    assert np.array_equal(run["counts"].values[at, detector, pixel], records.values("counts")[:first])


def test_official_spectra_come_back(shared: Path) -> None:
    """The file adds up spectra, so that some numbers have no code; the others come back, in every place."""
    official = read_level1(shared / "data/l1/solo_L1_stix-cal-energy_20200506_V01.fits", run=0)
    records, _ = packetise(official, quantise=True)
    (run,) = build_calibration(through_packets(records))
    check_dataset(run)
    assert not run.attrs["complete"]
    small = official["counts"].values < 32
    assert np.array_equal(run["counts"].values[small], official["counts"].values[small])
    for name in official.variables:
        if name not in ("counts", "time", "time_start"):
            np.testing.assert_allclose(run[name].values, official[name].values, rtol=0, atol=1e-10, err_msg=str(name))


@settings(max_examples=30, deadline=None)
@given(st.permutations(ALL), st.integers(1, 7), st.lists(st.integers(0, 1), max_size=3), st.integers(0, 9))
def test_spectra_in_any_order_make_one_run(
    order: list[tuple[int, int, int]], cut: int, again: list[int], seed: int
) -> None:
    records = calibration([order[:cut], order[cut:]], seed=seed)
    whole = through_packets(records)
    (run,) = build_calibration(whole.select(np.array([1, 0, *again])))
    check_dataset(run)
    assert run.attrs["complete"]
    assert run.attrs["books"]["conflicting_bins"] == 0
    values = whole.values("counts")
    starts = np.cumsum(whole.lengths("num_points")) - whole.lengths("num_points")
    for start, (detector, pixel, part) in zip(starts, order, strict=True):
        at = run["subspectrum"].values == part
        found = run["counts"].values[at, detector, pixel]
        assert np.array_equal(found, values[start : start + found.size])
    assert int(run["observed"].sum()) == 2 * 2 * 7


def test_runs_are_told_apart_by_start_and_duration() -> None:
    records = through_packets(calibration([ALL], duration=100), calibration([ALL], duration=200))
    runs = build_calibration(records)
    assert [run["timedel"].values.tolist() for run in runs] == [[100.0], [200.0]]
    assert {int(run["scet"].values[0]) for run in runs} == {START << 16}


def test_packets_with_other_subspectra_are_not_mixed_in() -> None:
    records = through_packets(calibration([ALL, ALL[:1], ALL[1:2]]))
    records["subspec2_lowest_channel"][2] += 1
    (run,) = build_calibration(records)
    books = run.attrs["books"]
    assert books["unplaced_packets"] == 1
    assert books["unplaced_counts"] == int(records.select(np.array([2])).values("counts").sum())
    assert run.attrs["missing"] == ["1 packet(s) that contradict the others or themselves"]


def test_units_are_a_correction_that_can_be_left_out() -> None:
    records = through_packets(calibration([ALL]))
    (run,) = build_calibration(records, corrections=())
    assert np.isnan(run["live_time"]).all()
    assert np.isnan(run["quiet_time"]).all()
    assert run["live_time_raw"].values.tolist() == [39171149]
    assert run.attrs["corrections"] == []
    assert build_calibration(records)[0].attrs["corrections"] == ["calibration_units"]
    with pytest.raises(UsageError, match="soup cannot be made here"):
        build_calibration(records, corrections=("soup",))


FAULTS = {
    "duration is zero": ("duration", 0),
    "no subspectrum is in use": ("subspec_mask", 0),
    "a subspectrum ends above channel 1023": ("subspec2_lowest_channel", 1020),
    "pixel above 11": ("pixel_id", 12),
    "a subspectrum that is not in use": ("subspec_id", 3),
    "number of points is not that of the subspectrum": ("subspec1_num_points_minus_1", 7),
}


@pytest.mark.parametrize("reason", list(FAULTS))
def test_packets_that_contradict_themselves_are_refused(reason: str) -> None:
    name, value = FAULTS[reason]
    records = through_packets(calibration([ALL[:4], ALL[4:]]))
    records[name][0] = value
    kept, refused = consistent(records)
    assert len(kept) == 1
    assert refused[0].reason == reason
    (run,) = build_calibration(records)
    assert not run.attrs["complete"]
    assert run.attrs["books"]["counts"] == int(kept.values("counts").sum())
