"""From telemetry records to the Datasets of the data model.

The books balance here too: every count of the records is either in a cube, or a repetition of one that is, or belongs
to a packet that could not be placed; `Books` says how many of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from stixflow.cubes.model import DATA_MODEL_VERSION, N_DETECTORS, N_PIXELS, PRODUCTS
from stixflow.errors import BalanceError, UsageError
from stixflow.instrument import energy_edges
from stixflow.telemetry import Packets, Quarantined, Records, consistent, decode
from stixflow.telemetry.ccsds import gather_rows
from stixflow.telemetry.compression import DEFAULT_SCALE, SCALED, dtype_of, pack_skm, unpack_skm, unscale_triggers
from stixflow.telemetry.requests import START_OFFSET_S, Box, Request, bin_starts, estimated_durations, regroup
from stixflow.time import scet_to_utc

TRIGGER_DETECTORS = (
    (0, 1),
    (5, 6),
    (4, 10),
    (11, 12),
    (13, 14),
    (9, 15),
    (7, 8),
    (2, 3),
    (30, 31),
    (25, 26),
    (21, 27),
    (19, 20),
    (17, 18),
    (16, 22),
    (23, 24),
    (28, 29),
)
"""The two detector indices whose triggers each accumulator counts."""

_TICKS_PER_TENTH = 6553.6
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Books:
    """Where the counts of the records went.

    Raises
    ------
    BalanceError
        If a count is neither in a cube, nor repeated, nor unplaced.
    """

    counts_in: int
    """Sum of the decompressed counts of all records given."""
    counts: int
    """Sum of the counts in the cubes."""
    repeated_counts: int = 0
    """Sum of the counts of bins that were received twice, without the first time."""
    unplaced_counts: int = 0
    """Sum of the counts of packets that contradict themselves."""
    repeated_bins: int = 0
    conflicting_bins: int = 0
    """Repeated bins whose counts differ from those received first."""
    unplaced_packets: int = 0

    def __post_init__(self) -> None:
        if self.counts_in != self.counts + self.repeated_counts + self.unplaced_counts:
            raise BalanceError(
                f"{self.counts_in} counts in the records, {self.counts} in the cubes, {self.repeated_counts} repeated, "
                f"{self.unplaced_counts} unplaced",
                expected="the parts to add up to the whole",
                advice="report this with the packets: counts were lost or counted twice",
            )


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


def build_lightcurve(records: Records, *, edges: ArrayLike | None = None) -> xr.Dataset:
    """Build the light curve of all samples in the records, sorted by time, each once.

    Parameters
    ----------
    records
        Decoded packets of SSID 30, any order.
    edges
        (33,) edges of the science channels in keV; None: the nominal ones of the date.

    Returns
    -------
    Dataset of product ``ql_lightcurve``; its attribute ``books`` is `Books` as a dictionary. Packets that contradict
    themselves, or whose energy bins are not those of most packets, are left out and counted there as unplaced.

    Raises
    ------
    UsageError
        If no packet can be placed.
    """
    total = int(records.values("counts").sum(dtype=np.uint64))
    usable = _same_edges(consistent(records)[0])
    if not usable.levels["num_triggers"].size:
        raise UsageError("no light-curve sample that can be placed", expected="at least one packet of SSID 30")
    placed = int(usable.values("counts").sum(dtype=np.uint64))
    columns = _light_curve_columns(usable)
    order = np.lexsort((columns["timedel_tenths"], columns["scet"]))
    kept, conflicts = _drop_repeated(columns, order)
    used = {name: column[kept] for name, column in columns.items()}
    counts = int(used["counts"].sum(dtype=np.uint64))
    books = Books(
        total,
        counts,
        repeated_counts=placed - counts,
        unplaced_counts=total - placed,
        repeated_bins=order.size - kept.size,
        conflicting_bins=conflicts,
        unplaced_packets=len(records) - len(usable),
    )
    tenths = used.pop("timedel_tenths")
    variables = {**used, **_times(used["scet"], tenths), **_energies(_mask_channels(usable), edges, used["scet"])}
    return _dataset("ql_lightcurve", variables, {"books": asdict(books)})


def _same_edges(records: Records) -> Records:
    """Keep the packets with the energy edges that most packets have."""
    mask = _edge_masks(records)
    values, members = np.unique(mask, return_counts=True)
    if values.size <= 1:
        return records
    return records.select(np.flatnonzero(mask == values[np.argmax(members)]))


def _edge_masks(records: Records) -> NDArray[np.int64]:
    top = records["energy_edge_mask_32"].astype(np.int64) << 32
    return np.asarray(top | records["energy_edge_mask_0_31"].astype(np.int64))


def _mask_channels(records: Records) -> NDArray[np.uint8]:
    edges = np.flatnonzero(int(_edge_masks(records)[0]) >> np.arange(33) & 1)
    return np.stack([edges[:-1], edges[1:]], axis=1).astype(np.uint8)


def _light_curve_columns(records: Records) -> dict[str, NDArray[Any]]:
    """One entry per sample, in the order of the packets."""
    samples = records.lengths("num_triggers")
    packet = np.repeat(np.arange(len(records)), samples)
    tenths = records["integration_time"].astype(np.int64) + 1
    triggers_skm = records.skm("triggers")
    columns = {
        "scet": bin_starts(records),
        "timedel_tenths": tenths[packet],
        "counts": _sample_counts(records, samples),
        "triggers": _triggers(records, "triggers", packet, tenths[packet], records["detector_mask"][packet]),
        "rcr": records["rcr"],
        "detector_mask": records["detector_mask"][packet],
        "pixel_mask": records["pixel_mask"][packet],
        "counts_skm": records.skm("counts")[packet],
        "triggers_skm": triggers_skm[packet],
    }
    return columns


def _sample_counts(records: Records, samples: NDArray[np.int64]) -> NDArray[Any]:
    """Counts as (sample, energy): packets hold all samples of the first energy, then of the next."""
    energies = int(records["num_energies"][0])
    raw = _cube_values(records, "counts")
    sample = np.arange(int(samples.sum()))
    packet = np.repeat(np.arange(len(records)), samples)
    first = np.cumsum(samples) - samples
    base = first[packet] * energies + (sample - first[packet])
    return np.stack([raw[base + energy * samples[packet]] for energy in range(energies)], axis=1)


def _cube_values(records: Records, name: str) -> NDArray[Any]:
    """Decompressed values, 64 bits wide where a scheme of the records can exceed 32."""
    values = records.values(name)
    present = np.unique(records.skm(name)).tolist()
    widest = np.result_type(np.uint32, *[dtype_of(_scheme(packed)) for packed in present])
    return values.astype(np.uint64 if widest.itemsize == 8 else np.uint32, copy=False)


def _scheme(packed: int) -> tuple[int, int, int]:
    s, k, m = unpack_skm(packed)
    return int(s), int(k), int(m)


def _triggers(
    records: Records,
    name: str,
    packet: NDArray[np.intp],
    tenths: NDArray[np.int64],
    detector_mask: NDArray[np.uint32],
) -> NDArray[Any]:
    """Decompressed triggers; where they were scaled on board, the estimate of TELEMETRY 3."""
    values = _cube_values(records, name)
    scaled = (records.skm(name) == pack_skm(*SCALED))[packet]
    if not scaled.any():
        return values
    active = _active_accumulators(detector_mask[scaled])
    if values.ndim == 2:
        estimate = unscale_triggers(values[scaled], tenths[scaled, None], active, factor=DEFAULT_SCALE)[0]
    else:
        estimate = unscale_triggers(values[scaled], tenths[scaled], active.sum(axis=1), factor=DEFAULT_SCALE)[0]
    values = values.copy()
    values[scaled] = estimate.astype(values.dtype)
    return values


def _active_accumulators(detector_mask: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Tell which accumulators have at least one active detector, shape (rows, 16)."""
    pairs = np.array([1 << first | 1 << second for first, second in TRIGGER_DETECTORS], dtype=np.uint32)
    return np.asarray((detector_mask[:, None] & pairs) != 0)


def _drop_repeated(columns: Mapping[str, NDArray[Any]], order: NDArray[np.intp]) -> tuple[NDArray[np.intp], int]:
    """Samples to keep, in time order: none begins before the centre of the one before; and how many dropped differ."""
    conflicts = 0
    kept = order
    while True:
        start = columns["scet"][kept]
        centre = start + np.rint(columns["timedel_tenths"][kept] * (_TICKS_PER_TENTH / 2)).astype(np.int64)
        repeated = np.flatnonzero(start[1:] < centre[:-1]) + 1
        if repeated.size == 0:
            return kept, conflicts
        same = (columns["counts"][kept[repeated]] == columns["counts"][kept[repeated - 1]]).all(axis=1)
        conflicts += int((~same).sum())
        kept = np.delete(kept, repeated)


def build_requests(
    records: Records, *, edges: ArrayLike | None = None, start_offset: float = START_OFFSET_S
) -> list[RequestCubes]:
    """Build the cubes of every request in the records.

    Parameters
    ----------
    records
        Decoded packets of SSID 21 or SSID 24, any order.
    edges
        (33,) edges of the science channels in keV; None: the nominal ones of the date.
    start_offset
        Seconds added to 24-bit start times; see `stixflow.telemetry.requests`.

    Returns
    -------
    One `RequestCubes` per request, in time order; a request whose packets all contradict themselves has no Dataset.
    """
    usable, refused = consistent(records)
    cubes = [_request_cubes(request, edges) for request in regroup(usable, start_offset=start_offset)]
    return cubes if not refused else _with_refused(cubes, records, refused)


def _request_cubes(request: Request, edges: ArrayLike | None) -> RequestCubes:
    build = _pixel_box if request.ssid == 21 else _spectrogram_box
    product = "sci_pixels" if request.ssid == 21 else "sci_spectrogram"
    datasets, repeated, bins, conflicts = [], 0, 0, 0
    for number, box in enumerate(request.boxes):
        variables, extra, differ = build(request.records, box)
        repeated, bins, conflicts = repeated + extra, bins + int(box.repeated.sum()), conflicts + differ
        variables |= {**_times(box.start, box.duration), **_energies(box.channels, edges, box.start), "scet": box.start}
        datasets.append(_dataset(product, variables, _request_attributes(request, number)))
    total = int(request.records.values("counts").sum(dtype=np.uint64))
    placed = sum(int(dataset["counts"].values.sum(dtype=np.uint64)) for dataset in datasets)
    books = Books(total, placed, repeated, repeated_bins=bins, conflicting_bins=conflicts)
    return RequestCubes(
        request.request_id,
        request.seq_control,
        request.ssid,
        request.complete,
        request.missing,
        tuple(datasets),
        books,
    )


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
        counts = int(lost.select(rows).values("counts").sum(dtype=np.uint64))
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


def _pixel_box(records: Records, box: Box) -> tuple[dict[str, NDArray[Any]], int, int]:
    """Variables of a pixel cube, the counts of repeated rows, and how many of those differ from the first."""
    values = _cube_values(records, "counts")
    pixel_mask = _or_reduce(records["pixel_mask"], records.lengths("num_pixel_sets"))
    first, size = records.starts("num_data"), records.lengths("num_data")
    counts = np.zeros((box.start.size, len(box.channels), N_DETECTORS, N_PIXELS), dtype=values.dtype)
    observed = np.zeros(counts.shape[:2], dtype=np.bool_)
    observed[box.time, box.energy] = True
    sub = records.parents("num_energy_groups")[box.row]
    patterns = np.stack([records["detector_mask"][sub].astype(np.int64), pixel_mask[sub].astype(np.int64)], axis=1)
    flat = counts.reshape(*observed.shape, -1)
    again: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]] = []
    for (detectors, pixels), rows in _groups(patterns):
        cells = (_bits(detectors, N_DETECTORS)[:, None] * N_PIXELS + _bits(pixels, N_PIXELS)).reshape(-1)
        for piece in np.split(rows, range(_ROWS_AT_ONCE, rows.size, _ROWS_AT_ONCE)):
            new, old = piece[~box.repeated[piece]], piece[box.repeated[piece]]
            _place(flat, box.time[new], box.energy[new], cells, _rows_of(values, first, size, box.row[new]))
            again.append((old, cells, _rows_of(values, first, size, box.row[old])))
    repeated = sum(int(numbers.sum(dtype=np.uint64)) for _, _, numbers in again)
    conflicts = sum(_differing(flat, box.time[old], box.energy[old], cells, rows) for old, cells, rows in again)
    return {"counts": counts, "observed": observed, **_pixel_state(records, box, pixel_mask)}, repeated, conflicts


def _place(
    flat: NDArray[Any],
    time: NDArray[np.intp],
    energy: NDArray[np.intp],
    cells: NDArray[np.intp],
    rows: NDArray[Any],
) -> None:
    if cells.size == flat.shape[2]:
        flat[time, energy] = rows
    elif time.size:
        flat[time[:, None], energy[:, None], cells] = rows


def _differing(
    flat: NDArray[Any],
    time: NDArray[np.intp],
    energy: NDArray[np.intp],
    cells: NDArray[np.intp],
    rows: NDArray[Any],
) -> int:
    """Count the repeated rows whose counts are not those that were placed."""
    if not time.size:
        return 0
    return int((flat[time[:, None], energy[:, None], cells] != rows).any(axis=1).sum())


def _pixel_state(records: Records, box: Box, pixel_mask: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
    """Variables of each time bin, from the first substructure that has it."""
    packet = records.parents("num_substructures")
    tenths = records["integration_time"].astype(np.int64)
    chosen = box.header
    triggers = _triggers(records, "trigger", packet, tenths, records["detector_mask"])
    return {
        "detector": np.arange(N_DETECTORS, dtype=np.uint8),
        "pixel": np.arange(N_PIXELS, dtype=np.uint8),
        "triggers": triggers[chosen],
        "rcr": records["rcr"][chosen],
        "detector_mask": records["detector_mask"][chosen],
        "pixel_mask": pixel_mask[chosen],
        "counts_skm": records.skm("counts")[packet[chosen]],
        "triggers_skm": records.skm("trigger")[packet[chosen]],
    }


def _or_reduce(masks: NDArray[np.uint16], lengths: NDArray[np.int64]) -> NDArray[np.uint16]:
    out = np.zeros(lengths.size, dtype=np.uint16)
    filled = lengths > 0
    if masks.size:
        out[filled] = np.bitwise_or.reduceat(masks, (np.cumsum(lengths) - lengths)[filled])
    return out


def _groups(patterns: NDArray[np.int64]) -> list[tuple[tuple[int, int], NDArray[np.intp]]]:
    values, inverse = np.unique(patterns, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    return [((int(a), int(b)), np.flatnonzero(inverse == number)) for number, (a, b) in enumerate(values)]


def _bits(mask: int, size: int) -> NDArray[np.intp]:
    return np.flatnonzero(mask >> np.arange(size) & 1)


def _rows_of(
    values: NDArray[Any], first: NDArray[np.int64], size: NDArray[np.int64], rows: NDArray[np.intp]
) -> NDArray[Any]:
    """Counts of rows that all have the same number of them, shape (rows, numbers)."""
    width = int(size[rows[0]]) if rows.size else 0
    step = values.itemsize
    data = gather_rows(values.view(np.uint8), first[rows] * step, width * step)
    return data.view(values.dtype) if width else np.zeros((rows.size, 0), dtype=values.dtype)


def _spectrogram_box(records: Records, box: Box) -> tuple[dict[str, NDArray[Any]], int, int]:
    """Variables of a spectrogram, the counts of repeated rows, and how many of those differ from the first."""
    values = _cube_values(records, "counts")
    first, size = records.starts("num_energies"), records.lengths("num_energies")
    new, old = np.flatnonzero(~box.repeated), np.flatnonzero(box.repeated)
    counts = np.zeros((box.start.size, len(box.channels)), dtype=values.dtype)
    counts[box.time[new]] = _rows_of(values, first, size, box.row[new])
    again = _rows_of(values, first, size, box.row[old])
    conflicts = int((counts[box.time[old]] != again).any(axis=1).sum()) if old.size else 0
    return {"counts": counts, **_spectrogram_state(records, box)}, int(again.sum(dtype=np.uint64)), conflicts


def _spectrogram_state(records: Records, box: Box) -> dict[str, NDArray[Any]]:
    chosen = box.header
    packet, sub = records.ancestors("num_samples"), records.parents("num_samples")
    tenths = np.zeros(sub.size, dtype=np.int64)
    tenths[chosen] = box.duration
    triggers = _triggers(records, "triggers", packet, tenths, records["detector_mask"][sub])
    return {
        "triggers": triggers[chosen],
        **{name: records[name][sub[chosen]] for name in ("rcr", "detector_mask", "pixel_mask")},
        "counts_skm": records.skm("counts")[packet[chosen]],
        "triggers_skm": records.skm("triggers")[packet[chosen]],
    }


def _times(start: NDArray[np.int64], tenths: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    half = np.rint(tenths * (_TICKS_PER_TENTH / 2)).astype(np.int64)
    return {"time": scet_to_utc(start + half), "time_start": scet_to_utc(start), "timedel": tenths / 10.0}


def _energies(
    channels: NDArray[np.uint8], edges: ArrayLike | None, start: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    bounds = np.asarray(energy_edges(scet_to_utc(start[0])) if edges is None else edges, dtype=np.float64)
    low, high = bounds[channels[:, 0]], bounds[channels[:, 1]]
    return {
        "energy": np.where(np.isinf(high), low, (low + high) / 2),
        "energy_low": low,
        "energy_high": high,
        "channel_start": channels[:, 0].astype(np.uint8),
        "channel_stop": channels[:, 1].astype(np.uint8),
    }


def _dataset(product: str, variables: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> xr.Dataset:
    model = PRODUCTS[product].variables
    data = {
        name: (wanted.dims, variables[name], {"units": wanted.units, "long_name": wanted.long_name})
        for name, wanted in model.items()
    }
    coordinates = {name: data.pop(name) for name in ("time", "energy", "detector", "pixel") if name in data}
    attrs = {"product": product, "level": "L1", "data_model_version": DATA_MODEL_VERSION, **attributes}
    return xr.Dataset(data, coords=coordinates, attrs=attrs)


__all__ = ["Books", "RequestCubes", "build_lightcurve", "build_requests"]
