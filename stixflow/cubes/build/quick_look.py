"""Quick-look packets as rows: light curves, background, spectra, variance, flare flag (SSID 30-34)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.build.timing import sample_times, tenths_of
from stixflow.cubes.build.values import cube_values, trigger_values
from stixflow.cubes.model import N_CHANNELS, N_DETECTORS
from stixflow.telemetry import Records
from stixflow.telemetry.runs import starts_of
from stixflow.time import TICKS_PER_SECOND

_BACKGROUND_MONITOR = np.uint32(1 << 9)
_NOT_TOLD = 255


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows of a day product, any order, some perhaps twice."""

    scet: NDArray[np.int64]
    seconds: NDArray[np.float64]
    columns: Mapping[str, NDArray[Any]]
    axes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Variables without time."""
    repeated_bins: int = 0
    """Samples that were left out because another one fills their place, and how many of those differ from it."""
    conflicting_bins: int = 0


def light_curve_table(records: Records) -> Table:
    """One row for each sample of SSID 30; the packets must have the same energy bins."""
    timing = sample_times(records)
    packet = timing.packet
    mask = records["detector_mask"][packet]
    columns = {
        "counts": _sample_counts(records, records.lengths("num_triggers")),
        "triggers": trigger_values(records, "triggers", packet, tenths_of(records)[packet], mask),
        "rcr": records["rcr"],
        "detector_mask": mask,
        "pixel_mask": records["pixel_mask"][packet],
        "counts_skm": records.skm("counts")[packet],
        "triggers_skm": records.skm("triggers")[packet],
    }
    return Table(timing.start, timing.seconds, columns)


def background_table(records: Records) -> Table:
    """One row for each sample of SSID 31; the packets must have the same energy bins."""
    timing = sample_times(records)
    packet = timing.packet
    monitor = np.full(packet.size, _BACKGROUND_MONITOR)
    columns = {
        "counts": _sample_counts(records, records.lengths("num_triggers")),
        "triggers": trigger_values(records, "triggers", packet, tenths_of(records)[packet], monitor),
        "counts_skm": records.skm("counts")[packet],
        "triggers_skm": records.skm("triggers")[packet],
    }
    return Table(timing.start, timing.seconds, columns)


def same_edges(records: Records) -> Records:
    """Keep the packets with the energy edges that most packets have."""
    mask = _edge_masks(records)
    values, members = np.unique(mask, return_counts=True)
    if values.size <= 1:
        return records
    return records.select(np.flatnonzero(mask == values[np.argmax(members)]))


def _edge_masks(records: Records) -> NDArray[np.int64]:
    top = records["energy_edge_mask_32"].astype(np.int64) << 32
    return np.asarray(top | records["energy_edge_mask_0_31"].astype(np.int64))


def channels_of(records: Records) -> NDArray[np.uint8]:
    """Channels of each energy bin by the edge mask, shape (energies, 2)."""
    edges = np.flatnonzero(int(_edge_masks(records)[0]) >> np.arange(33) & 1)
    return np.stack([edges[:-1], edges[1:]], axis=1).astype(np.uint8)


def _sample_counts(records: Records, samples: NDArray[np.int64]) -> NDArray[Any]:
    """Counts as (sample, energy): packets hold all samples of the first energy, then of the next."""
    raw = cube_values(records, "counts")
    energies = int(records["num_energies"][0]) if len(records) else 0
    sample = np.arange(int(samples.sum()))
    packet = np.repeat(np.arange(len(records)), samples)
    first = starts_of(samples)
    base = first[packet] * energies + (sample - first[packet])
    columns = [raw[base + energy * samples[packet]] for energy in range(energies)]
    return np.stack(columns, axis=1) if columns else np.zeros((0, 0), dtype=raw.dtype)


def spectra_table(records: Records) -> Table:
    """One row for each sweep of SSID 32: what the detectors counted at one time, where it was received.

    A sweep may be cut by the end of a packet; the two parts have the same time but for the jitter of the clock.
    """
    timing = sample_times(records)
    order = np.lexsort((records["detector_id"], timing.start, timing.seconds))
    sweep = _sweeps(timing.start[order], timing.seconds[order])
    detector = records["detector_id"][order].astype(np.intp)
    first = np.unique(sweep * N_DETECTORS + detector, return_index=True)[1]
    n_sweeps = int(sweep[-1]) + 1 if sweep.size else 0
    values = cube_values(records, "counts_e")
    mask = np.uint32(1) << records["detector_id"].astype(np.uint32)
    triggers = trigger_values(records, "triggers", timing.packet, tenths_of(records)[timing.packet], mask)
    counts = np.zeros((n_sweeps, N_CHANNELS, N_DETECTORS), dtype=values.dtype)
    live = np.zeros((n_sweeps, N_DETECTORS), dtype=triggers.dtype)
    observed = np.zeros(live.shape, dtype=np.bool_)
    at, which, source = sweep[first], detector[first], order[first]
    counts[at, :, which] = values[source]
    live[at, which], observed[at, which] = triggers[source], True
    again = np.setdiff1d(np.arange(order.size), first)
    differ = counts[sweep[again], :, detector[again]] != values[order[again]]
    head = order[np.unique(sweep, return_index=True)[1]]
    packet = timing.packet[head]
    columns = {
        "counts": counts,
        "observed": observed,
        "triggers": live,
        "pixel_mask": records["pixel_mask"][packet],
        "counts_skm": records.skm("counts_e")[packet],
        "triggers_skm": records.skm("triggers")[packet],
    }
    axes = {"detector": np.arange(N_DETECTORS, dtype=np.uint8)}
    conflicts = int(differ.any(axis=1).sum())
    return Table(timing.start[head], timing.seconds[head], columns, axes, again.size, conflicts)


def _sweeps(start: NDArray[np.int64], seconds: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number the sweeps of samples in order: a new one begins half an integration or more after the sample before."""
    apart = np.diff(start) > np.rint(seconds[1:] * (TICKS_PER_SECOND / 2))
    new = apart | (np.diff(seconds) != 0)
    return np.concatenate([np.zeros(min(start.size, 1), dtype=np.intp), np.cumsum(new, dtype=np.intp)])


def variance_table(records: Records) -> Table:
    """One row for each variance of SSID 33."""
    timing = sample_times(records)
    packet = timing.packet
    columns = {
        "variance": cube_values(records, "variance"),
        "samples_per_variance": records["samples_per_variance"][packet],
        "detector_mask": records["detector_mask"][packet],
        "pixel_mask": records["pixel_mask"][packet],
        "channel_mask": _reversed_bits(records["energy_mask"])[packet],
        "variance_skm": records.skm("variance")[packet],
    }
    return Table(timing.start, timing.seconds, columns)


def _reversed_bits(mask: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Turn masks whose highest bit is channel 0 into masks whose lowest bit is."""
    bits = np.unpackbits(mask.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)
    return np.packbits(bits, axis=1, bitorder="little").view("<u4").reshape(-1).astype(np.uint32)


def flareflag_table(records: Records) -> Table:
    """One row for each sample of SSID 34."""
    timing = sample_times(records)
    going_on = np.full(timing.packet.size, _NOT_TOLD, dtype=np.uint8)
    if "flare_in_progress" in records:
        told = records.packets_with("flare_in_progress")[timing.packet]
        going_on[told] = records["flare_in_progress"][told]
    columns = {
        "loc_y": records["location_y"],
        "loc_z": records["location_z"],
        **{name: records[name] for name in ("location_status", "thermal_index", "non_thermal_index")},
        "flare_in_progress": going_on,
    }
    return Table(timing.start, timing.seconds, columns)
