"""Photon spectra of a flare and the count spectra they make above the grids.

The count spectrum is the photon spectrum times the transmission of everything in front of the grids, blurred by the
energy resolution. The redistribution of the detectors (escape, tailing) is left out: it is not needed to test a chain.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEP_KEV = 0.1
_RESOLUTION_FWHM_KEV = 1.0
_LOW_KEV, _HIGH_KEV = 2.0, 200.0
_THERMAL_SCALE = 1.07e-42
_SIGMA = _RESOLUTION_FWHM_KEV / 2.354820045


@functools.cache
def energy_grid() -> Floats:
    """Centres of the fine energy steps, keV; one read-only array."""
    number = round((_HIGH_KEV - _LOW_KEV) / STEP_KEV)
    grid = np.asarray(_LOW_KEV + STEP_KEV * (np.arange(number) + 0.5), dtype=np.float64)
    grid.setflags(write=False)
    return grid


def thermal_photons(energy_keV: Floats, temperature_keV: float, emission_measure: float = 1e49) -> Floats:
    """Bremsstrahlung of an isothermal plasma with the iron line complex, photons / (s cm2 keV) at 1 au.

    Continuum after Crannell et al. (1978) with the Gaunt factor (kT/E)^0.4; the complexes at 6.7 and 8.0 keV are bumps
    of fixed equivalent width.

    Parameters
    ----------
    temperature_keV
        kT.
    emission_measure
        cm^-3.
    """
    continuum = _continuum(energy_keV, temperature_keV) * emission_measure
    lines = np.zeros_like(energy_keV)
    for centre, equivalent_width in ((6.7, 2.5), (8.0, 0.4)):
        height = _continuum(np.array([centre]), temperature_keV)[0] * emission_measure * equivalent_width
        lines += height * _gauss(energy_keV - centre, 0.1)
    return np.asarray(continuum + lines)


def power_law_photons(energy_keV: Floats, photon_index: float, cutoff_keV: float) -> Floats:
    """Thick-target-like photons: a power law, 1 at 50 keV, that bends to index 1.7 below the cut-off."""
    above = (energy_keV / 50.0) ** -photon_index
    below = (cutoff_keV / 50.0) ** -photon_index * (energy_keV / cutoff_keV) ** -1.7
    return np.asarray(np.where(energy_keV >= cutoff_keV, above, below))


def detected(photons: Floats, transmission: Floats) -> Floats:
    """Counts / (s cm2 keV) above the grids from photons on `energy_grid`: transmitted, then blurred.

    Parameters
    ----------
    photons, transmission
        On `energy_grid`, last axis.
    """
    return np.asarray((photons * transmission) @ _blur())


def cumulative(counts: Floats) -> Floats:
    """Integral of a count spectrum from the lower end of the grid to each of its edges; one longer than the grid."""
    padding = np.zeros((*counts.shape[:-1], 1))
    return np.concatenate([padding, np.cumsum(counts, axis=-1) * STEP_KEV], axis=-1)


def between(integral: Floats, edges_keV: Floats) -> Floats:
    """Evaluate the result of `cumulative` (one spectrum) at any energies; infinity is the upper end."""
    knots = np.append(energy_grid() - STEP_KEV / 2, _HIGH_KEV)
    return np.asarray(np.interp(edges_keV, knots, integral))


def _continuum(energy_keV: Floats, temperature_keV: float) -> Floats:
    gaunt = (temperature_keV / energy_keV) ** 0.4
    shape = np.exp(-energy_keV / temperature_keV) / (energy_keV * np.sqrt(temperature_keV))
    return np.asarray(_THERMAL_SCALE * gaunt * shape)


def _gauss(offset: Floats, sigma: float) -> Floats:
    return np.asarray(np.exp(-0.5 * (offset / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi)))


@functools.cache
def _blur() -> Floats:
    """Square matrix [from, to] of the energy resolution; each row adds up to one, but for what leaves the grid."""
    grid = energy_grid()
    matrix = _gauss(grid[np.newaxis, :] - grid[:, np.newaxis], _SIGMA) * STEP_KEV
    matrix.setflags(write=False)
    return matrix
