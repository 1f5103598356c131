"""Where the flare is: full-disk back-projection of the coarse sub-collimators, refined by a fit of one Gaussian.

The coarse visibilities repeat themselves on a lattice some thousand arcsec wide, so the highest peak of the map
need not be the flare. Every peak that comes near it is fitted with a circular Gaussian; the best fit wins, and the
location is called ambiguous where another one far away fits almost as well. That decides more than the height of the
sidelobes does: of 60 real flares seven have sidelobes of at least 0.9, and four of these are located without doubt.
Knowing where the centre of the Sun is settles nearly all cases, because it excludes what lies off the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import ImagingError
from stixflow.imaging.back_projection import back_project
from stixflow.imaging.bands import ElutMode
from stixflow.imaging.forward import ComplexArray, modulation_amplitude
from stixflow.imaging.grids import FloatArray, Grid
from stixflow.imaging.visibilities import visibilities
from stixflow.instrument import LOCATION_RESOLUTIONS, detectors, grid_transmission, subcollimators

N_PIXELS = 512
"""Pixels along a side of the full-disk map."""
_MAP_WIDTH_RSUN = 2.6
_DISK_RSUN = 1.15
"""How far from the centre of the Sun a flare may be seen (loop tops at the limb)."""
_FAR_ARCSEC = 200.0
"""Beyond this distance from the peak, another peak is a sidelobe."""
_CANDIDATE_RATIO = 0.75
"""Height of a peak, as a part of the highest, from which it is tried."""
_DECISIVE_CHI2_RATIO = 1.5
"""How much worse a fit must be to be excluded. Of 60 real flares the ratio is at least 1.58 for all right locations,
and at most 1.26 for the wrong and the doubtful ones."""

_MOST_CANDIDATES = 12
_MOST_PASSES = 5
_SETTLED_ARCSEC = 0.5
_GAUSSIAN = np.pi**2 / (4 * np.log(2))
_START_FWHM = 50.0
_LARGEST_FWHM = 200.0


@dataclass(frozen=True, slots=True)
class Location:
    """Position of a flare in the STIX imaging frame, arcsec."""

    x: float
    y: float
    sigma_x: float
    """Standard error from the errors of the visibilities, enlarged by the misfit of the model."""
    sigma_y: float
    sidelobe_ratio: float
    """Highest value further than 200 arcsec from the peak, as a part of the peak."""
    ambiguous: bool
    """Whether a source elsewhere fits almost as well (`chi2_ratio` below 1.5), so that this is not to be trusted."""
    peak: float
    """Back-projection at its maximum near the location, unit of the visibilities."""
    peak_x: float
    """Position of that maximum, to a fraction of a pixel."""
    peak_y: float
    fwhm: float
    """Width of the fitted source; 0 for a point."""
    chi2: float
    """Reduced χ² of the fit."""
    chi2_ratio: float
    """χ² of the best fit further than 200 arcsec away, over that of this one; infinite without one."""
    iterations: int
    """Passes until the transmission belonged to the location."""


def locate(
    pixels: xr.Dataset,
    time_range: Any,
    energy_range: tuple[float, float] = (6.0, 10.0),
    background: xr.Dataset | None = None,
    *,
    rsun_arcsec: float,
    center: ArrayLike | None = None,
    elut: ElutMode | None = "power_law",
) -> Location:
    """Locate one flare.

    Parameters
    ----------
    pixels, background, time_range, energy_range, elut
        As for `visibilities`, one interval.
    rsun_arcsec
        Apparent radius of the Sun; the map is 2.6 of them wide, 512 pixels.
    center
        Position of the centre of the Sun in the STIX frame. Without one the pointing counts as unknown: the map is
        centred on the axis of the instrument, and no place in it is excluded.

    Raises
    ------
    ImagingError
        If the interval cannot be imaged, or holds no modulation.
    """
    found = locate_each(pixels, time_range, energy_range, background, rsun_arcsec=rsun_arcsec, center=center, elut=elut)
    return found[0]


def locate_each(
    pixels: xr.Dataset,
    time_range: Any,
    energy_range: Any = (6.0, 10.0),
    background: xr.Dataset | None = None,
    *,
    rsun_arcsec: float,
    center: ArrayLike | None = None,
    elut: ElutMode | None = "power_law",
) -> list[Location]:
    """Locate the source in each of many intervals of one request, one after the other in time, energies fastest.

    Arguments as of `locate`, with one or many time and energy ranges; the counts are read once.

    Raises
    ------
    ImagingError
        If an interval cannot be imaged, or holds no modulation.
    """
    indices = subcollimators(*LOCATION_RESOLUTIONS)
    middle = (0.0, 0.0) if center is None else tuple(np.asarray(center, dtype=np.float64).tolist())
    data = visibilities(
        pixels, time_range, energy_range, background,
        location=middle, center=middle, subcollimators=indices, elut=elut,
    )  # fmt: skip
    return [
        _locate_visibilities(
            vis,
            sigma,
            indices,
            rsun_arcsec=rsun_arcsec,
            center=(middle[0], middle[1]),
            is_center_known=center is not None,
        )
        for vis, sigma in zip(data["visibility"].to_numpy(), data["sigma"].to_numpy(), strict=True)
    ]


def _locate_visibilities(
    vis: ComplexArray,
    sigma: FloatArray,
    indices: NDArray[np.intp],
    *,
    rsun_arcsec: float,
    center: tuple[float, float],
    is_center_known: bool,
) -> Location:
    """Locate one flare from visibilities calibrated, and with the phase centre, at `center`."""
    frequencies = detectors().u[indices], detectors().v[indices]
    grid = Grid(N_PIXELS, _MAP_WIDTH_RSUN * rsun_arcsec / N_PIXELS)
    amplitude = modulation_amplitude(grid_transmission(*center)[indices])
    disk = rsun_arcsec if is_center_known else None
    place = np.zeros(2)
    passes = 0
    while True:
        passes += 1
        rescale = amplitude / modulation_amplitude(grid_transmission(*(place + center))[indices])
        search = _Search.of(vis * rescale, *frequencies, grid, disk)
        fits = _fit_gaussians(vis * rescale, sigma * rescale, *frequencies, search.starts)
        best = int(np.argmin(fits.chi2))
        moved = float(np.hypot(*(fits.position[best] - place)))
        place = fits.position[best]
        if moved < _SETTLED_ARCSEC or passes == _MOST_PASSES:
            return _conclude(vis * rescale, frequencies, search, fits, best, center, passes)


class GaussianFits(NamedTuple):
    """Circular Gaussians fitted to one set of visibilities from several starts."""

    position: FloatArray
    """(start, 2)"""
    fwhm: FloatArray
    flux: FloatArray
    chi2: FloatArray
    """(start,), not reduced."""
    covariance: FloatArray
    """(start, 4, 4) of x, y, flux and squared width."""


def _fit_gaussians(
    vis: ComplexArray, sigma: FloatArray, u: FloatArray, v: FloatArray, starts: FloatArray, *, steps: int = 25
) -> GaussianFits:
    """Fit one circular Gaussian from each of several starting positions at once (Levenberg-Marquardt).

    Parameters
    ----------
    vis, sigma, u, v
        One set of visibilities, shape (visibility,).
    starts
        (start, 2) positions from the phase centre, arcsec.
    """
    weight = 1.0 / sigma
    flux = np.full(len(starts), np.abs(vis).max())
    state = np.concatenate([starts, flux[:, None], np.full((len(starts), 1), _START_FWHM**2)], axis=1)
    damping = np.full(len(starts), 1e-2)
    residual, jacobian = _model(state, vis, weight, u, v)
    chi2 = (residual**2).sum(axis=1)
    for _ in range(steps):
        normal = np.einsum("nki,nkj->nij", jacobian, jacobian)
        gradient = np.einsum("nki,nk->ni", jacobian, residual)
        diagonal = np.einsum("nii->ni", normal)
        added = damping[:, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True)
        damped = normal + np.eye(4) * added[:, None]
        trial = state - np.linalg.solve(damped, gradient[..., None])[..., 0]
        trial[:, 3] = np.clip(trial[:, 3], 0.0, _LARGEST_FWHM**2)
        new_residual, new_jacobian = _model(trial, vis, weight, u, v)
        new_chi2 = (new_residual**2).sum(axis=1)
        better = new_chi2 < chi2
        state, chi2 = np.where(better[:, None], trial, state), np.where(better, new_chi2, chi2)
        residual = np.where(better[:, None], new_residual, residual)
        jacobian = np.where(better[:, None, None], new_jacobian, jacobian)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e9)
    normal = np.einsum("nki,nkj->nij", jacobian, jacobian)
    covariance = np.linalg.pinv(normal, hermitian=True)
    return GaussianFits(state[:, :2], np.sqrt(state[:, 3]), state[:, 2], chi2, covariance)


def refine_peak(
    vis: ComplexArray, u: FloatArray, v: FloatArray, start: ArrayLike, *, steps: int = 12
) -> tuple[float, float, float]:
    """Maximum of the exact, naturally weighted back-projection near `start`: x, y and its value (Newton)."""
    place = np.array(start, dtype=np.float64)
    frequency = 2 * np.pi * np.stack([u, v])
    for _ in range(steps):
        wave = vis * np.exp(-1j * (place @ frequency))
        gradient = (frequency * wave.imag).mean(axis=1)
        hessian = -(frequency[:, None] * frequency * wave.real).mean(axis=2)
        if np.linalg.eigvalsh(hessian)[-1] >= 0:
            break
        place = place - np.linalg.solve(hessian, gradient)
    return float(place[0]), float(place[1]), float((vis * np.exp(-1j * (place @ frequency))).real.mean())


class _Search(NamedTuple):
    """Full-disk map and its highest peaks that could be the flare."""

    image: FloatArray
    grid: Grid
    allowed: NDArray[np.bool_]
    starts: FloatArray

    @classmethod
    def of(cls, vis: ComplexArray, u: FloatArray, v: FloatArray, grid: Grid, disk: float | None) -> _Search:
        image = np.asarray(back_project(vis, u, v, grid)[0], dtype=np.float64)
        allowed = np.ones(image.shape, dtype=np.bool_)
        if disk is not None:
            allowed = np.hypot(grid.offset_x, grid.offset_y[:, None]) <= _DISK_RSUN * disk
        highest = float(image[allowed].max())
        if not highest > 0:
            raise ImagingError(
                "the visibilities show no modulation", expected="a flare", advice="choose another interval or energy"
            )
        inner = image[1:-1, 1:-1]
        is_peak = (inner >= _CANDIDATE_RATIO * highest) & allowed[1:-1, 1:-1]
        for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
            is_peak &= inner >= image[1 + dy : image.shape[0] - 1 + dy, 1 + dx : image.shape[1] - 1 + dx]
        iy, ix = (index + 1 for index in np.nonzero(is_peak))
        if not iy.size:
            top = np.unravel_index(np.argmax(np.where(allowed, image, -np.inf)), image.shape)
            iy, ix = np.array(top)[:, None]
        order = np.argsort(-image[iy, ix])[:_MOST_CANDIDATES]
        starts = np.stack([grid.offset_x[ix], grid.offset_y[iy]], axis=1)[order]
        return cls(image, grid, allowed, starts)

    def sidelobe_ratio(self, place: FloatArray) -> float:
        """Highest allowed value far from `place` over the highest near it."""
        distance = np.hypot(self.grid.offset_x - place[0], self.grid.offset_y[:, None] - place[1])
        near, far = self.image[distance <= _FAR_ARCSEC], self.image[(distance > _FAR_ARCSEC) & self.allowed]
        return float(far.max() / near.max())


def _conclude(
    vis: ComplexArray,
    frequencies: tuple[FloatArray, FloatArray],
    search: _Search,
    fits: GaussianFits,
    best: int,
    center: tuple[float, float],
    passes: int,
) -> Location:
    place = fits.position[best]
    far = np.hypot(*(fits.position - place).T) > _FAR_ARCSEC
    ratio = float(fits.chi2[far].min() / fits.chi2[best]) if far.any() else float("inf")
    sidelobes = search.sidelobe_ratio(place)
    freedom = 2 * vis.size - 4
    chi2 = float(fits.chi2[best]) / freedom
    error = np.sqrt(np.diagonal(fits.covariance[best])[:2] * max(chi2, 1.0))
    peak_x, peak_y, peak = refine_peak(vis, *frequencies, search.starts[best])
    return Location(
        x=float(place[0] + center[0]),
        y=float(place[1] + center[1]),
        sigma_x=float(error[0]),
        sigma_y=float(error[1]),
        sidelobe_ratio=sidelobes,
        ambiguous=ratio < _DECISIVE_CHI2_RATIO,
        peak=peak,
        peak_x=peak_x + center[0],
        peak_y=peak_y + center[1],
        fwhm=float(fits.fwhm[best]),
        chi2=chi2,
        chi2_ratio=ratio,
        iterations=passes,
    )


def _model(
    state: FloatArray, vis: ComplexArray, weight: FloatArray, u: FloatArray, v: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weighted residuals (start, 2k) of x, y, flux, squared width, and their derivatives (start, 2k, 4)."""
    x, y, flux, square = (state[:, i, None] for i in range(4))
    shape = -_GAUSSIAN * (u**2 + v**2)
    unit = np.exp(shape * square + 2j * np.pi * (u * x + v * y)) * weight
    model = flux * unit
    columns = np.stack([2j * np.pi * u * model, 2j * np.pi * v * model, unit, shape * model], axis=-1)
    residual = model - vis * weight
    return np.concatenate([residual.real, residual.imag], axis=1), np.concatenate([columns.real, columns.imag], axis=1)
