"""Records of the decoded products, made by hand, with every number drawn from a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry import Records

OLD = 650_000_000
"""Onboard seconds of IDB 2.26.34."""
NEW = 720_000_000
"""Onboard seconds of IDB 2.26.36."""
SKM = {"counts_s": 0, "counts_k": 5, "counts_m": 3, "triggers_s": 0, "triggers_k": 4, "triggers_m": 4}


def light_curve(
    samples: tuple[int, ...] = (10, 10), *, seed: int = 0, coarse: int = NEW, count: int = 16380
) -> Records:
    """Packets of SSID 30 that join without gap, 4 s samples, five energies."""
    rng = np.random.default_rng(seed)
    number = np.array(samples)
    start = coarse + 4 * (np.cumsum(number) - number)
    codes = int(number.sum())
    levels = {
        "packet": {
            "scet_coarse": start,
            "scet_fine": 100,
            "integration_time": 39,
            "detector_mask": 0xFFFFFCFF,
            "pixel_mask": 0xFFF,
            **SKM,
            "energy_edge_mask_0_31": 0x10821082,
            "num_energies": 5,
            "num_triggers": number,
            "num_rcr": number,
        },
        "num_energies": {"num_samples": np.repeat(number, 5)},
        "num_samples": {"counts": rng.integers(0, 200, 5 * codes)},
        "num_triggers": {"triggers": rng.integers(0, 255, codes)},
        "num_rcr": {"rcr": rng.integers(0, 8, codes)},
    }
    scet = start + 4 * number << 16
    return Records.from_levels("ql_lightcurve", levels, scet=scet, sequence_count=count + np.arange(number.size))


def pixels(
    bins: list[list[tuple[int, list[int]]]],
    *,
    seed: int = 0,
    coarse: int = NEW,
    count: int = 16382,
    detectors: int = 0b1011,
    pixel_mask: int = 0b110000000011,
    duration: int = 10,
    request_id: int = 2211090042,
) -> Records:
    """Packets of SSID 21: of each packet, the bins as (start in 0.1 s, energy channels)."""
    rng = np.random.default_rng(seed)
    subs = [sub for packet in bins for sub in packet]
    channels = np.array([channel for _, energies in subs for channel in energies], dtype=int)
    sets = np.flatnonzero(pixel_mask >> np.arange(12) & 1)
    size = detectors.bit_count() * sets.size
    starts = np.array([start for start, _ in subs])
    triggers = np.array([np.random.default_rng(start).integers(0, 200, 16) for start in starts]).reshape(-1, 16)
    levels = {
        "packet": {
            "tc_packet_seq_control": 54678,
            "request_id": np.full(len(bins), request_id),
            "time_stamp": coarse << 16,
            "num_substructures": [len(packet) for packet in bins],
            **SKM,
        },
        "num_substructures": {
            ("start_time" if coarse >= 677774249 else "delta_time"): starts,
            "rcr": 1,
            "num_pixel_sets": sets.size,
            "detector_mask": detectors,
            "integration_time": duration,
            "trigger": triggers,
            "num_energy_groups": [len(energies) for _, energies in subs],
        },
        "num_pixel_sets": {"pixel_mask": np.tile(1 << sets, len(subs))},
        "num_energy_groups": {"e_low": channels, "e_high": channels, "num_data": np.full(channels.size, size)},
        "num_data": {"counts": rng.integers(0, 200, channels.size * size)},
    }
    return Records.from_levels(
        "sci_pixels",
        levels,
        scet=(coarse + 1000 << 16) + np.arange(len(bins)),
        sequence_count=count + np.arange(len(bins)),
        sequence_flag=_flags(len(bins)),
    )


def spectrogram(
    substructures: list[list[tuple[tuple[int, int, int], list[int], int]]], *, seed: int = 0, coarse: int = NEW
) -> Records:
    """Packets of SSID 24: of each packet, the substructures as ((e_low, e_high, unit), starts, closing offset)."""
    rng = np.random.default_rng(seed)
    subs = [sub for packet in substructures for sub in packet]
    energies = np.array([-(-(high - low + 1) // unit) for (low, high, unit), _, _ in subs])
    samples = np.array([len(starts) for _, starts, _ in subs])
    times = np.array([start for _, starts, _ in subs for start in starts], dtype=int)
    binning = np.array([binning for binning, _, _ in subs])
    levels = {
        "packet": {
            "tc_packet_seq_control": 54679,
            "request_id": np.full(len(substructures), 2211090043),
            "time_stamp": coarse << 16,
            "num_substructures": [len(packet) for packet in substructures],
            **SKM,
        },
        "num_substructures": {
            "pixel_mask": 0xFFF,
            "detector_mask": 0xFFFFFCFF,
            "rcr": 2,
            "e_low": binning[:, 0],
            "e_high": binning[:, 1],
            "e_unit_minus_1": binning[:, 2] - 1,
            "num_samples": samples,
            "closing_time_offset": [closing for _, _, closing in subs],
        },
        "num_samples": {
            ("start_time" if coarse >= 677774249 else "delta_time"): times,
            "triggers": rng.integers(0, 200, times.size),
            "num_energies": np.repeat(energies, samples),
        },
        "num_energies": {"counts": rng.integers(0, 200, int((energies * samples).sum()))},
    }
    return Records.from_levels(
        "sci_spectrogram",
        levels,
        scet=(coarse + 1000 << 16) + np.arange(len(substructures)),
        sequence_count=100 + np.arange(len(substructures)),
        sequence_flag=_flags(len(substructures)),
    )


def _flags(packets: int) -> NDArray[np.int64]:
    if packets == 1:
        return np.array([3])
    return np.array([1] + [0] * (packets - 2) + [2])
