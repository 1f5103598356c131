"""Expectation maximisation (Lucy-Richardson) from the rates of the columns, for a stack of images at once.

The model of the rates is linear, ``Hx`` with four rows for every sub-collimator; the image grows where the measured
rates y exceed it: ``x <- x · Hᵀ(y / Hx) / Hᵀ1``. The total rate of the model is that of the data after every update.

The four rows of a sub-collimator need only the flux and one visibility of the image, so that 49 sums stand for 96 rows;
the phases of an image's centre and its grid transmission only scale and turn these, so one table serves the whole
stack. A map is centred on its grid: cosines are even and sines odd under a half turn, and every product is taken over
half of the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging.back_projection import Precision, Real, half_table
from stixflow.imaging.forward import ComplexArray, modulation_amplitude
from stixflow.imaging.grids import FloatArray, Grid

_CHECK_EVERY = 25
_FIRST_CHECK = 10
_PIXEL_BLOCK = 8192
_STACK = 32
"""Images worked on together, so that a block of pixels stays in the cache (benchmarks/bench_imaging.py)."""
_LOWEST_RATE = 0.02
"""Least modelled rate, as part of the mean rate of the sub-collimator.

The first harmonic alone makes rates of point sources negative behind the finest grids (labels 1 and 2), and ratios to
nearly nothing would blow up the flux; behind all others no source can come below 0.04, so that nothing changes.
"""


@dataclass(frozen=True, slots=True)
class EM:
    """Parameters of expectation maximisation.

    Parameters
    ----------
    tolerance
        Stop where the squared residual, projected back, is this part of what Poisson noise makes of it. As in the
        ground software, the noise is that of as many counts as the rates say in their own unit, so that bright sources
        are taken further than faint ones.
    max_iterations
        Most updates.
    precision
        Type to compute in; float32 changes the image by less than 1e-4 of its peak.

    Raises
    ------
    UsageError
        If the tolerance is negative or no update is allowed.
    """

    tolerance: float = 1e-3
    max_iterations: int = 5000
    precision: Precision = "float64"

    def __post_init__(self) -> None:
        if not (self.tolerance >= 0 and self.max_iterations >= 1):
            raise UsageError(
                f"EM with tolerance {self.tolerance} and {self.max_iterations} iterations",
                expected="a tolerance of at least 0 and at least one iteration",
                advice="correct the parameters",
            )


class EMMaps(NamedTuple):
    """A stack of maps and how well they explain the rates."""

    image: Real
    """(image, y, x), flux per arcsec², never negative."""
    iterations: NDArray[np.int64]
    """(image,) updates."""
    converged: NDArray[np.bool_]
    """(image,) whether the stop rule was met within the allowed updates."""
    cstat: FloatArray
    """(image,) C-statistic of the rates, 2/n Σ (y log(y / Hx) + Hx - y) over the n positive ones."""
    rates: FloatArray
    """(image, visibility, 4) what the map would show."""


class _Optics(NamedTuple):
    """How an image shows in the columns: A, C = mean F ∓ Re(wave V) and B, D = mean F ∓ Im(wave V)."""

    mean: FloatArray
    """(image, visibility) transmission."""
    wave: ComplexArray
    """(image, visibility) amplitude and turn of the first harmonic."""

    def rates(self, flux: FloatArray, vis: ComplexArray) -> FloatArray:
        mean, wave = self.mean * flux[:, None], self.wave * vis
        rates = np.stack([mean - wave.real, mean - wave.imag, mean + wave.real, mean + wave.imag], axis=-1)
        return np.maximum(rates, _LOWEST_RATE * mean[..., None])

    def back(self, ratio: FloatArray) -> tuple[FloatArray, ComplexArray]:
        """Transpose: what the flux (image,) and the visibilities get; the image is their flux + Re(conj(wave) V)."""
        difference = (ratio[..., 2] - ratio[..., 0]) + 1j * (ratio[..., 3] - ratio[..., 1])
        return (self.mean * ratio.sum(axis=-1)).sum(axis=-1), difference * self.wave.conj()

    def sensitivity(self) -> FloatArray:
        """Hᵀ1 (image,), the same for all pixels."""
        return np.asarray(4.0 * self.mean.sum(axis=-1))

    def squared(self, weight: FloatArray) -> tuple[FloatArray, ComplexArray, ComplexArray]:
        """``Σ weight H²`` per pixel as a constant, waves at the frequencies, and waves at twice the frequencies."""
        difference = (weight[..., 2] - weight[..., 0]) + 1j * (weight[..., 3] - weight[..., 1])
        across = weight[..., 0] + weight[..., 2] - weight[..., 1] - weight[..., 3]
        total = weight.sum(axis=-1)
        constant = ((self.mean**2 + 0.5 * np.abs(self.wave) ** 2) * total).sum(axis=-1)
        return constant, 2 * self.mean * difference * self.wave.conj(), 0.5 * across * self.wave.conj() ** 2

    def only(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> _Optics:
        return _Optics(self.mean[keep], self.wave[keep])


def em(
    rates: ArrayLike,
    transmission: ArrayLike,
    phase: ArrayLike,
    u: ArrayLike,
    v: ArrayLike,
    grid: Grid,
    parameters: EM | None = None,
    *,
    modulation: ArrayLike | None = None,
) -> EMMaps:
    """Maps of a stack of column rates.

    Rates below zero (more background than counts) are taken as they are, so that the total is not pushed up; the
    factor of a pixel is held at 0 instead, so that no pixel becomes negative. Without positive total there is no image:
    it is 0 everywhere and has not converged.

    Parameters
    ----------
    rates
        Net rates of the columns A to D per cm² and keV, shape (image, visibility, 4).
    transmission
        Mean transmission of the pairs of grids, (visibility,) or (image, visibility).
    phase
        Phase of every sub-collimator with the pixels' own part and the shift to the middle of the map, degrees, shape
        as `transmission`: the one added on the way from counts to visibilities.
    u, v
        Spatial frequencies, 1/arcsec, shape (visibility,).
    modulation
        Amplitude M1 of the first harmonic, shape as `transmission`; None for that of equal grids of this transmission
        and columns of full width.

    Raises
    ------
    ImagingError
        If a rate is not finite.
    """
    parameters = parameters or EM()
    measured = np.asarray(rates, dtype=np.float64)
    measured = measured[None] if measured.ndim == 2 else measured
    if not np.isfinite(measured).all():
        raise ImagingError("some rates are not finite", expected="numbers", advice="leave those sub-collimators out")
    shape = measured.shape[:2]
    mean = np.broadcast_to(np.asarray(transmission, dtype=np.float64), shape)
    amplitude = modulation_amplitude(mean) if modulation is None else np.asarray(modulation, dtype=np.float64)
    turn = np.exp(-1j * np.deg2rad(np.broadcast_to(np.asarray(phase, dtype=np.float64), shape)))
    optics = _Optics(mean, np.asarray(2 * amplitude * turn, dtype=np.complex128))
    frequencies = np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64)
    n, n_half = len(measured), (grid.shape[0] * grid.shape[1] + 1) // 2
    maps = EMMaps(
        np.zeros((n, *grid.shape), parameters.precision),
        np.zeros(n, np.int64),
        np.zeros(n, np.bool_),
        np.full(n, np.nan),
        np.zeros_like(measured),
    )
    positive = np.flatnonzero(measured.sum(axis=(1, 2)) > 0)
    for start in range(0, len(positive), _STACK):
        chosen = positive[start : start + _STACK]
        ascent = _Ascent(measured[chosen], optics.only(chosen), frequencies, grid, parameters)
        for rows, state in ascent.run(parameters):
            _store(maps, chosen[rows], state, n_half)
    maps.image[...] /= grid.pixel_area
    return maps


class _State(NamedTuple):
    """Images that are done."""

    first: Real
    """(image, half of the pixels) flux of the pixels up to the middle one."""
    turned: Real
    """The other pixels, last first; 0 for the middle one."""
    iterations: int
    converged: bool
    cstat: FloatArray
    rates: FloatArray


def _store(maps: EMMaps, rows: NDArray[np.intp], state: _State, n_half: int) -> None:
    flat = maps.image.reshape(len(maps.image), -1)
    n_turned = flat.shape[1] - n_half
    flat[rows, :n_half] = state.first
    flat[rows, n_half:] = state.turned[:, :n_turned][:, ::-1]
    maps.iterations[rows], maps.converged[rows] = state.iterations, state.converged
    maps.cstat[rows], maps.rates[rows] = state.cstat, state.rates


class _Ascent:
    """A stack of images while it grows; images that are done leave it."""

    def __init__(
        self,
        measured: FloatArray,
        optics: _Optics,
        frequencies: tuple[FloatArray, FloatArray],
        grid: Grid,
        parameters: EM,
    ) -> None:
        self._measured, self._optics = measured, optics
        self._dtype = np.dtype(parameters.precision)
        self._tables = _tables(frequencies, grid, self._dtype, 1)
        self._double_tables = _tables(frequencies, grid, self._dtype, 2)
        n_half = self._tables[0].shape[1]
        self._first = np.ones((len(measured), n_half), self._dtype)
        self._turned = np.ones((len(measured), n_half), self._dtype)
        if grid.shape[0] * grid.shape[1] % 2:
            self._turned[:, -1] = 0
        self._rows = np.arange(len(measured))
        self._is_signed = bool((measured < 0).any())
        self._model = self._predict(self._first + self._turned, self._first - self._turned)

    def run(self, parameters: EM) -> list[tuple[NDArray[np.intp], _State]]:
        """Update until all are done; the rows that were done together, and their state."""
        done: list[tuple[NDArray[np.intp], _State]] = []
        for iteration in range(1, parameters.max_iterations + 1):
            self._update()
            is_last = iteration == parameters.max_iterations
            if not is_last and (iteration % _CHECK_EVERY or iteration <= _FIRST_CHECK):
                continue
            met = self._residual() < parameters.tolerance
            for converged, leave in ((True, met), (False, ~met if is_last else np.zeros_like(met))):
                if leave.any():
                    done.append((self._rows[leave], self._leave(leave, iteration, converged=converged)))
                    met = met[~leave]
            if not len(self._rows):
                break
        return done

    def _update(self) -> None:
        flux, vis = self._optics.back(self._measured / self._model)
        sensitivity = self._optics.sensitivity()
        even, odd = self._split(flux / sensitivity, vis / sensitivity[:, None])
        cosines, sines = self._tables
        n, k = odd.shape
        sums_even, sums_odd = np.zeros((n, k + 1)), np.zeros((n, k))
        zeros = np.zeros(cosines.shape[1], self._dtype)  # an array is compared faster than a number
        for start in range(0, cosines.shape[1], _PIXEL_BLOCK):
            block = slice(start, start + _PIXEL_BLOCK)
            first, turned = self._first[:, block], self._turned[:, block]
            plus, minus = even @ cosines[:, block], odd @ sines[:, block]
            difference = plus - minus
            plus += minus
            if self._is_signed:
                np.maximum(plus, zeros[block], out=plus)
                np.maximum(difference, zeros[block], out=difference)
            first *= plus
            turned *= difference
            np.add(first, turned, out=plus)
            np.subtract(first, turned, out=minus)
            sums_even += plus @ cosines[:, block].T
            sums_odd += minus @ sines[:, block].T
        self._model = self._optics.rates(sums_even[:, -1], sums_even[:, :-1] + 1j * sums_odd)

    def _predict(self, even: Real, odd: Real) -> FloatArray:
        cosines, sines = self._tables
        sums = even @ cosines.T
        return self._optics.rates(np.asarray(sums[:, -1], np.float64), sums[:, :-1] + 1j * (odd @ sines.T))

    def _split(self, constant: FloatArray, wave: ComplexArray) -> tuple[Real, Real]:
        """Factors of the cosines, with the constant as the last, and of the sines."""
        even = np.concatenate([wave.real, constant[:, None]], axis=1).astype(self._dtype)
        return even, wave.imag.astype(self._dtype)

    def _residual(self) -> FloatArray:
        """Squared residual projected back, over its expectation for Poisson noise (image,)."""
        flux, vis = self._optics.back(1.0 - self._measured / self._model)
        even, odd = self._split(flux, vis)
        cosines, sines = self._tables
        upper = _squares(self._first, self._turned, even @ cosines, odd @ sines, power=2)
        constant, once, twice = self._optics.squared(1.0 / self._model)
        even, odd = self._split(constant, once)
        even_twice, odd_twice = self._split(np.zeros_like(constant), twice)
        cosines_twice, sines_twice = self._double_tables
        plus = even @ cosines + even_twice @ cosines_twice
        minus = odd @ sines + odd_twice @ sines_twice
        return upper / _squares(self._first, self._turned, plus, minus, power=1)

    def _leave(self, leave: NDArray[np.bool_], iteration: int, *, converged: bool) -> _State:
        measured, model = self._measured[leave], self._model[leave]
        state = _State(
            self._first[leave], self._turned[leave], iteration, converged, c_statistic(measured, model), model
        )
        keep = ~leave
        self._first, self._turned, self._rows = self._first[keep], self._turned[keep], self._rows[keep]
        self._measured, self._model, self._optics = self._measured[keep], self._model[keep], self._optics.only(keep)
        return state


def c_statistic(measured: ArrayLike, model: ArrayLike) -> FloatArray:
    """``2/n Σ (y log(y / m) + m - y)`` over the n rates y (image, ...) that are positive, one value per image."""
    measured, model = np.asarray(measured, dtype=np.float64), np.asarray(model, dtype=np.float64)
    measured, model = measured.reshape(len(measured), -1), model.reshape(len(model), -1)
    positive = measured > 0
    ratio = np.divide(measured, model, out=np.ones_like(measured), where=positive)
    terms = np.where(positive, measured * np.log(ratio) + model - measured, 0.0)
    return np.asarray(2.0 * terms.sum(axis=1) / np.maximum(positive.sum(axis=1), 1))


def _squares(first: Real, turned: Real, even: Real, odd: Real, *, power: int) -> FloatArray:
    """``Σ x² g^power`` over both halves, where g is even ± odd."""
    total = (first**2 * (even + odd) ** power).sum(axis=1, dtype=np.float64)
    return np.asarray(total + (turned**2 * (even - odd) ** power).sum(axis=1, dtype=np.float64))


def _tables(
    frequencies: tuple[FloatArray, FloatArray], grid: Grid, dtype: np.dtype[Any], times: int
) -> tuple[Real, Real]:
    """Cosines, with a last row of ones, and sines at multiples of the frequencies."""
    u, v = (times * part for part in frequencies)
    cosines, sines = half_table(u.tobytes(), v.tobytes(), grid.shape, grid.pixel, dtype.name)
    return np.concatenate([cosines, np.ones((1, cosines.shape[1]), dtype)]), sines
