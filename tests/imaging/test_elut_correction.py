from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stixflow.imaging.elut_correction import edge_factors, spectral_index

LOW, HIGH = np.arange(4.0, 12.0), np.arange(5.0, 13.0)


def _power_law(a: np.ndarray | float, b: np.ndarray | float, index: float) -> np.ndarray | float:
    return (b ** (1 - index) - a ** (1 - index)) / (1 - index)


def test_spectral_index_equals_the_ground_software(shared: Path) -> None:
    made = np.load(shared / "oracle/imaging/idl_misc.npz")
    index, peak = spectral_index(made["spectrum"][None], made["elo"], made["ehi"])
    assert peak[0] == made["idx_peak"][0]
    np.testing.assert_allclose(index[0], made["spectral_index"], atol=2e-3)


@pytest.mark.parametrize("case", [0, 1, 2, 3])
def test_corrected_counts_equal_the_ground_software(shared: Path, case: int) -> None:
    made = np.load(shared / "oracle/imaging/idl_misc.npz")
    low, high = made["elo"], made["ehi"]
    first, last = (int(np.argmin(np.abs(edges - value))) for edges, value in zip(
        (low, high), made[f"elut_case{case}_range"], strict=True
    ))  # fmt: skip
    shift = 0.06 * np.sin(0.7 * np.arange(32)[:, None] + 0.31 * np.arange(12))
    index, peak = spectral_index(made["spectrum"][None], low, high)
    at_first, at_last = edge_factors(
        (first, last + 1), low, high, low[:, None, None] + shift, high[:, None, None] + shift, index, peak
    )
    channels = last - first + 1
    counts = 100.0 * (at_first + (at_last + channels - 2 if channels > 1 else 0.0))
    np.testing.assert_allclose(counts[0], made[f"elut_case{case}_counts_12x32"], rtol=1e-6)


def test_a_power_law_away_from_the_peak_is_corrected_exactly() -> None:
    gamma, shift = 3.0, 0.08
    spectrum = _power_law(LOW, HIGH, gamma)[None] * np.where(LOW == 4.0, 2.0, 1.0)
    index = np.full((1, LOW.size), gamma)
    low, high = (LOW + shift)[:, None, None], (HIGH + shift)[:, None, None]
    seen = _power_law(LOW + shift, HIGH + shift, gamma)
    at_first, at_last = edge_factors((2, 6), LOW, HIGH, low, high, index, np.array([0]))
    corrected = seen[2:6].sum() + seen[2] * (at_first.item() - 1) + seen[5] * (at_last.item() - 1)
    assert corrected == pytest.approx(_power_law(LOW[2], HIGH[5], gamma), rel=1e-12)
    single, other = edge_factors((3, 4), LOW, HIGH, low, high, index, np.array([0]))
    assert seen[3] * single.item() == pytest.approx(_power_law(LOW[3], HIGH[3], gamma), rel=1e-12)
    assert other.item() == 1.0
    assert spectrum.shape == index.shape


def test_index_one_is_the_limit_of_its_neighbours() -> None:
    low, high = (LOW + 0.05)[:, None, None], (HIGH - 0.02)[:, None, None]
    around = [
        edge_factors((1, 4), LOW, HIGH, low, high, np.full((1, 8), gamma), np.array([0]))[0].item()
        for gamma in (1.0 - 1e-6, 1.0, 1.0 + 1e-6)
    ]
    assert around[1] == pytest.approx((around[0] + around[2]) / 2, rel=1e-9)


def test_linear_is_the_ratio_of_widths() -> None:
    low, high = (LOW + 0.1)[:, None, None], (HIGH + 0.1)[:, None, None]
    at_first, at_last = edge_factors((1, 3), LOW, HIGH, low, high, None, None)
    assert at_first.item() == pytest.approx(1.1)
    assert at_last.item() == pytest.approx(0.9)


def test_right_edges_need_no_correction() -> None:
    low, high = LOW[:, None, None], HIGH[:, None, None]
    for bins in ((1, 4), (2, 3), (0, 1)):
        index, peak = spectral_index(np.exp(-LOW)[None], LOW, HIGH)
        for factor in edge_factors(bins, LOW, HIGH, low, high, index, peak):
            np.testing.assert_allclose(factor, 1.0, rtol=1e-14)


def test_channels_without_counts_or_limits_get_no_index() -> None:
    low, high = np.array([0.0, 4.0, 5.0, 6.0, 150.0]), np.array([4.0, 5.0, 6.0, 150.0, np.inf])
    index, peak = spectral_index(np.array([[9.0, 4.0, 0.0, 1.0, 8.0]]), low, high)
    assert peak[0] == 1
    assert np.isfinite(index).all()
    assert index[0, 0] == index[0, 4] == 0
