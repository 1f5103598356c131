"""Maps of a large stack in one file: workers write their own rows of it, and only small records travel.

The file is an ordinary `.npy` array of float32, (image, y, x), that opens as it is without being read. It has to lie
where all workers and the caller see it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.lib import format as npy

from stixflow.errors import ImagingError
from stixflow.imaging.grids import Grid
from stixflow.imaging.reconstruction import Method, chunks, reconstruct

_PART_BYTES = 64 << 20

Part = tuple[int, xr.Dataset]
"""Number of the first image of a part of a stack, and the part."""


@dataclass(frozen=True, slots=True)
class MapFile:
    """A file of the maps of one stack, and how they are made."""

    path: str
    grid: Grid
    method: Method | str
    n_images: int

    @classmethod
    def create(cls, path: str | Path, data: xr.Dataset, grid: Grid, method: Method | str = "clean") -> MapFile:
        """Make the file with room for the maps of a stack; one of that name is replaced."""
        made = cls(os.fspath(path), grid, method, data.sizes["image"])
        with Path(path).open("wb") as file:
            about = {"descr": "<f4", "fortran_order": False, "shape": (made.n_images, *grid.shape)}
            npy.write_array_header_1_0(file, about)
            file.truncate(file.tell() + made.n_images * made._row_bytes)
        return made

    def parts(self, data: xr.Dataset, *, budget_bytes: int = _PART_BYTES) -> Iterator[Part]:
        """Cut the stack of the file into parts, each for one call of `fill`; see `chunks`."""
        start = 0
        for part in chunks(data, self.grid, budget_bytes=budget_bytes):
            yield start, part
            start += part.sizes["image"]

    def fill(self, part: Part) -> xr.Dataset:
        """Reconstruct a part and write its maps; return what else the method knows of them.

        Further maps of a method (the residual and the components of CLEAN) are not kept. Doing a part twice does no
        harm.
        """
        start, data = part
        images = reconstruct(data, self.grid, self.method)
        maps = np.ascontiguousarray(images["image"].to_numpy(), dtype="<f4")
        with Path(self.path).open("r+b") as file:
            file.seek(-(self.n_images - start) * self._row_bytes, os.SEEK_END)
            file.write(maps.data)
        known = images.drop_vars([name for name, one in images.variables.items() if one.dims == ("image", "y", "x")])
        return known.assign_attrs({"first_image": start, "units": images["image"].attrs.get("units", "")})

    def open(self, filled: Iterable[xr.Dataset]) -> xr.Dataset:
        """Join what `fill` returned for all parts, in any order, with the maps, which are read when they are used.

        Raises
        ------
        ImagingError
            If images are missing.
        """
        parts = sorted(filled, key=lambda part: int(part.attrs["first_image"]))
        stop = 0
        for part in parts:
            if part.attrs["first_image"] != stop:
                break
            stop += part.sizes["image"]
        if stop != self.n_images:
            raise ImagingError(
                f"the maps from number {stop} on were not made",
                expected=f"all {self.n_images} images of {self.path}",
                advice="do the parts that failed again",
            )
        known = xr.concat(
            parts, "image", data_vars="minimal", coords="minimal", compat="override", combine_attrs="drop_conflicts"
        )
        maps = npy.open_memmap(self.path, mode="r")
        about = {"units": parts[0].attrs["units"], "long_name": "brightness"}
        return known.assign(image=(("image", "y", "x"), maps, about))

    @property
    def _row_bytes(self) -> int:
        return self.grid.shape[0] * self.grid.shape[1] * 4
