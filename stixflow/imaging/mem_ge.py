"""MEM_GE: the map of greatest entropy that explains the visibilities, certified by its duality gap.

Minimise ``Σ |Ax - b|² / σ² + λ Σ x log(x / m)`` over positive maps x of a given flux, where m is flat. The minimum is
unique; its dual has two unknowns for every visibility (`stixflow.imaging.entropy_dual`) and bounds how far the map is
from the minimum. A whole stack takes Newton steps together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging.back_projection import Precision, Real, half_table, typed
from stixflow.imaging.entropy_dual import Problem, certificate, evaluate, newton_step
from stixflow.imaging.forward import ComplexArray
from stixflow.imaging.grids import FloatArray, Grid
from stixflow.imaging.nnls import nnls_flux

_FRACTIONS = {"stix": (2.0, 90.0), "rhessi": (11.0, 383.0)}
_FLUXES = "auto", "counts", "nnls", "largest"
_FRACTION_LIMITS = 1e-4, 0.2
_STACK_BYTES = 24 << 20
_MOST_TOGETHER = 64
_PATIENCE = 12
_EASED, _EASING, _NEAR = 1e4, 4.0, 0.5
"""Images not solved after so many steps start again, from more weight on the entropy to the right one."""


@dataclass(frozen=True, slots=True)
class MemGE:
    """Parameters of MEM_GE.

    Parameters
    ----------
    fraction
        Weight of the entropy, λ as part of the largest gradient of the misfit at the flat map; "stix" and "rhessi" take
        it from the signal-to-noise ratio, 2 / (SNR² + 90) and 11 / (SNR² + 383), between 1e-4 and 0.2.
    flux
        Total flux of the map: a number, "counts" for the one measured by the sum of the columns, "nnls" for that of a
        non-negative least-squares map as in the reference software, or "largest" for the largest amplitude. "auto" is
        "counts" where the data are made of counts, else "nnls", which grows with the field of view: two sources of
        flux 9 have 9.7 in 130 arcsec and 13.9 in 260.
    tolerance
        Largest duality gap, as part of the objective (of 1 where that is smaller).
    max_iterations
        Most Newton steps.
    merge
        Average the visibilities that share a cell of the size 1 / field of view first, as the reference software does.
        The map then depends on the field of view.
    precision
        Type of the maps; float32 changes them by less than 1e-5 of their peak.

    Raises
    ------
    UsageError
        If a number is out of range.
    """

    fraction: float | Literal["stix", "rhessi"] = "stix"
    flux: float | Literal["auto", "counts", "nnls", "largest"] = "auto"
    tolerance: float = 1e-6
    max_iterations: int = 50
    merge: bool = False
    precision: Precision = "float64"

    def __post_init__(self) -> None:
        fraction_is_valid = self.fraction in _FRACTIONS if isinstance(self.fraction, str) else self.fraction > 0
        flux_is_valid = self.flux in _FLUXES if isinstance(self.flux, str) else self.flux > 0
        if not (fraction_is_valid and flux_is_valid and self.tolerance > 0 and self.max_iterations >= 1):
            raise UsageError(
                f"MEM_GE with fraction {self.fraction}, flux {self.flux}, tolerance {self.tolerance}, "
                f"{self.max_iterations} iterations",
                expected=f"a positive fraction or 'stix', 'rhessi'; a positive flux or one of {', '.join(_FLUXES)}; "
                "a positive tolerance; at least one iteration",
                advice="correct the parameters",
            )


class MemMaps(NamedTuple):
    """A stack of maps and the proof of each."""

    image: Real
    """(image, y, x), flux per arcsec², positive."""
    flux: FloatArray
    """(image,) flux of the map, as asked for."""
    regularisation: FloatArray
    """(image,) λ."""
    objective: FloatArray
    """(image,) misfit plus λ times the relative entropy to the flat map; not negative."""
    chi2: FloatArray
    """(image,) misfit Σ |Ax - b|² / σ²."""
    duality_gap: FloatArray
    """(image,) the objective is at most this far above the least possible."""
    iterations: NDArray[np.int64]
    """(image,) Newton steps."""
    converged: NDArray[np.bool_]
    """(image,) whether the duality gap is within the tolerance."""


def mem_ge(
    vis: ArrayLike,
    sigma: ArrayLike,
    u: ArrayLike,
    v: ArrayLike,
    grid: Grid,
    parameters: MemGE | None = None,
    *,
    flux: ArrayLike | None = None,
) -> MemMaps:
    """Maps of greatest entropy of a stack of visibilities.

    An image whose flux is not positive (more background than counts) has no such map: all of it is NaN, and it has not
    converged.

    Parameters
    ----------
    vis, sigma
        Complex visibilities and the standard error of their parts, shape (image, visibility), with the phase centre in
        the middle of the grid.
    u, v
        Spatial frequencies, 1/arcsec, shape (visibility,).
    flux
        Of the maps, one or one for each image; in place of the one in the parameters.

    Raises
    ------
    ImagingError
        If a visibility or an error is not a finite number, or an error is not positive.
    UsageError
        If the flux shall come from the counts and was not given.
    """
    parameters = parameters or MemGE()
    frequencies = np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64)
    vis = np.atleast_2d(np.asarray(vis, dtype=np.complex128))
    sigma = np.broadcast_to(np.asarray(sigma, dtype=np.float64), vis.shape)
    _check(vis, sigma)
    total = _total_flux(parameters, flux, vis, sigma, frequencies, grid)
    usable = np.flatnonzero(np.isfinite(total) & (total > 0))
    if len(usable) == len(total):
        return _solve(vis, sigma, frequencies, grid, parameters, total)
    maps = _empty(total, grid, parameters)
    if usable.size:
        found = _solve(vis[usable], sigma[usable], frequencies, grid, parameters, total[usable])
        for part, values in zip(maps, found, strict=True):
            part[usable] = values
    return maps


def _empty(total: FloatArray, grid: Grid, parameters: MemGE) -> MemMaps:
    images = np.full((len(total), *grid.shape), np.nan, parameters.precision)
    regularisation, objective, chi2, gap = np.full((4, len(total)), np.nan)
    iterations, converged = np.zeros(len(total), np.int64), np.zeros(len(total), np.bool_)
    return MemMaps(images, total, regularisation, objective, chi2, gap, iterations, converged)


def _solve(
    vis: ComplexArray,
    sigma: FloatArray,
    frequencies: tuple[FloatArray, FloatArray],
    grid: Grid,
    parameters: MemGE,
    total: FloatArray,
) -> MemMaps:
    fraction = _fraction(parameters, vis, sigma)
    if parameters.merge:
        frequencies, vis, sigma = merged(frequencies, vis, sigma, grid)
    tables = half_table(frequencies[0].tobytes(), frequencies[1].tobytes(), grid.shape, grid.pixel, "float64")
    weights = np.concatenate([sigma, sigma], axis=1) ** -2.0
    measured = np.concatenate([vis.real, vis.imag], axis=1) / total[:, None]
    flat = _flat(tables, grid)
    slope = weights * (flat - measured) * total[:, None] * grid.pixel_area
    regularisation = fraction * 2 * _largest(slope, tables)
    scale = regularisation * total / grid.pixel_area
    problem = Problem(regularisation[:, None] / (2 * weights * total[:, None] * grid.pixel_area), measured, scale)
    maps = _empty(total, grid, parameters)
    maps.regularisation[:] = regularisation
    tables = typed(tables, parameters.precision)
    together = int(np.clip(_STACK_BYTES // (tables[0].shape[1] * 6 * tables[0].itemsize), 1, _MOST_TOGETHER))
    for start in range(0, len(vis), together):
        chosen = slice(start, start + together)
        _newton(problem.only(chosen), tables, grid, parameters, MemMaps._make(part[chosen] for part in maps))
    maps.image[...] *= (total / grid.pixel_area)[:, None, None].astype(maps.image.dtype)
    return maps


def signal_to_noise(vis: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Mean of amplitude over error without outliers (image,): those 3 sigma from the median, then from the rest."""
    ratio = np.abs(np.atleast_2d(vis)) / np.atleast_2d(sigma)
    distance = np.abs(ratio - np.median(ratio, axis=1, keepdims=True))
    spread = np.median(distance, axis=1, keepdims=True) / 0.6745
    inside = distance <= 3 * spread
    corrected = _masked_std(ratio, inside) / (-0.15405 + 0.90723 * 3 - 0.23584 * 3**2 + 0.020142 * 3**3)
    inside = distance <= 3 * corrected
    return np.asarray((ratio * inside).sum(axis=1) / inside.sum(axis=1))


def merged(
    frequencies: tuple[FloatArray, FloatArray], vis: ComplexArray, sigma: FloatArray, grid: Grid
) -> tuple[tuple[FloatArray, FloatArray], ComplexArray, FloatArray]:
    """Average the visibilities that share a cell of the size 1 / field of view; the first one stays alone.

    A cell takes the frequency of its first visibility. Both this and that the very first stays alone are oddities of
    the reference software, kept so that its maps can be compared.
    """
    size = grid.shape[1] * grid.pixel[1], grid.shape[0] * grid.pixel[0]
    cells = np.rint(np.stack([part * extent for part, extent in zip(frequencies, size, strict=True)], axis=1))
    cells[0] = np.inf
    _, first, group = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    share = np.zeros((len(first), len(cells)))
    share[group.ravel(), np.arange(len(cells))] = 1.0
    share /= share.sum(axis=1, keepdims=True)
    return (frequencies[0][first], frequencies[1][first]), vis @ share.T, np.sqrt(sigma**2 @ (share**2).T)


def _newton(problem: Problem, tables: tuple[Real, Real], grid: Grid, parameters: MemGE, maps: MemMaps) -> None:
    """Solve one stack; the maps, for a flux of 1 and a pixel of 1, are written where they belong.

    Plain steps solve nearly everything in 5 to 8. Data that no map of this size and flux explains well make them
    creep; such images follow the path of solutions from strong to weak entropy, and then take about 25.
    """
    n_pixels = grid.shape[0] * grid.shape[1]
    rows = np.arange(len(problem.alpha))
    point = evaluate(np.zeros_like(problem.alpha), tables, n_pixels)
    moved, ease = np.ones(len(rows), np.bool_), np.ones(len(rows))
    for iteration in range(parameters.max_iterations + 1):
        if iteration == _PATIENCE:
            point, ease = evaluate(np.zeros_like(problem.alpha), tables, n_pixels), np.full(len(rows), _EASED)
        gap, objective, chi2 = certificate(point, problem, n_pixels)
        converged = gap <= parameters.tolerance * np.maximum(objective, 1.0)
        leave = converged | (~moved & (ease == 1)) | (iteration == parameters.max_iterations)
        if leave.any():
            out = rows[leave]
            _write(maps.image, out, point.first[leave], point.turned[leave])
            maps.duality_gap[out], maps.objective[out], maps.chi2[out] = gap[leave], objective[leave], chi2[leave]
            maps.iterations[out], maps.converged[out] = iteration, converged[leave]
            point, problem, rows, ease = point.only(~leave), problem.only(~leave), rows[~leave], ease[~leave]
        if not len(rows):
            return
        moved = newton_step(point, problem.eased(ease), tables, n_pixels)
        if iteration >= _PATIENCE:
            gap, objective, _ = certificate(point, problem.eased(ease), n_pixels)
            ease = np.where((gap <= _NEAR * objective) | ~moved, np.maximum(ease / _EASING, 1.0), ease)


def _write(maps: Real, rows: NDArray[np.intp], first: Real, turned: Real) -> None:
    flat = maps.reshape(len(maps), -1)
    n_half = first.shape[1]
    flat[rows, :n_half] = first
    flat[rows, n_half:] = turned[:, : flat.shape[1] - n_half][:, ::-1]


def _check(vis: ComplexArray, sigma: FloatArray) -> None:
    if not (np.isfinite(vis).all() and (np.isfinite(sigma) & (sigma > 0)).all()):
        raise ImagingError(
            "some visibilities or errors are not usable",
            expected="finite visibilities with finite, positive errors",
            advice="leave those out, or give sigma= when making the set",
        )


def _fraction(parameters: MemGE, vis: ComplexArray, sigma: FloatArray) -> FloatArray:
    if not isinstance(parameters.fraction, str):
        return np.full(len(vis), float(parameters.fraction))
    above, below = _FRACTIONS[parameters.fraction]
    return np.clip(above / (signal_to_noise(vis, sigma) ** 2 + below), *_FRACTION_LIMITS)


def _total_flux(
    parameters: MemGE,
    flux: ArrayLike | None,
    vis: ComplexArray,
    sigma: FloatArray,
    frequencies: tuple[FloatArray, FloatArray],
    grid: Grid,
) -> FloatArray:
    if flux is not None:
        total = np.broadcast_to(np.asarray(flux, dtype=np.float64), len(vis)).copy()
    elif parameters.flux in ("auto", "nnls"):
        total = nnls_flux(vis, sigma, *frequencies, grid, precision="float32")
    elif parameters.flux == "largest":
        total = np.abs(vis).max(axis=1)
    elif parameters.flux == "counts":
        raise UsageError("no flux of the counts", expected="visibilities made of counts", advice="give flux=")
    else:
        total = np.full(len(vis), float(parameters.flux))
    return total


def _flat(tables: tuple[Real, Real], grid: Grid) -> FloatArray:
    """Visibilities (2 visibility,) of the flat map of flux 1."""
    cosines, sines = tables
    middle = cosines[:, -1] if grid.shape[0] * grid.shape[1] % 2 else 0.0
    even = (2 * cosines.sum(axis=1) - middle) / (grid.shape[0] * grid.shape[1])
    return np.concatenate([even, np.zeros(len(sines))])


def _largest(slope: FloatArray, tables: tuple[Real, Real]) -> FloatArray:
    """Largest ``|Aᵀ slope|`` over the pixels (image,)."""
    k = len(tables[0])
    return np.asarray((np.abs(slope[:, :k] @ tables[0]) + np.abs(slope[:, k:] @ tables[1])).max(axis=1))


def _masked_std(values: FloatArray, inside: NDArray[np.bool_]) -> FloatArray:
    count = inside.sum(axis=1, keepdims=True)
    mean = (values * inside).sum(axis=1, keepdims=True) / count
    return np.asarray(np.sqrt((((values - mean) ** 2) * inside).sum(axis=1, keepdims=True) / count))
