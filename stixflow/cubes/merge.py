"""The bins of several Datasets of one product as one: sorted, each time once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.model import PRODUCTS
from stixflow.time import TICKS_PER_SECOND

_IN_PARTS = ("counts", "triggers", "observed")
"""Variables of a sweep of detectors that two pieces may hold in part each."""


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """A Dataset made of several, and what of them is not in it."""

    dataset: xr.Dataset
    repeated: tuple[tuple[int, NDArray[np.intp]], ...]
    """Number of the piece, and those of its bins that were there already."""
    unlike: tuple[int, ...] = ()
    """Pieces that were left out because their energies or other axes are not those of the first."""


def merge_bins(pieces: Sequence[xr.Dataset]) -> Merged:
    """Join the bins of pieces; where two have the same time, the bin of the piece named first stays.

    A bin begins before the centre of the one before it where both are the same time. The detectors of a sweep that one
    piece has in part are joined with those of the others.

    Parameters
    ----------
    pieces
        Datasets of one product of the data model, bins of each in order of time and apart.

    Returns
    -------
    The Dataset has the attributes of the first piece.
    """
    first = pieces[0]
    if len(pieces) == 1:
        return Merged(first, ())
    axes = _axes(first)
    alike = [number for number, one in enumerate(pieces) if _same(axes, _axes(one))]
    kept: list[tuple[int, NDArray[np.intp]]] = []
    repeated: list[tuple[int, NDArray[np.intp]]] = []
    taken = np.empty((0, 2), dtype=np.int64)
    for number in alike:
        spans = _spans(pieces[number])
        free = _is_free(spans, taken)
        kept.append((number, np.flatnonzero(free)))
        repeated.append((number, np.flatnonzero(~free)))
        taken = np.concatenate([taken, spans[free]])
        taken = taken[np.argsort(taken[:, 0], kind="stable")]
    joined = _joined(pieces, kept, repeated)
    unlike = tuple(number for number in range(len(pieces)) if number not in alike)
    return Merged(joined, tuple((number, rows) for number, rows in repeated if rows.size), unlike)


def _axes(dataset: xr.Dataset) -> dict[str, NDArray[Any]]:
    """Variables that do not change with time."""
    model = PRODUCTS[str(dataset.attrs["product"])].variables
    return {name: dataset[name].values for name, spec in model.items() if spec.dims[:1] != ("time",)}


def _same(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def _spans(dataset: xr.Dataset) -> NDArray[np.int64]:
    """Start and centre of each bin on the onboard clock; an instant lasts one tick."""
    start = dataset["scet"].values.astype(np.int64)
    seconds = dataset["timedel"].values if "timedel" in dataset else np.zeros(start.size)
    half = np.rint(seconds * (TICKS_PER_SECOND / 2)).astype(np.int64)
    return np.stack([start, start + np.maximum(half, 1)], axis=1)


def _is_free(spans: NDArray[np.int64], taken: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which spans neither begin before the centre of a taken one, nor the other way round."""
    if not taken.size:
        return np.ones(len(spans), dtype=bool)
    after = np.searchsorted(taken[:, 0], spans[:, 0], side="right")
    before = np.maximum(after - 1, 0)
    below = (after == 0) | (taken[before, 1] <= spans[:, 0])
    above = (after == len(taken)) | (spans[:, 1] <= taken[np.minimum(after, len(taken) - 1), 0])
    return np.asarray(below & above)


def _joined(
    pieces: Sequence[xr.Dataset],
    kept: Sequence[tuple[int, NDArray[np.intp]]],
    repeated: list[tuple[int, NDArray[np.intp]]],
) -> xr.Dataset:
    first = pieces[0]
    model = PRODUCTS[str(first.attrs["product"])].variables
    columns = {
        name: np.concatenate([pieces[number][name].values[rows] for number, rows in kept])
        for name, spec in model.items()
        if spec.dims[:1] == ("time",)
    }
    if "observed" in model and model["observed"].dims == ("time", "detector"):
        repeated[:] = [(number, _fill_sweeps(columns, pieces[number], rows)) for number, rows in repeated]
    order = np.argsort(columns["scet"], kind="stable")
    variables = {name: (model[name].dims, values[order], first[name].attrs) for name, values in columns.items()}
    rest = {name: first[name].variable for name in first.variables if name not in variables}
    coords = set(first.coords)
    both: dict[Any, Any] = {**rest, **variables}
    return xr.Dataset(
        {name: value for name, value in both.items() if name not in coords},
        {name: value for name, value in both.items() if name in coords},
        first.attrs,
    )


def _fill_sweeps(columns: dict[str, NDArray[Any]], piece: xr.Dataset, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Add the detectors of the rows to sweeps that lack them; return the rows that could not be added."""
    left = []
    for row in rows.tolist():
        at = int(np.argmin(np.abs(columns["scet"] - int(piece["scet"].values[row]))))
        mine = piece["observed"].values[row]
        if (columns["observed"][at] & mine).any():
            left.append(row)
            continue
        for name in _IN_PARTS:
            place = (at, ..., mine)
            columns[name][place] = piece[name].values[row][..., mine]
    return np.asarray(left, dtype=np.intp)


__all__ = ["Merged", "merge_bins"]
