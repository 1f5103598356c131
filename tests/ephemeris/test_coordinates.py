"""The chain of frames against the ground software."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from stixflow.ephemeris import Pointing, hpc_to_stix, stix_to_hpc

_ANGLE = st.floats(-180, 180)
_ARCSEC = st.floats(-2000, 2000)


def test_examples_of_the_ground_software(shared):
    rows = np.loadtxt(shared / "facts/imaging/coordinate_examples.csv", delimiter=",", skiprows=1)
    assert len(rows) > 20
    for roll, x, y, stix_x, stix_y, _, _, hpc_x, hpc_y in rows:
        pointing = Pointing(x, y, roll, "sas", 0.0)
        assert_allclose(stix_to_hpc([stix_x, stix_y], pointing), [hpc_x, hpc_y], atol=1e-4)
        assert_allclose(hpc_to_stix([hpc_x, hpc_y], pointing), [stix_x, stix_y], atol=1e-4)


def test_full_rotation_is_close_near_the_sun(shared):
    rows = np.loadtxt(shared / "facts/imaging/coordinate_examples.csv", delimiter=",", skiprows=1)
    near = rows[np.hypot(*rows[:, 7:9].T) < 2000]
    result = [stix_to_hpc(row[3:5], Pointing(row[1], row[2], row[0], "sas", 0.0)) for row in near]
    assert_allclose(result, near[:, 5:7], atol=0.03)


@given(_ANGLE, _ARCSEC, _ARCSEC, st.lists(st.tuples(_ARCSEC, _ARCSEC), min_size=1, max_size=5))
def test_there_and_back(roll, x, y, positions):
    pointing = Pointing(x, y, roll, "sas", 0.0)
    assert_allclose(hpc_to_stix(stix_to_hpc(positions, pointing), pointing), positions, atol=1e-9)


def test_axes_are_swapped_and_positions_may_have_any_shape():
    axis = Pointing(0.0, 0.0, 0.0, "average", 0.0)
    assert_allclose(stix_to_hpc([[[100.0, 0.0]], [[0.0, 100.0]]], axis), [[[0, 100]], [[-100, 0]]], atol=1e-12)
