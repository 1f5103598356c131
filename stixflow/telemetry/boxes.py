"""Time bins and energy bins of one request, laid out in boxes.

One request may hold several *boxes*, time range by energy range with a binning of their own. Bins are grouped by
start, duration and energies, never by their place in the stream.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry.bin_times import (
    TICKS_PER_TENTH,
    bin_starts,
    binning_codes,
    spectrogram_durations,
)
from stixflow.telemetry.records import Records


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """A block of time bins that all have the same energy bins.

    A *row* is what carries the counts: a row of ``num_energy_groups`` for pixel data, their sums and visibilities
    (SSID 21-23), one of ``num_substructures`` for raw pixel data (20), one of ``num_samples`` for spectrograms (24).
    """

    start: NDArray[np.int64]
    """Start of each time bin, onboard time, rising."""
    duration: NDArray[np.int64]
    """Length of each time bin in units of 0.1 s."""
    channels: NDArray[np.uint8]
    """First channel and channel after the last one of each energy bin, shape (energies, 2), rising."""
    row: NDArray[np.intp]
    """Rows that lie in the box."""
    time: NDArray[np.intp]
    """Time bin of each row."""
    energy: NDArray[np.intp]
    """Energy bin of each row; zero for raw pixel data and spectrograms, whose rows hold all energies."""
    repeated: NDArray[np.bool_]
    """Rows that fill a place which an earlier row has already filled; of raw pixel data they may continue it."""
    header: NDArray[np.intp]
    """Row that describes each time bin (the first received), of ``num_substructures`` or ``num_samples``."""


@dataclass(frozen=True, slots=True, eq=False)
class _Bins:
    """Rows before they are put into boxes, and the headers that say when they were."""

    start: NDArray[np.int64]
    """By header: a substructure of pixel data, a sample of a spectrogram."""
    duration: NDArray[np.int64]
    header: NDArray[np.intp]
    """By row: its header."""
    energies: NDArray[np.int64]
    """By row: what it holds, one energy bin (pixels) or a whole binning (spectrograms); codes."""
    channels: dict[int, list[tuple[int, int]]]
    """The energy bins of each code."""
    whole: bool
    """Whether every row holds a whole binning."""


def _pixel_bins(records: Records, start_offset: float) -> _Bins:
    low, high = records["e_low"].astype(np.int64), records["e_high"].astype(np.int64)
    code = low << 5 | high
    channels = {int(one): [(int(one) >> 5, (int(one) & 31) + 1)] for one in np.unique(code)}
    start = bin_starts(records, start_offset=start_offset)
    duration = records["integration_time"].astype(np.int64)
    return _Bins(start, duration, records.parents("num_energy_groups"), code, channels, whole=False)


def _raw_bins(records: Records, start_offset: float) -> _Bins:
    """Raw pixel data names no energies: a request has every channel from its lowest to its highest count."""
    energy = records["energy_id"]
    low, high = (int(energy.min()), int(energy.max())) if energy.size else (0, 31)
    start = bin_starts(records, start_offset=start_offset)
    duration = records["integration_time"].astype(np.int64)
    code = np.zeros(start.size, dtype=np.int64)
    return _Bins(start, duration, np.arange(start.size), code, {0: _stepped(low, high, 1)}, whole=True)


def _spectrogram_bins(records: Records, start_offset: float) -> _Bins:
    code = binning_codes(records)[records.parents("num_samples")]
    channels = {int(one): _stepped(int(one) >> 10, int(one) >> 5 & 31, (int(one) & 31) + 1) for one in np.unique(code)}
    start = bin_starts(records, start_offset=start_offset)
    return _Bins(start, spectrogram_durations(records), np.arange(start.size), code, channels, whole=True)


_BINS = {20: _raw_bins, 21: _pixel_bins, 22: _pixel_bins, 23: _pixel_bins, 24: _spectrogram_bins}


def _stepped(low: int, high: int, unit: int) -> list[tuple[int, int]]:
    return [(first, min(first + unit, high + 1)) for first in range(low, high + 1, unit)]


def lay_out(records: Records, start_offset: float, *, merge_subsets: bool) -> list[Box]:
    """Lay out the bins of one request in boxes, in order of time and energy.

    Parameters
    ----------
    records
        Packets of one request, in order.
    start_offset
        Seconds added to 24-bit start times.
    merge_subsets
        Whether packets are missing: bins that hold only part of their energies then join those that hold all.
    """
    bins = _BINS[records.type[2]](records, start_offset)
    if not bins.header.size:
        return []
    stamp = np.stack([bins.start, bins.duration], axis=1)
    times, first_header, time_of_header = np.unique(stamp, axis=0, return_index=True, return_inverse=True)
    time_of_row = time_of_header.reshape(-1)[bins.header]
    codes, code_of_row = np.unique(bins.energies, return_inverse=True)
    held = np.zeros((len(times), codes.size), dtype=np.bool_)
    held[time_of_row, code_of_row] = True
    found = []
    channels = [bins.channels[int(code)] for code in codes]
    for layer, members in _layers(held, channels, apart=bins.whole, merge_subsets=merge_subsets):
        for track in _tracks(times, members):
            found.append(_box(bins, times, first_header, track, codes, time_of_row, code_of_row, layer))
    return sorted(found, key=lambda box: (int(box.start[0]), int(box.channels[0, 0]), int(box.duration[0])))


def _layers(
    held: NDArray[np.bool_], channels: Sequence[Sequence[tuple[int, int]]], *, apart: bool, merge_subsets: bool
) -> list[tuple[list[int], NDArray[np.intp]]]:
    """Sets of codes that share a box, and the times of each; times that hold nothing go with the largest set.

    `apart`: every code is a box of its own.
    """
    patterns, pattern_of_time = np.unique(held, axis=0, return_inverse=True)
    pattern_of_time = pattern_of_time.reshape(-1)
    members: dict[tuple[int, ...], list[int]] = {}
    for number, pattern in enumerate(patterns):
        codes = np.flatnonzero(pattern).tolist()
        for layer in [(code,) for code in codes] if apart else _split_overlaps(codes, channels):
            members.setdefault(layer, []).append(number)
    if merge_subsets:
        members = _merge_subsets(members)
    members[max(members, key=len)] += np.flatnonzero(~patterns.any(axis=1)).tolist()
    return [(list(layer), np.flatnonzero(np.isin(pattern_of_time, numbers))) for layer, numbers in members.items()]


def _split_overlaps(codes: Sequence[int], channels: Sequence[Sequence[tuple[int, int]]]) -> list[tuple[int, ...]]:
    """Split codes into sets whose energy bins do not overlap; narrow bins first, so that each set is one binning."""
    if not codes or not _overlapping(codes, channels):
        return [tuple(codes)] if codes else []
    layers: list[list[int]] = []
    for code in sorted(codes, key=lambda code: (channels[code][0][1] - channels[code][0][0], channels[code][0])):
        home = next((layer for layer in layers if not _overlapping([*layer, code], channels)), None)
        if home is None:
            layers.append([code])
        else:
            home.append(code)
    return [tuple(sorted(layer)) for layer in layers]


def _overlapping(codes: Sequence[int], channels: Sequence[Sequence[tuple[int, int]]]) -> bool:
    spans = sorted((channels[code][0][0], channels[code][-1][1]) for code in codes)
    return any(after[0] < before[1] for before, after in itertools.pairwise(spans))


def _merge_subsets(members: dict[tuple[int, ...], list[int]]) -> dict[tuple[int, ...], list[int]]:
    """Where packets are missing, bins at the cut hold only part of their energies: add them to the full set."""
    merged: dict[tuple[int, ...], list[int]] = {}
    for layer in sorted(members, key=len, reverse=True):
        home = next((full for full in merged if set(layer) < set(full)), layer)
        merged.setdefault(home, []).extend(members[layer])
    return merged


def _tracks(times: NDArray[np.int64], members: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Split time bins, sorted by start, into sequences whose bins do not overlap by more than half."""
    start = times[members, 0]
    centre = start + np.rint(times[members, 1] * (TICKS_PER_TENTH / 2)).astype(np.int64)
    if (start[1:] >= centre[:-1]).all():
        return [members]
    tracks: list[list[int]] = []
    ends: list[tuple[int, int]] = []
    for member, begin, middle, tenths in zip(
        members.tolist(), start.tolist(), centre.tolist(), times[members, 1].tolist(), strict=True
    ):
        free = [number for number, (end, _) in enumerate(ends) if begin >= end]
        same = [number for number in free if ends[number][1] == tenths]
        if free:
            chosen = (same or free)[0]
            tracks[chosen].append(member)
            ends[chosen] = middle, tenths
        else:
            tracks.append([member])
            ends.append((middle, tenths))
    return [np.array(track) for track in tracks]


def _box(
    bins: _Bins,
    times: NDArray[np.int64],
    first_header: NDArray[np.intp],
    track: NDArray[np.intp],
    codes: NDArray[np.int64],
    time_of_row: NDArray[np.intp],
    code_of_row: NDArray[np.intp],
    layer: list[int],
) -> Box:
    place = np.full(len(times), -1)
    place[track] = np.arange(track.size)
    energies = [bins.channels[int(code)] for code in codes[layer]]
    rank = np.zeros(codes.size, dtype=np.intp)
    rank[layer] = np.argsort(np.argsort([span[0][0] for span in energies]))
    row = np.flatnonzero((place[time_of_row] >= 0) & np.isin(code_of_row, layer))
    time, energy = place[time_of_row[row]], rank[code_of_row[row]]
    first = np.unique(time * (len(layer) + 1) + energy, return_index=True)[1]
    repeated = np.ones(row.size, dtype=np.bool_)
    repeated[first] = False
    channels = np.array(sorted(span for group in energies for span in group), dtype=np.uint8)
    return Box(times[track, 0], times[track, 1], channels, row, time, energy, repeated, first_header[track])
