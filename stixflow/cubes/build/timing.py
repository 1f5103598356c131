"""When each sample of a day product was, and which partition each packet belongs to; read before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.model import PRODUCTS
from stixflow.cubes.sources import product_of
from stixflow.errors import UsageError
from stixflow.telemetry import Records
from stixflow.telemetry.runs import positions_in
from stixflow.time import SYNC_LOST_BIT, TICKS_PER_SECOND, scet_from_coarse_fine


@dataclass(frozen=True, slots=True, eq=False)
class Timing:
    """When the samples of some packets were, in packet order."""

    packet: NDArray[np.intp]
    start: NDArray[np.int64]
    """Onboard time."""
    seconds: NDArray[np.float64]
    """How long each sample lasts; zero where it is an instant."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where packets belong; entries that do not apply are -1."""

    start: NDArray[np.int64]
    """Begin of the data, onboard time."""
    stop: NDArray[np.int64]
    """End of the data."""
    first: NDArray[np.int64]
    """Of a request its number, of a calibration run its start in seconds."""
    second: NDArray[np.int64]
    """Of a request its sequence control, of a calibration run its duration as sent."""


def place(records: Records) -> Place:
    """Say which day, request or calibration run each packet of the records belongs to."""
    product = product_of(records.type)
    nothing = np.full(len(records), -1, dtype=np.int64)
    if product is None:
        return Place(nothing, nothing, nothing, nothing)
    if PRODUCTS[product].partition == "request":
        second = records["tc_packet_seq_control"].astype(np.int64)
        return Place(nothing, nothing, records["request_id"].astype(np.int64), second)
    if PRODUCTS[product].partition == "run":
        duration = records["duration"].astype(np.int64)
        start = run_start(records)
        return Place(start << 16, start + duration << 16, start, duration)
    timing = sample_times(records)
    start = _packet_start(records)
    stop = start.copy()
    ticks = np.rint(timing.seconds * TICKS_PER_SECOND).astype(np.int64)
    np.maximum.at(stop, timing.packet, timing.start + ticks)
    return Place(start, stop, nothing, nothing)


def run_start(records: Records) -> NDArray[np.int64]:
    """Start of the calibration run of each packet in onboard seconds."""
    return records["scet_coarse"].astype(np.int64) & (SYNC_LOST_BIT - 1)


def _packet_start(records: Records) -> NDArray[np.int64]:
    """Start of the data of each packet; of reports about an instant, the time in the header."""
    if "scet_coarse" not in records:
        return records.scet
    return scet_from_coarse_fine(records["scet_coarse"], records["scet_fine"])


def sample_times(records: Records) -> Timing:
    """When each sample of a day product was.

    One entry for each row of ``num_triggers`` (SSID 30, 31), ``num_samples`` (32-34, 42) or packet (43, housekeeping).

    Raises
    ------
    UsageError
        If the records are not of a day product.
    """
    if records.type not in _TIMINGS:
        raise UsageError(f"records of {records.product}", expected="records of a product with one partition a day")
    return _TIMINGS[records.type](records)


def tenths_of(records: Records) -> NDArray[np.int64]:
    """Length of the samples of each quick-look packet in 0.1 s."""
    return np.asarray(records["integration_time"].astype(np.int64) + 1)


def _each(records: Records, level: str, seconds: NDArray[np.float64]) -> Timing:
    """Samples that follow each other from the start of their packet on."""
    count = records.lengths(level)
    packet = np.repeat(np.arange(len(records)), count)
    number = positions_in(count)
    return _timing(records, packet, number, seconds)


def _timing(
    records: Records, packet: NDArray[np.intp], number: NDArray[np.int64], seconds: NDArray[np.float64]
) -> Timing:
    ticks = np.rint(number * (seconds * TICKS_PER_SECOND)[packet]).astype(np.int64)
    return Timing(packet, _packet_start(records)[packet] + ticks, seconds[packet])


def _with_triggers(records: Records) -> Timing:
    return _each(records, "num_triggers", tenths_of(records) / 10.0)


def _with_samples(records: Records) -> Timing:
    return _each(records, "num_samples", tenths_of(records) / 10.0)


def _in_sweeps(records: Records) -> Timing:
    packet = records.parents("num_samples")
    return _timing(records, packet, records["num_integrations"].astype(np.int64), tenths_of(records) / 10.0)


def _aspect(records: Records) -> Timing:
    return _each(records, "num_samples", records["summing_value"] * averaging_ms(records) / 1000.0)


def averaging_ms(records: Records) -> NDArray[np.int64]:
    """Averaging value of each aspect packet; 1 where the database of its time has none."""
    if "averaging_value" not in records:
        return np.ones(len(records), dtype=np.int64)
    given = records.packets_with("averaging_value")
    return np.where(given, records["averaging_value"].astype(np.int64), 1)


def _instants(records: Records) -> Timing:
    return Timing(np.arange(len(records)), records.scet, np.zeros(len(records)))


_TIMINGS: dict[tuple[int, int, int], Callable[[Records], Timing]] = {
    (21, 6, 30): _with_triggers,
    (21, 6, 31): _with_triggers,
    (21, 6, 32): _in_sweeps,
    (21, 6, 33): _with_samples,
    (21, 6, 34): _with_samples,
    (21, 6, 42): _aspect,
    (21, 6, 43): _instants,
    (3, 25, 1): _instants,
    (3, 25, 2): _instants,
}

__all__ = ["Place", "Timing", "place", "sample_times"]
