"""Levenberg-Marquardt of many fits at once, with bounds by a sine transformation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stixflow.imaging.fit_models import Model
from stixflow.imaging.forward import ComplexArray
from stixflow.imaging.grids import FloatArray

_PRECISION = 1e-10
_RIDGE = 1e-12


class Descent:
    """Levenberg-Marquardt of many fits at once; fits that are done leave."""

    def __init__(
        self, model: Model, vis: ComplexArray, sigma: FloatArray, lower: FloatArray, upper: FloatArray
    ) -> None:
        self._model, self._vis, self._weight = model, vis, 1.0 / sigma
        self._is_bounded = np.isfinite(lower)
        with np.errstate(invalid="ignore"):
            self._middle = np.where(self._is_bounded, (lower + upper) / 2, 0.0)
            self._half = np.where(self._is_bounded, (upper - lower) / 2, 1.0)

    def run(
        self, start: FloatArray, image: NDArray[np.intp], most_steps: int
    ) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """Unknowns, chi2 and whether a minimum was reached, for starts (fit, unknown) of the given images."""
        free = self._to_free(start, image)
        result, best, done = free.copy(), np.empty(len(free)), np.zeros(len(free), np.bool_)
        rows, damping = np.arange(len(free)), np.full(len(free), 1e-2)
        chi2, slope, curvature = self._expand(free, image)
        best[:] = chi2
        diagonal = np.arange(free.shape[1])
        for _ in range(most_steps):
            scale = curvature[:, diagonal, diagonal]
            damped = curvature.copy()
            damped[:, diagonal, diagonal] += (
                damping[:, None] * scale + _RIDGE * scale.max(axis=1, keepdims=True) + 1e-300
            )
            step = -np.linalg.solve(damped, slope[..., None])[..., 0]
            expected = -(step * slope).sum(axis=1)
            trial = free + step
            new = self._expand(trial, image[rows])
            is_lower = new[0] <= chi2
            is_done = (expected <= _PRECISION * (chi2 + 1e-6)) | (damping > 1e12)
            free[is_lower] = trial[is_lower]
            for mine, other in zip((chi2, slope, curvature), new, strict=True):
                mine[is_lower] = other[is_lower]
            damping = np.where(is_lower, damping * 0.2, damping * 6.0)
            if is_done.any():
                out = rows[is_done]
                result[out], best[out], done[out] = free[is_done], chi2[is_done], True
                keep = ~is_done
                rows, free, damping = rows[keep], free[keep], damping[keep]
                chi2, slope, curvature = chi2[keep], slope[keep], curvature[keep]
            if not len(rows):
                break
        result[rows], best[rows] = free, chi2
        return self._to_unknowns(result, image), best, done

    def _expand(self, free: FloatArray, image: NDArray[np.intp]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Chi2 (fit,), half its gradient (fit, unknown), and half its curvature without second derivatives."""
        vis, slopes = self._model(self._to_unknowns(free, image))
        weight = self._weight[image]
        residual = ((vis - self._vis[image]) * weight).view(np.float64)
        turn = np.where(self._is_bounded[image], self._half[image] * np.cos(free), 1.0)
        slopes *= weight[:, None, :] * turn[:, :, None]
        parts = slopes.view(np.float64)
        return (residual**2).sum(axis=1), (parts @ residual[..., None])[..., 0], parts @ parts.transpose(0, 2, 1)

    def _to_unknowns(self, free: FloatArray, image: NDArray[np.intp]) -> FloatArray:
        turned = np.where(self._is_bounded[image], np.sin(free), free)
        return np.asarray(self._middle[image] + self._half[image] * turned)

    def _to_free(self, unknowns: FloatArray, image: NDArray[np.intp]) -> FloatArray:
        relative = (unknowns - self._middle[image]) / self._half[image]
        inside = np.clip(relative, -0.9999, 0.9999)
        return np.where(self._is_bounded[image], np.arcsin(inside), relative)
