"""What in a packet contradicts itself, for the types that `requests` does not regroup by itself: reason and packets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry.layouts import PacketType
from stixflow.telemetry.records import Records

Problem = tuple[str, NDArray[np.intp]]

_N_PIXELS = 12
_N_DETECTORS = 32
_N_SUBSPECTRA = 8
_N_ADC_CHANNELS = 1024
_SYNC_LOST = 1 << 47
_NO_CLOCK = "the onboard clock was not synchronised, so the data have no date"


def find_contradictions(records: Records) -> Sequence[Problem]:
    """List what contradicts itself in packets of a type; nothing for types without a check."""
    check = _CHECKS.get(records.type)
    return check(records) if check else []


def _request_clock(records: Records) -> Problem:
    return _NO_CLOCK, np.flatnonzero(records["time_stamp"].astype(np.int64) >= _SYNC_LOST)


def _data_clock(records: Records) -> Problem:
    return _NO_CLOCK, np.flatnonzero(records["scet_coarse"].astype(np.int64) >= 1 << 31)


def _header_clock(records: Records) -> Problem:
    return _NO_CLOCK, np.flatnonzero(records.header[:, 10] >= 0x80)


def _raw_pixel_problems(records: Records) -> list[Problem]:
    packet = records.ancestors("num_samples")
    return [
        _request_clock(records),
        ("pixel above 11", packet[records["pixel_id"] >= _N_PIXELS]),
        ("integration time is zero", records.parents("num_substructures")[records["integration_time"] == 0]),
    ]


def _pixel_sum_problems(records: Records) -> list[Problem]:
    packet = records.parents("num_substructures")
    sub = records.parents("num_energy_groups")
    detectors = np.bitwise_count(records["detector_mask"]).astype(np.int64)
    expected = (detectors * records["num_pixel_sets"])[sub]
    return [
        _request_clock(records),
        ("number of counts is not detectors times pixel sets", packet[sub[records["num_data"] != expected]]),
        ("upper energy channel below the lower one", packet[sub[records["e_high"] < records["e_low"]]]),
        ("integration time is zero", packet[records["integration_time"] == 0]),
    ]


def _visibility_problems(records: Records) -> list[Problem]:
    packet = records.parents("num_substructures")
    group = records.ancestors("num_energy_groups")
    return [
        _request_clock(records),
        ("upper energy channel below the lower one", group[records["e_high"] < records["e_low"]]),
        ("detector above 31", records.ancestors("num_detectors")[records["detector_id"] >= _N_DETECTORS]),
        ("integration time is zero", packet[records["integration_time"] == 0]),
    ]


def _background_problems(records: Records) -> list[Problem]:
    edges = np.bitwise_count(records["energy_edge_mask_0_31"]).astype(np.int64) + records["energy_edge_mask_32"]
    packet = records.parents("num_energies")
    return [
        _data_clock(records),
        (
            "number of energies does not match the energy edges",
            np.flatnonzero(records["num_energies"] != np.maximum(edges - 1, 0)),
        ),
        ("numbers of samples differ", packet[records["num_samples"] != records["num_triggers"][packet]]),
    ]


def _spectra_problems(records: Records) -> list[Problem]:
    packet = records.parents("num_samples")
    return [_data_clock(records), ("detector above 31", packet[records["detector_id"] >= _N_DETECTORS])]


def _only_data_clock(records: Records) -> list[Problem]:
    return [_data_clock(records)]


def _only_header_clock(records: Records) -> list[Problem]:
    return [_header_clock(records)]


def _aspect_problems(records: Records) -> list[Problem]:
    still = (records["summing_value"] == 0) & (records["num_samples"] > 0)
    if "averaging_value" in records:
        still |= (records["averaging_value"] == 0) & (records["num_samples"] > 0)
    return [_data_clock(records), ("samples without a spacing", np.flatnonzero(still))]


def _calibration_problems(records: Records) -> list[Problem]:
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


_CHECKS: dict[PacketType, Callable[[Records], list[Problem]]] = {
    (21, 6, 20): _raw_pixel_problems,
    (21, 6, 22): _pixel_sum_problems,
    (21, 6, 23): _visibility_problems,
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

__all__ = ["find_contradictions"]
