"""The modelled background: right where the Sun is quiet, told to be old where it is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from stixflow.flares import model_background
from stixflow.flares.curve import Curve, compression_variance
from stixflow.flares.quiet import quiet_model
from stixflow.telemetry.compression import compress, decompress, variance

QUIET = np.array([250.0, 50.0, 67.0, 850.0, 460.0])
QuietCurve = Callable[..., xr.Dataset]
AddFlare = Callable[..., xr.Dataset]


def test_a_quiet_day_is_its_mean(quiet_curve: QuietCurve) -> None:
    model = model_background(quiet_curve(21600))
    assert set(model.data_vars) == {"background", "background_sigma", "scatter", "age_s"}
    off = (model["background"].to_numpy() - QUIET) / model["background_sigma"].to_numpy()
    assert np.abs(off).max() < 4
    np.testing.assert_allclose(model["background"].mean("time"), QUIET, rtol=0.003)
    np.testing.assert_allclose(model["scatter"].mean("time"), np.sqrt(QUIET), rtol=0.02)
    assert (model["age_s"] == 0).mean() > 0.85


def test_flares_do_not_raise_it(quiet_curve: QuietCurve, add_flare: AddFlare) -> None:
    curve = quiet_curve(21600, seed=2)
    rng = np.random.default_rng(1)
    # No hour of this day is quiet: on average a flare every twenty minutes.
    for peak in rng.integers(0, 21600, 72):
        curve = add_flare(curve, int(peak), 10 ** rng.uniform(2, 3.5), rise=10, decay=rng.uniform(10, 30))
    model = model_background(curve)
    assert np.abs(model["background"][:, 0] / 250 - 1).max() < 0.05
    assert np.abs(model["background"][:, 0] / 250 - 1).median() < 0.02
    np.testing.assert_allclose(model["background"][:, 3], 850, rtol=0.02)
    assert model["age_s"].max() > 300


def test_it_follows_a_drift(quiet_curve: QuietCurve) -> None:
    curve = quiet_curve(21600)
    slope = 1 + 0.15 * np.linspace(0, 1, 21600)[:, np.newaxis]
    counts = np.random.default_rng(3).poisson(QUIET * slope)
    model = model_background(curve.assign(counts=(("time", "energy"), counts)))
    assert np.abs(model["background"].to_numpy() / (QUIET * slope) - 1).max() < 0.02


def test_it_grows_old_and_uncertain_in_a_long_flare(quiet_curve: QuietCurve) -> None:
    curve = quiet_curve(21600)
    curve["counts"][8000:14000, 0] += 5000
    model = model_background(curve)
    middle = model.isel(time=11000)
    assert middle["age_s"] == pytest.approx(3000 * 4, abs=1000)
    assert middle["background"][0] == pytest.approx(250, rel=0.03)
    assert middle["background_sigma"][0] > 1.3 * model["background_sigma"][2000, 0]


def test_gaps_and_the_attenuator_leave_it_alone(quiet_curve: QuietCurve) -> None:
    curve = quiet_curve(10800)
    curve["counts"][4000:4600, :] = 20
    curve["rcr"][4000:4600] = 4
    model = model_background(curve.isel(time=np.r_[0:6000, 8000:10800]))
    np.testing.assert_allclose(model["background"][:, 0], 250, rtol=0.015)
    assert model["age_s"][4300] > 0


def test_pixels_switched_off_scale_it(quiet_curve: QuietCurve) -> None:
    curve = quiet_curve(10800)
    masks = np.full(10800, 0xFFF, dtype=np.uint16)
    masks[5000:5200] = 0x00F
    share = Curve.of(curve.assign(pixel_mask=("time", masks))).open_fraction
    assert share[0] == 1.0
    assert 0.3 < share[5100] < 0.5
    model = model_background(curve.assign(pixel_mask=("time", masks), rcr=("time", (masks != 0xFFF).astype(np.uint8))))
    assert model["background"][5100, 3] == pytest.approx(850 * share[5100], rel=0.02)


def test_detectors_switched_off_scale_it(quiet_curve: QuietCurve) -> None:
    curve = quiet_curve(10800)
    masks = np.full(10800, 0xFFFFFFFF, dtype=np.uint32)
    masks[6000:] = 0x0000FFFF
    curve["counts"][6000:] = np.rint(curve["counts"][6000:] / 2).astype(np.uint32)
    model = model_background(curve.assign(detector_mask=("time", masks)))
    np.testing.assert_allclose(model["background"][:6000, 3], 850, rtol=0.02)
    np.testing.assert_allclose(model["background"][6000:, 3], 425, rtol=0.02)
    assert (model["age_s"] == 0).mean() > 0.8


def test_quantisation_counts_as_scatter(quiet_curve: QuietCurve) -> None:
    exact = quiet_curve(21600)
    received = decompress(compress(exact["counts"].to_numpy().astype(np.int64), (0, 5, 3)), (0, 5, 3))
    coarse = exact.assign(
        counts=(("time", "energy"), received), counts_skm=("time", np.full(21600, 0x53, dtype=np.uint16))
    )
    dispersion = quiet_model(Curve.of(coarse)).dispersion.mean(axis=1)
    measured = received.var(axis=0) / received.mean(axis=0)
    np.testing.assert_allclose(dispersion, measured, rtol=0.03)


@pytest.mark.parametrize("mantissa", [3, 4])
def test_variance_of_the_quantisation_is_that_of_the_telemetry(mantissa: int) -> None:
    values = np.array([3, 17, 100, 247, 300, 1000, 20_000, 3_000_000])
    expected = variance(values, (0, 5, mantissa))
    ours = compression_variance(values.astype(float), mantissa)
    # Ours is that of an integer, theirs of a real number between the same limits.
    np.testing.assert_allclose(ours, expected, rtol=0.5, atol=0.5)
    assert (ours[expected == 0] == 0).all()


def test_the_real_days_are_as_scattered_as_told(day_2020: xr.Dataset, day_2021: xr.Dataset) -> None:
    for day in (day_2020, day_2021):
        model = model_background(day)
        quiet = model["age_s"].to_numpy() == 0
        off = (day["counts"].to_numpy() - model["background"].to_numpy()) / model["scatter"].to_numpy()
        np.testing.assert_allclose(off[quiet].mean(axis=0), 0, atol=0.03)
        np.testing.assert_allclose(off[quiet].std(axis=0), 1, atol=0.1)


def test_nothing_in_nothing_out(quiet_curve: QuietCurve) -> None:
    assert model_background(quiet_curve(0)).sizes["time"] == 0
    assert np.isfinite(model_background(quiet_curve(1))["background"]).all()
