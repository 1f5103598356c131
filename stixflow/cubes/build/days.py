"""The cubes of a day: every sample once, in order of time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from stixflow.cubes.assemble import assemble
from stixflow.cubes.build.books import Books
from stixflow.cubes.build.quick_look import (
    Table,
    background_table,
    channels_of,
    flareflag_table,
    light_curve_table,
    same_edges,
    spectra_table,
    variance_table,
)
from stixflow.cubes.build.status import aspect_table, housekeeping_table, status_table
from stixflow.cubes.build.values import clock_attributes, energy_bins, sample_bins
from stixflow.errors import UsageError
from stixflow.telemetry import Records, consistent
from stixflow.time import ANCHOR_CLOCK, TICKS_PER_SECOND, Clock


@dataclass(frozen=True, slots=True)
class _Family:
    """How one product is made."""

    what: str
    table: Callable[[Records], Table]
    amount: Callable[[Records], int]
    """What the books count: counts, or the samples of a product without counts."""
    channels: Callable[[Records], NDArray[np.uint8]] | None = None


def build_day(
    product: str, records: Records, *, edges: ArrayLike | None = None, clock: Clock = ANCHOR_CLOCK
) -> xr.Dataset:
    """Build the cube of all samples in the records, sorted by time, each once.

    Parameters
    ----------
    product
        A product with one partition a day.
    records
        Its decoded packets, any order.
    edges
        (33,) edges of the science channels in keV; None: the nominal ones of the date.
    clock
        How onboard time becomes UTC; recorded in the attributes ``clock`` and ``clock_uncertainty_s``.

    Returns
    -------
    Dataset of the product; its attribute ``books`` is `Books` as a dictionary. Packets that contradict themselves, or
    whose energy bins are not those of most packets, are left out and counted there as unplaced.

    Raises
    ------
    UsageError
        If no packet can be placed.
    """
    family = _FAMILIES[product]
    usable = consistent(records)[0]
    if family.channels is channels_of:
        usable = same_edges(usable)
    table = family.table(usable)
    if not table.scet.size:
        raise UsageError(f"no {family.what} that can be placed", expected="at least one packet with samples")
    order = np.lexsort((table.seconds, table.scet))
    kept, conflicts = _drop_repeated(table, order)
    used = {name: column[kept] for name, column in table.columns.items()}
    total, placed, counts = family.amount(records), family.amount(usable), _amount(used, kept.size)
    books = Books(
        total,
        counts,
        repeated_counts=placed - counts,
        unplaced_counts=total - placed,
        repeated_bins=table.repeated_bins + order.size - kept.size,
        conflicting_bins=table.conflicting_bins + conflicts,
        unplaced_packets=len(records) - len(usable),
    )
    scet = table.scet[kept]
    axes = energy_bins(family.channels(usable), edges, scet, clock) if family.channels else {}
    variables = {**used, **table.axes, **sample_bins(scet, table.seconds[kept], clock), **axes}
    return assemble(product, variables, attrs={"books": asdict(books), **clock_attributes(clock, scet)})


def amount_of(cube: xr.Dataset) -> int:
    """What the books count in a cube: its counts, or its samples where it has none."""
    return int(cube["counts"].values.sum(dtype=np.uint64)) if "counts" in cube else cube.sizes["time"]


def _amount(columns: Mapping[str, NDArray[Any]], rows: int) -> int:
    return int(columns["counts"].sum(dtype=np.uint64)) if "counts" in columns else rows


def _drop_repeated(table: Table, order: NDArray[np.intp]) -> tuple[NDArray[np.intp], int]:
    """Samples to keep, in time order: none begins before the centre of the one before; and how many dropped differ."""
    conflicts = 0
    kept = order
    half = np.rint(table.seconds * (TICKS_PER_SECOND / 2)).astype(np.int64)
    while True:
        start = table.scet[kept]
        earliest = np.maximum(start + half[kept], start + 1)
        repeated = np.flatnonzero(start[1:] < earliest[:-1]) + 1
        if repeated.size == 0:
            return kept, conflicts
        conflicts += int(_differ(table.columns, kept[repeated], kept[repeated - 1]).sum())
        kept = np.delete(kept, repeated)


def _differ(columns: Mapping[str, NDArray[Any]], one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Tell which of the rows `one` have other counts than the rows `other`; without counts, other values."""
    compared = ["counts"] if "counts" in columns else list(columns)
    found = np.zeros(one.size, dtype=np.bool_)
    for name in compared:
        unequal = columns[name][one] != columns[name][other]
        found |= unequal.reshape(one.size, -1).any(axis=1)
    return found


def _counts_in(name: str) -> Callable[[Records], int]:
    return lambda records: int(records.values(name).sum(dtype=np.uint64))


def _rows_of(level: str) -> Callable[[Records], int]:
    return lambda records: records.levels[level].size


def _every_channel(_: Records) -> NDArray[np.uint8]:
    return np.stack([np.arange(32), np.arange(1, 33)], axis=1).astype(np.uint8)


_FAMILIES: dict[str, _Family] = {
    "ql_lightcurve": _Family("light-curve sample", light_curve_table, _counts_in("counts"), channels_of),
    "ql_background": _Family("background sample", background_table, _counts_in("counts"), channels_of),
    "ql_spectra": _Family("spectrum", spectra_table, _counts_in("counts_e"), _every_channel),
    "ql_variance": _Family("variance", variance_table, _rows_of("num_samples")),
    "ql_flareflag": _Family("flare flag", flareflag_table, _rows_of("num_samples")),
    "aspect": _Family("aspect sample", aspect_table, _rows_of("num_samples")),
    "tm_status": _Family("status report", status_table, len),
    "hk_mini": _Family("housekeeping report", housekeeping_table, len),
    "hk_maxi": _Family("housekeeping report", housekeeping_table, len),
}

__all__ = ["amount_of", "build_day"]
