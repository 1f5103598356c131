"""Live time and its inverse."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from stixflow.instrument import (
    live_fraction,
    live_fraction_error,
    live_fraction_of_rate,
    per_detector,
    photon_rate,
    trigger_rate,
)


@given(st.floats(0, 5e6))
def test_trigger_rate_undoes_photon_rate(photons):
    triggers = trigger_rate(photons)
    assert_allclose(photon_rate(triggers * 4.0, 4.0), photons, rtol=1e-6)


@given(st.floats(0, 1e5), st.floats(0.1, 100))
def test_live_fraction_falls_with_the_rate(photons, more):
    assert 0 < live_fraction_of_rate(photons + more) < live_fraction_of_rate(photons) <= 1


def test_live_fraction_against_a_value_worked_by_hand():
    # 20000 triggers/s: n = 20000/(1 - 0.224) = 25773.196; exp(-0.0266658)/1.2886598
    assert_allclose(live_fraction(80000, 4.0), np.exp(-1.1e-6 * 0.94059104 * 25773.195876) / 1.288659794, rtol=1e-9)


def test_triggers_without_live_time_give_nan():
    with np.errstate(all="raise"):
        assert np.isnan(live_fraction([100_000], 1.0)).all()


def test_error_is_the_slope_times_the_noise():
    triggers, step = np.array([1e3, 2e4, 6e4]), 1e-3
    slope = (live_fraction(triggers + step, 4.0) - live_fraction(triggers - step, 4.0)) / (2 * step)
    assert_allclose(live_fraction_error(triggers, 10.0, 4.0), -slope * np.sqrt(100 + triggers), rtol=1e-5)


def test_detectors_share_the_value_of_their_accumulator():
    values = np.arange(32).reshape(2, 16)
    assert per_detector(values).shape == (2, 32)
    assert (per_detector(values)[1] - 16).tolist()[:6] == [0, 0, 7, 7, 2, 1]
    assert (per_detector(values.T, axis=0) == per_detector(values).T).all()
