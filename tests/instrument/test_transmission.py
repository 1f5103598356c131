"""Grids, windows and attenuator against the ground software and the material tables."""

import csv

import numpy as np
import pytest
from numpy.testing import assert_allclose

from stixflow.errors import UsageError
from stixflow.instrument import (
    detectors,
    grid_transmission,
    grid_transmission_energy,
    window_transmission,
)
from stixflow.instrument.transmission import wedge_transmission


def test_grid_transmission_equals_the_ground_software(shared):
    oracle = np.load(shared / "oracle/imaging/idl_misc.npz")
    fourier = detectors().resolution > 0
    expected = np.stack([oracle[f"subc_transmission_{index}"] for index in range(5)])
    result = grid_transmission(*oracle["locations"].T)
    assert_allclose(result[:, fourier], expected[:, fourier], atol=5e-8)
    assert np.isnan(result[:, ~fourier]).all()


def test_grid_transmission_broadcasts():
    x, y = np.meshgrid([0.0, 600.0, 1200.0], [-300.0, 0.0])
    result = grid_transmission(x, y)
    assert result.shape == (2, 3, 32)
    assert_allclose(result[1, 2], grid_transmission(1200.0, 0.0))


def test_wedged_slats_equal_the_ground_software(shared):
    oracle = np.load(shared / "oracle/imaging/idl_misc.npz")
    coarse = wedge_transmission(0.909824, 0.4811, 0.4413, oracle["L_mm"])
    fine = wedge_transmission(0.07805, 0.0457, 0.3538, oracle["L_mm"])
    plain = wedge_transmission(0.07805, 0.0457, 0.3538, oracle["L_mm"], wedge_width=0.0)
    assert_allclose(coarse, oracle["grid_transmission_pitch0.909_slit0.48_thick0.44"], rtol=2e-7)
    assert_allclose(fine, oracle["grid_transmission_pitch0.078_slit0.0457_thick0.354"], rtol=2e-7)
    assert_allclose(plain, oracle["grid_transmission_nowedge"], rtol=2e-7)


def test_tungsten_is_opaque_at_low_and_open_at_high_energy():
    fourier = detectors().resolution > 0
    low, high = grid_transmission_energy((0.0, 0.0), [6.0, 60.0])[:, fourier]
    assert_allclose(low, grid_transmission(0, 0)[fourier], rtol=0.02)
    assert (high > low).all()


def test_materials_equal_the_table(shared):
    rows = list(csv.reader((shared / "facts/imaging/material_transmission.csv").open()))[1:]
    energy, coarse, fine, _ = np.array(rows, dtype=float).T
    assert_allclose(window_transmission(energy), coarse, rtol=1e-9)
    assert_allclose(window_transmission(energy, fine=True), fine, rtol=1e-9)


def test_energies_beyond_the_table_are_refused():
    with pytest.raises(UsageError, match="beyond the table"):
        window_transmission([1.0, 20.0])
    with pytest.raises(UsageError):
        window_transmission([np.nan])
