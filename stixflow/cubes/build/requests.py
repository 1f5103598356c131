"""The cubes of science requests: packets regrouped, one Dataset for each box."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from stixflow.cubes.assemble import assemble
from stixflow.cubes.build.books import Books
from stixflow.cubes.build.pixels import build_pixel_box, build_pixel_sum_box, build_raw_box, count_raw
from stixflow.cubes.build.spectrograms import build_spectrogram_box
from stixflow.cubes.build.values import BoxCube, bin_times, clock_attributes, energy_bins
from stixflow.cubes.build.visibilities import build_visibility_box
from stixflow.cubes.corrections import MISSING_DETECTORS, correct
from stixflow.telemetry import Box, Packets, Quarantined, Records, Request, consistent, decode, regroup
from stixflow.telemetry.bin_times import START_OFFSET_S, estimated_durations
from stixflow.time import ANCHOR_CLOCK, Clock


@dataclass(frozen=True, slots=True, eq=False)
class RequestCubes:
    """The cubes of one science request: one Dataset for each box."""

    request_id: int
    seq_control: int
    ssid: int
    complete: bool
    missing: tuple[str, ...]
    datasets: tuple[xr.Dataset, ...]
    books: Books
    refused: tuple[Quarantined, ...] = ()
    """Packets of the request that contradict themselves."""


def build_requests(
    records: Records,
    *,
    edges: ArrayLike | None = None,
    start_offset: float = START_OFFSET_S,
    corrections: Sequence[str] = (MISSING_DETECTORS,),
    clock: Clock = ANCHOR_CLOCK,
) -> list[RequestCubes]:
    """Build the cubes of every request in the records.

    Parameters
    ----------
    records
        Decoded packets of one SSID from 20 to 24, any order.
    edges
        (33,) edges of the science channels in keV; None: the nominal ones of the date.
    start_offset
        Seconds added to 24-bit start times; see `stixflow.telemetry.bin_times`.
    corrections
        Level-1 corrections to make where they apply, by name; see `stixflow.cubes.corrections`.
    clock
        How onboard time becomes UTC; recorded in the attributes ``clock`` and ``clock_uncertainty_s``.

    Returns
    -------
    One `RequestCubes` per request, in time order; a request whose packets all contradict themselves has no Dataset.
    """
    usable, refused = consistent(records)
    requests = regroup(usable, start_offset=start_offset)
    cubes = [_request_cubes(request, edges, corrections, clock) for request in requests]
    return cubes if not refused else _with_refused(cubes, records, refused)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the requests of one SSID are made."""

    product: str
    box: Callable[[Request, Box], BoxCube]
    amount: Callable[[Records], int]
    """What the books count: counts, for visibilities the flux."""
    main: str = "counts"


def _request_cubes(request: Request, edges: ArrayLike | None, corrections: Sequence[str], clock: Clock) -> RequestCubes:
    kind = _KINDS[request.ssid]
    made = [kind.box(request, box) for box in request.boxes]
    datasets = []
    for number, (box, cube) in enumerate(zip(request.boxes, made, strict=True)):
        energies = energy_bins(box.channels, edges, box.start, clock)
        axes = {**bin_times(box.start, box.duration, clock), **energies, "scet": box.start}
        attributes = _request_attributes(request, number) | clock_attributes(clock, box.start)
        datasets.append(assemble(kind.product, {**cube.variables, **axes}, attrs=attributes))
    placed = _total(datasets, kind.main)
    datasets = [correct(dataset, corrections, to_utc=clock.utc) for dataset in datasets]
    kept = _total(datasets, kind.main)
    books = Books(
        kind.amount(request.records),
        kept,
        sum(cube.repeated_counts for cube in made),
        corrected_counts=placed - kept,
        repeated_bins=sum(cube.repeated_bins for cube in made),
        conflicting_bins=sum(cube.conflicting_bins for cube in made),
    )
    return RequestCubes(
        request.request_id,
        request.seq_control,
        request.ssid,
        request.complete,
        request.missing,
        tuple(datasets),
        books,
    )


def _total(datasets: Sequence[xr.Dataset], name: str) -> int:
    return sum(int(dataset[name].values.sum(dtype=np.uint64)) for dataset in datasets)


def _request_attributes(request: Request, box: int) -> dict[str, Any]:
    estimated = estimated_durations(request.records) if request.ssid == 24 else 0
    return {
        **({"estimated_durations": estimated} if estimated else {}),
        "request_id": request.request_id,
        "seq_control": request.seq_control,
        "ssid": request.ssid,
        "box": box,
        "boxes": len(request.boxes),
        "complete": request.complete,
        "missing": list(request.missing),
    }


def _with_refused(cubes: list[RequestCubes], records: Records, refused: list[Quarantined]) -> list[RequestCubes]:
    """Add to each request the packets of it that could not be placed."""
    bad = decode(Packets.from_bytes(b"".join(entry.data for entry in refused)), products=[records.product])
    lost = bad[records.product]
    keys = np.stack([lost["request_id"].astype(np.int64), lost["tc_packet_seq_control"].astype(np.int64)], axis=1)
    found = {(one.request_id, one.seq_control): one for one in cubes}
    for request_id, seq_control in np.unique(keys, axis=0).tolist():
        rows = np.flatnonzero((keys == (request_id, seq_control)).all(axis=1))
        entries = tuple(refused[row] for row in rows.tolist())
        counts = _KINDS[records.type[2]].amount(lost.select(rows))
        missing = tuple(f"a packet that contradicts itself: {entry.reason}" for entry in entries)
        old = found.get((request_id, seq_control))
        empty = RequestCubes(request_id, seq_control, records.type[2], False, (), (), Books(0, 0))
        one = old or empty
        books = replace(
            one.books,
            counts_in=one.books.counts_in + counts,
            unplaced_counts=counts,
            unplaced_packets=len(entries),
        )
        found[request_id, seq_control] = replace(
            one,
            complete=False,
            missing=(*one.missing, *missing),
            datasets=tuple(_incomplete(dataset, (*one.missing, *missing)) for dataset in one.datasets),
            books=books,
            refused=entries,
        )
    return list(found.values())


def _incomplete(dataset: xr.Dataset, missing: tuple[str, ...]) -> xr.Dataset:
    return dataset.assign_attrs(complete=False, missing=list(missing))


def _sum_of(name: str) -> Callable[[Records], int]:
    return lambda records: int(records.values(name).sum(dtype=np.uint64))


_KINDS = {
    20: _Kind("sci_pixels", build_raw_box, count_raw),
    21: _Kind("sci_pixels", build_pixel_box, _sum_of("counts")),
    22: _Kind("sci_pixel_sums", build_pixel_sum_box, _sum_of("counts")),
    23: _Kind("sci_visibilities", build_visibility_box, _sum_of("flux"), "flux"),
    24: _Kind("sci_spectrogram", build_spectrogram_box, _sum_of("counts")),
}
