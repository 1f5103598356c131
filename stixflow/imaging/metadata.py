"""What is in an image: its sources, with position, size, contour and errors, for a whole stack at once.

A source is a local maximum that stands out of the noise and is not small beside the brightest one; its outline is the
contour at half its own peak. Two maxima inside one such contour are one blended source, named after the brighter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.ephemeris import Observer, Pointing, hpc_to_heliographic, stix_to_hpc
from stixflow.imaging.attitude import attitude_of
from stixflow.imaging.grids import FloatArray

NOISE_SIGMAS = 5.0
"""How far a source stands out of the noise."""
PEAK_PART = 0.2
"""Smallest peak of a further source, as a part of the brightest."""
BP_SIGMAS, BP_PEAK_PART = 2.0, 0.6
"""The same for back-projections, whose scatter is that of sidelobes, and whose sidelobes reach half the peak."""
_CONTOUR_LEVEL = 0.5
_MOST_SOURCES = 8
_MOST_POINTS = 48

_GAUSSIAN_AREA = np.pi / (4 * np.log(2))
_MAD = 1.4826
_NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One source of one image; positions in arcsec, STIX frame unless they say otherwise. NaN where not known."""

    image: int
    """Which of the stack."""
    number: int
    """0 for the brightest of the image."""
    peak: float
    """Height of the maximum, unit of the map."""
    snr: float
    """`peak` over the noise of the map."""
    x: float
    """Position of the maximum, to a fraction of a pixel."""
    y: float
    sigma: float
    """Standard error of x and of y: width over signal to noise."""
    centroid_x: float
    """Centre of brightness inside the contour."""
    centroid_y: float
    area: float
    """Area inside the contour, arcsec²."""
    flux: float
    """Brightness summed inside the contour; for maps per arcsec²."""
    peaks: int
    """Maxima inside the contour."""
    is_cut: bool
    """Whether the contour reaches the border of the map."""
    contour: FloatArray
    """(points, 2) x and y of the contour, closed."""
    hpc: tuple[float, float] | None = None
    """Helioprojective position of the maximum, arcsec, seen from the spacecraft."""
    hpc_sigma: tuple[float, float] | None = None
    """Its standard error, with the scatter of the pointing."""
    hgs: tuple[float, float] | None = None
    """Stonyhurst longitude and latitude, degrees; None beside the disk."""
    hgs_sigma: tuple[float, float] | None = None

    @property
    def fwhm(self) -> float:
        """Diameter of the circle of the same area."""
        return float(2 * np.sqrt(self.area / np.pi))


def find_sources(
    images: xr.Dataset,
    *,
    pointing: Pointing | None = None,
    observer: Observer | None = None,
    sigmas: float | None = None,
    part: float | None = None,
    level: float = _CONTOUR_LEVEL,
) -> list[Source]:
    """Sources of a stack of images, image by image, the brightest first.

    The noise is the uncertainty of the pixel if there is one, else of the residual map of CLEAN. Else a peak has to
    stand out of the scatter of the map, and its signal to noise and the error of its position are not known (NaN).

    Parameters
    ----------
    images
        From `reconstruct`.
    pointing, observer
        For positions on the sky, and on the Sun, of maps that do not carry their own; a pointing that is only the
        average of the mission gives none.
    sigmas, part
        How far a peak stands out of the noise, and how high it is beside the brightest; by default 5 and 0.2, for
        back-projections 2 and 0.6.
    level
        Height of the contour, as a part of the peak.
    """
    is_dirty = images.attrs.get("method") == "bp"
    sigmas = (BP_SIGMAS if is_dirty else NOISE_SIGMAS) if sigmas is None else sigmas
    part = (BP_PEAK_PART if is_dirty else PEAK_PART) if part is None else part
    maps = images["image"].to_numpy()
    noise = map_noise(images)
    where = _Frame.of(images)
    found = []
    least = sigmas * np.where(np.isnan(noise), _scatter(maps), noise)
    index, iy, ix = _maxima(maps, np.maximum(least, part * maps.max(axis=(1, 2), keepdims=True)))
    noise = np.broadcast_to(noise, maps.shape)[index, iy, ix]
    heights, dy, dx = _refined(maps, index, iy, ix)
    for image in range(len(maps)):
        mine = np.flatnonzero(index == image)
        mine = mine[np.argsort(-heights[mine], kind="stable")][:_MOST_SOURCES]
        places = np.stack([ix[mine] + dx[mine], iy[mine] + dy[mine]], axis=1)
        for k, (members, source) in enumerate(_outlined(maps[image], heights[mine], places, level)):
            place, best = where.arcsec(image, places[members[0]]), mine[members[0]]
            found.append(
                _measured(maps[image], source, where, image, k, heights[best], place, noise[best], len(members))
            )
    return [_on_the_sky(source, *attitude_of(images, source.image, pointing, observer)) for source in found]


def map_noise(images: xr.Dataset) -> FloatArray:
    """Noise in the unit of the maps: of every pixel (image, y, x) or of the whole map (image, 1, 1).

    NaN for methods that do not tell, without uncertainty.
    """
    if "uncertainty" in images:
        return np.asarray(images["uncertainty"].to_numpy(), dtype=np.float64)
    noise = np.full(images.sizes["image"], np.nan)
    if "residual_rms" in images and "beam_fwhm" in images.attrs:
        beam = _GAUSSIAN_AREA * float(images.attrs["beam_fwhm"]) ** 2
        noise = np.asarray(images["residual_rms"].to_numpy() / beam, dtype=np.float64)
    return np.asarray(noise[:, None, None])


def _scatter(maps: FloatArray) -> FloatArray:
    """Robust scatter of the pixels of every map: sidelobes as well as noise."""
    middle = np.median(maps, axis=(1, 2), keepdims=True)
    return np.asarray(_MAD * np.median(np.abs(maps - middle), axis=(1, 2), keepdims=True), dtype=np.float64)


def source_rows(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Sources as plain values that a catalog keeps: numbers, None, and the contour as a list of a few pairs."""
    names = ("number", "peak", "snr", "x", "y", "sigma", "centroid_x", "centroid_y", "area", "fwhm", "flux", "peaks")
    return [
        {name: _plain(getattr(source, name)) for name in (*names, "is_cut")}
        | {name: _pair(getattr(source, name)) for name in ("hpc", "hpc_sigma", "hgs", "hgs_sigma")}
        | {"contour": np.round(_thinned(source.contour), 1).tolist()}
        for source in sources
    ]


def _thinned(contour: FloatArray) -> FloatArray:
    """At most 48 points of a closed contour, the first and the last among them."""
    return np.asarray(contour[np.unique(np.linspace(0, len(contour) - 1, _MOST_POINTS).round().astype(int))])


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """From pixel indices to arcsec in the STIX frame."""

    first: FloatArray
    """(2,) offset of the first pixel from the middle of the map, x and y."""
    step: FloatArray
    center: FloatArray
    """(image, 2)"""
    is_brightness: bool

    @classmethod
    def of(cls, images: xr.Dataset) -> _Frame:
        step = np.array([images.attrs["pixel_x_arcsec"], images.attrs["pixel_y_arcsec"]], dtype=np.float64)
        first = np.array([images["x"].to_numpy()[0], images["y"].to_numpy()[0]])
        center = np.stack([images["center_x"].to_numpy(), images["center_y"].to_numpy()], axis=1)
        return cls(first, step, center, "arcsec2" in images["image"].attrs.get("units", ""))

    def arcsec(self, image: int, pixels: FloatArray) -> FloatArray:
        """(..., 2) pixel indices along x and y to arcsec."""
        return np.asarray(self.center[image] + self.first + self.step * pixels)


def _maxima(maps: FloatArray, least: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Image, row and column of every local maximum above `least`, off the border; one per plateau."""
    inner = maps[:, 1:-1, 1:-1]
    is_peak = inner > np.broadcast_to(least, maps.shape)[:, 1:-1, 1:-1]
    for dy, dx in _NEIGHBOURS:
        other = maps[:, 1 + dy : maps.shape[1] - 1 + dy, 1 + dx : maps.shape[2] - 1 + dx]
        is_peak &= inner > other if (dy, dx) > (0, 0) else inner >= other
    index, iy, ix = np.nonzero(is_peak)
    return index, iy + 1, ix + 1


def _refined(
    maps: FloatArray, index: NDArray[np.intp], iy: NDArray[np.intp], ix: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Height and sub-pixel offsets along y and x of maxima: the top of a Gaussian through their neighbours."""
    around = np.arange(-1, 2)
    block = maps[index[:, None, None], iy[:, None, None] + around[:, None], ix[:, None, None] + around].astype(
        np.float64
    )
    is_positive = (block > 0).all(axis=(1, 2))
    block[is_positive] = np.log(block[is_positive])
    middle = block[:, 1, 1]
    slope_y, slope_x = (block[:, 2, 1] - block[:, 0, 1]) / 2, (block[:, 1, 2] - block[:, 1, 0]) / 2
    bend_y = block[:, 2, 1] + block[:, 0, 1] - 2 * middle
    bend_x = block[:, 1, 2] + block[:, 1, 0] - 2 * middle
    twist = (block[:, 2, 2] + block[:, 0, 0] - block[:, 2, 0] - block[:, 0, 2]) / 4
    determinant = bend_y * bend_x - twist**2
    is_top = (determinant > 0) & (bend_x < 0)
    safe = np.where(is_top, determinant, 1.0)
    dy = np.where(is_top, np.clip((twist * slope_x - bend_x * slope_y) / safe, -1, 1), 0.0)
    dx = np.where(is_top, np.clip((twist * slope_y - bend_y * slope_x) / safe, -1, 1), 0.0)
    top = middle + (slope_y * dy + slope_x * dx) / 2
    return np.where(is_positive, np.exp(np.where(is_positive, top, 0.0)), top), dy, dx


def _outlined(
    image: FloatArray, heights: FloatArray, places: FloatArray, level: float
) -> list[tuple[list[int], FloatArray]]:
    """Contours, (points, 2) in pixels, with the maxima that each holds; the first of them named it."""
    from contourpy import contour_generator

    padded = np.pad(np.asarray(image, dtype=np.float64), 1, constant_values=float(np.min(image)) - 1.0)
    outlines = contour_generator(z=padded)
    sources: list[tuple[list[int], FloatArray]] = []
    taken = np.zeros(len(heights), dtype=np.bool_)
    for k, height in enumerate(heights):
        if taken[k]:
            continue
        lines = [np.asarray(line) - 1.0 for line in outlines.lines(level * height)]
        around = [line for line in lines if _holds(line, places[k : k + 1])[0]]
        if not around:
            continue
        outline = max(around, key=lambda line: abs(_area(line)))
        inside = _holds(outline, places) & ~taken
        inside[k] = True
        taken |= inside
        sources.append(
            (
                [k, *(int(i) for i in np.flatnonzero(inside) if i != k)],
                np.clip(outline, 0, np.array(image.shape[::-1]) - 1.0),
            )
        )
    return sources


def _measured(
    image: FloatArray,
    outline: FloatArray,
    frame: _Frame,
    index: int,
    number: int,
    height: float,
    place: FloatArray,
    noise: float,
    peaks: int,
) -> Source:
    step = float(np.prod(frame.step))
    area = abs(_area(outline)) * step
    ny, nx = image.shape
    (left, low), (right, high) = np.floor(outline.min(axis=0)).astype(int), np.ceil(outline.max(axis=0)).astype(int) + 1
    columns, rows = np.meshgrid(np.arange(left, right), np.arange(low, high))
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
    held = pixels[_holds(outline, pixels.astype(np.float64))]
    held = held if len(held) else np.rint(outline.mean(axis=0, keepdims=True)).astype(int)
    values = image[held[:, 1], held[:, 0]].astype(np.float64)
    center = frame.arcsec(index, (values[:, None] * held).sum(axis=0) / values.sum())
    snr = height / noise if noise > 0 else float("nan")
    return Source(
        image=index,
        number=number,
        peak=float(height),
        snr=float(snr),
        x=float(place[0]),
        y=float(place[1]),
        sigma=float(2 * np.sqrt(area / np.pi) / 2.3548 / snr),
        centroid_x=float(center[0]),
        centroid_y=float(center[1]),
        area=float(area),
        flux=float(values.sum() * step) if frame.is_brightness else float("nan"),
        peaks=peaks,
        is_cut=bool((outline.min() <= 0) or (outline[:, 0].max() >= nx - 1) or (outline[:, 1].max() >= ny - 1)),
        contour=frame.arcsec(index, outline),
    )


def _on_the_sky(source: Source, pointing: Pointing | None, observer: Observer | None) -> Source:
    if pointing is None or pointing.source == "average":
        return source
    place = stix_to_hpc((source.x, source.y), pointing)
    error = float(np.hypot(source.sigma, np.nan_to_num(pointing.sigma) / np.sqrt(2)))
    source = replace(source, hpc=(float(place[0]), float(place[1])), hpc_sigma=(error, error))
    if observer is None:
        return source
    step = 1.0
    at, beside_x, beside_y = hpc_to_heliographic(place + np.array([[0, 0], [step, 0], [0, step]]), observer)
    if not np.isfinite(at).all():
        return source
    sigma = np.hypot(beside_x - at, beside_y - at) / step * error
    return replace(source, hgs=(float(at[0]), float(at[1])), hgs_sigma=(float(sigma[0]), float(sigma[1])))


def _area(outline: FloatArray) -> float:
    """Area of a closed polygon, signed."""
    x, y = outline.T
    return float(0.5 * (x[:-1] * y[1:] - x[1:] * y[:-1]).sum())


def _holds(outline: FloatArray, places: FloatArray) -> NDArray[np.bool_]:
    """Which places lie inside a closed polygon: those that a ray leaves through an odd number of sides."""
    (x1, y1), (x2, y2) = outline[:-1].T, outline[1:].T
    x, y = places[:, 0, None], places[:, 1, None]
    crosses = (y1 > y) != (y2 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x1 + (y - y1) / (y2 - y1) * (x2 - x1)
    return np.asarray(((crosses & (x < at)).sum(axis=1) % 2).astype(np.bool_))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _pair(pair: tuple[float, float] | None) -> list[Any] | None:
    return None if pair is None else [_plain(value) for value in pair]
