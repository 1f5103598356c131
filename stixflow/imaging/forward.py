"""What the instrument would measure: from sources to visibilities to pixel rates.

The exact inverse of the chain from counts to visibilities: a source with the visibility V, seen through a pair of grids
with the mean transmission T, throws a moiré pattern whose first harmonic the four
columns sample a quarter period apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import UsageError
from stixflow.imaging.grids import FloatArray, Grid
from stixflow.instrument import SumCase

ComplexArray = NDArray[np.complex128]

_GAUSSIAN = np.pi**2 / (4 * np.log(2))
_MOMENT = 8 * np.log(2)
"""FWHM² of a Gaussian over its variance."""
_LEAST_LOOP_ANGLE = 1e-3


def sum_case(name: SumCase | str) -> SumCase:
    """Read a sum of pixels: "top", "bottom", "top+bottom", "all" or "small".

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    try:
        return SumCase(name.upper().replace("+", "_"))
    except ValueError:
        raise UsageError(
            f"rows={name!r}",
            expected=f"one of {', '.join(case.lower().replace('_', '+') for case in SumCase)}",
            advice="choose the rows of pixels to sum",
        ) from None


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A Gaussian source; an ellipse when the two widths differ.

    `flux` in counts s-1 cm-2 keV-1 above the grids; `x`, `y` in arcsec from the phase centre; `fwhm` the larger width
    and `fwhm_minor` the smaller one (arcsec, equal when not given); `angle` of the larger one in degrees from +x to +y.
    """

    flux: float
    x: float
    y: float
    fwhm: float
    fwhm_minor: float | None = None
    angle: float = 0.0

    @property
    def widths(self) -> tuple[float, float]:
        return self.fwhm, self.fwhm if self.fwhm_minor is None else self.fwhm_minor


@dataclass(frozen=True, slots=True)
class Loop:
    """A bent Gaussian source: a chain of equal circles along an arc, as in the ground software.

    Eleven circles with binomial fluxes lie equally spaced on an arc; radius and circles (of at least 1 arcsec) are such
    that the second moments are those of a Gaussian with the widths `fwhm` and `fwhm_minor` (arcsec). The chord through
    the foot points runs along ``angle + 90°``, and a loop with a positive `loop_angle` (degrees, FWHM along the arc)
    has its top towards `angle` (degrees from +x to +y). `x`, `y` is the centre of the flux.
    """

    flux: float
    x: float
    y: float
    fwhm: float
    fwhm_minor: float
    angle: float
    loop_angle: float

    def circles(self) -> list[Gaussian]:
        """Return the circles that make the loop."""
        arc = loop_arc(np.array([np.deg2rad(self.loop_angle)]))
        along, across = arc.variance_along[0], arc.variance_across[0]
        radius = np.sqrt(max(self.fwhm**2 - self.fwhm_minor**2, 0.0) / (_MOMENT * (along - across)))
        width = np.sqrt(max(self.fwhm**2 - _MOMENT * radius**2 * along, 1.0))
        cos, sin = np.cos(np.deg2rad(self.angle)), np.sin(np.deg2rad(self.angle))
        chord, top = radius * arc.along[0], radius * arc.across[0]
        x, y = self.x - chord * sin + top * cos, self.y + chord * cos + top * sin
        return [
            Gaussian(self.flux * part, float(px), float(py), float(width))
            for part, px, py in zip(arc.weight, x, y, strict=True)
        ]


Source = Gaussian | Loop


class LoopArc(NamedTuple):
    """Circles of loops on an arc of radius 1, mean in the origin, and derivatives by the loop angle in radians."""

    weight: FloatArray
    """(circle,) part of the flux."""
    along: FloatArray
    """(loop, circle) along the chord."""
    across: FloatArray
    """(loop, circle) towards the top; turned with the sign of the angle."""
    along_slope: FloatArray
    across_slope: FloatArray
    variance_along: FloatArray
    """(loop,)"""
    variance_across: FloatArray
    variance_along_slope: FloatArray
    variance_across_slope: FloatArray


def loop_arc(loop_angle: FloatArray) -> LoopArc:
    """Where the circles of loops with these angles (loop,), radians, lie."""
    weight, place = _loop_beads()
    sign = np.where(loop_angle < 0, -1.0, 1.0)[:, None]
    turn = np.maximum(np.abs(loop_angle), _LEAST_LOOP_ANGLE)[:, None] * place
    along, height = np.sin(turn), np.cos(turn)
    along_slope, fall = np.cos(turn) * place, np.sin(turn) * place
    across = height - (height @ weight)[:, None]
    across_slope = (fall @ weight)[:, None] - fall
    return LoopArc(
        weight, along, sign * across, sign * along_slope, across_slope,
        along**2 @ weight, across**2 @ weight,
        sign[:, 0] * (2 * (along * along_slope) @ weight), sign[:, 0] * (2 * (across * across_slope) @ weight),
    )  # fmt: skip


@cache
def _loop_beads() -> tuple[FloatArray, FloatArray]:
    """Fluxes of the circles, and their places on an arc whose FWHM is 1."""
    weight = np.array([comb(20, k) for k in range(21)]) / 2.0**20
    weight = weight[weight > 0.01]
    weight /= weight.sum()
    place = np.linspace(-0.5, 0.5, weight.size)
    return weight, place / np.sqrt(_MOMENT * (place**2 @ weight))


def source_visibilities(sources: Sequence[Source], u: ArrayLike, v: ArrayLike) -> ComplexArray:
    """Exact visibilities ``V = ∬ I exp(+2πi (ux + vy))`` of a sum of sources.

    `u`, `v` in 1/arcsec, any shape; the result has that shape and the unit of the fluxes.
    """
    u, v = np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64)
    total = np.zeros(np.broadcast_shapes(u.shape, v.shape), dtype=np.complex128)
    for source in _gaussians(sources):
        along, across = _rotated(u, v, source.angle)
        major, minor = source.widths
        envelope = np.exp(-_GAUSSIAN * ((major * along) ** 2 + (minor * across) ** 2))
        total += source.flux * envelope * np.exp(2j * np.pi * (u * source.x + v * source.y))
    return total


def source_image(sources: Sequence[Source], grid: Grid) -> FloatArray:
    """Brightness of a sum of sources at the pixel centres, flux per arcsec², shape of the grid."""
    image = np.zeros(grid.shape)
    for source in _gaussians(sources):
        x, y = grid.x - source.x, grid.y - source.y
        major, minor = source.widths
        peak = source.flux * 4 * np.log(2) / (np.pi * major * minor)
        if major == minor:
            image += np.multiply.outer(peak * _falling(y / major), _falling(x / major))
            continue
        along, across = _rotated(x, y[:, None], source.angle)
        image += peak * np.exp(-4 * np.log(2) * ((along / major) ** 2 + (across / minor) ** 2))
    return image


def _falling(distance: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-4 * np.log(2) * distance**2))


def modulation_amplitude(transmission: ArrayLike, harmonic: int = 1) -> FloatArray:
    """First-harmonic amplitude M1 seen by one column of pixels.

    `transmission` is the mean transmission T of a pair of equal grids; `harmonic` is 1 for columns of full width and 2
    for the small pixels. An ideal pair (T = 1/4) has 4 sin(π/4) / π³ in columns of full width.
    """
    width = harmonic * 4 / np.pi**3 * np.sin(np.pi / (4 * harmonic))
    return np.asarray(width * np.sin(np.pi * np.sqrt(np.asarray(transmission, dtype=np.float64))) ** 2)


def expected_column_rates(
    flux: ArrayLike, vis: ArrayLike, transmission: ArrayLike, phase: ArrayLike, sumcase: SumCase | str = "top+bottom"
) -> FloatArray:
    """Expected rates of the columns A, B, C, D.

    Parameters
    ----------
    flux
        Total source flux above the grids, broadcast against the leading axes of `vis` with a last axis for the detector
        (a scalar, or shape (..., 1)).
    vis
        Visibilities with the phase centre on the STIX axis, shape (..., detector), in the unit of `flux`.
    transmission, phase
        Mean transmission of each pair of grids, and its phase correction (grid + ad hoc) in degrees, shape (detector,).
    sumcase
        Which pixels make a column.

    Returns
    -------
    Rates per cm² of pixel area, in the unit of `flux`, shape (..., detector, 4).
    """
    case = sum_case(sumcase)
    transmission = np.asarray(transmission, dtype=np.float64)
    turn = np.exp(-1j * np.deg2rad(np.asarray(phase, dtype=np.float64) + case.phase_offset_deg))
    wave = 2 * modulation_amplitude(transmission, case.harmonic) * np.asarray(vis) * turn
    mean, wave = np.broadcast_arrays(transmission * np.asarray(flux, dtype=np.float64), wave)
    return np.stack([mean - wave.real, mean - wave.imag, mean + wave.real, mean + wave.imag], axis=-1)


def expected_pixel_rates(flux: ArrayLike, vis: ArrayLike, transmission: ArrayLike, phase: ArrayLike) -> FloatArray:
    """Expected rates per cm² of all 12 pixels, shape (..., detector, 12); arguments as `expected_column_rates`."""
    large = expected_column_rates(flux, vis, transmission, phase, "top")
    small = expected_column_rates(flux, vis, transmission, phase, "small")
    return np.concatenate([large, large, small], axis=-1)


def _gaussians(sources: Sequence[Source]) -> list[Gaussian]:
    return [part for source in sources for part in (source.circles() if isinstance(source, Loop) else [source])]


def _rotated(x: FloatArray, y: FloatArray, angle_deg: float) -> tuple[FloatArray, FloatArray]:
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return x * cos + y * sin, y * cos - x * sin
