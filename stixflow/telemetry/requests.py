"""From records to time bins: when each bin was, and which packets, bins and energies belong to one request.

A packet holds whole *substructures*, but a time bin may be cut between energies: the next packet then repeats the
header of the bin and goes on. One request may hold several *boxes*, time range by energy range with a binning of their
own. So bins are grouped by start, duration and energies, never by their place in the stream.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.telemetry.ccsds import ALONE, FIRST, LAST, SEQUENCE_MODULO
from stixflow.telemetry.contradictions import find_contradictions
from stixflow.telemetry.encode import encode
from stixflow.telemetry.layouts import layouts
from stixflow.telemetry.packets import Quarantined
from stixflow.telemetry.records import Records
from stixflow.telemetry.runs import starts_of

START_OFFSET_S = 0.1
"""Added to the 24-bit start times of bulk science, as the instrument team does; the data centre does not."""

_TICKS = 6553.6
"""Onboard ticks in 0.1 s."""

_SYNC_LOST = 1 << 47


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
class Request:
    """The packets of one request, in order, and how its bins lie."""

    request_id: int
    seq_control: int
    ssid: int
    records: Records
    complete: bool
    missing: tuple[str, ...]
    """What is missing, in words; empty if `complete`."""
    boxes: tuple[Box, ...]


def regroup(records: Records, *, start_offset: float = START_OFFSET_S) -> list[Request]:
    """Collect the packets of each request, whatever order they came in, and lay out its bins.

    Parameters
    ----------
    records
        Decoded packets of one SSID from 20 to 24; `consistent` ones.
    start_offset
        Seconds added to 24-bit start times (IDB 2.26.35 and later).

    Returns
    -------
    Requests in the order of their first packet's time.
    """
    key = _request_keys(records)
    order = np.lexsort((_unwrapped(records), records.scet, key))
    edges = np.flatnonzero(np.diff(key[order])) + 1
    groups = [rows for rows in np.split(order, edges) if rows.size]
    groups.sort(key=lambda rows: int(records.scet[rows[0]]))
    return [_request(records.select(rows), start_offset) for rows in groups]


def _request_keys(records: Records) -> NDArray[np.int64]:
    return records["tc_packet_seq_control"].astype(np.int64) << 32 | records["request_id"].astype(np.int64)


def _unwrapped(records: Records) -> NDArray[np.int64]:
    """Sequence counts that do not wrap within a request."""
    count = records.sequence_count
    key = _request_keys(records)
    order = np.lexsort((records.scet, key))
    first = np.unique(key[order], return_index=True)[1]
    position = np.searchsorted(key[order][first], key)
    return _near(count, count[order[first]][position])


def _near(count: NDArray[np.int64], reference: NDArray[np.int64]) -> NDArray[np.int64]:
    half = SEQUENCE_MODULO // 2
    return (count - reference + half) % SEQUENCE_MODULO - half


def _request(records: Records, start_offset: float) -> Request:
    missing = _missing(records)
    ssid = records.type[2]
    bins = _BINS[ssid](records, start_offset)
    return Request(
        int(records["request_id"][0]),
        int(records["tc_packet_seq_control"][0]),
        ssid,
        records,
        not missing,
        missing,
        tuple(_boxes(bins, merge_subsets=bool(missing))),
    )


def _missing(records: Records) -> tuple[str, ...]:
    """Say which packets of an ordered request are missing, from its flags and counts."""
    flag, count = records.sequence_flag, records.sequence_count
    jump = (np.diff(count) - 1) % SEQUENCE_MODULO
    found = [
        f"{gap} packet(s) between counts {before} and {after}"
        for gap, before, after in zip(jump.tolist(), count[:-1].tolist(), count[1:].tolist(), strict=True)
        if gap
    ]
    if flag[0] not in (FIRST, ALONE):
        found.insert(0, f"the packet(s) before count {count[0]}")
    if flag[-1] not in (LAST, ALONE):
        found.append(f"the packet(s) after count {count[-1]}")
    return tuple(found)


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
    code = _binning_codes(records)[records.parents("num_samples")]
    channels = {int(one): _stepped(int(one) >> 10, int(one) >> 5 & 31, (int(one) & 31) + 1) for one in np.unique(code)}
    start = bin_starts(records, start_offset=start_offset)
    return _Bins(start, spectrogram_durations(records), np.arange(start.size), code, channels, whole=True)


_BINS = {20: _raw_bins, 21: _pixel_bins, 22: _pixel_bins, 23: _pixel_bins, 24: _spectrogram_bins}


def _stepped(low: int, high: int, unit: int) -> list[tuple[int, int]]:
    return [(first, min(first + unit, high + 1)) for first in range(low, high + 1, unit)]


def bin_starts(records: Records, *, start_offset: float = START_OFFSET_S) -> NDArray[np.int64]:
    """Start of every time bin as onboard time.

    One entry per row of ``num_substructures`` (SSID 20-23), ``num_samples`` (SSID 24) or ``num_triggers`` (SSID 30).
    """
    if records.type == (21, 6, 30):
        return _sample_starts(records)
    if records.type[:2] != (21, 6) or records.type[2] not in _BINS:
        raise UsageError(f"records of {records.product}", expected="SSID 20 to 24 or 30")
    level = "num_samples" if records.type[2] == 24 else "num_substructures"
    base = (records["time_stamp"].astype(np.int64) & ~_SYNC_LOST)[records.ancestors(level)]
    tenths = np.zeros(base.size)
    if "delta_time" in records:
        tenths += records["delta_time"]
    if "start_time" in records:
        shifted = _has_start_time(records)[records.ancestors(level)]
        tenths += records["start_time"] + np.where(shifted, 10.0 * start_offset, 0.0)
    return np.asarray(base + np.rint(tenths * _TICKS).astype(np.int64))


def _has_start_time(records: Records) -> NDArray[np.bool_]:
    """Tell which packets have the 24-bit start time."""
    present = np.unique(records.layout)
    fields = [{one.name for _, scope in layouts()[index].levels.values() for one in scope.fields} for index in present]
    return np.isin(
        records.layout, [index for index, names in zip(present, fields, strict=True) if "start_time" in names]
    )


def _sample_starts(records: Records) -> NDArray[np.int64]:
    start = data_start(records)
    count = records.lengths("num_triggers")
    step = (records["integration_time"].astype(np.int64) + 1) * _TICKS
    number = np.arange(int(count.sum())) - np.repeat(starts_of(count), count)
    return np.repeat(start, count) + np.rint(number * np.repeat(step, count)).astype(np.int64)


def data_start(records: Records) -> NDArray[np.int64]:
    """Start of the data of each light-curve packet as onboard time."""
    coarse = records["scet_coarse"].astype(np.int64) & 0x7FFFFFFF
    return np.asarray(coarse << 16 | records["scet_fine"].astype(np.int64))


def spectrogram_durations(records: Records) -> NDArray[np.int64]:
    """Duration of every spectrogram sample in 0.1 s: to the next start, or by the closing offset of the substructure.

    The records must be one request in order. Where the closing offset is zero (seen in real packets) the next
    substructure of the same energies tells the length if it follows directly, else the sample before does.
    """
    tenths, last = _sample_tenths(records)
    duration = np.append(np.diff(tenths), 0)
    duration[last] = records["closing_time_offset"][records.lengths("num_samples") > 0]
    open_ended = last[duration[last] == 0]
    if open_ended.size:
        sub = records.parents("num_samples")
        energies = _binning_codes(records)
        after = np.minimum(open_ended + 1, tenths.size - 1)
        follows = (energies[sub[after]] == energies[sub[open_ended]]) & (tenths[after] > tenths[open_ended])
        before = np.where((open_ended > 0) & (sub[open_ended - 1] == sub[open_ended]), duration[open_ended - 1], 1)
        duration[open_ended] = np.where(follows, tenths[after] - tenths[open_ended], before)
    return duration


def estimated_durations(records: Records) -> int:
    """Count the samples whose packet does not say how long they lasted."""
    return int(((records["closing_time_offset"] == 0) & (records.lengths("num_samples") > 0)).sum())


def _sample_tenths(records: Records) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start of each sample in 0.1 s, and which samples are the last of their substructure."""
    tenths = np.zeros(records.levels["num_samples"].size, dtype=np.int64)
    for name in ("delta_time", "start_time"):
        if name in records:
            tenths += records[name]
    count = records.lengths("num_samples")
    return tenths, (np.cumsum(count) - 1)[count > 0]


def _binning_codes(records: Records) -> NDArray[np.int64]:
    parts = [records[name].astype(np.int64) for name in ("e_low", "e_high", "e_unit_minus_1")]
    return np.asarray(parts[0] << 10 | parts[1] << 5 | parts[2])


def _boxes(bins: _Bins, *, merge_subsets: bool) -> list[Box]:
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
    centre = start + np.rint(times[members, 1] * (_TICKS / 2)).astype(np.int64)
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


def consistent(records: Records) -> tuple[Records, list[Quarantined]]:
    """Take out the packets whose content contradicts itself, so that nothing could be placed from them.

    Structure is the decoder's matter; here masks, counts and times must agree with each other.
    """
    bad: dict[int, str] = {}
    for reason, rows in _contradictions(records):
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


def _contradictions(records: Records) -> list[tuple[str, NDArray[np.intp]]]:
    own = {(21, 6, 21): _pixel_problems, (21, 6, 24): _spectrogram_problems, (21, 6, 30): _light_curve_problems}
    check = own.get(records.type)
    return check(records) if check else list(find_contradictions(records))


def _pixel_problems(records: Records) -> list[tuple[str, NDArray[np.intp]]]:
    sub_packet = records.parents("num_substructures")
    group_sub = records.parents("num_energy_groups")
    set_sub = records.parents("num_pixel_sets")
    mask = records["pixel_mask"]
    detectors = np.bitwise_count(records["detector_mask"]).astype(np.int64)
    expected = (detectors * records["num_pixel_sets"])[group_sub]
    descending = np.flatnonzero((mask[1:] <= mask[:-1]) & (set_sub[1:] == set_sub[:-1])) + 1
    not_single = np.concatenate([np.flatnonzero(np.bitwise_count(mask) != 1), descending])
    return [
        *_clock_problem(records["time_stamp"].astype(np.int64) >= _SYNC_LOST),
        ("number of counts is not detectors times pixels", sub_packet[group_sub[records["num_data"] != expected]]),
        ("upper energy channel below the lower one", sub_packet[group_sub[records["e_high"] < records["e_low"]]]),
        ("pixel sets are not single pixels in rising order", sub_packet[set_sub[not_single]]),
        ("integration time is zero", sub_packet[records["integration_time"] == 0]),
    ]


def _spectrogram_problems(records: Records) -> list[tuple[str, NDArray[np.intp]]]:
    sub_packet = records.parents("num_substructures")
    sample_sub = records.parents("num_samples")
    span = records["e_high"].astype(np.int64) - records["e_low"] + 1
    unit = records["e_unit_minus_1"].astype(np.int64) + 1
    expected = (-(-span // unit))[sample_sub]
    return [
        *_clock_problem(records["time_stamp"].astype(np.int64) >= _SYNC_LOST),
        ("upper energy channel below the lower one", sub_packet[span < 1]),
        ("number of energies does not match the channels", sub_packet[sample_sub[records["num_energies"] != expected]]),
        ("times do not rise", sub_packet[sample_sub[_not_rising(records)]]),
    ]


def _not_rising(records: Records) -> NDArray[np.intp]:
    tenths, last = _sample_tenths(records)
    falls = np.append(np.diff(tenths), 1) <= 0
    falls[last] = False
    return np.flatnonzero(falls)


def _light_curve_problems(records: Records) -> list[tuple[str, NDArray[np.intp]]]:
    edges = np.bitwise_count(records["energy_edge_mask_0_31"]).astype(np.int64) + records["energy_edge_mask_32"]
    wrong_edges = records["num_energies"] != np.maximum(edges - 1, 0)
    samples = records["num_triggers"]
    packet = records.parents("num_energies")
    unequal = packet[records["num_samples"] != samples[packet]]
    return [
        *_clock_problem(records["scet_coarse"].astype(np.int64) >= 1 << 31),
        ("number of energies does not match the energy edges", np.flatnonzero(wrong_edges)),
        ("numbers of samples differ", np.concatenate([unequal, np.flatnonzero(records["num_rcr"] != samples)])),
    ]


def _clock_problem(lost: NDArray[np.bool_]) -> list[tuple[str, NDArray[np.intp]]]:
    return [("the onboard clock was not synchronised, so the data have no date", np.flatnonzero(lost))]


__all__ = ["Box", "Request", "bin_starts", "consistent", "estimated_durations", "regroup", "spectrogram_durations"]
