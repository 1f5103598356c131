"""Visibilities of sums of circles, ellipses and loops with their derivatives by the unknowns of a fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stixflow.imaging.forward import ComplexArray, loop_arc
from stixflow.imaging.grids import FloatArray

SIZES: dict[str, int] = {"circle": 4, "ellipse": 6, "loop": 7}
_GAUSSIAN = np.pi**2 / (4 * np.log(2))
_MOMENT = 8 * np.log(2)
LEAST_WIDTH = 1.0


class Model(NamedTuple):
    """A sum of sources as a function of unknowns: per source flux, x, y, log of the width, and its shape."""

    kinds: tuple[str, ...]
    u: FloatArray
    v: FloatArray

    def slices(self) -> list[slice]:
        stops = np.cumsum([SIZES[kind] for kind in self.kinds])
        return [slice(stop - SIZES[kind], stop) for kind, stop in zip(self.kinds, stops, strict=True)]

    def __call__(self, unknowns: FloatArray) -> tuple[ComplexArray, ComplexArray]:
        """Visibilities (fit, visibility) and their derivatives (fit, unknown, visibility)."""
        vis = np.zeros((len(unknowns), self.u.size), np.complex128)
        slopes = np.empty((*unknowns.shape, self.u.size), np.complex128)
        for kind, part in zip(self.kinds, self.slices(), strict=True):
            function = _loop if kind == "loop" else _ellipse
            vis += function(unknowns[:, part], self.u, self.v, slopes[:, part])
        return vis, slopes


def _ellipse(unknowns: FloatArray, u: FloatArray, v: FloatArray, slopes: ComplexArray) -> ComplexArray:
    """Visibilities of circles and ellipses; their derivatives are written to `slopes`."""
    flux, x, y, log_width = unknowns[:, :4].T[..., None]
    squared = np.exp(2 * log_width)
    form = squared * (u**2 + v**2)
    wave = np.exp(2j * np.pi * (u * x + v * y))
    if unknowns.shape[1] > 4:
        p, q = unknowns[:, 4:].T[..., None]
        stretch = np.hypot(p, q)
        ratio, slope = _sinhc(stretch)
        along, across = u**2 - v**2, 2 * u * v
        turned = squared * (p * along + q * across)
        round_form, form = form, np.cosh(stretch) * form + ratio * turned
    vis = np.exp(-_GAUSSIAN * form) * wave
    slopes[:, 0] = vis
    vis *= flux
    slopes[:, 1], slopes[:, 2] = 2j * np.pi * u * vis, 2j * np.pi * v * vis
    slopes[:, 3] = -2 * _GAUSSIAN * form * vis
    if unknowns.shape[1] > 4:
        for row, (part, axis) in enumerate(((p, along), (q, across)), 4):
            slopes[:, row] = -_GAUSSIAN * vis * (part * (ratio * round_form + slope * turned) + ratio * squared * axis)
    return np.asarray(vis)


def _sinhc(stretch: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``sinh(e) / e``, and its derivative over e."""
    is_small = stretch < 1e-2
    safe = np.where(is_small, 1.0, stretch)
    squared = stretch**2
    ratio = np.where(is_small, 1 + squared / 6 * (1 + squared / 20), np.sinh(safe) / safe)
    slope = np.where(
        is_small, 1 / 3 + squared / 30 * (1 + squared / 28), (safe * np.cosh(safe) - np.sinh(safe)) / safe**3
    )
    return ratio, slope


def _loop(unknowns: FloatArray, u: FloatArray, v: FloatArray, slopes: ComplexArray) -> ComplexArray:
    """Visibilities of loops; their derivatives are written to `slopes`."""
    flux, x, y, log_width, stretch, angle, bend = unknowns.T[..., None]
    arc = loop_arc(bend[:, 0])
    squared = np.exp(2 * log_width)
    spread = _MOMENT * (arc.variance_along - arc.variance_across)[:, None]
    spread_slope = _MOMENT * (arc.variance_along_slope - arc.variance_across_slope)[:, None]
    radius = np.sqrt(2 * squared * np.sinh(stretch) / spread)
    radius_stretch, radius_bend = squared * np.cosh(stretch) / (spread * radius), -radius * spread_slope / (2 * spread)
    along, along_slope = _MOMENT * arc.variance_along[:, None], _MOMENT * arc.variance_along_slope[:, None]
    width = squared * np.exp(stretch) - radius**2 * along
    is_free = width > LEAST_WIDTH**2
    width_stretch = is_free * (squared * np.exp(stretch) - 2 * radius * radius_stretch * along)
    width_bend = is_free * -(2 * radius * radius_bend * along + radius**2 * along_slope)
    width = np.where(is_free, width, LEAST_WIDTH**2)
    cos, sin = np.cos(angle), np.sin(angle)
    chord, top = v * cos - u * sin, u * cos + v * sin
    steps = arc.along[:, :, None] * chord[:, None] + arc.across[:, :, None] * top[:, None]
    beads = arc.weight[:, None] * np.exp(2j * np.pi * radius[:, None] * steps)
    tilted = arc.across[:, :, None] * chord[:, None] - arc.along[:, :, None] * top[:, None]
    bent = arc.along_slope[:, :, None] * chord[:, None] + arc.across_slope[:, :, None] * top[:, None]
    total = beads.sum(axis=1)
    by_radius, by_angle, by_bend = (2j * np.pi * (beads * part).sum(axis=1) for part in (steps, tilted, bent))
    frequency = u**2 + v**2
    common = np.exp(-_GAUSSIAN * width * frequency) * np.exp(2j * np.pi * (u * x + v * y))
    slopes[:, 0] = common * total
    common = flux * common
    vis = common * total
    slopes[:, 1], slopes[:, 2] = 2j * np.pi * u * vis, 2j * np.pi * v * vis
    fading = -_GAUSSIAN * frequency * vis
    slopes[:, 3] = fading * 2 * width * is_free + common * by_radius * radius
    slopes[:, 4] = fading * width_stretch + common * by_radius * radius_stretch
    slopes[:, 5] = common * by_angle * radius
    slopes[:, 6] = fading * width_bend + common * (by_radius * radius_bend + by_bend * radius)
    return np.asarray(vis)
