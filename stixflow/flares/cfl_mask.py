"""The shadow that the mask of the coarse flare locator casts on its pixels, from wherever a source is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

_COLUMN_MM = 2.2
_COLUMNS = np.array([-4.4, -2.2, 0.0, 2.2])
_SMALL = np.array([-3.85, -1.65, 0.55, 2.75])
_ROW_MM = 4.6
_LARGE_PIXEL_MM2 = _COLUMN_MM * _ROW_MM - 1.1 * 0.91 / 2
_ARCSEC = np.pi / 180 / 3600


@dataclass(frozen=True, slots=True)
class CflMask:
    """Mask, pixels and alignment of the coarse flare locator."""

    separation_mm: float
    """From the mask to the detector."""
    half_width_mm: float
    """Each of the two openings reaches from -x to x."""
    inner_mm: float
    """Along y the openings reach from here ..."""
    outer_mm: float
    """... to here, on both sides."""
    small_mm: tuple[float, float] = (1.1, 0.91)
    """What a small pixel takes from the large ones above and below it."""
    axis: tuple[float, float] = (0.0, 0.0)
    """Position on the sky whose shadow is centred, arcsec."""
    leak_mm2: float = 0.0
    """Area that a large pixel seems to have in full shadow; a small one in proportion."""
    gains: tuple[float, ...] = (1.0,) * 8
    """Response of the large pixels."""


FLIGHT_MASK = CflMask(
    597.06, 4.409, 3.471, 9.986, axis=(-12.94, 41.62), leak_mm2=0.021,
    gains=(1.0396, 1.0023, 1.0028, 0.9862, 0.9930, 0.9930, 0.9998, 0.9832),
)  # fmt: skip
"""Fitted to 767 real flares; leak from 57 others whose background was subtracted."""
RAW_MASK = replace(FLIGHT_MASK, leak_mm2=0.208)
"""The same for counts from which no background was subtracted: part of the leak is background."""


def illuminated_area(x: ArrayLike, y: ArrayLike, *, mask: CflMask = FLIGHT_MASK) -> FloatArray:
    """Lit area of the 12 pixels for a source at (x, y) in the STIX imaging frame.

    Exact overlap of rectangles: openings, pixels, and the small pixels cut out of the large ones.

    Parameters
    ----------
    x, y
        arcsec, any shapes that broadcast.

    Returns
    -------
    (..., 12) mm²; 0 to 3 top, 4 to 7 bottom, 8 to 11 small pixels. Without leak and response.
    """
    shift_x = mask.separation_mm * np.tan((np.asarray(x, dtype=np.float64) - mask.axis[0]) * _ARCSEC)[..., None]
    shift_y = -mask.separation_mm * np.tan((np.asarray(y, dtype=np.float64) - mask.axis[1]) * _ARCSEC)[..., None]
    shift_x, shift_y = np.broadcast_arrays(shift_x, shift_y)
    left, right = shift_x - mask.half_width_mm, shift_x + mask.half_width_mm
    small_width, small_height = mask.small_mm
    wide = _overlap(_COLUMNS, _COLUMNS + _COLUMN_MM, left, right)
    narrow = _overlap(_SMALL - small_width / 2, _SMALL + small_width / 2, left, right)
    areas = np.zeros((*shift_x.shape[:-1], 12))
    for low, high in ((mask.inner_mm, mask.outer_mm), (-mask.outer_mm, -mask.inner_mm)):
        below, above = shift_y + low, shift_y + high
        small_top = narrow * _overlap(0.0, small_height / 2, below, above)
        small_bottom = narrow * _overlap(-small_height / 2, 0.0, below, above)
        areas[..., :4] += wide * _overlap(0.0, _ROW_MM, below, above) - small_top
        areas[..., 4:8] += wide * _overlap(-_ROW_MM, 0.0, below, above) - small_bottom
        areas[..., 8:] += small_top + small_bottom
    return areas


def expected_area(x: ArrayLike, y: ArrayLike, *, mask: CflMask = FLIGHT_MASK, n_pixels: int = 12) -> FloatArray:
    """Counts per fluence of every pixel, mm²: `illuminated_area` with leak and response, its first `n_pixels`."""
    lit = illuminated_area(x, y, mask=mask)
    small = mask.leak_mm2 * mask.small_mm[0] * mask.small_mm[1] / _LARGE_PIXEL_MM2
    leak = np.r_[np.full(8, mask.leak_mm2), np.full(4, small)]
    gains = np.r_[mask.gains, np.ones(4)]
    return np.asarray(((lit + leak) * gains)[..., :n_pixels])


def _overlap(a: FloatArray | float, b: FloatArray | float, c: FloatArray, d: FloatArray) -> FloatArray:
    return np.asarray(np.clip(np.minimum(b, d) - np.maximum(a, c), 0.0, None))
