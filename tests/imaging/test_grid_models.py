from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stixflow.errors import ImagingError
from stixflow.imaging.grid_models import grid_response, metrology_transmission
from stixflow.instrument import grid_transmission, subcollimators

PLACES = np.array([[-560.0, 330.0], [900.0, -40.0]])
ENERGIES = np.array([[6.0, 10.0], [28.0, 50.0]])
DETECTORS = subcollimators()


def test_the_model_of_stixpy_has_its_numbers(shared: Path) -> None:
    peer = np.load(shared / "oracle/imaging/stixpy_synth_cpd.npz")
    found = metrology_transmission(peer["location"], as_stixpy=True)
    np.testing.assert_allclose(found, peer["grid_transmission"], rtol=1e-14)


def test_a_tilt_to_either_side_throws_the_same_shadow() -> None:
    there, back = metrology_transmission(PLACES), metrology_transmission(-PLACES)
    np.testing.assert_allclose(there, back)
    assert (metrology_transmission(np.zeros(2)) >= there)[:, DETECTORS].all()
    odd = metrology_transmission(-PLACES, as_stixpy=True)[:, DETECTORS]
    assert np.abs(odd / metrology_transmission(PLACES, as_stixpy=True)[:, DETECTORS] - 1).max() > 0.01


def test_fine_grids_are_not_in_the_table() -> None:
    with pytest.raises(ImagingError, match="no slits for the detectors"):
        grid_response("metrology", PLACES, ENERGIES, subcollimators(3, 2))


def test_the_measured_model_is_that_of_the_instrument() -> None:
    found = grid_response("measured", PLACES, ENERGIES, DETECTORS)
    np.testing.assert_array_equal(found.transmission, grid_transmission(*PLACES.T)[:, DETECTORS])
    assert (found.contrast == 1).all()


def test_slats_are_opaque_at_low_energy_only() -> None:
    found = grid_response("wedge", PLACES[:1].repeat(3, 0), np.array([[4.0, 8], [50, 69], [120, 150]]), DETECTORS)
    assert (np.diff(found.transmission, axis=0) > 0).all()
    assert (np.diff(found.contrast, axis=0) < 0).all()
    np.testing.assert_allclose(found.contrast[0], 1.0, atol=0.03)
    assert (found.contrast > 0.2).all()
