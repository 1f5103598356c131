"""Expected rates of every pixel: against the forward model of others, and against its own books."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stixflow.errors import UsageError
from stixflow.flares import estimate_goes
from stixflow.instrument import BKG_INDEX, CFL_INDEX, pixels
from stixflow.simulate.response import (
    QL_DETECTORS,
    accumulator_rates,
    background_rates,
    counts_of_goes_flux,
    flare_response,
    mask_bits,
    pixel_areas,
    ql_band_rates,
)
from stixflow.simulate.sun import Scenario, Source, demo_scenario
from stixflow.time import TimeRange

DAY = TimeRange.of_day(date(2022, 11, 9))
ON_AXIS = Scenario(DAY, roll_deg=0.0, pointing_arcsec=(0.0, 0.0))
"""Helioprojective (x, y) is (-Y, X) of the STIX frame here."""


@pytest.mark.parametrize("name", ["circle", "ellipse", "double"])
@pytest.mark.parametrize("level", ["low", "high"])
def test_pixels_follow_the_exact_forward_model(shared: Path, name: str, level: str) -> None:
    oracle = np.load(shared / "oracle" / "imaging" / f"sim_{name}_measured_{level}.npz")
    x0, y0 = oracle["center"]
    shapes = json.loads(str(oracle["sources"]))
    total = sum(shape["flux"] for shape in shapes)
    sources = tuple(
        Source(
            -(shape["y"] + y0),
            shape["x"] + x0,
            shape.get("fwhm", shape.get("fwhm_max")),
            shape.get("fwhm_min"),
            shape.get("pa", 0.0) + 90.0,
            shape["flux"],
        )
        for shape in shapes
    )
    area = pixel_areas(ON_AXIS, sources)
    rates = total * (area[:, :4] + area[:, 4:8]) / (2 * pixels().area_cm2[0])
    fourier = np.delete(np.arange(32), [CFL_INDEX, BKG_INDEX])
    expected = oracle["expected_rates"][fourier]
    # The oracle takes the grid transmission at the centre of the map, this model at each source: 12 arcsec at most.
    assert np.abs(rates[fourier] - expected).max() < 3e-4 * expected.max()


def test_a_source_at_the_reference_has_the_transmission_of_the_grids() -> None:
    area = pixel_areas(ON_AXIS, (Source(0.0, 0.0, 400.0),))
    big = area[:, :8].sum(axis=1) / pixels().area_cm2[:8].sum()
    from stixflow.instrument import grid_transmission

    fourier = np.delete(np.arange(32), [CFL_INDEX, BKG_INDEX])
    assert np.allclose(big[fourier], grid_transmission(0.0, 0.0)[fourier], rtol=1e-12)


@given(st.floats(-2000, 2000), st.floats(-2000, 2000))
def test_the_shadow_on_the_locator_is_never_larger_than_its_pixels(x: float, y: float) -> None:
    lit = pixel_areas(ON_AXIS, (Source(x, y, 10.0),))[CFL_INDEX]
    assert (lit >= 0).all()
    assert (lit <= pixels().area_cm2 * 1.0001).all()


def test_the_shadow_moves_as_in_the_sky_table() -> None:
    north, south = (pixel_areas(ON_AXIS, (Source(x, 0.0, 10.0),))[CFL_INDEX] for x in (-700.0, 700.0))
    # +Y of the STIX frame (-x here) moves the upper opening down onto the upper row.
    assert north[:4].sum() > 2 * north[4:8].sum()
    assert np.allclose(north[:4], south[4:8])
    centre = pixel_areas(ON_AXIS, (Source(0.0, 0.0, 10.0),))[CFL_INDEX]
    assert centre[:8] == pytest.approx(np.full(8, 2.2 * 1.15 / 100))
    assert (centre[8:] == 0).all()


@given(st.floats(1.3e-7, 1e-3), st.floats(0.28, 1.02))
def test_counts_and_goes_flux_are_one_relation(flux: float, distance: float) -> None:
    counts = counts_of_goes_flux(flux, distance)
    assert float(estimate_goes(counts, 0.0, distance).flux) == pytest.approx(flux, rel=1e-9)


def test_a_flux_below_the_relation_is_refused() -> None:
    with pytest.raises(UsageError, match="below what the relation can give"):
        counts_of_goes_flux(1e-7, 1.0)


def test_the_quiet_background_is_that_of_a_real_file() -> None:
    bands = ql_band_rates(background_rates(ON_AXIS)).sum(axis=-1) * 4.0
    # 2211098157 (2022-11-09) in the bands and detectors of the quick look, counts in 4 s.
    assert bands == pytest.approx([230.8, 44.0, 57.3, 754.8, 398.4], abs=0.1)


def test_sums_over_accumulators_keep_all_counts() -> None:
    rates = background_rates(ON_AXIS)
    assert accumulator_rates(rates.sum(axis=0)).sum() == pytest.approx(rates.sum())
    used = mask_bits(QL_DETECTORS, 32)
    assert ql_band_rates(rates).sum() == pytest.approx(rates[1:28][:, used].sum())


def test_a_flare_has_the_spectrum_it_was_given() -> None:
    scenario = demo_scenario()
    response = flare_response(scenario, scenario.flares[3])
    thermal, bursts = response.components
    flux = response.flux
    assert flux["non_thermal"]["16-28"] == pytest.approx(
        scenario.flares[3].non_thermal * flux["thermal"]["4-10"], rel=1e-9
    )
    for part, kind in ((thermal, "thermal"), (bursts, "non_thermal")):
        coarse = part.rates[1:7, 2].sum() / pixel_areas(scenario, scenario.flares[3].thermal_sources)[2].sum()
        # Actual channel edges differ from 4 and 10 keV by up to 0.2 keV.
        assert coarse == pytest.approx(6.0 * flux[kind]["4-10"], rel=0.03)


def test_an_m1_flare_fits_what_is_known_of_the_sun() -> None:
    scenario = demo_scenario()
    response = flare_response(scenario, scenario.flares[3])
    assert 1e48 < response.emission_measure < 5e49
