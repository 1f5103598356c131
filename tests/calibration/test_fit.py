"""Gains and offsets: simulated truth, run 1300 beside the results of two public methods, and what is refused."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from example_calibrations import LARGE, SHAPE, oracle, run_1300, scales
from numpy.testing import assert_array_equal

from stixflow.calibration import calibrate, n_calibrated, reasons
from stixflow.calibration.reasons import FATAL, FLAGS
from stixflow.cubes.build import build_calibration
from stixflow.cubes.sources import record_names
from stixflow.errors import UsageError
from stixflow.fits import read_level1
from stixflow.simulate.calibration import PixelResponse, simulate_calibration
from stixflow.telemetry import decode, read_packets

_COUNTS = np.where(LARGE, 24000.0, 2400.0)
_KNOWN_BAD = [(29, 5), (29, 6)]


@cache
def _simulated(seed: int = 1, large: float = 24000.0, compressed: bool = True) -> tuple[xr.Dataset, xr.Dataset]:
    gain, offset = scales(seed)
    run = simulate_calibration(
        gain, offset, counts=np.where(LARGE, large, large / 10), compressed=compressed, seed=seed
    )
    pixel = ("detector", "pixel")
    return calibrate(run), xr.Dataset({"gain": (pixel, gain), "offset": (pixel, offset)})


@pytest.mark.parametrize("large", [24000.0, 4000.0])
@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "raw"])
@pytest.mark.parametrize("name", ["gain", "offset"])
def test_truth_is_found_within_errors(name: str, compressed: bool, large: float) -> None:
    found, truth = _simulated(compressed=compressed, large=large)
    pull = ((found[name] - truth[name]) / found[f"{name}_error"]).values
    assert np.isfinite(pull[:, LARGE]).all()
    pull = pull[np.isfinite(pull)]
    # 384 pulls of a unit normal: their mean has an error of 0.05, their spread of 0.036.
    assert abs(pull.mean()) < 0.2
    assert 0.87 < pull.std() < 1.15
    assert abs(pull).max() < 4.5


def test_widths_and_counts_are_those_of_the_simulation() -> None:
    found, _ = _simulated()
    width = found["line_fwhm"].values[:, LARGE]
    assert np.median(width[..., 0]) == pytest.approx(PixelResponse().fwhm[0], abs=0.02)
    assert np.median(width[..., 2]) == pytest.approx(PixelResponse().fwhm[1], abs=0.02)
    assert np.median(found["line_counts"].values[:, LARGE, 0]) == pytest.approx(24000, rel=0.02)
    assert np.median(found["reduced_chi2"].values) == pytest.approx(1.0, abs=0.1)


def test_lines_lie_on_the_scale() -> None:
    found, _ = _simulated()
    energy = (found["line_position"] - found["offset"]) * found["gain"]
    assert abs(energy - found["line_energy"]).max() < 1e-9


def test_a_start_is_found_anywhere_in_the_range() -> None:
    offset = np.linspace(810.0, 1030.0, SHAPE[0])[:, None]
    slope = np.linspace(8.75, 10.05, SHAPE[1])
    found = calibrate(simulate_calibration(1 / slope, offset, counts=8000.0, seed=4))
    assert n_calibrated(found) == offset.size * slope.size
    assert np.abs(found["offset"].values - offset).max() < 2.0
    assert np.abs(1 / found["gain"].values - slope).max() < 0.04


def test_summed_channels_bias_nothing() -> None:
    gain, offset = scales(7)
    run = simulate_calibration(gain, offset, counts=8000.0, subspectra=((240, 110, 2), (460, 40, 4)), seed=7)
    only = calibrate(run)
    assert "line_not_covered" not in _names(only)
    pull = ((only["gain"].values - gain) / only["gain_error"].values).ravel()
    assert n_calibrated(only) == 384
    assert abs(pull.mean()) < 0.2
    assert 0.87 < pull.std() < 1.15


def test_of_overlapping_points_the_narrower_count() -> None:
    gain, offset = scales(8)
    run = simulate_calibration(gain, offset, counts=1000.0, subspectra=((200, 369, 1),), seed=8)
    more = simulate_calibration(gain, offset, counts=1000.0, subspectra=((200, 369, 1), (196, 100, 8)), seed=8)
    one, other = calibrate(run), calibrate(more)
    for name in ("gain", "offset", "gain_error"):
        assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("oracle_name", ["ecc", "sdc"])
def test_run_1300_agrees_with_public_methods(shared: Path, found_1300: xr.Dataset, oracle_name: str) -> None:
    found = found_1300
    slope, offset = 0.25 / found["gain"].values, found["offset"].values / 4
    expected_slope, expected_offset = (
        oracle(shared, "cal_run1300_eccpostfit_from_elut20210625", "slope_adu1024_per_keV", "offset_adu1024")
        if oracle_name == "ecc"
        else oracle(shared, "cal_run1300_sdc_peaks_gain_offset", "slope_axis_corrected", "offset_axis_corrected")
    )
    by_slope, by_offset = slope - expected_slope, offset - expected_offset
    # The two public methods differ by 0.0008 and -0.04 in the median, 0.012 and 0.46 at worst, among themselves.
    assert n_calibrated(found) == 384
    assert abs(np.median(by_slope)) < 0.0008
    assert abs(np.median(by_offset)) < 0.075
    assert abs(by_slope[:, LARGE]).max() < 0.008
    assert abs(by_offset[:, LARGE]).max() < 0.46


def test_a_stretched_axis_is_seen_in_the_slope(shared: Path, found_1300: xr.Dataset) -> None:
    (stretched,) = oracle(shared, "cal_run1300_sdc_peaks_gain_offset", "slope_adu1024_per_keV")
    ratio = stretched * 4 * found_1300["gain"].values
    # The axis is longer by 200/199; what that makes of a weighted line through three peaks is 1.0046 in the reference.
    assert np.median(ratio) == pytest.approx(1.0046, abs=0.0006)


def test_resolution_of_run_1300_is_that_of_the_reference(found_1300: xr.Dataset) -> None:
    found = found_1300
    assert np.median(found["line_fwhm"][:, :, 0]) == pytest.approx(1.1, abs=0.15)
    assert np.median(found["line_fwhm"][:, :, 2]) == pytest.approx(1.34, abs=0.1)


def test_known_bad_pixels_are_flagged(found_1300: xr.Dataset) -> None:
    found = reasons(found_1300)
    listed = {(row.detector, row.pixel): row for row in found.itertuples()}
    assert {where for where, row in listed.items() if "known to be bad" in row.reason} == set(_KNOWN_BAD)
    assert all("wider" in listed[where].reason and listed[where].calibrated for where in _KNOWN_BAD)


def test_a_packet_without_the_lines_has_no_calibration(shared: Path) -> None:
    """One real packet: the third subspectrum of 81 pixels, above all lines."""
    packets = read_packets(shared / "data/telemetry/packets/05bfed_21_6_41.hex")
    (run,) = build_calibration(*decode(packets, products=record_names("cal_spectrum")).values())
    found = calibrate(run)
    assert n_calibrated(found) == 0
    assert (found["flags"].values & FLAGS["line_not_covered"].bit > 0).sum() == 81
    assert (found["flags"].values & FLAGS["not_received"].bit > 0).sum() == 303


@pytest.mark.parametrize("run", [0, 1])
def test_the_run_without_lines_of_2020_has_no_calibration(shared: Path, run: int) -> None:
    found = calibrate(read_level1(shared / "data/l1/solo_L1_stix-cal-energy_20200506_V01.fits", run=run))
    assert n_calibrated(found) == 0
    assert len(reasons(found)) == 384
    assert not reasons(found)["calibrated"].any()
    for name in ("gain", "offset", "line_position", "line_fwhm", "gain_error"):
        assert found[name].isnull().all()


@cache
def _plain_run() -> xr.Dataset:
    return simulate_calibration(0.108, 900.0, counts=4000.0, seed=5)


@pytest.fixture(scope="module")
def found_1300(shared: Path) -> xr.Dataset:
    """Run 1300, calibrated."""
    return calibrate(run_1300(shared))


def _spoiled(name: str) -> xr.Dataset:
    """A run in which something is wrong with the first pixel."""
    run = _plain_run()
    counts, observed = run["counts"].values.copy(), run["observed"].values.copy()
    adc = run["adc_start"].values
    first = counts[:, 0, 0]
    if name == "not_received":
        observed[:, 0, 0], first[:] = False, 0
    elif name == "few_counts":
        first[:] = (adc == 300) * 40
    elif name == "no_spectrum":
        first[:] = 100
    elif name == "line_not_covered":
        observed[(adc > 395), 0, 0] = False
    elif name == "no_line":
        first[adc > 380] = 20
    elif name == "poor_fit":
        first[:] = first * (1 + 0.8 * (adc % 2))
    return run.assign(counts=(run["counts"].dims, counts), observed=(run["observed"].dims, observed))


@pytest.mark.parametrize(
    "name", ["not_received", "few_counts", "no_spectrum", "line_not_covered", "no_line", "poor_fit"]
)
def test_a_pixel_that_cannot_be_calibrated_says_why(name: str) -> None:
    found = calibrate(_spoiled(name))
    flags = int(found["flags"][0, 0])
    assert flags & FLAGS[name].bit, reasons(found).head()
    assert n_calibrated(found) == 383
    for values in (found[part] for part in ("gain", "offset", "correlation", "line_position")):
        assert values[0, 0].isnull().all()


_RNG = np.random.default_rng(0)
_GARBAGE = {
    "noise": lambda shape: _RNG.integers(0, 1000, shape),
    "largest numbers": lambda shape: np.full(shape, 2**32 - 1),
    "a slope": lambda shape: _RNG.poisson(1e4 * np.exp(-np.arange(shape[0]) / 30.0)[:, None, None] * np.ones(shape)),
    "spikes": lambda shape: np.where(_RNG.random(shape) < 0.01, 100_000, 0),
    "one point": lambda shape: (np.arange(shape[0]) == 100)[:, None, None] * np.full(shape, 100_000),
    "lines elsewhere": lambda _: np.roll(_plain_run()["counts"].values, 60, axis=0),
    "no gamma line": lambda shape: _plain_run()["counts"].values * (np.arange(shape[0]) < 180)[:, None, None],
}


@pytest.mark.parametrize("name", _GARBAGE)
def test_what_is_no_spectrum_of_barium_is_not_fitted(name: str) -> None:
    run = _plain_run()
    counts = _GARBAGE[name](run["counts"].shape).astype(np.uint32)
    assert n_calibrated(calibrate(run.assign(counts=(run["counts"].dims, counts)))) == 0


@pytest.mark.parametrize("last", [360, 376, 395, 405])
def test_spectra_that_end_below_the_gamma_line_are_not_fitted(last: int) -> None:
    run = _plain_run()
    observed = run["observed"].values & (run["adc_start"].values <= last)[:, None, None]
    found = calibrate(run.assign(observed=(run["observed"].dims, observed)))
    assert n_calibrated(found) == 0
    assert (found["flags"].values & FLAGS["line_not_covered"].bit).all()


def test_others_are_wanted_no_values() -> None:
    with pytest.raises(UsageError, match="ql_lightcurve"):
        calibrate(xr.Dataset(attrs={"product": "ql_lightcurve"}))


def test_nan_is_where_a_fatal_flag_is() -> None:
    found, _ = _simulated(large=4000.0)
    assert_array_equal(np.isnan(found["gain"].values), (found["flags"].values & FATAL) != 0)


def _names(calibration: xr.Dataset) -> set[str]:
    seen = np.bitwise_or.reduce(calibration["flags"].values.reshape(-1))
    return {name for name, flag in FLAGS.items() if seen & flag.bit}
