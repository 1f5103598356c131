"""Packets whose content contradicts itself.

Structure is the decoder's matter; here masks, counts and times must agree with each other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry.bin_times import sample_tenths
from stixflow.telemetry.ccsds import SYNC_LOST
from stixflow.telemetry.encode import encode
from stixflow.telemetry.packets import Quarantined
from stixflow.telemetry.records import Records
from stixflow.telemetry.structure import PacketType
from stixflow.time import SYNC_LOST_BIT

_Problem = tuple[str, NDArray[np.intp]]
"""Reason and packets."""

_N_PIXELS = 12
_N_DETECTORS = 32
_N_SUBSPECTRA = 8
_N_ADC_CHANNELS = 1024
_NO_CLOCK = "the onboard clock was not synchronised, so the data have no date"


def consistent(records: Records) -> tuple[Records, list[Quarantined]]:
    """Take out the packets whose content contradicts itself, so that nothing could be placed from them."""
    bad: dict[int, str] = {}
    check = _CHECKS.get(records.type)
    for reason, rows in check(records) if check else []:
        for row in np.unique(rows).tolist():
            bad.setdefault(row, reason)
    if not bad:
        return records, []
    refused = [
        Quarantined(reason, "", 0, encode(records.select(np.array([row]))), "content that agrees with itself")
        for row, reason in sorted(bad.items())
    ]
    keep = np.setdiff1d(np.arange(len(records)), np.array(sorted(bad)))
    return records.select(keep), refused


def _request_clock(records: Records) -> _Problem:
    return _NO_CLOCK, np.flatnonzero(records["time_stamp"].astype(np.int64) >= SYNC_LOST)


def _data_clock(records: Records) -> _Problem:
    return _NO_CLOCK, np.flatnonzero(records["scet_coarse"].astype(np.int64) >= SYNC_LOST_BIT)


def _header_clock(records: Records) -> _Problem:
    return _NO_CLOCK, np.flatnonzero(records.header[:, 10] >= 0x80)


def _raw_pixel_problems(records: Records) -> list[_Problem]:
    packet = records.ancestors("num_samples")
    return [
        _request_clock(records),
        ("pixel above 11", packet[records["pixel_id"] >= _N_PIXELS]),
        ("integration time is zero", records.parents("num_substructures")[records["integration_time"] == 0]),
    ]


def _pixel_problems(records: Records) -> list[_Problem]:
    packet = records.parents("num_substructures")
    sub = records.parents("num_pixel_sets")
    mask = records["pixel_mask"]
    descending = np.flatnonzero((mask[1:] <= mask[:-1]) & (sub[1:] == sub[:-1])) + 1
    not_single = np.concatenate([np.flatnonzero(np.bitwise_count(mask) != 1), descending])
    return [
        *_energy_group_problems(records, "pixels"),
        ("pixel sets are not single pixels in rising order", packet[sub[not_single]]),
        ("integration time is zero", packet[records["integration_time"] == 0]),
    ]


def _pixel_sum_problems(records: Records) -> list[_Problem]:
    packet = records.parents("num_substructures")
    return [
        *_energy_group_problems(records, "pixel sets"),
        ("integration time is zero", packet[records["integration_time"] == 0]),
    ]


def _energy_group_problems(records: Records, sets: str) -> list[_Problem]:
    packet = records.parents("num_substructures")
    sub = records.parents("num_energy_groups")
    detectors = np.bitwise_count(records["detector_mask"]).astype(np.int64)
    expected = (detectors * records["num_pixel_sets"])[sub]
    return [
        _request_clock(records),
        (f"number of counts is not detectors times {sets}", packet[sub[records["num_data"] != expected]]),
        ("upper energy channel below the lower one", packet[sub[records["e_high"] < records["e_low"]]]),
    ]


def _visibility_problems(records: Records) -> list[_Problem]:
    packet = records.parents("num_substructures")
    group = records.ancestors("num_energy_groups")
    return [
        _request_clock(records),
        ("upper energy channel below the lower one", group[records["e_high"] < records["e_low"]]),
        ("detector above 31", records.ancestors("num_detectors")[records["detector_id"] >= _N_DETECTORS]),
        ("integration time is zero", packet[records["integration_time"] == 0]),
    ]


def _spectrogram_problems(records: Records) -> list[_Problem]:
    packet = records.parents("num_substructures")
    sub = records.parents("num_samples")
    span = records["e_high"].astype(np.int64) - records["e_low"] + 1
    unit = records["e_unit_minus_1"].astype(np.int64) + 1
    expected = (-(-span // unit))[sub]
    return [
        _request_clock(records),
        ("upper energy channel below the lower one", packet[span < 1]),
        ("number of energies does not match the channels", packet[sub[records["num_energies"] != expected]]),
        ("times do not rise", packet[sub[_not_rising(records)]]),
    ]


def _not_rising(records: Records) -> NDArray[np.intp]:
    tenths, last = sample_tenths(records)
    falls = np.append(np.diff(tenths), 1) <= 0
    falls[last] = False
    return np.flatnonzero(falls)


def _light_curve_problems(records: Records) -> list[_Problem]:
    samples = records["num_triggers"]
    packet = records.parents("num_energies")
    unequal = packet[records["num_samples"] != samples[packet]]
    return [
        _data_clock(records),
        _energy_edges(records),
        ("numbers of samples differ", np.concatenate([unequal, np.flatnonzero(records["num_rcr"] != samples)])),
    ]


def _background_problems(records: Records) -> list[_Problem]:
    packet = records.parents("num_energies")
    return [
        _data_clock(records),
        _energy_edges(records),
        ("numbers of samples differ", packet[records["num_samples"] != records["num_triggers"][packet]]),
    ]


def _energy_edges(records: Records) -> _Problem:
    edges = np.bitwise_count(records["energy_edge_mask_0_31"]).astype(np.int64) + records["energy_edge_mask_32"]
    wrong = np.flatnonzero(records["num_energies"] != np.maximum(edges - 1, 0))
    return "number of energies does not match the energy edges", wrong


def _spectra_problems(records: Records) -> list[_Problem]:
    packet = records.parents("num_samples")
    return [_data_clock(records), ("detector above 31", packet[records["detector_id"] >= _N_DETECTORS])]


def _only_data_clock(records: Records) -> list[_Problem]:
    return [_data_clock(records)]


def _only_header_clock(records: Records) -> list[_Problem]:
    return [_header_clock(records)]


def _aspect_problems(records: Records) -> list[_Problem]:
    still = (records["summing_value"] == 0) & (records["num_samples"] > 0)
    if "averaging_value" in records:
        still |= (records["averaging_value"] == 0) & (records["num_samples"] > 0)
    return [_data_clock(records), ("samples without a spacing", np.flatnonzero(still))]


def _calibration_problems(records: Records) -> list[_Problem]:
    packet = records.parents("num_structures")
    subspectrum = records["subspec_id"].astype(np.intp)
    points, summed, lowest = (
        np.stack([records[f"subspec{n}_{part}"] for n in range(1, _N_SUBSPECTRA + 1)], axis=1).astype(np.int64)
        for part in ("num_points_minus_1", "num_summed_minus_1", "lowest_channel")
    )
    in_use = (records["subspec_mask"].astype(np.int64)[:, None] >> np.arange(_N_SUBSPECTRA) & 1).astype(np.bool_)
    beyond = in_use & (lowest + (points + 1) * (summed + 1) > _N_ADC_CHANNELS)
    return [
        _data_clock(records),
        ("duration is zero", np.flatnonzero(records["duration"] == 0)),
        ("no subspectrum is in use", np.flatnonzero(~in_use.any(axis=1))),
        ("a subspectrum ends above channel 1023", np.flatnonzero(beyond.any(axis=1))),
        ("pixel above 11", packet[records["pixel_id"] >= _N_PIXELS]),
        ("a subspectrum that is not in use", packet[~in_use[packet, subspectrum]]),
        (
            "number of points is not that of the subspectrum",
            packet[records["num_points"] != points[packet, subspectrum] + 1],
        ),
    ]


_CHECKS: dict[PacketType, Callable[[Records], list[_Problem]]] = {
    (21, 6, 20): _raw_pixel_problems,
    (21, 6, 21): _pixel_problems,
    (21, 6, 22): _pixel_sum_problems,
    (21, 6, 23): _visibility_problems,
    (21, 6, 24): _spectrogram_problems,
    (21, 6, 30): _light_curve_problems,
    (21, 6, 31): _background_problems,
    (21, 6, 32): _spectra_problems,
    (21, 6, 33): _only_data_clock,
    (21, 6, 34): _only_data_clock,
    (21, 6, 41): _calibration_problems,
    (21, 6, 42): _aspect_problems,
    (21, 6, 43): _only_header_clock,
    (3, 25, 1): _only_header_clock,
    (3, 25, 2): _only_header_clock,
}
