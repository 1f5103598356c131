"""Which entries along the pixel axis make the columns A to D: single pixels, or columns that were summed on board."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import ImagingError
from stixflow.imaging.grids import FloatArray
from stixflow.instrument import SumCase
from stixflow.instrument import pixels as pixel_table

_LARGE_PIXELS = 8


@dataclass(frozen=True, slots=True)
class Readout:
    """The pixels of a sum, row by row, or its four columns if they were sent as such."""

    case: SumCase
    positions: tuple[int, ...]
    """Along the pixel axis of the data: rows slowest, columns A to D fastest."""
    is_summed: bool
    """Whether the data hold columns."""

    @property
    def n_rows(self) -> int:
        return len(self.positions) // 4

    @property
    def is_large(self) -> NDArray[np.bool_]:
        """Which positions make the spectrum: the large pixels, if there are any."""
        if self.is_summed:
            return np.ones(4, dtype=np.bool_)
        large = np.array(self.positions) < _LARGE_PIXELS
        return large if large.any() else ~large

    def select(self, values: NDArray[Any], detectors: NDArray[np.intp]) -> NDArray[Any]:
        """(..., 32, pixel) to (..., detector, position)."""
        return values[..., detectors[:, None], np.array(self.positions)]

    def edges(self, table: FloatArray, detectors: NDArray[np.intp]) -> FloatArray:
        """Actual edges (32, 12, edge) of the pixels to those of the positions, (edge, detector, position).

        Those of a summed column are the mean of its pixels', weighted with their areas.
        """
        chosen = np.moveaxis(table, -1, 0)[:, detectors[:, None], self.case.pixels.ravel()]
        if not self.is_summed:
            return np.asarray(chosen)
        rows = chosen.reshape(*chosen.shape[:-1], -1, 4)
        return np.asarray(np.average(rows, axis=-2, weights=pixel_table().area_cm2[self.case.pixels[:, 0]]))

    def rows_added(self, values: FloatArray) -> FloatArray:
        """(..., position) to (..., column)."""
        rows = [values[..., 4 * row : 4 * row + 4] for row in range(self.n_rows)]
        return np.asarray(sum(rows[1:], rows[0]))


def readout_of(pixels: xr.Dataset, case: SumCase) -> Readout:
    """How to read columns from a Dataset of the product `sci_pixels` or `sci_pixel_sums`.

    Where pixels were summed on board, the sum is that of the data, whatever `case` says.

    Raises
    ------
    ImagingError
        If the sums on board are not the four columns.
    """
    if "pixel_set" not in pixels:
        return Readout(case, tuple(case.pixels.ravel().tolist()), is_summed=False)
    masks = np.unique(pixels["pixel_set"].to_numpy(), axis=0)
    for known in SumCase:
        columns = np.bitwise_or.reduce(1 << known.pixels, axis=0).tolist()
        if len(masks) == 1 and sorted(masks[0].tolist()) == sorted(columns):
            order = masks[0].tolist()
            return Readout(known, tuple(order.index(column) for column in columns), is_summed=True)
    shown = "; ".join(", ".join(f"{mask:#05x}" for mask in row) for row in masks.tolist())
    raise ImagingError(
        f"the pixels were summed on board to sets that are not the four columns: {shown}",
        expected="one set for each of the columns A to D, the same at all times",
        advice="choose a request with single pixels",
    )
