"""CLEAN (Högbom): subtract the point spread function at the peak of the residual, again and again.

With the residual R starting as the dirty map: ``k = argmax R; component[k] += gain R[k]; R -= gain R[k] PSF(x - x_k)``,
until `niter` or until the deepest negative is larger than the peak. The map is the components convolved with a Gaussian
beam, plus the residual.

Speed comes from keeping one residual in cache, from one fused multiply-add per component (the PSF is laid out once per
column shift, so that every window of it is contiguous), and from looking at the minimum only once per block of
components. A block is accepted only if a lower bound of every minimum in between proves that the rule would not have
stopped there; otherwise it is undone and repeated in smaller steps. The components are those of the plain rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging.back_projection import BackProjection, Weighting, back_project, point_spread, weights
from stixflow.imaging.grids import FloatArray, Grid

_FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
_SHEETS_LIMIT_BYTES = 96 << 20
_LONGEST_BLOCK = 16
_BLOCK_EAGERNESS = 1.4
"""Over 1, a longer block is tried than is sure to be proven (benchmarks/bench_imaging.py)."""

Boxes = tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Clean:
    """Parameters of CLEAN.

    Parameters
    ----------
    gain
        Part of the peak that one component takes.
    niter
        Most components.
    beam_fwhm
        Width of the Gaussian beam, arcsec; None for the width that the spatial frequencies resolve (`natural_beam`).
    weighting
        Weights of the visibilities.
    boxes
        Rectangles ``(x_low, y_low, x_high, y_high)`` in arcsec from the middle of the map. The peak, and the negative
        that stops, are looked for in them only; the residual is updated everywhere.

    Raises
    ------
    UsageError
        If the gain, the number of components or the beam make no sense.
    """

    gain: float = 0.1
    niter: int = 200
    beam_fwhm: float | None = 20.0
    weighting: Weighting = "natural"
    boxes: Boxes | None = None

    def __post_init__(self) -> None:
        beam_is_valid = self.beam_fwhm is None or self.beam_fwhm > 0
        if not (0 < self.gain <= 1 and self.niter >= 0 and beam_is_valid):
            raise UsageError(
                f"CLEAN with gain {self.gain}, {self.niter} iterations, beam {self.beam_fwhm} arcsec",
                expected="0 < gain <= 1, no negative number of iterations, a positive beam",
                advice="correct the parameters",
            )


class CleanMaps(NamedTuple):
    """A stack of cleaned maps and how each came about."""

    image: FloatArray
    """(image, y, x), unit of the visibilities per arcsec²."""
    components: FloatArray
    """(image, y, x), flux of the components in each pixel."""
    residual: FloatArray
    """(image, y, x), what is left of the dirty map, unit of the visibilities."""
    iterations: NDArray[np.int64]
    """(image,) components subtracted."""


def clean(vis: ArrayLike, u: ArrayLike, v: ArrayLike, grid: Grid, parameters: Clean | None = None) -> CleanMaps:
    """Clean a stack of visibilities.

    Parameters
    ----------
    vis
        Complex, shape (image, visibility), with the phase centre in the middle of the grid.
    u, v
        Spatial frequencies, 1/arcsec, shape (visibility,).

    Raises
    ------
    ImagingError
        If a visibility is not finite.
    UsageError
        If no pixel of the map lies in the boxes.
    """
    parameters = parameters or Clean()
    vis = np.atleast_2d(np.asarray(vis, dtype=np.complex128))
    if not np.isfinite(vis).all():
        raise ImagingError("some visibilities are not finite", expected="numbers", advice="leave those out")
    residual = np.asarray(back_project(vis, u, v, grid, BackProjection(parameters.weighting)), dtype=np.float64)
    spread = _spread_of(u, v, grid, parameters.weighting)
    box = _box_pixels(grid, parameters.boxes)
    fwhm = natural_beam(u, v, parameters.weighting) if parameters.beam_fwhm is None else parameters.beam_fwhm
    components, image = np.zeros_like(residual), np.empty_like(residual)
    iterations = np.zeros(len(residual), dtype=np.int64)
    for i, left in enumerate(residual):
        peaks, fluxes = subtract_components(left, spread, parameters.gain, parameters.niter, box)
        np.add.at(components[i].reshape(-1), peaks, fluxes)
        _restore(components[i], left, fwhm, grid, out=image[i])
        iterations[i] = len(peaks)
    return CleanMaps(image, components, residual, iterations)


def natural_beam(u: ArrayLike, v: ArrayLike, weighting: Weighting = "natural") -> float:
    """Width (FWHM, arcsec) of the Gaussian beam that the spatial frequencies resolve.

    2.3548 * 0.45 * sqrt(Σw / Σ(w / R²)) over the distinct half periods R, as in the ground software.
    """
    frequency = np.hypot(np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64))
    half_period, first = np.unique(np.round(0.5 / frequency, 2), return_index=True)
    weight = weights(u, v, weighting)[first]
    return float(_FWHM_PER_SIGMA * 0.45 * np.sqrt(weight.sum() / (weight / half_period**2).sum()))


class PointSpread:
    """A point spread function that can be subtracted fast: copies of it whose windows are contiguous.

    There is one copy ("sheet") per column of the source, made when needed as long as there is room; a column without
    one is subtracted from the original in two passes.

    Parameters
    ----------
    psf
        Peak 1, shape (2 ny - 1, 2 nx - 1).
    """

    def __init__(self, psf: FloatArray) -> None:
        from scipy.linalg.blas import daxpy

        self._daxpy = daxpy
        self.lowest = min(float(psf.min()), 0.0)
        self._psf = psf
        self._ny, self._nx = (psf.shape[0] + 1) // 2, (psf.shape[1] + 1) // 2
        self._sheets: dict[int, FloatArray] = {}
        self._most_sheets = _SHEETS_LIMIT_BYTES // (psf.shape[0] * self._nx * psf.itemsize)
        self._scaled = np.empty((self._ny, self._nx))

    def subtract(self, values: FloatArray, peak: int, flux: float) -> None:
        """Subtract a source of that flux in pixel `peak` from the flat map `values`, in place."""
        iy, ix = divmod(peak, self._nx)
        sheet = self._sheet(ix)
        if sheet is not None:
            self._daxpy(sheet, values, values.size, -flux, (self._ny - 1 - iy) * self._nx)
            return
        np.multiply(self._window(iy, ix), flux, out=self._scaled)
        values -= self._scaled.reshape(-1)

    def _window(self, iy: int, ix: int) -> FloatArray:
        ny, nx = self._ny, self._nx
        return self._psf[ny - 1 - iy : 2 * ny - 1 - iy, nx - 1 - ix : 2 * nx - 1 - ix]

    def _sheet(self, ix: int) -> FloatArray | None:
        """The PSF of a source in column `ix` for all row shifts, flat; that of row iy starts at (ny - 1 - iy) nx."""
        found = self._sheets.get(ix)
        if found is None and len(self._sheets) < self._most_sheets:
            columns = slice(self._nx - 1 - ix, 2 * self._nx - 1 - ix)
            found = self._sheets[ix] = np.ascontiguousarray(self._psf[:, columns]).reshape(-1)
        return found


def subtract_components(
    residual: FloatArray, spread: PointSpread, gain: float, niter: int, box: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.intp], FloatArray]:
    """Subtract components from one residual map (contiguous, changed in place).

    Returns
    -------
    Flat pixel index and flux of every component, in the order of subtraction.
    """
    state = _Residual(residual.reshape(-1), spread, gain, box)
    peaks: list[int] = []
    fluxes: list[float] = []
    lowest = state.minimum()
    block = state.promising_steps(float(state.values.max()), lowest)
    while len(peaks) < niter:
        saved = state.values.copy() if block > 1 else None
        new_peaks, heights = state.run(min(block, niter - len(peaks)), lowest)
        if not new_peaks:
            break
        lowest_after = state.minimum()
        if saved is not None and not state.is_proven(heights, lowest_after):
            state.values[:] = saved
            block = max(block // 4, 1)
            continue
        peaks += new_peaks
        fluxes += [gain * height for height in heights]
        lowest, block = lowest_after, state.promising_steps(heights[-1], lowest_after)
    return np.array(peaks, dtype=np.intp), np.array(fluxes)


class _Residual:
    """One residual map while it is cleaned: flat values, and the search restricted to the box."""

    def __init__(self, values: FloatArray, spread: PointSpread, gain: float, box: NDArray[np.intp] | None) -> None:
        self.values, self.gain, self.box, self._spread = values, gain, box, spread

    def minimum(self) -> float:
        return float(self.values.min() if self.box is None else self.values[self.box].min())

    def run(self, steps: int, lowest: float) -> tuple[list[int], list[float]]:
        """Subtract up to `steps` components; `lowest` is the minimum before the first. Returns pixels and heights."""
        values, box, subtract, gain = self.values, self.box, self._spread.subtract, self.gain
        peaks: list[int] = []
        heights: list[float] = []
        for _ in range(steps):
            peak = int(values.argmax()) if box is None else int(box[values[box].argmax()])
            height = float(values[peak])
            if not heights and -lowest > height:
                break
            subtract(values, peak, gain * height)
            peaks.append(peak)
            heights.append(height)
        return peaks, heights

    def promising_steps(self, height: float, lowest: float) -> int:
        """How many components are likely to be proven at once, from how far the minimum is from stopping."""
        if not height > -lowest:
            return 1
        steps = _BLOCK_EAGERNESS * (1.0 + lowest / height) / (self.gain * (1.0 - self._spread.lowest))
        return int(min(max(steps, 1.0), _LONGEST_BLOCK))

    def is_proven(self, heights: list[float], lowest_after: float) -> bool:
        """Whether the stop rule was surely false before every component of the block but the first (checked already).

        Going back from the end of the block, no value can have been lower than the lowest at the end by more than the
        subtracted heights times the deepest negative of the PSF.
        """
        rest = 0.0
        for height in reversed(heights[1:]):
            rest += self.gain * height
            if height <= 0 or -(lowest_after + self._spread.lowest * rest) > height:
                return False
        return True


def _spread_of(u: ArrayLike, v: ArrayLike, grid: Grid, weighting: Weighting) -> PointSpread:
    u, v = np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64)
    return _cached_spread(u.tobytes(), v.tobytes(), grid.shape, grid.pixel, weighting)


@lru_cache(maxsize=3)
def _cached_spread(
    u: bytes, v: bytes, shape: tuple[int, int], pixel: tuple[float, float], weighting: Weighting
) -> PointSpread:
    psf = point_spread(np.frombuffer(u), np.frombuffer(v), Grid(shape, pixel), weighting)
    return PointSpread(psf / psf[shape[0] - 1, shape[1] - 1])


def _box_pixels(grid: Grid, boxes: Boxes | None) -> NDArray[np.intp] | None:
    if boxes is None:
        return None
    x, y = grid.offset_x, grid.offset_y[:, None]
    inside = np.zeros(grid.shape, dtype=np.bool_)
    for x_low, y_low, x_high, y_high in boxes:
        inside |= (x >= x_low) & (x <= x_high) & (y >= y_low) & (y <= y_high)
    if not inside.any():
        raise UsageError(
            f"no pixel lies in the clean boxes {boxes}",
            expected="(x_low, y_low, x_high, y_high) in arcsec from the middle of the map",
            advice="correct the boxes",
        )
    return np.flatnonzero(inside)


def _restore(components: FloatArray, residual: FloatArray, fwhm: float, grid: Grid, *, out: FloatArray) -> None:
    """Write components convolved with the beam, plus residual, per arcsec²."""
    beam_y, sum_y = _beam_table(grid.shape[0], grid.pixel[0], fwhm)
    beam_x, sum_x = _beam_table(grid.shape[1], grid.pixel[1], fwhm)
    filled_pixels = components != 0
    rows, columns = np.flatnonzero(filled_pixels.any(axis=1)), np.flatnonzero(filled_pixels.any(axis=0))
    filled = components[np.ix_(rows, columns)]
    np.matmul(beam_y[:, rows] @ filled, beam_x[columns], out=out)
    out += residual
    out *= 1.0 / (sum_y * sum_x * grid.pixel_area)


@lru_cache(maxsize=16)
def _beam_table(n: int, step: float, fwhm: float) -> tuple[FloatArray, float]:
    """One axis of the Gaussian beam: its value between every two pixels (n, n), and its sum over 3n pixels."""
    width = fwhm / _FWHM_PER_SIGMA
    offsets = np.arange(-((3 * n) // 2), (3 * n) // 2 + 1) * step
    profile = np.exp(-0.5 * (offsets / width) ** 2)
    between = np.arange(n) - np.arange(n)[:, None] + offsets.size // 2
    return profile[between], float(profile.sum())
