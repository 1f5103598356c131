"""Days of a mission as telemetry: what `simulate` writes, and beside it every other product at its usual cadence.

The numbers of the other products are drawn at random: they cost what real ones cost, and mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stixflow.cubes.housekeeping import HOUSEKEEPING
from stixflow.simulate import SequenceCounter, random_scenario, simulate
from stixflow.telemetry import Records, encode
from stixflow.telemetry.layouts import type_name
from stixflow.time import TimeRange, utc_to_scet

_SKM = {"counts_s": 0, "counts_k": 4, "counts_m": 4, "triggers_s": 0, "triggers_k": 4, "triggers_m": 4}
_DAY_S = 86_400
_MARGIN_S = 60
"""Left out at both ends of a day, so that no packet of one day stands in another file."""
_SUBSPECTRA = ((100, 40), (270, 40), (440, 60), (700, 80))
"""First channel and points, each of four channels, of a calibration run."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The files of one day."""

    day: date
    telemetry: Path
    ephemeris: Path
    n_bytes: int
    """Of telemetry."""
    flares: int


def deliver(day: date, folder: Path, *, flares: float, seed: int = 1) -> Delivery:
    """Write a day with about so many flares: one file of all its packets, and its ephemeris."""
    truth = simulate(random_scenario(day, seed=seed, rate=flares), folder / f"{day}", container="binary")
    place = folder / f"{day}" / "telemetry" / f"{day}_day.bin"
    blobs = [path.read_bytes() for path in truth.telemetry] + [other_products(day, seed)]
    for path in truth.telemetry:
        path.unlink()
    place.write_bytes(b"".join(blobs))
    return Delivery(day, place, truth.ephemeris[0], place.stat().st_size, len(truth.flares))


def other_products(day: date, seed: int = 1) -> bytes:
    """Return the packets of a day that `simulate` does not write, back to back."""
    span = TimeRange.of_day(day)
    start = int(utc_to_scet(span.start) >> 16) + _MARGIN_S
    seconds = _DAY_S - 2 * _MARGIN_S
    rng, counter = np.random.default_rng(seed), SequenceCounter()
    blobs = []
    for kind, levels, scet in _kinds(rng, start, seconds):
        scet = np.atleast_1d(scet)
        counts, counter = counter.take(hash(kind) % 2048, scet.size)
        # Other products share their counter with nothing that `simulate` writes: counts from the middle of the range.
        blobs.append(encode(Records.from_levels(type_name(kind), levels, scet=scet, sequence_count=counts)))
    return b"".join(blobs)


_Kind = tuple[tuple[int, int, int], dict[str, Any], Any]


def _kinds(rng: np.random.Generator, start: int, seconds: int) -> Iterator[_Kind]:
    yield _background(rng, start, seconds)
    yield _spectra(rng, start, seconds)
    yield _samples((21, 6, 33), rng, start, seconds, 4, 150, {
        "samples_per_variance": 40, "detector_mask": 0xFFFFFCFF, "energy_mask": 0x7FFE0000, "pixel_mask": 0xFFF,
        "variance_k": 4, "variance_m": 4,
    }, {"variance": (0, 256)})  # fmt: skip
    yield _samples((21, 6, 34), rng, start, seconds, 4, 150, {}, {
        "location_z": (-128, 128), "location_y": (-128, 128), "location_status": (0, 3), "non_thermal_index": (0, 3),
        "thermal_index": (0, 5), "flare_in_progress": (0, 2),
    })  # fmt: skip
    for product, kind in (("hk_mini", (3, 25, 1)), ("hk_maxi", (3, 25, 2))):
        times = start + 64 * np.arange(seconds // 64)
        columns = {one.name: rng.integers(0, 1 << one.bits, times.size) for one in HOUSEKEEPING[product]}
        yield kind, {"packet": columns}, times << 16
    times = start + 60 * np.arange(seconds // 60)
    yield (21, 6, 43), {"packet": {
        "ubsd_counter": rng.integers(0, 1 << 32, times.size), "pald_counter": rng.integers(0, 1 << 32, times.size),
        "num_flares": np.zeros(times.size, int),
    }}, times << 16  # fmt: skip
    yield _calibration(rng, start, seconds)


def _background(rng: np.random.Generator, start: int, seconds: int) -> _Kind:
    number = np.full(seconds // (8 * 120), 120)
    begin = start + 8 * 120 * np.arange(number.size)
    levels = {
        "packet": {
            "scet_coarse": begin, "integration_time": 79, **_SKM, "energy_edge_mask_0_31": 0x10821082,
            "num_energies": 5, "num_triggers": number,
        },
        "num_energies": {"num_samples": np.repeat(number, 5)},
        "num_samples": {"counts": rng.integers(0, 64, 5 * number.sum())},
        "num_triggers": {"triggers": rng.integers(0, 64, number.sum())},
    }  # fmt: skip
    return (21, 6, 31), levels, begin + 8 * number << 16


def _spectra(rng: np.random.Generator, start: int, seconds: int) -> _Kind:
    sweeps = seconds // 1024
    begin = start + 1024 * np.arange(sweeps)
    levels = {
        "packet": {"scet_coarse": begin, "integration_time": 319, **_SKM, "pixel_mask": 0xFFF,
                   "num_samples": np.full(sweeps, 32)},
        "num_samples": {
            "detector_id": np.tile(np.arange(32), sweeps), "counts_e": rng.integers(0, 64, (32 * sweeps, 32)),
            "triggers": rng.integers(0, 64, 32 * sweeps), "num_integrations": np.tile(np.arange(32), sweeps),
        },
    }  # fmt: skip
    return (21, 6, 32), levels, begin + 1056 << 16


def _samples(
    kind: tuple[int, int, int],
    rng: np.random.Generator,
    start: int,
    seconds: int,
    step: int,
    length: int,
    states: dict[str, Any],
    columns: dict[str, tuple[int, int]],
) -> _Kind:
    """Packets of equal numbers of samples."""
    packets = seconds // (step * length)
    begin = start + step * length * np.arange(packets)
    levels = {
        "packet": {"scet_coarse": begin, "integration_time": 10 * step - 1, "num_samples": np.full(packets, length),
                   **states},
        "num_samples": {name: rng.integers(*limits, packets * length) for name, limits in columns.items()},
    }  # fmt: skip
    return kind, levels, begin + step * length << 16


def _calibration(rng: np.random.Generator, start: int, seconds: int) -> _Kind:
    detector, pixel, part = (one.ravel() for one in np.meshgrid(range(32), range(12), range(len(_SUBSPECTRA)),
                                                                indexing="ij"))  # fmt: skip
    each = 32
    packets = detector.size // each
    number = np.array([size for _, size in _SUBSPECTRA])[part]
    layout = {}
    for index, (channel, size) in enumerate(_SUBSPECTRA, start=1):
        layout[f"subspec{index}_num_points_minus_1"] = size - 1
        layout[f"subspec{index}_num_summed_minus_1"] = 3
        layout[f"subspec{index}_lowest_channel"] = channel
    levels = {
        "packet": {
            "scet_coarse": np.full(packets, start), "duration": seconds, "quiet_time": 6, "live_time": 39171149,
            "average_temperature": 3947, "counts_k": 4, "counts_m": 4, "detector_mask": 0xFFFFFFFF,
            "pixel_mask": 0xFFF, "subspec_mask": (1 << len(_SUBSPECTRA)) - 1, **layout,
            "num_structures": np.full(packets, each),
        },
        "num_structures": {"detector_id": detector, "pixel_id": pixel, "subspec_id": part, "num_points": number},
        "num_points": {"counts": rng.integers(0, 64, number.sum())},
    }  # fmt: skip
    return (21, 6, 41), levels, start + seconds + np.arange(packets) << 16


def pixel_requests(flares: int, *, day: date = date(2022, 6, 15), seed: int = 3) -> list[xr.Dataset]:
    """Return the pixel cubes of a simulated day with about so many flares, its quiet one first."""
    from stixflow.simulate.observe import build_sky, science
    from stixflow.simulate.plan import plan_requests

    sky = build_sky(random_scenario(day, seed=seed, rate=float(flares)))
    wanted = [one for one in plan_requests(sky.scenario, sky.flares) if one.kind == "sci_pixels"]
    return [science(sky, one) for one in wanted]
