"""Unknowns of a fit as the parameters that are reported, and the errors of these.

An ellipse has two widths, sqrt(ab) exp(±e/2), and the angle of the larger one; it is fitted as (e cos 2θ, e sin 2θ),
which is smooth where it becomes a circle.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from stixflow.imaging.fit_models import Model
from stixflow.imaging.grids import FloatArray

PARAMETERS = "flux", "x", "y", "fwhm_max", "fwhm_min", "angle", "loop_angle"
"""Parameters of a source as they are reported; NaN for those that it has not."""


def covariance_of(curvature: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Inverse (fit, unknown, unknown) and the log of its determinant; NaN where some unknowns cannot be told apart."""
    scale = np.sqrt(np.maximum(np.einsum("...ii->...i", curvature), np.finfo(np.float64).tiny))
    correlation = curvature / (scale[:, :, None] * scale[:, None, :])
    values, vectors = np.linalg.eigh(correlation)
    values = np.where(values[:, :1] > 1e-12, values, np.nan)
    inverse = (vectors / values[:, None, :]) @ vectors.transpose(0, 2, 1)
    return inverse / (scale[:, :, None] * scale[:, None, :]), -(np.log(values) + 2 * np.log(scale)).sum(axis=1)


def reported(unknowns: FloatArray, model: Model) -> FloatArray:
    """Unknowns as reported parameters (fit, source, parameter)."""
    values = np.full((len(unknowns), len(model.kinds), len(PARAMETERS)), np.nan)
    for i, (kind, part) in enumerate(zip(model.kinds, model.slices(), strict=True)):
        own = unknowns[:, part]
        values[:, i, :3] = own[:, :3]
        stretch = _stretch(kind, own)
        values[:, i, 3], values[:, i, 4] = np.exp(own[:, 3] + stretch / 2), np.exp(own[:, 3] - stretch / 2)
        if kind == "ellipse":
            values[:, i, 5] = np.rad2deg(np.arctan2(own[:, 5], own[:, 4]) / 2) % 180.0
        elif kind == "loop":
            half_turns = np.floor(own[:, 5] / np.pi)
            values[:, i, 5] = np.rad2deg(own[:, 5] - np.pi * half_turns)
            values[:, i, 6] = np.rad2deg(np.where(half_turns % 2, -own[:, 6], own[:, 6]))
    return values


def _stretch(kind: str, own: FloatArray) -> FloatArray:
    """Logarithm of the ratio of the widths (fit,)."""
    if kind == "circle":
        return np.zeros(len(own))
    return np.asarray(np.hypot(own[:, 4], own[:, 5]) if kind == "ellipse" else own[:, 4])


def fisher_errors(unknowns: FloatArray, covariance: FloatArray, model: Model) -> FloatArray:
    """Standard errors (fit, source, parameter) by the covariance of the unknowns; NaN where a source has none."""
    errors = np.full((len(unknowns), len(model.kinds), len(PARAMETERS)), np.nan)
    for i, (kind, part) in enumerate(zip(model.kinds, model.slices(), strict=True)):
        own = unknowns[:, part]
        slopes = np.zeros((len(unknowns), len(PARAMETERS), own.shape[1]))
        slopes[:, [0, 1, 2], [0, 1, 2]] = 1.0
        width = np.exp(own[:, 3])
        stretch, by_stretch = np.maximum(_stretch(kind, own), 1e-12), np.zeros_like(own)
        if kind == "ellipse":
            by_stretch[:, 4:] = own[:, 4:] / stretch[:, None]
            slopes[:, 5, 4:] = np.rad2deg(0.5) * np.stack([-own[:, 5], own[:, 4]], axis=1) / stretch[:, None] ** 2
        elif kind == "loop":
            by_stretch[:, 4] = 1.0
            slopes[:, [5, 6], [5, 6]] = np.rad2deg(1.0)
        for row, sign in ((3, 0.5), (4, -0.5)):
            size = width * np.exp(sign * stretch)
            slopes[:, row] = size[:, None] * sign * by_stretch
            slopes[:, row, 3] += size
        variance = np.einsum("fpi,fij,fpj->fp", slopes, covariance[:, part, part], slopes)
        has = {"circle": 5, "ellipse": 6, "loop": 7}[kind]
        errors[:, i, :has] = np.sqrt(variance[:, :has])
    return errors


def scatter(noisy: FloatArray, values: FloatArray, kinds: tuple[str, ...]) -> FloatArray:
    """Standard deviation over (image, noise, source, parameter), each source beside the one that it is near to."""
    matched = _matched(noisy, values, kinds)
    difference = matched - values[:, None]
    half_turns = np.rint(difference[..., 5] / 180.0)
    difference[..., 5] -= 180.0 * half_turns
    flipped = np.where(half_turns % 2, -matched[..., 6], matched[..., 6])
    difference[..., 6] = flipped - values[:, None, :, 6]
    return np.asarray(difference.std(axis=1, ddof=1))


def _matched(noisy: FloatArray, values: FloatArray, kinds: tuple[str, ...]) -> FloatArray:
    """Exchange sources of one kind so that their positions are nearest to those of the best fit."""
    orders = [
        order for order in permutations(range(len(kinds))) if all(kinds[i] == kinds[j] for i, j in enumerate(order))
    ]
    distance = [((noisy[:, :, order, 1:3] - values[:, None, :, 1:3]) ** 2).sum(axis=(2, 3)) for order in orders]
    nearest = np.array(orders)[np.argmin(distance, axis=0)]
    return np.take_along_axis(noisy, nearest[..., None], axis=2)
