"""Light curves of a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from stixflow.cubes.assemble import assemble
from stixflow.cubes.build.books import Books
from stixflow.cubes.build.values import TICKS_PER_TENTH, bin_times, cube_values, energy_bins, trigger_values
from stixflow.errors import UsageError
from stixflow.telemetry import Records, consistent
from stixflow.telemetry.requests import bin_starts


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
    variables = {**used, **bin_times(used["scet"], tenths), **energy_bins(_mask_channels(usable), edges, used["scet"])}
    return assemble("ql_lightcurve", variables, attrs={"books": asdict(books)})


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
        "triggers": trigger_values(records, "triggers", packet, tenths[packet], records["detector_mask"][packet]),
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
    raw = cube_values(records, "counts")
    sample = np.arange(int(samples.sum()))
    packet = np.repeat(np.arange(len(records)), samples)
    first = np.cumsum(samples) - samples
    base = first[packet] * energies + (sample - first[packet])
    return np.stack([raw[base + energy * samples[packet]] for energy in range(energies)], axis=1)


def _drop_repeated(columns: Mapping[str, NDArray[Any]], order: NDArray[np.intp]) -> tuple[NDArray[np.intp], int]:
    """Samples to keep, in time order: none begins before the centre of the one before; and how many dropped differ."""
    conflicts = 0
    kept = order
    while True:
        start = columns["scet"][kept]
        centre = start + np.rint(columns["timedel_tenths"][kept] * (TICKS_PER_TENTH / 2)).astype(np.int64)
        repeated = np.flatnonzero(start[1:] < centre[:-1]) + 1
        if repeated.size == 0:
            return kept, conflicts
        same = (columns["counts"][kept[repeated]] == columns["counts"][kept[repeated - 1]]).all(axis=1)
        conflicts += int((~same).sum())
        kept = np.delete(kept, repeated)
