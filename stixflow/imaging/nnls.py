"""Flux of a map without negatives that fits the visibilities, as the reference software estimates it for MEM_GE."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stixflow.imaging.back_projection import Precision, Real, half_table, typed
from stixflow.imaging.grids import FloatArray, Grid

_MOST_TOGETHER = 64
_COARSE = 65
"""Pixels a side of the grid that the flux is estimated on."""
_FLUX_TOLERANCE, _FLUX_ITERATIONS, _FLUX_STEP = 1e-3, 1000, 2.1
_FLUX_ROUGHNESS = 5e-5
"""Relative error of the change of a map in single precision, ten times the largest seen."""


def nnls_flux(
    vis: ArrayLike,
    sigma: ArrayLike,
    u: ArrayLike,
    v: ArrayLike,
    grid: Grid,
    *,
    precision: Precision = "float64",
) -> FloatArray:
    """Flux (image,) of a map without negatives that fits the visibilities, by projected Landweber steps.

    As in the reference software: from zero, until the map changes by less than 1e-3 of its norm; on the grid itself, or
    on 65 pixels a side over the same field of view where it is finer. They stop well before the minimum (4 to 5 %
    above its flux for two compact sources), so that a faster way to the minimum would be another estimate. Single
    precision takes the same steps and changes the flux by less than 1e-6; where it cannot tell at which step to stop,
    double precision does.
    """
    vis, sigma = np.atleast_2d(np.asarray(vis, np.complex128)), np.atleast_2d(np.asarray(sigma, np.float64))
    shape = min(grid.shape[0], _COARSE), min(grid.shape[1], _COARSE)
    pixel = grid.pixel[0] * grid.shape[0] / shape[0], grid.pixel[1] * grid.shape[1] / shape[1]
    frequencies = np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64)
    tables = half_table(frequencies[0].tobytes(), frequencies[1].tobytes(), shape, pixel, "float64")
    weights = np.concatenate([sigma, sigma], axis=1) ** -2.0
    measured = np.concatenate([vis.real, vis.imag], axis=1)
    step = 2.0 / (_FLUX_STEP * _spectral_norm(tables, weights, shape))[:, None] * weights
    size = np.abs(measured).max(axis=1)
    measured /= np.where(size > 0, size, 1.0)[:, None]
    result = _in_stacks(typed(tables, precision), measured.astype(precision), step.astype(precision), shape)
    doubtful = np.flatnonzero(np.isnan(result))
    result[doubtful] = _in_stacks(tables, measured[doubtful], step[doubtful], shape)
    return np.asarray(result * size)


def _in_stacks(tables: tuple[Real, Real], measured: Real, step: Real, shape: tuple[int, int]) -> FloatArray:
    result = np.empty(len(measured))
    for start in range(0, len(measured), _MOST_TOGETHER):
        chosen = slice(start, start + _MOST_TOGETHER)
        result[chosen] = _landweber(tables, measured[chosen], step[chosen], shape)
    return result


def _landweber(tables: tuple[Real, Real], measured: Real, step: Real, shape: tuple[int, int]) -> FloatArray:
    """Flux (image,) where the steps stop; NaN where single precision cannot tell."""
    cosines, sines = tables
    k, n_half = cosines.shape
    rows = np.arange(len(measured))
    flux, norm = np.zeros(len(measured)), np.zeros(len(measured), measured.dtype)
    halves, update = np.zeros((2, len(measured), 2, n_half), measured.dtype)
    even, odd = np.empty((2, len(measured), n_half), measured.dtype)
    model, zeros = np.zeros_like(measured), np.zeros(n_half, measured.dtype)
    roughness = _FLUX_ROUGHNESS if measured.dtype == np.float32 else 0.0
    for _ in range(_FLUX_ITERATIONS):
        pull = step * (measured - model)
        np.matmul(pull[:, :k], cosines, out=even)
        np.matmul(pull[:, k:], sines, out=odd)
        np.add(even, odd, out=update[:, 0])
        np.subtract(even, odd, out=update[:, 1])
        update += halves
        np.maximum(update, zeros, out=update)  # an array is compared faster than a number
        if shape[0] * shape[1] % 2:
            update[:, 1, -1] = 0
        halves -= update
        change, old_norm, norm = _squared(halves), norm, _squared(update)
        halves, update = update, halves
        change, limit = np.sqrt(change), _FLUX_TOLERANCE * np.sqrt(old_norm)
        is_clear = np.abs(change - limit) >= roughness * limit
        go_on = (change >= limit) & is_clear
        if not go_on.all():
            sums = halves[~go_on].sum(axis=(1, 2), dtype=np.float64)
            flux[rows[~go_on]] = np.where(is_clear[~go_on], sums, np.nan)
            halves, update, even, odd = halves[go_on], update[go_on], even[go_on], odd[go_on]
            measured, step, norm, rows = measured[go_on], step[go_on], norm[go_on], rows[go_on]
            if not len(rows):
                return flux
        np.add(halves[:, 0], halves[:, 1], out=even)
        np.subtract(halves[:, 0], halves[:, 1], out=odd)
        model = np.concatenate([even @ cosines.T, odd @ sines.T], axis=1)
    flux[rows] = halves.sum(axis=(1, 2), dtype=np.float64)
    return flux


def _squared(images: Real) -> Real:
    """Sum of squares of each of a stack."""
    flat = images.reshape(len(images), 1, -1)
    return np.asarray((flat @ flat.transpose(0, 2, 1))[:, 0, 0])


def _spectral_norm(tables: tuple[Real, Real], weights: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Largest eigenvalue (image,) of HHᵀ, H the waves over the errors."""
    cosines, sines = tables
    k = len(cosines)
    middle = shape[0] * shape[1] % 2
    gram = np.zeros((2 * k, 2 * k))
    gram[:k, :k] = 2 * cosines @ cosines.T - middle * np.outer(cosines[:, -1], cosines[:, -1])
    gram[k:, k:] = 2 * sines @ sines.T
    root = np.sqrt(weights)
    return np.asarray(np.linalg.norm(gram * root[:, :, None] * root[:, None, :], 2, axis=(1, 2)))
