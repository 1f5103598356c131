"""Records of the day products and calibration runs, made by hand, with every number drawn from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from stixflow.cubes.housekeeping import HOUSEKEEPING
from stixflow.telemetry import Records
from stixflow.telemetry.layouts import type_name

START = 660_000_000
"""Onboard seconds of IDB 2.26.34, 2020-11-29."""
SKM = {"counts_s": 0, "counts_k": 4, "counts_m": 4, "triggers_s": 0, "triggers_k": 4, "triggers_m": 4}


def _records(kind: tuple[int, int, int], levels: dict[str, Any], scet: Any, count: int = 100) -> Records:
    times = np.atleast_1d(scet)
    return Records.from_levels(type_name(kind), levels, scet=times, sequence_count=count + np.arange(times.size))


def background(samples: tuple[int, ...] = (4, 6), *, seed: int = 0) -> Records:
    """SSID 31, 8 s samples, packets that join."""
    rng = np.random.default_rng(seed)
    number = np.array(samples)
    start = START + 8 * (np.cumsum(number) - number)
    levels = {
        "packet": {
            "scet_coarse": start,
            "integration_time": 79,
            **SKM,
            "energy_edge_mask_0_31": 0x10821082,
            "num_energies": 5,
            "num_triggers": number,
        },
        "num_energies": {"num_samples": np.repeat(number, 5)},
        "num_samples": {"counts": rng.integers(0, 255, 5 * number.sum())},
        "num_triggers": {"triggers": rng.integers(0, 255, number.sum())},
    }
    return _records((21, 6, 31), levels, start + 8 * number << 16)


def spectra(packets: list[list[tuple[int, int]]], *, seed: int = 0, starts: list[int] | None = None) -> Records:
    """SSID 32, 32 s integrations: of each packet, the samples as (detector, number of integrations)."""
    rng = np.random.default_rng(seed)
    samples = np.array([sample for packet in packets for sample in packet])
    begin = np.array(starts or [0] * len(packets)) + START
    levels = {
        "packet": {
            "scet_coarse": begin,
            "integration_time": 319,
            **SKM,
            "pixel_mask": 0xFFF,
            "num_samples": [len(packet) for packet in packets],
        },
        "num_samples": {
            "detector_id": samples[:, 0],
            "counts_e": rng.integers(0, 255, (len(samples), 32)),
            "triggers": rng.integers(0, 255, len(samples)),
            "num_integrations": samples[:, 1],
        },
    }
    last = np.array([max(number for _, number in packet) for packet in packets])
    return _records((21, 6, 32), levels, begin + 32 * (last + 1) << 16)


def variance(samples: int = 5, *, seed: int = 0) -> Records:
    """SSID 33, 4 s samples, one packet."""
    levels = {
        "packet": {
            "scet_coarse": START,
            "integration_time": 39,
            "samples_per_variance": 40,
            "detector_mask": 0xFFFFFCFF,
            "energy_mask": 0x7FFE0000,
            "pixel_mask": 0xFFF,
            "variance_k": 4,
            "variance_m": 4,
            "num_samples": samples,
        },
        "num_samples": {"variance": np.random.default_rng(seed).integers(0, 255, samples)},
    }
    return _records((21, 6, 33), levels, START + 4 * samples << 16)


def flareflag(samples: int = 5, *, coarse: int = START, seed: int = 0) -> Records:
    """SSID 34, 4 s samples, one packet."""
    rng = np.random.default_rng(seed)
    columns = {
        "location_z": rng.integers(-128, 128, samples),
        "location_y": rng.integers(-128, 128, samples),
        "location_status": rng.integers(0, 3, samples),
        "non_thermal_index": rng.integers(0, 3, samples),
        "thermal_index": rng.integers(0, 5, samples),
    }
    if coarse >= 643123725:
        columns["flare_in_progress"] = rng.integers(0, 2, samples)
    levels = {
        "packet": {"scet_coarse": coarse, "integration_time": 39, "num_samples": samples},
        "num_samples": columns,
    }
    return _records((21, 6, 34), levels, coarse + 4 * samples << 16)


def aspect(samples: int = 5, *, summing: int = 16, averaging: int = 64, seed: int = 0) -> Records:
    """SSID 42, one packet."""
    diodes = np.random.default_rng(seed).integers(0, 1 << 16, (4, samples))
    names = ("cha_diode0", "cha_diode1", "chb_diode0", "chb_diode1")
    levels = {
        "packet": {
            "scet_coarse": START,
            "averaging_value": averaging,
            "summing_value": summing,
            "num_samples": samples,
        },
        "num_samples": dict(zip(names, diodes, strict=True)),
    }
    return _records((21, 6, 42), levels, START + 5000 << 16)


def status(flares: tuple[int, ...] = (2, 0), *, seed: int = 0) -> Records:
    """SSID 43, a packet a minute with as many flares as given."""
    rng = np.random.default_rng(seed)
    number, total = np.array(flares), sum(flares)
    levels = {
        "packet": {
            "ubsd_counter": rng.integers(0, 1 << 32, number.size),
            "pald_counter": rng.integers(0, 1 << 32, number.size),
            "num_flares": number,
        },
        "num_flares": {
            "start_scet_coarse": START + np.arange(total),
            "end_scet_coarse": START + 10 + np.arange(total),
            "highest_flare_flag": rng.integers(0, 256, total),
            "tm_byte_volume": rng.integers(0, 1 << 32, total),
            "average_z": rng.integers(-128, 128, total),
            "average_y": rng.integers(-128, 128, total),
            "processing_status": rng.integers(0, 256, total),
        },
    }
    return _records((21, 6, 43), levels, START + 60 * np.arange(number.size) << 16)


def housekeeping(product: str = "hk_mini", packets: int = 3, *, seed: int = 0) -> Records:
    """TM(3,25), a packet every 64 s."""
    rng = np.random.default_rng(seed)
    columns = {one.name: rng.integers(0, 1 << one.bits, packets) for one in HOUSEKEEPING[product]}
    kind = (3, 25, 1 if product == "hk_mini" else 2)
    return _records(kind, {"packet": columns}, START + 64 * np.arange(packets) << 16)


def calibration(
    spectra: list[list[tuple[int, int, int]]], *, points: tuple[int, ...] = (3, 4), duration: int = 100, seed: int = 0
) -> Records:
    """SSID 41: of each packet, the spectra as (detector, pixel, subspectrum); subspectra of the given points."""
    rng = np.random.default_rng(seed)
    all_spectra = np.array([one for packet in spectra for one in packet]).reshape(-1, 3)
    number = np.array(points)[all_spectra[:, 2]]
    layout = {}
    for index, size in enumerate(points, start=1):
        layout[f"subspec{index}_num_points_minus_1"] = size - 1
        layout[f"subspec{index}_num_summed_minus_1"] = index - 1
        layout[f"subspec{index}_lowest_channel"] = 100 * index
    levels = {
        "packet": {
            "scet_coarse": np.full(len(spectra), START),
            "duration": duration,
            "quiet_time": 6,
            "live_time": 39171149,
            "average_temperature": 3947,
            "counts_k": 4,
            "counts_m": 4,
            "detector_mask": 0b11,
            "pixel_mask": 0b11,
            "subspec_mask": (1 << len(points)) - 1,
            **layout,
            "num_structures": [len(packet) for packet in spectra],
        },
        "num_structures": {
            "detector_id": all_spectra[:, 0],
            "pixel_id": all_spectra[:, 1],
            "subspec_id": all_spectra[:, 2],
            "num_points": number,
        },
        "num_points": {"counts": rng.integers(0, 255, number.sum())},
    }
    return _records((21, 6, 41), levels, START + duration + np.arange(len(spectra)) << 16)
