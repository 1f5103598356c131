"""Scenarios: times, places and profiles of flares."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stixflow.ephemeris import stix_to_hpc
from stixflow.errors import UsageError
from stixflow.simulate.sun import FlareModel, Scenario, Source, demo_scenario, random_scenario
from stixflow.time import TimeRange

DAY = date(2022, 11, 9)
SOURCE = Source(100.0, 200.0, 20.0)


def test_the_demo_day_has_what_a_demonstration_needs() -> None:
    scenario = demo_scenario(DAY, seed=5)
    flares = scenario.flares
    assert len(flares) >= 5
    assert scenario.seed == 5
    assert any(len(flare.thermal_sources) == 2 for flare in flares)
    assert any(flare.thermal_sources[0].fwhm_minor for flare in flares)
    radii = [np.hypot(flare.thermal_sources[0].x, flare.thermal_sources[0].y) for flare in flares]
    assert max(radii) > 0.97 * scenario.solar_radius_arcsec > 0.9 * max(radii)
    fluxes = [flare.goes_flux for flare in flares]
    assert (min(fluxes), max(fluxes)) == (5e-7, 1e-5)
    apart = np.diff([flare.peak for flare in flares]) / np.timedelta64(1, "m")
    assert apart.min() > 60
    assert flares[0].peak - scenario.span.start > np.timedelta64(1, "h")
    assert scenario.span.stop - flares[-1].peak > np.timedelta64(1, "h")


def test_the_identifier_is_the_minute_of_the_peak() -> None:
    assert FlareModel(np.datetime64("2021-06-06T11:27:59.9"), 1e-6, (SOURCE,)).flare_id == "2106061127"


def test_flares_come_in_order_of_their_peaks() -> None:
    base = demo_scenario(DAY)
    assert Scenario(base.span, base.flares[::-1]).flares == base.flares


@pytest.mark.parametrize(
    ("flux", "sources", "found"),
    [(1e-6, (), "without a source"), (5.0, (SOURCE,), "GOES flux of 5"), (0.0, (SOURCE,), "GOES flux of 0")],
)
def test_impossible_flares_are_refused(flux: float, sources: tuple[Source, ...], found: str) -> None:
    with pytest.raises(UsageError, match=found):
        FlareModel(np.datetime64("2022-11-09T01:00"), flux, sources)


def test_a_flare_outside_of_the_scenario_is_refused() -> None:
    flare = FlareModel(np.datetime64("2022-11-10T00:00"), 1e-6, (SOURCE,))
    with pytest.raises(UsageError, match="2211100000 peak outside"):
        Scenario(TimeRange.of_day(DAY), (flare,))


@given(st.floats(-2000, 2000), st.floats(-2000, 2000), st.floats(-180, 180), st.floats(-100, 100), st.floats(-100, 100))
def test_positions_go_to_the_instrument_and_back(x: float, y: float, roll: float, px: float, py: float) -> None:
    scenario = Scenario(TimeRange.of_day(DAY), roll_deg=roll, pointing_arcsec=(px, py))
    back = stix_to_hpc(scenario.stix_position(Source(x, y, 10.0)), scenario.pointing)
    assert np.allclose(back, (x, y), atol=1e-8)


def test_an_ellipse_turns_with_the_frame() -> None:
    scenario = Scenario(TimeRange.of_day(DAY), roll_deg=25.0, pointing_arcsec=(10.0, -5.0))
    angle = np.deg2rad(70.0)
    ends = [Source(sign * np.cos(angle), sign * np.sin(angle), 10.0) for sign in (-1, 1)]
    (x0, y0), (x1, y1) = (scenario.stix_position(end) for end in ends)
    source = Source(0.0, 0.0, 20.0, 10.0, position_angle=70.0)
    assert np.rad2deg(np.arctan2(y1 - y0, x1 - x0)) % 180 == pytest.approx(scenario.stix_angle(source))


def test_the_thermal_profile_peaks_once_and_vanishes_outside_of_the_extent() -> None:
    flare = demo_scenario(DAY).flares[3]
    edges = [(edge - flare.peak) / np.timedelta64(1, "s") for edge in (flare.extent.start, flare.extent.stop)]
    profile = flare.thermal_profile(np.linspace(edges[0], edges[1], 4001))
    peak = int(profile.argmax())
    assert flare.thermal_profile(np.array([0.0])) == 1.0
    assert (np.diff(profile)[:peak] >= 0).all()
    assert (np.diff(profile)[peak:] <= 0).all()
    assert profile[[0, -1]].max() < 1e-5
    # The bursts come before the thermal peak.
    seconds = np.linspace(edges[0], edges[1], 4001)
    assert seconds[flare.non_thermal_profile(seconds).argmax()] < 0


@given(st.integers(0, 2**32 - 1), st.floats(0, 40))
def test_random_days_repeat_and_keep_flares_apart(seed: int, rate: float) -> None:
    scenario = random_scenario(DAY, seed, rate)
    assert random_scenario(DAY, seed, rate) == scenario
    peaks = np.array([flare.peak for flare in scenario.flares], dtype="datetime64[ns]")
    assert (np.diff(peaks) >= np.timedelta64(1199, "s")).all()
    for flare in scenario.flares:
        assert np.hypot(flare.thermal_sources[0].x, flare.thermal_sources[0].y) <= scenario.solar_radius_arcsec
        assert 2.9e-7 < flare.goes_flux < 1.01e-4
