"""When each time bin of a packet was, on the onboard clock, and how long it lasted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.telemetry.ccsds import SYNC_LOST
from stixflow.telemetry.records import Records
from stixflow.time import TICKS_PER_SECOND

START_OFFSET_S = 0.1
"""Added to the 24-bit start times of bulk science, as the instrument team does; the data centre does not."""
TICKS_PER_TENTH = TICKS_PER_SECOND / 10
"""Onboard ticks in 0.1 s."""

_BULK_SCIENCE = range(20, 25)
"""SSIDs."""


def bin_starts(records: Records, *, start_offset: float = START_OFFSET_S) -> NDArray[np.int64]:
    """Start of every time bin of bulk science as onboard time.

    One entry per row of ``num_substructures`` (SSID 20-23) or ``num_samples`` (SSID 24).

    Raises
    ------
    UsageError
        If the records are no bulk science.
    """
    if records.type[:2] != (21, 6) or records.type[2] not in _BULK_SCIENCE:
        raise UsageError(f"records of {records.product}", expected="SSID 20 to 24")
    level = "num_samples" if records.type[2] == 24 else "num_substructures"
    base = (records["time_stamp"].astype(np.int64) & ~SYNC_LOST)[records.ancestors(level)]
    tenths = np.zeros(base.size)
    if "delta_time" in records:
        tenths += records["delta_time"]
    if "start_time" in records:
        shifted = records.packets_with("start_time")[records.ancestors(level)]
        tenths += records["start_time"] + np.where(shifted, 10.0 * start_offset, 0.0)
    return np.asarray(base + np.rint(tenths * TICKS_PER_TENTH).astype(np.int64))


def spectrogram_durations(records: Records) -> NDArray[np.int64]:
    """Duration of every spectrogram sample in 0.1 s: to the next start, or by the closing offset of the substructure.

    The records must be one request in order. Where the closing offset is zero (seen in real packets) the next
    substructure of the same energies tells the length if it follows directly, else the sample before does.
    """
    tenths, last = sample_tenths(records)
    duration = np.append(np.diff(tenths), 0)
    duration[last] = records["closing_time_offset"][records.lengths("num_samples") > 0]
    open_ended = last[duration[last] == 0]
    if open_ended.size:
        sub = records.parents("num_samples")
        energies = binning_codes(records)
        after = np.minimum(open_ended + 1, tenths.size - 1)
        follows = (energies[sub[after]] == energies[sub[open_ended]]) & (tenths[after] > tenths[open_ended])
        before = np.where((open_ended > 0) & (sub[open_ended - 1] == sub[open_ended]), duration[open_ended - 1], 1)
        duration[open_ended] = np.where(follows, tenths[after] - tenths[open_ended], before)
    return duration


def estimated_durations(records: Records) -> int:
    """Count the samples whose packet does not say how long they lasted."""
    return int(((records["closing_time_offset"] == 0) & (records.lengths("num_samples") > 0)).sum())


def sample_tenths(records: Records) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start of each sample in 0.1 s, and which samples are the last of their substructure."""
    tenths = np.zeros(records.levels["num_samples"].size, dtype=np.int64)
    for name in ("delta_time", "start_time"):
        if name in records:
            tenths += records[name]
    count = records.lengths("num_samples")
    return tenths, (np.cumsum(count) - 1)[count > 0]


def binning_codes(records: Records) -> NDArray[np.int64]:
    """Energy binning of each substructure of a spectrogram as one number: lowest and highest channel, width less 1."""
    parts = [records[name].astype(np.int64) for name in ("e_low", "e_high", "e_unit_minus_1")]
    return np.asarray(parts[0] << 10 | parts[1] << 5 | parts[2])
