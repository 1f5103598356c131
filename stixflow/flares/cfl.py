"""Where the flare is, from the shadow that an H-shaped mask casts on the coarse flare locator.

The mask lies 597 mm before detector 9 and shades its pixels. Fluence times the lit area of every pixel gives the
expected counts; the fluence comes from the imaging detectors, since the shadow alone hardly tells how far a flare is
along Y once one row of pixels is dark. The constants of the mask were fitted to half of 3000 real flares located by
imaging.

A second source elsewhere on the disk (a quiet active region, a sympathetic flare) lights the dark pixels and spoils
any fit of one source. The posterior therefore allows for one, of any place and up to the strength of the first, and
sums over it. It also knows that flares are on the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.ephemeris.attitude import ATTITUDE_OFFSET
from stixflow.errors import UsageError
from stixflow.flares.cfl_mask import FLIGHT_MASK, CflMask, FloatArray, expected_area

SUN_CENTER = (-ATTITUDE_OFFSET[1], ATTITUDE_OFFSET[0])
"""Centre of the Sun in the STIX frame at the average pointing, arcsec."""

_DISK_RSUN = 1.05
"""How far from the centre of the Sun a flare may be seen."""
_FAR_ARCSEC = 200.0
_AMBIGUOUS_PROBABILITY = 0.32
"""A location is ambiguous if it is further than 200 arcsec off with at least this probability."""
_CREDIBLE = (0.6827, 0.9545, 0.9973)
"""Probability inside the contours of 1, 2 and 3 sigma."""

_FLUENCE_ERROR = 0.01
_PIXEL_ERROR = 0.06
_SECOND_PROBABILITY = 0.1
_SECOND_PARTS = np.array([0.1, 0.2, 0.35, 0.5])
_STEPS_RSUN = 25
_LARGEST_STEP = 50.0
_SECOND_STEPS_RSUN = 4
_RADIUS_CLASSES = 1.06
_LARGEST_BLOCK = 1 << 23
_NEWTON_STEPS = 6
_STARTS = ((0.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5))


@dataclass(frozen=True, slots=True, eq=False)
class CflLocations:
    """Positions of flares in the STIX imaging frame, one array element each."""

    x: FloatArray
    """arcsec"""
    y: FloatArray
    """arcsec"""
    sigma_x: FloatArray
    """Standard deviation of the posterior, arcsec."""
    sigma_y: FloatArray
    correlation: FloatArray
    chi2: FloatArray
    """Of the best model over its degrees of freedom, with the error of the model in the variance."""
    second_probability: FloatArray
    """That a second source contributes."""
    second_part: FloatArray
    """Part of the fluence that the second source gives in the best model; 0 where one source is likelier."""
    ambiguous: NDArray[np.bool_]
    """Whether the flare is further than 200 arcsec from the position with a probability of at least 0.32."""

    def sigmas_from(self, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """How many standard deviations other positions lie off: more than 4 exposes a side lobe of imaging."""
        dx, dy = (np.asarray(x) - self.x) / self.sigma_x, (np.asarray(y) - self.y) / self.sigma_y
        r = np.clip(self.correlation, -0.999, 0.999)
        return np.asarray(np.sqrt((dx**2 - 2 * r * dx * dy + dy**2) / (1 - r**2)))


@dataclass(frozen=True, slots=True, eq=False)
class CflPosterior:
    """Where one flare may be."""

    x: FloatArray
    """(n,) arcsec, STIX frame."""
    y: FloatArray
    """(n,)"""
    density: FloatArray
    """(y, x) probability per pixel; sums to 1."""
    levels: tuple[float, float, float]
    """Densities on the contours that enclose 1, 2 and 3 sigma."""


def locate_cfl(
    counts: ArrayLike,
    fluence: ArrayLike,
    *,
    rsun_arcsec: ArrayLike,
    variance: ArrayLike | None = None,
    center: tuple[float, float] = SUN_CENTER,
    mask: CflMask = FLIGHT_MASK,
) -> CflLocations:
    """Locate flares from the pixels of the coarse flare locator.

    Parameters
    ----------
    counts
        (flare, 8) large or (flare, 12) all pixels, background subtracted; values below 0 count as 0.
    fluence
        (flare,) counts per mm² of open area, from `cfl_counts`.
    rsun_arcsec
        Apparent radius of the Sun, one or one per flare.
    variance
        Of `counts`, where it is more than Poisson (background, compression).
    center
        Centre of the Sun in the STIX frame.
    mask
        `FLIGHT_MASK`, or `RAW_MASK` for counts without background subtraction.

    Raises
    ------
    UsageError
        If shapes do not fit, or a flare has no counts or no fluence.
    """
    data = _Data.of(counts, fluence, variance, rsun_arcsec)
    classes = np.ceil(np.log(data.rsun) / np.log(_RADIUS_CLASSES))
    results = np.empty((len(data.rsun), 9))
    for radius_class in np.unique(classes):
        index = np.flatnonzero(classes == radius_class)
        search = _search(float(_RADIUS_CLASSES**radius_class), center, mask, data.counts.shape[1])
        size = max(_LARGEST_BLOCK // len(search.total), 1)
        for first in range(0, len(index), size):
            block = index[first : first + size]
            some = data.take(block)
            posteriors = search.posteriors(some)
            reach = float(search.axis[1] - search.axis[0])
            results[block, :8] = [_conclude(posterior) for posterior in posteriors]
            results[block, 8] = _least_chi2(some, posteriors, reach, mask)
    x, y, sigma_x, sigma_y, correlation, second, part, far, chi2 = results.T
    return CflLocations(x, y, sigma_x, sigma_y, correlation, chi2, second, part, far >= _AMBIGUOUS_PROBABILITY)


def cfl_posterior(
    counts: ArrayLike,
    fluence: float,
    *,
    rsun_arcsec: float,
    variance: ArrayLike | None = None,
    center: tuple[float, float] = SUN_CENTER,
    mask: CflMask = FLIGHT_MASK,
) -> CflPosterior:
    """Probability over the disk of where one flare is, with the levels of its contours."""
    spread = None if variance is None else np.asarray(variance)[None]
    data = _Data.of(np.asarray(counts)[None], np.array([fluence]), spread, np.array([rsun_arcsec]))
    search = _search(float(rsun_arcsec), center, mask, data.counts.shape[1])
    (parts,) = search.posteriors(data)
    density = np.zeros(search.inside.shape)
    density[search.inside] = parts.weight
    ordered: FloatArray = np.sort(density.ravel())[::-1]
    enclosed = np.cumsum(ordered)
    first, second, third = (float(ordered[min(int(np.searchsorted(enclosed, p)), ordered.size - 1)]) for p in _CREDIBLE)
    return CflPosterior(search.axis + center[0], search.axis + center[1], density, (first, second, third))


class _Data(NamedTuple):
    """Counts and fluence, tempered to what they are worth beside the error of the model."""

    counts: FloatArray
    fluence: FloatArray
    worth: FloatArray
    rsun: FloatArray

    @classmethod
    def of(cls, counts: ArrayLike, fluence: ArrayLike, variance: ArrayLike | None, rsun: ArrayLike) -> _Data:
        values = np.clip(np.asarray(counts, dtype=np.float64), 0.0, None)
        if values.ndim != 2 or values.shape[1] not in (8, 12):
            raise UsageError(f"counts of shape {values.shape}", expected="(flare, 8) or (flare, 12)")
        strength, radius = (np.broadcast_to(np.asarray(v, dtype=np.float64), len(values)) for v in (fluence, rsun))
        total = values.sum(axis=1)
        if not ((total > 0) & (strength > 0) & np.isfinite(strength) & (radius > 0)).all():
            raise UsageError(
                "a flare without counts, fluence or solar radius",
                expected="positive numbers",
                advice="leave out what the coarse flare locator did not see",
            )
        spread = total if variance is None else np.maximum(np.asarray(variance, dtype=np.float64).sum(axis=1), total)
        poisson = total / spread
        return cls(values, strength, poisson / (1.0 + poisson * _PIXEL_ERROR**2 * total / 8.0), radius)

    def take(self, index: NDArray[np.intp]) -> _Data:
        counts, fluence, worth, rsun = (np.asarray(values[index]) for values in self)
        return _Data(counts, fluence, worth, rsun)


class _Parts(NamedTuple):
    """Posterior of one flare over the places of a search, and its best model."""

    x: FloatArray
    y: FloatArray
    weight: FloatArray
    second_probability: float
    best: int
    """Place of the flare in the best model."""
    second_part: float
    second_area: FloatArray


class _Search(NamedTuple):
    """All models of one apparent radius: places of the flare, alone or with a second source."""

    axis: FloatArray
    inside: NDArray[np.bool_]
    x: FloatArray
    y: FloatArray
    first: FloatArray
    """(place, pixel) expected area of the flare."""
    second: FloatArray
    """(second, pixel) expected area of second sources."""
    log_area: NDArray[np.float32]
    """(model, pixel), the flare alone first, then (place, part, second)."""
    total: NDArray[np.float32]
    """(model,) area of all pixels."""

    def posteriors(self, data: _Data) -> list[_Parts]:
        likelihood = _log_likelihood(self.log_area, self.total, data)
        return [self._parts(row) for row in likelihood]

    def _parts(self, row: NDArray[np.float32]) -> _Parts:
        places = len(self.x)
        weights = np.exp(row - row.max())
        alone = (1 - _SECOND_PROBABILITY) * weights[:places].astype(np.float64)
        pairs = _SECOND_PROBABILITY * weights[places:].reshape(places, -1).mean(axis=1, dtype=np.float64)
        weight = alone + pairs
        chance = float(pairs.sum() / weight.sum())
        best = int(row[:places].argmax()) if chance < 0.5 else places + int(row[places:].argmax())
        place, share, other = self._model(best)
        return _Parts(self.x, self.y, weight / weight.sum(), chance, place, share, other)

    def _model(self, best: int) -> tuple[int, float, FloatArray]:
        """Place of the flare in one model, part of its second source, and expected area of that."""
        if best < len(self.x):
            return best, 0.0, self.second[0]
        place, part, second = np.unravel_index(best - len(self.x), (len(self.x), len(_SECOND_PARTS), len(self.second)))
        return int(place), float(_SECOND_PARTS[part]), self.second[second]


@lru_cache(maxsize=2)
def _search(rsun: float, center: tuple[float, float], mask: CflMask, n_pixels: int) -> _Search:
    step = min(rsun / _STEPS_RSUN, _LARGEST_STEP)
    axis = _axis(_DISK_RSUN * rsun, step)
    inside = np.hypot(axis, axis[:, None]) <= _DISK_RSUN * rsun
    rows, columns = np.nonzero(inside)
    x, y = axis[columns] + center[0], axis[rows] + center[1]
    coarse = _axis(rsun, rsun / _SECOND_STEPS_RSUN)
    on_disk = np.hypot(coarse, coarse[:, None]) <= rsun
    second_rows, second_columns = np.nonzero(on_disk)
    first = expected_area(x, y, mask=mask, n_pixels=n_pixels)
    second = expected_area(
        coarse[second_columns] + center[0], coarse[second_rows] + center[1], mask=mask, n_pixels=n_pixels
    )
    areas = _models(first, second)
    return _Search(axis, inside, x, y, first, second, np.log(areas), areas.sum(axis=1))


def _axis(reach: float, step: float) -> FloatArray:
    half = int(np.ceil(reach / step))
    return np.asarray(np.arange(-half, half + 1) * step, dtype=np.float64)


def _models(first: FloatArray, second: FloatArray) -> NDArray[np.float32]:
    part = _SECOND_PARTS.astype(np.float32)[:, None, None]
    alone, other = first.astype(np.float32), second.astype(np.float32)
    pairs = (1 - part) * alone[:, None, None, :] + part * other
    return np.concatenate([alone, pairs.reshape(-1, first.shape[1])])


def _log_likelihood(log_area: NDArray[np.float32], total: NDArray[np.float32], data: _Data) -> NDArray[np.float32]:
    """Poisson likelihood (flare, model), the fluence integrated over its error (a gamma distribution)."""
    counts = (data.counts * data.worth[:, None]).astype(np.float32)
    fluence = (data.fluence * data.worth).astype(np.float32)
    shape = np.float32(1 / _FLUENCE_ERROR**2)
    likelihood = counts @ log_area.T
    for row, strength, amount in zip(likelihood, fluence, counts.sum(axis=1), strict=True):
        row -= (amount + shape) * np.log(total + shape / strength)
    return np.asarray(likelihood)


def _least_chi2(data: _Data, posteriors: list[_Parts], reach: float, mask: CflMask) -> FloatArray:
    """Least χ² over its degrees of freedom of each best model, the flare moved between the grid points (Newton)."""
    start = np.array([(one.x[one.best], one.y[one.best]) for one in posteriors])
    share = np.array([one.second_part for one in posteriors])[:, None]
    other = np.array([one.second_area for one in posteriors])
    n_pixels = data.counts.shape[1]

    def residuals(place: FloatArray) -> FloatArray:
        first = expected_area(place[..., 0], place[..., 1], mask=mask, n_pixels=n_pixels)
        return _residuals((1 - share) * first + share * other, data)

    # Where a column is dark the gradient vanishes: start on all sides of the grid point.
    least = _newton(residuals, start + reach * np.array(_STARTS)[:, None], reach)
    return np.asarray(least.min(axis=0) / (n_pixels - 2))


def _newton(residuals: Callable[[FloatArray], FloatArray], start: FloatArray, reach: float) -> FloatArray:
    """Sum of squared residuals at its minimum near each of `start` (..., flare, 2), damped Gauss-Newton."""
    place, damping = start, np.full((*start.shape[:-1], 1, 1), 1e-3)
    aside = np.eye(2).reshape(2, *(1,) * (start.ndim - 1), 2)
    residual = residuals(place)
    for _ in range(_NEWTON_STEPS):
        jacobian = np.moveaxis(residuals(place + aside) - residual, 0, -1)
        normal = np.einsum("...pi,...pj->...ij", jacobian, jacobian)
        normal += np.eye(2) * (damping * normal.trace(axis1=-2, axis2=-1)[..., None, None] + 1e-9)
        gradient = np.einsum("...pi,...p->...i", jacobian, residual)
        trial = np.clip(place - np.linalg.solve(normal, gradient[..., None])[..., 0], start - reach, start + reach)
        new = residuals(trial)
        better = ((new**2).sum(axis=-1) < (residual**2).sum(axis=-1))[..., None]
        place, residual = np.where(better, trial, place), np.where(better, new, residual)
        damping = np.where(better[..., None], damping / 5, damping * 5)
    return np.asarray((residual**2).sum(axis=-1))


def _residuals(area: FloatArray, data: _Data) -> FloatArray:
    """Differences of counts and model over their errors, at the most probable fluence."""
    shape = 1 / _FLUENCE_ERROR**2
    worth = data.worth[:, None]
    total, lit = data.counts.sum(axis=1, keepdims=True), area.sum(axis=-1, keepdims=True)
    model = area * (total * worth + shape) / (lit * worth + shape / data.fluence[:, None])
    return np.asarray((data.counts - model) / np.sqrt(model + (_PIXEL_ERROR * model) ** 2))


def _conclude(posterior: _Parts) -> tuple[float, ...]:
    weight = posterior.weight
    x, y = float(weight @ posterior.x), float(weight @ posterior.y)
    dx, dy = posterior.x - x, posterior.y - y
    sigma_x, sigma_y = float(np.sqrt(weight @ dx**2)), float(np.sqrt(weight @ dy**2))
    correlation = float(weight @ (dx * dy)) / (sigma_x * sigma_y) if sigma_x * sigma_y > 0 else 0.0
    far = float(weight[np.hypot(dx, dy) > _FAR_ARCSEC].sum())
    return x, y, sigma_x, sigma_y, correlation, posterior.second_probability, posterior.second_part, far
