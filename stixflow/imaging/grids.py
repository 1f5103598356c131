"""The pixel grid of a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import UsageError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, init=False)
class Grid:
    """A regular map: images are `image[iy, ix]`, x grows with the column, y with the row.

    Parameters
    ----------
    shape
        ``(ny, nx)``, or one number for a square.
    pixel
        ``(dy, dx)`` in arcsec, or one number for square pixels.
    center
        Position ``(x, y)`` of the middle of the map in the STIX imaging frame, arcsec. Without one, the map is centred
        on whatever the visibilities refer to.

    Raises
    ------
    UsageError
        If the shape or the pixel is not positive.
    """

    shape: tuple[int, int]
    pixel: tuple[float, float]
    center: tuple[float, float] | None

    def __init__(
        self,
        shape: int | tuple[int, int],
        pixel: float | tuple[float, float],
        center: tuple[float, float] | None = None,
    ) -> None:
        ny, nx = (shape, shape) if isinstance(shape, int | np.integer) else shape
        dy, dx = pixel if isinstance(pixel, tuple) else (pixel, pixel)
        if int(ny) < 1 or int(nx) < 1 or not (dy > 0 and dx > 0):
            raise UsageError(
                f"a grid of {ny} x {nx} pixels of {dy} x {dx} arcsec",
                expected="at least one pixel a side, of positive size",
                advice="give shape=(ny, nx) and pixel=(dy, dx) in arcsec",
            )
        object.__setattr__(self, "shape", (int(ny), int(nx)))
        object.__setattr__(self, "pixel", (float(dy), float(dx)))
        object.__setattr__(self, "center", None if center is None else (float(center[0]), float(center[1])))

    @property
    def offset_x(self) -> FloatArray:
        """Pixel centres along x from the middle of the map, arcsec, shape (nx,)."""
        return _offsets(self.shape[1], self.pixel[1])

    @property
    def offset_y(self) -> FloatArray:
        """Pixel centres along y from the middle of the map, arcsec, shape (ny,)."""
        return _offsets(self.shape[0], self.pixel[0])

    @property
    def x(self) -> FloatArray:
        """Pixel centres along x with the centre added, arcsec, shape (nx,)."""
        return self.offset_x + (self.center[0] if self.center else 0.0)

    @property
    def y(self) -> FloatArray:
        """Pixel centres along y with the centre added, arcsec, shape (ny,)."""
        return self.offset_y + (self.center[1] if self.center else 0.0)

    @property
    def pixel_area(self) -> float:
        """Area of a pixel, arcsec²."""
        return self.pixel[0] * self.pixel[1]

    @property
    def twice(self) -> Grid:
        """The grid of all differences between two pixels, (2 ny - 1, 2 nx - 1): that of the point spread function."""
        return Grid((2 * self.shape[0] - 1, 2 * self.shape[1] - 1), self.pixel)


def _offsets(n: int, step: float) -> FloatArray:
    return np.asarray((np.arange(n) - (n - 1) / 2) * step, dtype=np.float64)
