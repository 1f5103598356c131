"""Back-projection of visibilities: the dirty map and the point spread function, in batches.

``BP(x, y) = Σ_k w_k Re[V_k exp(-2πi (u_k x + v_k y))]`` with Σ w = 1, so the map has the unit of the visibilities.
A stack of maps is one matrix product with a cached table of cosines and sines. A map is centred on its grid, so cosines
are even and sines odd under a half turn, and half of the table is enough. Few maps or large ones go by outer products
of the exponentials along x and y instead, which need no table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from stixflow.errors import UsageError
from stixflow.imaging.forward import ComplexArray
from stixflow.imaging.grids import FloatArray, Grid

Weighting = Literal["natural", "uniform"]
Precision = Literal["float64", "float32"]
Real = NDArray[np.floating[Any]]

_TABLE_LIMIT_BYTES = 64 << 20
_TABLE_WORTHWHILE = 16
"""Maps in a stack from which a table is faster than outer products (benchmarks/bench_imaging.py)."""
_PIXEL_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class BackProjection:
    """Parameters of back-projection: weights of the visibilities, and the type to compute in."""

    weighting: Weighting = "natural"
    precision: Precision = "float64"


def weights(u: ArrayLike, v: ArrayLike, weighting: Weighting = "natural") -> FloatArray:
    """Weights of the visibilities, sum 1: "natural" all equal, "uniform" proportional to the spatial frequency.

    Raises
    ------
    UsageError
        If the weighting is neither.
    """
    frequency = np.hypot(np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64))
    if weighting == "natural":
        return np.full(frequency.shape, 1.0 / frequency.size)
    if weighting == "uniform":
        return np.asarray(frequency / frequency.sum())
    raise UsageError(f"weighting={weighting!r}", expected="'natural' or 'uniform'", advice="choose one of the two")


def back_project(
    vis: ArrayLike, u: ArrayLike, v: ArrayLike, grid: Grid, parameters: BackProjection | None = None
) -> Real:
    """Dirty maps of a stack of visibilities.

    Parameters
    ----------
    vis
        Complex, shape (image, visibility), with the phase centre in the middle of the grid.
    u, v
        Spatial frequencies, 1/arcsec, shape (visibility,).
    grid
        Its centre is not used: shift the visibilities to it first.

    Returns
    -------
    Maps (image, y, x) in the unit of `vis`.
    """
    parameters = parameters or BackProjection()
    dtype = np.dtype(parameters.precision)
    u, v = np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64)
    weighted = np.atleast_2d(np.asarray(vis)) * weights(u, v, parameters.weighting)
    parts = weighted.real.astype(dtype), weighted.imag.astype(dtype)
    n_half = (grid.shape[0] * grid.shape[1] + 1) // 2
    use_table = len(weighted) >= _TABLE_WORTHWHILE and 2 * u.size * n_half * dtype.itemsize <= _TABLE_LIMIT_BYTES
    project = _by_table if use_table else _by_outer_products
    return project(parts, u, v, grid, dtype)


def point_spread(u: ArrayLike, v: ArrayLike, grid: Grid, weighting: Weighting = "natural") -> FloatArray:
    """Dirty map of a point of flux 1 for every shift within `grid`: (2 ny - 1, 2 nx - 1), peak 1 in the middle."""
    ones = np.ones((1, np.size(u)), dtype=np.complex128)
    return np.asarray(back_project(ones, u, v, grid.twice, BackProjection(weighting))[0], dtype=np.float64)


def shift_phase_center(
    vis: ArrayLike, u: ArrayLike, v: ArrayLike, shift_x: ArrayLike, shift_y: ArrayLike
) -> ComplexArray:
    """Move the phase centre of visibilities (image, visibility) by (shift_x, shift_y) arcsec, one or one per image."""
    phase = np.multiply.outer(shift_x, u) + np.multiply.outer(shift_y, v)
    return np.asarray(np.asarray(vis) * np.exp(-2j * np.pi * phase))


def _by_table(parts: tuple[Real, Real], u: FloatArray, v: FloatArray, grid: Grid, dtype: DTypeLike) -> Real:
    cosines, sines = half_table(u.tobytes(), v.tobytes(), grid.shape, grid.pixel, np.dtype(dtype).name)
    n_pixels, n_half = grid.shape[0] * grid.shape[1], cosines.shape[1]
    maps = np.empty((len(parts[0]), n_pixels), dtype)
    turned = maps[:, ::-1]
    for start in range(0, n_half, _PIXEL_BLOCK):
        block = slice(start, min(start + _PIXEL_BLOCK, n_half))
        even, odd = parts[0] @ cosines[:, block], parts[1] @ sines[:, block]
        np.subtract(even, odd, out=turned[:, block])
        np.add(even, odd, out=maps[:, block])
    return maps.reshape(-1, *grid.shape)


def half_table(u: bytes, v: bytes, shape: tuple[int, int], pixel: tuple[float, float], dtype: str) -> tuple[Real, Real]:
    """Cosines and sines, each (visibility, first half of the pixels), including the middle one.

    Tables of a moderate size are kept for the next call: do not write to them.
    """
    n_bytes = len(u) * shape[0] * shape[1]
    return (
        _kept_half_table(u, v, shape, pixel, dtype)
        if n_bytes <= _TABLE_LIMIT_BYTES
        else _make_half_table(u, v, shape, pixel, dtype)
    )


def typed(tables: tuple[Real, Real], precision: Precision) -> tuple[Real, Real]:
    """Cosines and sines in a precision."""
    return tables[0].astype(precision, copy=False), tables[1].astype(precision, copy=False)


def _make_half_table(
    u: bytes, v: bytes, shape: tuple[int, int], pixel: tuple[float, float], dtype: str
) -> tuple[Real, Real]:
    grid = Grid(shape, pixel)
    x, y = np.meshgrid(grid.offset_x, grid.offset_y)
    n_half = (x.size + 1) // 2
    x, y = x.ravel()[:n_half], y.ravel()[:n_half]
    phase = np.multiply.outer(np.frombuffer(u), x) + np.multiply.outer(np.frombuffer(v), y)
    phase *= 2 * np.pi
    return np.cos(phase).astype(dtype), np.sin(phase).astype(dtype)


_kept_half_table = lru_cache(maxsize=6)(_make_half_table)


def _by_outer_products(parts: tuple[Real, Real], u: FloatArray, v: FloatArray, grid: Grid, dtype: DTypeLike) -> Real:
    phase_x = 2 * np.pi * np.multiply.outer(u, grid.offset_x)
    phase_y = 2 * np.pi * np.multiply.outer(grid.offset_y, v)
    along_x = np.concatenate([np.cos(phase_x), np.sin(phase_x)]).astype(dtype)
    cos_y, sin_y = np.cos(phase_y).astype(dtype), np.sin(phase_y).astype(dtype)
    maps = np.empty((len(parts[0]), *grid.shape), dtype)
    for real, imaginary, out in zip(*parts, maps, strict=True):
        along_y = np.concatenate([real * cos_y + imaginary * sin_y, imaginary * cos_y - real * sin_y], axis=1)
        np.matmul(along_y, along_x, out=out)
    return maps
