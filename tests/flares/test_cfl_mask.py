"""The shadow on the coarse flare locator against public sky tables."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from stixflow.flares.cfl_mask import CflMask, illuminated_area

_NOMINAL = CflMask(593.08, 4.4, 3.45, 10.0)
"""Drawings of the instrument."""
_SKY_TABLE = CflMask(597.0, 4.4, 3.45, 10.0, small_mm=(1.05, 0.86))
"""Reproduces the sky table of the data centre, with its axes swapped (x is -Y_stix, y is X_stix)."""
_SKY = st.floats(-2000, 2000)


def test_sky_table_of_the_data_centre(shared):
    oracle = json.loads((shared / "oracle/cfl/cfl_expected_patterns.json").read_text())
    for row in oracle["expected"]:
        area = illuminated_area(row["y"], -row["x"], mask=_SKY_TABLE)
        assert_allclose(area, row["area_mm2"], atol=oracle["max_abs_diff_vs_skylut_mm2"])


def test_table_of_the_public_look_up(shared):
    oracle = np.load(shared / "oracle/imaging/cfl_real.npz")
    area = illuminated_area(*oracle["lut_check_xy"].T, mask=_NOMINAL)
    assert_allclose(area[:, :8], oracle["lut_check_area_mm2"], atol=1e-4)


@settings(deadline=None)
@given(_SKY, _SKY)
def test_rows_change_places_with_the_side_of_the_flare(x, y):
    here, there = (illuminated_area(x, s * y, mask=_NOMINAL) for s in (1, -1))
    assert_allclose(here[:8], there[[4, 5, 6, 7, 0, 1, 2, 3]], atol=1e-9)
    assert_allclose(here[8:], there[8:], atol=1e-9)


@settings(deadline=None)
@given(_SKY, _SKY)
def test_lit_areas_lie_within_the_pixels_and_vary_smoothly(x, y):
    here, near = illuminated_area([x, x + 1.0], [y, y + 1.0])
    assert (here >= 0).all()
    assert (here[:8] <= (2.2 * 4.6 - 1.1 * 0.91 / 2) + 1e-9).all()
    assert (here[8:] <= 1.1 * 0.91 + 1e-9).all()
    # One arcsec moves the shadow by 0.0029 mm along edges of at most 2.2 + 4.6 mm.
    assert np.abs(near - here).max() < 2 * 0.0029 * (2.2 + 4.6)
