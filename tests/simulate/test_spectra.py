"""Photon spectra and what is left of them above the grids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stixflow.simulate.spectra import (
    STEP_KEV,
    between,
    cumulative,
    detected,
    energy_grid,
    power_law_photons,
    thermal_photons,
)

GRID = energy_grid()


def test_the_resolution_moves_counts_but_keeps_them() -> None:
    line = np.zeros(GRID.size)
    line[np.searchsorted(GRID, 30.0)] = 1.0
    blurred = detected(line, np.ones(GRID.size))
    assert blurred.sum() == pytest.approx(1.0, abs=1e-9)
    assert blurred @ GRID == pytest.approx(30.05, abs=1e-9)
    half = GRID[blurred >= blurred.max() / 2]
    assert half[-1] - half[0] == pytest.approx(1.0, abs=2 * STEP_KEV)


@given(st.floats(0.8, 2.0), st.floats(1.05, 2.0))
def test_a_hotter_plasma_has_a_harder_spectrum(temperature: float, factor: float) -> None:
    cool, hot = (thermal_photons(GRID, kT) for kT in (temperature, temperature * factor))
    assert (np.diff(np.log(hot / cool)[GRID > 9.0]) > 0).all()


def test_the_iron_complex_stands_above_the_continuum() -> None:
    spectrum = thermal_photons(GRID, 1.5)
    at = {energy: spectrum[np.searchsorted(GRID, energy)] for energy in (6.2, 6.65, 7.2)}
    assert at[6.65] > 3 * np.sqrt(at[6.2] * at[7.2])


def test_the_power_law_has_its_index_above_the_cutoff_and_no_jump_at_it() -> None:
    spectrum = power_law_photons(GRID, 4.0, 20.05)
    slope = np.diff(np.log(spectrum)) / np.diff(np.log(GRID))
    assert np.allclose(slope[GRID[:-1] > 20.1], -4.0)
    assert np.allclose(slope[GRID[1:] < 20.0], -1.7)
    assert spectrum[np.searchsorted(GRID, 50.0)] == pytest.approx((GRID[np.searchsorted(GRID, 50.0)] / 50.0) ** -4.0)


@given(st.lists(st.floats(2.0, 200.0), min_size=3, max_size=8).map(sorted))
def test_bins_add_up(edges: list[float]) -> None:
    integral = cumulative(thermal_photons(GRID, 1.3))
    parts = np.diff(between(integral, np.array(edges)))
    whole = np.diff(between(integral, np.array([edges[0], edges[-1]])))
    assert parts.sum() == pytest.approx(whole[0])
    assert (parts >= 0).all()


def test_the_integral_over_everything_is_the_sum() -> None:
    spectrum = power_law_photons(GRID, 3.0, 10.0)
    assert between(cumulative(spectrum), np.array([np.inf]))[0] == pytest.approx(spectrum.sum() * STEP_KEV)
