"""Smoothing and envelope against their definitions, exact arithmetic, and the reference day."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from stixflow.flares import smooth, snip_envelope

curves = st.integers(3, 90).flatmap(lambda n: arrays(np.float64, n, elements=st.integers(0, 2000).map(float)))


def exact_envelope(counts: NDArray[np.float64], iterations: int = 900) -> NDArray[np.float64]:
    """The definition in integers of growing size: nothing is rounded, so ties are ties."""
    w = np.array([int(value) for value in counts], dtype=object)
    size, scale = len(w), 1
    for p in range(min((size - 1) // 2, iterations), 0, -1):
        mean = np.empty(size, dtype=object)  # six times the mean
        mean[1:-1] = 2 * (w[:-2] + w[1:-1] + w[2:])
        mean[0], mean[-1] = 3 * (w[0] + w[1]), 3 * (w[-1] + w[-2])

        def at(k: int, mean: NDArray[np.object_] = mean, p: int = p) -> NDArray[np.object_]:
            return mean[p + k : size - p + k]

        q, r = p // 2, p // 3
        order2 = 30 * (at(-p) + at(p))
        order4 = 10 * (-at(-2 * q) + 4 * at(-q) + 4 * at(q) - at(2 * q))
        order6 = 3 * (at(-3 * r) - 6 * at(-2 * r) + 15 * at(-r) + 15 * at(r) - 6 * at(2 * r) + at(3 * r))
        best = np.maximum(np.maximum(order2, order4), order6)
        new = 360 * w
        new[p : size - p] = np.where(best < new[p : size - p], best, 60 * at(0))
        w, scale = new, scale * 360
    return np.array([float(Fraction(value, scale)) for value in w])


@settings(max_examples=60, deadline=None)
@given(curves)
def test_envelope_is_the_definition_in_exact_arithmetic(counts: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(snip_envelope(counts), exact_envelope(counts), rtol=1e-9, atol=1e-7)


@given(curves)
def test_envelope_never_rises_above_the_highest_bin_and_keeps_the_ends(counts: NDArray[np.float64]) -> None:
    envelope = snip_envelope(counts)
    assert envelope.max() <= counts.max() * (1 + 1e-12)
    assert envelope[0] == counts[0]
    assert envelope[-1] == counts[-1]


@given(curves, st.sampled_from([0.25, 2.0, 64.0]))
def test_envelope_scales_with_the_counts(counts: NDArray[np.float64], factor: float) -> None:
    np.testing.assert_array_equal(snip_envelope(counts * factor), snip_envelope(counts) * factor)


@given(curves)
def test_envelope_does_not_know_the_direction_of_time(counts: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(snip_envelope(counts[::-1])[::-1], snip_envelope(counts), rtol=1e-9, atol=1e-7)


@given(curves)
def test_one_pass_clips_or_averages(counts: NDArray[np.float64]) -> None:
    envelope = snip_envelope(counts, iterations=1)
    mean = (counts[:-2] + counts[1:-1] + counts[2:]) / 3
    averaged = np.isclose(envelope[1:-1], mean, rtol=1e-12)
    assert (averaged | (envelope[1:-1] < counts[1:-1])).all()


def test_envelope_of_a_stack_is_the_stack_of_envelopes() -> None:
    stack = np.random.default_rng(0).poisson(200, (2, 3, 400)).astype(float)
    one_by_one = np.array([[snip_envelope(curve) for curve in group] for group in stack])
    np.testing.assert_array_equal(snip_envelope(stack), one_by_one)


def test_envelope_leaves_its_input_alone_and_takes_away_a_peak() -> None:
    t = np.arange(1200.0)
    floor = 250 + 20 * np.sin(t / 400)
    peak = 1000 * np.exp(-(((t - 600) / 40) ** 2))
    curve = floor + peak
    before = curve.copy()
    envelope = snip_envelope(curve)
    np.testing.assert_array_equal(curve, before)
    assert abs(envelope[600] - floor[600]) < 0.03 * peak.max()


@pytest.mark.parametrize("size", [0, 1, 2])
def test_curves_too_short_to_clip_are_their_own_envelope(size: int) -> None:
    counts = np.arange(size, dtype=float)
    np.testing.assert_array_equal(snip_envelope(counts), counts)


@given(
    arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 60)), elements=st.integers(0, 10**6).map(float)),
    st.sampled_from([1, 3, 15]),
)
def test_smooth_is_the_mean_of_the_padded_window(counts: NDArray[np.float64], width: int) -> None:
    half = width // 2
    padded = np.pad(counts, [(0, 0), (half, half)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=1)
    np.testing.assert_allclose(smooth(counts, width), windows.mean(axis=-1), rtol=1e-12)


def test_reference_day(shared: Path) -> None:
    """The reference was rounded where ties are decided: it differs from exact arithmetic by up to 5e-6."""
    folder = shared / "oracle/flares"
    table = pd.read_csv(folder / "lc_20210606_smoothed_and_snip_baseline.csv")
    smoothed = smooth(table["counts_4_10"])
    np.testing.assert_allclose(smoothed, table["smoothed"], rtol=0, atol=5.1e-6)
    envelope = snip_envelope(smoothed)
    np.testing.assert_allclose(envelope, table["snip_baseline"], rtol=1e-5)
    conditions = json.loads((folder / "sdc_flares_20210606_conditions.json").read_text())
    assert envelope.min() == pytest.approx(conditions["parameters"]["baseline_min"], rel=1e-9)
