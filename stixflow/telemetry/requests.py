"""Which packets belong to one request, what of it is missing, and its bins.

A packet holds whole *substructures*, but a time bin may be cut between energies: the next packet then repeats the
header of the bin and goes on. `stixflow.telemetry.boxes` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry.bin_times import START_OFFSET_S
from stixflow.telemetry.boxes import Box, lay_out
from stixflow.telemetry.ccsds import ALONE, FIRST, LAST, SEQUENCE_MODULO
from stixflow.telemetry.records import Records


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
    return Request(
        int(records["request_id"][0]),
        int(records["tc_packet_seq_control"][0]),
        records.type[2],
        records,
        not missing,
        missing,
        tuple(lay_out(records, start_offset, merge_subsets=bool(missing))),
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
