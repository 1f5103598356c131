"""Forward fit: circles, ellipses and loops whose visibilities come closest to the measured ones.

Least squares on the visibilities with analytic derivatives, for all images and all starts of a stack at once
(Levenberg-Marquardt, bounds by a sine transformation). The starts follow the components that CLEAN finds, with fixed
pseudo-random shapes, so that a fit does not depend on the stack that it is part of.

A circle has flux, x, y, fwhm. An ellipse has two widths, sqrt(ab) exp(±e/2), and the angle of the larger one; it is
fitted as (e cos 2θ, e sin 2θ), which is smooth where it becomes a circle. A loop is an ellipse that is bent: see
`stixflow.imaging.forward.Loop`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging.clean import Clean, clean
from stixflow.imaging.descent import Descent
from stixflow.imaging.fit_models import LEAST_WIDTH, SIZES, Model
from stixflow.imaging.fit_parameters import covariance_of, fisher_errors, reported, scatter
from stixflow.imaging.forward import ComplexArray, Gaussian, Loop, source_image
from stixflow.imaging.grids import FloatArray, Grid

Kind = Literal["circle", "ellipse", "loop"]
Uncertainty = Literal["fisher", "monte_carlo"]


_MOST_ELONGATION = 5.0
_USUAL_STARTS = {"circle": 8, "ellipse": 12, "loop": 32}
_STARTS_OF_SEVERAL = 24
_FIRST_STEPS, _MOST_STEPS = 12, 300
_STACK = 4096
"""Fits (image times start) worked on together."""


@dataclass(frozen=True, slots=True)
class ForwardFit:
    """Parameters of a forward fit.

    Parameters
    ----------
    sources
        Kind of every source: "circle", "ellipse" or "loop".
    starts
        Fits of each image from different starts, of which the best is taken; None for 8 of a circle, 12 of an ellipse,
        32 of a loop, 24 for every source of several.
    uncertainty
        "fisher" for the covariance of the fit, "monte_carlo" for fits of made-up noise, None for neither.
    realisations
        Fits of made-up noise for each image.
    seed
        Of the starts and of the noise.
    reach
        Largest distance of a source from the middle of the map along x and y, arcsec.
    largest
        Largest width (mean of the two of an ellipse), arcsec.

    Raises
    ------
    UsageError
        If there is no source, one of an unknown kind, or a number is out of range.
    """

    sources: tuple[Kind, ...] = ("circle",)
    starts: int | None = None
    uncertainty: Uncertainty | None = "fisher"
    realisations: int = 20
    seed: int = 0
    reach: float = 100.0
    largest: float = 100.0

    def __post_init__(self) -> None:
        kinds_are_known = len(self.sources) > 0 and all(kind in SIZES for kind in self.sources)
        starts_are_valid = self.starts is None or self.starts >= 1
        numbers_are_valid = self.realisations >= 2 and self.reach > 0 and self.largest > LEAST_WIDTH
        is_known = self.uncertainty in ("fisher", "monte_carlo", None)
        if not (kinds_are_known and starts_are_valid and numbers_are_valid and is_known):
            raise UsageError(
                f"a forward fit of {self.sources} from {self.starts} starts, uncertainty {self.uncertainty!r}, "
                f"{self.realisations} realisations, reach {self.reach}, largest {self.largest}",
                expected=f"sources of {tuple(SIZES)}, at least one start, uncertainty 'fisher', 'monte_carlo' or "
                f"None, at least 2 realisations, a positive reach, widths over {LEAST_WIDTH:g} arcsec",
                advice="correct the parameters",
            )

    @property
    def n_parameters(self) -> int:
        """Number of fitted parameters."""
        return sum(SIZES[kind] for kind in self.sources)

    @property
    def n_starts(self) -> int:
        """Fits of each image."""
        if self.starts is not None:
            return self.starts
        return _USUAL_STARTS[self.sources[0]] if len(self.sources) == 1 else _STARTS_OF_SEVERAL * len(self.sources)


class Fits(NamedTuple):
    """Best fits of a stack of images."""

    kinds: tuple[str, ...]
    """Of the sources."""
    values: FloatArray
    """(image, source, parameter) in the order of `PARAMETERS`; arcsec and degrees; NaN where a source has none. Angles
    from +x to +y in 0 to 180. Sources of one kind are ordered by flux, the brightest first."""
    errors: FloatArray
    """(image, source, parameter) standard errors; NaN without an estimate."""
    vis: ComplexArray
    """(image, visibility) of the fitted sources."""
    chi2: FloatArray
    """(image,)"""
    degrees_of_freedom: int
    bic: FloatArray
    """(image,) chi2 + number of parameters times log of the number of data: the smaller, the better the model."""
    log_evidence: FloatArray
    """(image,) log of the evidence up to what all models share, for flat priors within the bounds, by Laplace."""
    converged: NDArray[np.bool_]
    """(image,) whether the best fit ended in a minimum."""
    at_bound: NDArray[np.bool_]
    """(image,) whether a parameter of it lies at a bound."""
    agreeing_starts: NDArray[np.int64]
    """(image,) fits, of those followed to the end, that found the same minimum (within 1e-3 of chi2)."""

    def sources(self, image: int = 0) -> list[Gaussian | Loop]:
        """Fitted sources of one image."""
        return [_source(kind, values) for kind, values in zip(self.kinds, self.values[image], strict=True)]

    def only(self, images: NDArray[np.intp]) -> Fits:
        """Fits of some of the images."""
        arrays: dict[str, Any] = {
            name: part[images] for name, part in self._asdict().items() if isinstance(part, np.ndarray)
        }
        return self._replace(**arrays)


def forward_fit(
    vis: ArrayLike,
    sigma: ArrayLike,
    u: ArrayLike,
    v: ArrayLike,
    parameters: ForwardFit | None = None,
) -> Fits:
    """Fit sources to a stack of visibilities of any instrument.

    Parameters
    ----------
    vis, sigma
        Complex visibilities and the standard error of their parts, shape (image, visibility).
    u, v
        Spatial frequencies, 1/arcsec, shape (visibility,).

    Returns
    -------
    Fits, with positions from the phase centre.

    Raises
    ------
    ImagingError
        If a visibility or an error is not a finite number, an error is not positive, an image has no signal at all, or
        there are fewer data than parameters.
    """
    parameters = parameters or ForwardFit()
    u, v = np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64)
    vis = np.atleast_2d(np.asarray(vis, dtype=np.complex128))
    sigma = np.array(np.broadcast_to(np.asarray(sigma, dtype=np.float64), vis.shape))
    _check(vis, sigma, parameters)
    model = Model(parameters.sources, u, v)
    bounds = _bounds(vis, parameters)
    per_stack = max(_STACK // parameters.n_starts, 1)
    best = [
        _best_of_starts(model, vis[part], sigma[part], tuple(bound[part] for bound in bounds), parameters)
        for part in (slice(i, i + per_stack) for i in range(0, len(vis), per_stack))
    ]
    found = _Found(*(np.concatenate(parts) for parts in zip(*best, strict=True)))
    found = found._replace(unknowns=_ordered(found.unknowns, parameters.sources))
    return _report(model, vis, sigma, bounds, found, parameters)


def fit_image(fits: Fits, grid: Grid) -> FloatArray:
    """Brightness of the fitted sources at the pixel centres, flux per arcsec², shape (image, y, x).

    The positions of the fits are taken from the middle of the map.
    """
    plain, maps = Grid(grid.shape, grid.pixel), np.empty((len(fits.values), *grid.shape))
    for i, out in enumerate(maps):
        out[...] = source_image(fits.sources(i), plain)
    return maps


class _Found(NamedTuple):
    """Minima, one for each image."""

    unknowns: FloatArray
    chi2: FloatArray
    converged: NDArray[np.bool_]
    agreeing: NDArray[np.int64]


def _bounds(vis: ComplexArray, parameters: ForwardFit) -> tuple[FloatArray, FloatArray]:
    """Least and greatest values of the unknowns (image, unknown); infinite for angles."""
    largest = np.abs(vis).max(axis=1)
    low, high = [], []
    for kind in parameters.sources:
        shape = {
            "circle": ([], []),
            "ellipse": ([-_MOST_ELONGATION] * 2, [_MOST_ELONGATION] * 2),
            "loop": ([1e-2, -np.inf, -np.pi], [_MOST_ELONGATION, np.inf, np.pi]),
        }[kind]
        low += [0.0, -parameters.reach, -parameters.reach, np.log(LEAST_WIDTH), *shape[0]]
        high += [1.5, parameters.reach, parameters.reach, np.log(parameters.largest), *shape[1]]
    lower, upper = np.tile(low, (len(vis), 1)), np.tile(high, (len(vis), 1))
    for part in Model(parameters.sources, np.empty(0), np.empty(0)).slices():
        lower[:, part.start] *= largest
        upper[:, part.start] *= largest
    return lower, upper


def _best_of_starts(
    model: Model,
    vis: ComplexArray,
    sigma: FloatArray,
    bounds: tuple[FloatArray, ...],
    parameters: ForwardFit,
) -> _Found:
    n, n_starts = len(vis), parameters.n_starts
    image = np.repeat(np.arange(n), n_starts)
    lower, upper = bounds
    starts = _starts(model, vis, parameters).reshape(n * n_starts, -1)
    descent = Descent(model, vis, sigma, lower, upper)
    unknowns, chi2, converged = descent.run(starts, image, _FIRST_STEPS)
    n_kept = min(max(n_starts // 4, 3), n_starts)
    kept = np.argsort(chi2.reshape(n, n_starts), axis=1)[:, :n_kept] + np.arange(n)[:, None] * n_starts
    chosen = kept.ravel()
    unknowns, chi2, converged = descent.run(unknowns[chosen], image[chosen], _MOST_STEPS)
    table = chi2.reshape(n, n_kept)
    best = table.argmin(axis=1)
    rows = best + np.arange(n) * n_kept
    least = table.min(axis=1)
    agreeing = (table <= (least * (1 + 1e-3) + 1e-9)[:, None]).sum(axis=1)
    return _Found(unknowns[rows], least, converged[rows], agreeing)


def _starts(model: Model, vis: ComplexArray, parameters: ForwardFit) -> FloatArray:
    """Starts (image, start, unknown): positions where CLEAN puts flux, fixed pseudo-random shapes."""
    finest = 0.5 / np.hypot(model.u, model.v).max()
    step = max(finest / 3, parameters.reach / 32)
    side = 2 * int(parameters.reach / step) + 1
    grid = Grid(side, step)
    share = np.abs(clean(vis, model.u, model.v, grid, Clean(niter=60, beam_fwhm=None)).components).reshape(len(vis), -1)
    share += 1e-6 * (share.max(axis=1, keepdims=True) + np.finfo(float).tiny)
    cumulative = np.cumsum(share, axis=1)
    cumulative /= cumulative[:, -1:]
    random = np.random.default_rng(parameters.seed)
    n_starts, n_sources = parameters.n_starts, len(model.kinds)
    places, split, widths = random.random((3, n_starts, n_sources))
    shapes = random.random((n_starts, n_sources, 3))
    jitter = random.uniform(-1, 1, (2, n_starts, n_sources)) * step
    pixel = np.stack([np.searchsorted(row, places) for row in cumulative])
    split = (0.3 + split) / (0.3 + split).sum(axis=1, keepdims=True)
    amplitude = np.abs(vis).max(axis=1)
    x, y = grid.offset_x[pixel % side] + jitter[0], grid.offset_y[pixel // side] + jitter[1]
    high = min(8 * finest, parameters.largest)
    starts = np.empty((len(vis), n_starts, parameters.n_parameters))
    for i, (kind, part) in enumerate(zip(model.kinds, model.slices(), strict=True)):
        own = starts[..., part]
        own[..., 0], own[..., 1], own[..., 2] = amplitude[:, None] * split[:, i], x[..., i], y[..., i]
        own[..., 3] = np.log(0.3 * finest) + widths[:, i] * np.log(high / (0.3 * finest))
        elongation, angle = 0.1 + 1.5 * shapes[:, i, 0], np.pi * shapes[:, i, 1]
        if kind == "ellipse":
            own[..., 4], own[..., 5] = elongation * np.cos(2 * angle), elongation * np.sin(2 * angle)
        elif kind == "loop":
            own[..., 4], own[..., 5] = elongation, 2 * angle
            own[..., 6] = 0.2 + 0.8 * np.pi * shapes[:, i, 2]
    return starts


def _ordered(unknowns: FloatArray, kinds: tuple[str, ...]) -> FloatArray:
    """Put the sources of one kind in order of their fluxes, the brightest first."""
    slices = Model(kinds, np.empty(0), np.empty(0)).slices()
    result = unknowns.copy()
    for kind in set(kinds):
        parts = [part for part, own in zip(slices, kinds, strict=True) if own == kind]
        order = np.argsort(-np.stack([unknowns[:, part.start] for part in parts], axis=1), axis=1, kind="stable")
        sources = np.stack([unknowns[:, part] for part in parts], axis=1)
        for place, part in enumerate(parts):
            result[:, part] = sources[np.arange(len(unknowns)), order[:, place]]
    return result


def _report(
    model: Model,
    vis: ComplexArray,
    sigma: FloatArray,
    bounds: tuple[FloatArray, FloatArray],
    found: _Found,
    parameters: ForwardFit,
) -> Fits:
    fitted, slopes = model(found.unknowns)
    parts = (slopes / sigma[:, None, :]).view(np.float64)
    covariance, log_volume = covariance_of(parts @ parts.transpose(0, 2, 1))
    values = reported(found.unknowns, model)
    errors = np.full_like(values, np.nan)
    if parameters.uncertainty == "fisher":
        errors = fisher_errors(found.unknowns, covariance, model)
    elif parameters.uncertainty == "monte_carlo":
        errors = _noise_errors(model, vis, sigma, bounds, found.unknowns, values, parameters)
    n_data, n_parameters = 2 * vis.shape[1], parameters.n_parameters
    lower, upper = bounds
    with np.errstate(invalid="ignore"):
        margin = 1e-3 * np.where(np.isfinite(upper), upper - lower, 0.0)
        is_low, is_high = found.unknowns < lower + margin, found.unknowns > upper - margin
    prior = np.log(np.where(np.isfinite(upper), upper - lower, 2 * np.pi)).sum(axis=1)
    orders = sum(lgamma(parameters.sources.count(kind) + 1) for kind in set(parameters.sources))
    return Fits(
        tuple(parameters.sources),
        values,
        errors,
        fitted,
        found.chi2,
        n_data - n_parameters,
        found.chi2 + n_parameters * np.log(n_data),
        0.5 * (n_parameters * np.log(2 * np.pi) + log_volume - found.chi2) - prior + orders,
        found.converged,
        np.asarray((is_low | is_high).any(axis=1)),
        found.agreeing,
    )


def _noise_errors(
    model: Model,
    vis: ComplexArray,
    sigma: FloatArray,
    bounds: tuple[FloatArray, FloatArray],
    unknowns: FloatArray,
    values: FloatArray,
    parameters: ForwardFit,
) -> FloatArray:
    """Scatter of the fits of the visibilities with made-up noise, the same draws for every image."""
    n_noise = parameters.realisations
    draws = np.random.default_rng(parameters.seed).standard_normal((2, n_noise, vis.shape[1]))
    errors = np.empty_like(values)
    per_stack = max(_STACK // n_noise, 1)
    for start in range(0, len(vis), per_stack):
        part = slice(start, start + per_stack)
        noisy = vis[part, None] + sigma[part, None] * (draws[0] + 1j * draws[1])
        repeated = [np.repeat(array[part], n_noise, axis=0) for array in (sigma, *bounds, unknowns)]
        descent = Descent(model, noisy.reshape(-1, vis.shape[1]), *repeated[:3])
        refitted, _, _ = descent.run(repeated[3], np.arange(len(repeated[3])), _MOST_STEPS)
        errors[part] = scatter(
            reported(refitted, model).reshape(-1, n_noise, *values.shape[1:]), values[part], model.kinds
        )
    return errors


def _source(kind: str, values: FloatArray) -> Gaussian | Loop:
    numbers = [float(value) for value in values]
    if kind == "loop":
        return Loop(*numbers)
    angle = 0.0 if kind == "circle" else numbers[5]
    flux, x, y, major, minor = numbers[:5]
    return Gaussian(flux, x, y, major, minor, angle)


def _check(vis: ComplexArray, sigma: FloatArray, parameters: ForwardFit) -> None:
    problems = []
    if not (np.isfinite(vis).all() and (np.isfinite(sigma) & (sigma > 0)).all()):
        problems.append("some visibilities or errors are not usable")
    elif not (np.abs(vis).max(axis=1) > 0).all():
        problems.append("an image has no signal at all")
    if 2 * vis.shape[1] <= parameters.n_parameters:
        problems.append(f"{2 * vis.shape[1]} data for {parameters.n_parameters} parameters")
    if problems:
        raise ImagingError(
            "; ".join(problems),
            expected="finite visibilities with finite, positive errors, and more data than parameters",
            advice="leave those out, give sigma= when making the set, or fit fewer sources",
        )
