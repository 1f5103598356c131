"""The dual of greatest entropy for a stack of visibilities, and a Newton step on it.

The map of a flux f is ``x = f exp(Σ c φ) / Z`` with two unknowns c for every visibility and φ the cosines and sines of
the visibilities. In units of λf the dual is ``α c²/2 - cβ + log Z``, its gradient ``αc - β + <φ>``, its Hessian
``α + cov(φ)``, and the duality gap is ``Σ gradient² / 2α``.

The covariances are sums over pixels of products of two cosines or sines, made block by block and multiplied with all
images at once, over half of the pixels, because these products are even or odd under a half turn. They steer only, so
single precision is enough for them; value, gradient and gap are not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stixflow.imaging.back_projection import Real
from stixflow.imaging.grids import FloatArray

_PRODUCT_BLOCK_BYTES = 2 << 20
_MOST_SHARED = 48
"""Visibilities up to which the products of their waves are made once for all images (benchmarks/bench_imaging.py)."""
_WORTH_SHARING = 8
"""Images from which that pays."""
_ARMIJO = 1e-4
_MOST_HALVINGS = 30


class Problem(NamedTuple):
    """The dual of a stack, in units of λf: α c²/2 - cβ + log Z."""

    alpha: FloatArray
    """(image, 2 visibility)"""
    beta: FloatArray
    """(image, 2 visibility) measured visibilities, parts one after the other, for a flux of 1."""
    scale: FloatArray
    """(image,) λf."""

    def only(self, chosen: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Problem:
        return Problem(*(part[chosen] for part in self))

    def eased(self, factor: FloatArray) -> Problem:
        """Return the same problems with more weight on the entropy."""
        return Problem(self.alpha * factor[:, None], self.beta, self.scale * factor)


class Point(NamedTuple):
    """Where the stack is: unknowns, the map there, and what follows."""

    unknowns: FloatArray
    """(image, 2 visibility) c."""
    first: Real
    """(image, half of the pixels) part of the flux in the pixels up to the middle one."""
    turned: Real
    """The other pixels, last first; 0 for the middle one."""
    mean: FloatArray
    """(image, 2 visibility) <φ>, the visibilities of the map for a flux of 1."""
    log_sum: FloatArray
    """(image,) log Z."""

    def value(self, problem: Problem) -> FloatArray:
        quadratic = 0.5 * problem.alpha * self.unknowns - problem.beta
        return np.asarray((quadratic * self.unknowns).sum(axis=1) + self.log_sum)

    def gradient(self, problem: Problem) -> FloatArray:
        return problem.alpha * self.unknowns - problem.beta + self.mean

    def only(self, chosen: NDArray[np.bool_]) -> Point:
        return Point._make(part[chosen] for part in self)

    def replace(self, rows: NDArray[np.intp] | slice, other: Point) -> None:
        for mine, new in zip(self, other, strict=True):
            mine[rows] = new


def newton_step(point: Point, problem: Problem, tables: tuple[Real, Real], n_pixels: int) -> NDArray[np.bool_]:
    """One Newton step of all, in place, halved where it does not descend; which of them could move at all."""
    gradient = point.gradient(problem)
    hessian = _covariances(point, tables)
    diagonal = np.arange(hessian.shape[1])
    hessian[:, diagonal, diagonal] += problem.alpha
    direction = -np.linalg.solve(hessian, gradient[..., None])[..., 0]
    slope, value = (gradient * direction).sum(axis=1), point.value(problem)
    slack = 64 * np.finfo(point.first.dtype).eps * (1.0 + np.abs(value))
    start, length = point.unknowns.copy(), 1.0
    waiting = np.arange(len(value))
    for _ in range(_MOST_HALVINGS):
        trial = evaluate(start[waiting] + length * direction[waiting], tables, n_pixels)
        limit = value[waiting] + _ARMIJO * length * slope[waiting] + slack[waiting]
        is_lower = trial.value(problem.only(waiting)) <= limit
        if is_lower.all() and len(waiting) == len(value):
            point.replace(slice(None), trial)
            return np.ones(len(value), np.bool_)
        point.replace(waiting[is_lower], trial.only(is_lower))
        waiting = waiting[~is_lower]
        if not len(waiting):
            break
        length *= 0.5
    moved = np.ones(len(value), np.bool_)
    moved[waiting] = False
    return moved


def evaluate(unknowns: FloatArray, tables: tuple[Real, Real], n_pixels: int) -> Point:
    """Maps of unknowns (image, 2 visibility) with what follows; `tables` of `back_projection.half_table`."""
    cosines, sines = tables
    half = unknowns.shape[1] // 2
    typed = unknowns.astype(cosines.dtype)
    even, odd = typed[:, :half] @ cosines, typed[:, half:] @ sines
    first = even + odd
    turned = np.subtract(even, odd, out=even)
    if n_pixels % 2:
        turned[:, -1] = -np.inf
    top = np.maximum(first.max(axis=1), turned.max(axis=1))[:, None]
    for part in (first, turned):
        part -= top
        np.exp(part, out=part)
    total = first.sum(axis=1, dtype=np.float64) + turned.sum(axis=1, dtype=np.float64)
    inverse = (1.0 / total)[:, None].astype(first.dtype)
    first *= inverse
    turned *= inverse
    mean = np.concatenate([np.add(first, turned, out=odd) @ cosines.T, (first - turned) @ sines.T], axis=1)
    return Point(unknowns, first, turned, mean.astype(np.float64), top[:, 0] + np.log(total))


def certificate(point: Point, problem: Problem, n_pixels: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Duality gap, objective and misfit (image,)."""
    misfit = ((point.mean - problem.beta) ** 2 / (2 * problem.alpha)).sum(axis=1)
    relative_entropy = (point.mean * point.unknowns).sum(axis=1) - point.log_sum + np.log(n_pixels)
    gap = (point.gradient(problem) ** 2 / (2 * problem.alpha)).sum(axis=1)
    return problem.scale * gap, problem.scale * (misfit + relative_entropy), problem.scale * misfit


def _covariances(point: Point, tables: tuple[Real, Real]) -> FloatArray:
    """Covariances (image, 2 visibility, 2 visibility) of the cosines and sines over each map, in single precision."""
    cosines, sines = tables
    even, odd = (point.first + point.turned).astype(np.float32), (point.first - point.turned).astype(np.float32)
    k = len(cosines)
    moments = np.empty((len(even), 2 * k, 2 * k))
    is_shared = k <= _MOST_SHARED and len(even) >= _WORTH_SHARING
    sums = _shared_moments if is_shared else _separate_moments
    sums(even, odd, cosines, sines, moments)
    moments[:, k:, :k] = moments[:, :k, k:].transpose(0, 2, 1)
    moments -= point.mean[:, :, None] * point.mean[:, None, :]
    return moments


def _shared_moments(even: Real, odd: Real, cosines: Real, sines: Real, moments: FloatArray) -> None:
    k, n_half = cosines.shape
    n_pairs = k * (k + 1) // 2
    block = max(_PRODUCT_BLOCK_BYTES // (4 * (2 * n_pairs + k * k)), 16)
    products = np.empty((2 * n_pairs + k * k, block), np.float32)
    sums_even, sums_odd = np.zeros((len(even), 2 * n_pairs)), np.zeros((len(even), k * k))
    for start in range(0, n_half, block):
        c, s = (np.asarray(part[:, start : start + block], np.float32) for part in (cosines, sines))
        width = c.shape[1]
        row = 0
        for i in range(k):
            stop = row + k - i
            np.multiply(c[i], c[i:], out=products[row:stop, :width])
            np.multiply(s[i], s[i:], out=products[n_pairs + row : n_pairs + stop, :width])
            np.multiply(c[i], s, out=products[2 * n_pairs + i * k : 2 * n_pairs + (i + 1) * k, :width])
            row = stop
        sums_even += even[:, start : start + width] @ products[: 2 * n_pairs, :width].T
        sums_odd += odd[:, start : start + width] @ products[2 * n_pairs :, :width].T
    pair = np.triu_indices(k)
    for offset, part in ((0, sums_even[:, :n_pairs]), (k, sums_even[:, n_pairs:])):
        moments[:, offset + pair[0], offset + pair[1]] = part
        moments[:, offset + pair[1], offset + pair[0]] = part
    moments[:, :k, k:] = sums_odd.reshape(-1, k, k)


def _separate_moments(even: Real, odd: Real, cosines: Real, sines: Real, moments: FloatArray) -> None:
    k = len(cosines)
    c, s = np.asarray(cosines, np.float32), np.asarray(sines, np.float32)
    for weight_even, weight_odd, out in zip(even, odd, moments, strict=True):
        out[:k, :k] = (c * weight_even) @ c.T
        out[k:, k:] = (s * weight_even) @ s.T
        out[:k, k:] = (c * weight_odd) @ s.T
