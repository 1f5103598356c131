from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging import Gaussian
from stixflow.imaging.bins import (
    correct_bin_shift,
    covering_energy_bins,
    covering_time_bins,
    energy_ranges,
    inside_energy_bins,
    time_ranges,
    touching_time_bins,
)
from stixflow.imaging.counts import IntervalCounts, interval_counts
from stixflow.instrument import SumCase, live_fraction, subcollimators
from stixflow.time import TimeRange

START = np.datetime64("2022-11-09T00:00:00", "ns")
SOURCE = [Gaussian(4.0, 5.0, -8.0, 15.0)]
DETECTORS = subcollimators()
SKM_044 = 0 << 8 | 4 << 4 | 4


def _range(start: float, stop: float) -> TimeRange:
    return TimeRange(START + np.timedelta64(round(start * 1e3), "ms"), START + np.timedelta64(round(stop * 1e3), "ms"))


def _sum(pixels: xr.Dataset, *ranges: TimeRange, energies: Any = ((6.0, 10.0),), **options: Any) -> IntervalCounts:
    case = options.pop("case", SumCase.TOP_BOTTOM)
    return interval_counts(pixels, ranges, energies, options.pop("detectors", DETECTORS), case, **options)


@pytest.mark.parametrize(
    ("wanted", "bins"),
    [
        ((10, 30), (1, 3)), ((12, 28), (1, 3)), ((0, 60), (0, 6)), ((9.999, 30.001), (0, 4)), ((25, 26), (2, 3)),
        ((-50, 5), (0, 1)), ((55, 500), (5, 6)), ((-5, 500), (0, 6)),
    ],
)  # fmt: skip
def test_whole_time_bins_cover_the_request(
    make_pixels: Callable[..., xr.Dataset], wanted: tuple[float, float], bins: tuple[int, int]
) -> None:
    assert covering_time_bins(make_pixels(), [_range(*wanted)]).tolist() == [list(bins)]


@pytest.mark.parametrize(
    ("wanted", "bins"), [((10, 30), (0, 4)), ((12, 28), (1, 3)), ((9.999, 30.001), (0, 4)), ((-50, 0), (0, 1))]
)
def test_time_bins_that_touch_the_request(
    make_pixels: Callable[..., xr.Dataset], wanted: tuple[float, float], bins: tuple[int, int]
) -> None:
    assert touching_time_bins(make_pixels(), [_range(*wanted)]).tolist() == [list(bins)]


def test_energy_bins_inside_the_request(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels()
    assert inside_energy_bins(pixels, 6.0, 10.0) == (2, 6)
    assert inside_energy_bins(pixels, 5.5, 10.9) == (2, 6)
    with pytest.raises(ImagingError, match="no energy bin lies inside"):
        inside_energy_bins(pixels, 6.2, 6.9)
    with pytest.raises(ImagingError, match="no time bin"):
        touching_time_bins(pixels, [_range(61, 70)])


def test_counts_of_the_next_bin_can_be_moved_back(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels(SOURCE, scale=50.0).assign_attrs(bin_shift="possible")
    pixels["counts"] = pixels["counts"] * (1 + xr.DataArray(np.arange(6), dims="time")).astype(np.uint32)
    found = correct_bin_shift(pixels)
    np.testing.assert_array_equal(found["counts"], pixels["counts"][1:])
    np.testing.assert_array_equal(found["time_start"], pixels["time_start"][:-1])
    np.testing.assert_array_equal(found["triggers"], pixels["triggers"][1:])
    assert found.attrs["bin_shift"] == "corrected"
    assert set(found.variables) == set(pixels.variables)
    _sum(found, _range(0, 50))
    for wrong in (found, pixels.isel(time=[0]), pixels.assign_attrs(bin_shift="none")):
        with pytest.raises(ImagingError, match="cannot be moved by one bin"):
            correct_bin_shift(wrong)


@pytest.mark.parametrize("wanted", [(-30, 0), (60, 90), (100, 200)])
def test_a_request_beside_the_data_is_refused(
    make_pixels: Callable[..., xr.Dataset], wanted: tuple[float, float]
) -> None:
    with pytest.raises(ImagingError, match="no time bin"):
        covering_time_bins(make_pixels(), [_range(0, 60), _range(*wanted)])


def test_a_request_inside_a_gap_is_refused(make_pixels: Callable[..., xr.Dataset]) -> None:
    with pytest.raises(ImagingError, match="no time bin"):
        covering_time_bins(make_pixels().isel(time=[0, 1, 4, 5]), [_range(22, 38)])


@pytest.mark.parametrize(
    ("wanted", "bins"), [((6, 10), (2, 6)), ((6.2, 9.5), (2, 6)), ((4, 5), (0, 1)), ((4, 15), (0, 11))]
)
def test_whole_energy_bins_cover_the_request(
    make_pixels: Callable[..., xr.Dataset], wanted: tuple[float, float], bins: tuple[int, int]
) -> None:
    assert covering_energy_bins(make_pixels(), *wanted) == bins


def test_energies_that_are_not_there_are_refused(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels(channels=(1, 32))
    for data, wanted, message in (
        (pixels, (3.0, 10.0), "do not cover"),
        (pixels, (100.0, 200.0), "no upper limit"),
        (make_pixels(), (10.0, 30.0), "do not cover"),
        (pixels.isel(energy=[0, 1, 2, 5, 6]), (6.0, 10.0), "gap"),
    ):
        with pytest.raises(ImagingError, match=message):
            covering_energy_bins(data, *wanted)


def test_ways_to_write_ranges_agree() -> None:
    one = TimeRange(np.datetime64("2022-11-09T00:00", "ns"), np.datetime64("2022-11-09T00:01", "ns"))
    text, pair = "2022-11-09T00:00:00/2022-11-09T00:01:00", ("2022-11-09T00:00:00", "2022-11-09T00:01:00")
    for given_range in (one, text, pair, [one], [text], [pair], np.array(pair, dtype="datetime64[ns]")):
        assert time_ranges(given_range) == [one]
    assert time_ranges([one, text, pair]) == [one] * 3
    assert time_ranges([text, text]) == [one] * 2
    assert energy_ranges((6, 10)) == energy_ranges([(6, 10)]) == [(6.0, 10.0)]
    with pytest.raises(UsageError, match="low < high"):
        energy_ranges((10, 6))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)).map(sorted), min_size=1, max_size=6))
def test_many_intervals_equal_one_by_one(make_pixels: Callable[..., xr.Dataset], limits: list[list[int]]) -> None:
    pixels = make_pixels(SOURCE, scale=50.0)
    random = np.random.default_rng(0)
    pixels["counts"] = pixels["counts"] + random.integers(0, 50, pixels["counts"].shape).astype(np.uint32)
    pixels["triggers"] = pixels["triggers"] + random.integers(0, 900, pixels["triggers"].shape).astype(np.uint32)
    background = make_pixels(background=2.0, n_times=3)
    ranges = [_range(10 * a, 10 * b) for a, b in limits if a < b] or [_range(0, 60)]
    energies = [(6.0, 10.0), (4.0, 8.0), (7.0, 8.0)]
    together = _sum(pixels, *ranges, energies=energies, background=background)
    for t, one_range in enumerate(ranges):
        for e, one_energy in enumerate(energies):
            alone = _sum(pixels, one_range, energies=[one_energy], background=background)
            for name in ("net", "variance", "raw", "background", "live_time", "exposure", "energy_width"):
                found = getattr(together, name)[t * len(energies) + e]
                np.testing.assert_allclose(found, getattr(alone, name)[0], rtol=1e-11, atol=1e-9, err_msg=name)


def test_counts_add_up(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels(SOURCE, scale=50.0)
    found = _sum(pixels, _range(10, 30), elut=None)
    direct = pixels["counts"].to_numpy()[1:3, 2:6][:, :, DETECTORS]
    np.testing.assert_array_equal(found.net[0], direct[..., :4].sum(axis=(0, 1)) + direct[..., 4:8].sum(axis=(0, 1)))
    assert found.raw[0] == direct[..., :8].sum()
    np.testing.assert_array_equal(found.variance, found.net)
    assert found.exposure[0] == 20.0
    assert found.energy_width[0] == 4.0


def test_compression_adds_its_variance(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels(SOURCE, scale=50.0, skm=SKM_044)
    pixels["counts"][:] = 1000
    found = _sum(pixels, _range(0, 10), energies=[(6.0, 7.0)], elut=None)
    lost_bits = 5
    np.testing.assert_allclose(found.variance, 2 * (1000 + (4**lost_bits + 2) / 12))


def test_live_time_is_summed_before_the_ratio(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels(SOURCE)
    pixels["triggers"][0] = 200_000
    triggers = pixels["triggers"].to_numpy()[:2]
    wanted = (live_fraction(triggers, 10.0) * 10.0).sum(axis=0)
    found = _sum(pixels, _range(0, 20))
    assert set(np.round(found.live_time[0], 9)) <= set(np.round(wanted, 9))
    assert wanted[0] < 20.0 * 0.95


def test_background_is_scaled_by_live_time_and_its_errors_counted(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels(SOURCE, scale=3000.0, background=500.0, photons=40_000.0)
    background = make_pixels(background=500.0, n_times=40, photons=200.0)
    clean = make_pixels(SOURCE, scale=3000.0, photons=40_000.0)
    found = _sum(pixels, _range(0, 60), background=background, elut=None)
    wanted = _sum(clean, _range(0, 60), elut=None)
    np.testing.assert_allclose(found.net, wanted.net, rtol=1e-4, atol=50)
    assert (found.variance > _sum(pixels, _range(0, 60), elut=None).variance).all()
    assert found.raw[0] - found.background[0] == pytest.approx(wanted.raw[0], rel=2e-3)


def test_wider_science_bins_find_their_background(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels, background = make_pixels(SOURCE, scale=20.0), make_pixels(background=1.0)
    wide = pixels.isel(energy=[2, 4]).copy()
    wide["counts"] = wide["counts"].copy(data=pixels["counts"].to_numpy()[:, 2:6].reshape(6, 2, 2, 32, 12).sum(axis=2))
    wide["energy_high"] = ("energy", pixels["energy_high"].to_numpy()[[3, 5]])
    wide["channel_stop"] = ("energy", pixels["channel_stop"].to_numpy()[[3, 5]])
    for elut in (None, "linear"):
        fine = _sum(pixels, _range(0, 60), background=background, elut=elut)
        coarse = _sum(wide, _range(0, 60), background=background, elut=elut)
        np.testing.assert_allclose(coarse.net, fine.net, rtol=0.05)
        assert coarse.background[0] == fine.background[0]
    with pytest.raises(ImagingError, match="background does not have the energy bins"):
        _sum(pixels, _range(0, 60), background=background.isel(energy=slice(0, 4)))


def _spoiled(pixels: xr.Dataset, name: str) -> xr.Dataset:
    pixels = pixels.copy(deep=True)
    match name:
        case "rcr":
            pixels["rcr"][2] = 1
        case "pixel_mask":
            pixels["pixel_mask"][2] = 0x0FF
        case "detector_mask":
            pixels["detector_mask"][2] = 0x0FFFFFFF
        case "rows":
            pixels["pixel_mask"][:] = 0x00F
        case "detectors":
            pixels["detector_mask"][:] = 0xFFFFFFFE
        case "observed":
            pixels["observed"][1, 3] = False
        case "triggers":
            pixels["triggers"][1] = 900_000
    return pixels


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("rcr", "attenuator"),
        ("pixel_mask", "pixel mask changes"),
        ("detector_mask", "detector mask changes"),
        ("rows", r"top\+bottom were not sent"),
        ("detectors", r"index \[0\] were not sent"),
        ("observed", "not received"),
        ("triggers", "no live time"),
    ],
)
def test_faulty_intervals_are_refused(make_pixels: Callable[..., xr.Dataset], fault: str, message: str) -> None:
    good = make_pixels(SOURCE)
    _sum(good, _range(10, 30))
    with pytest.raises(ImagingError, match=message):
        _sum(_spoiled(good, fault), _range(10, 30))


def test_a_fault_outside_the_interval_does_no_harm(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = _spoiled(_spoiled(make_pixels(SOURCE), "rcr"), "observed")
    assert _sum(pixels, _range(30, 60)).rcr.tolist() == [0]
    assert _sum(pixels, _range(10, 20), energies=[(4.0, 6.0)]).raw[0] > 0


def test_all_problems_are_told_at_once(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = _spoiled(_spoiled(make_pixels(SOURCE), "rcr"), "observed")
    with pytest.raises(ImagingError, match=r"attenuator.*not received"):
        _sum(pixels, _range(10, 30))


def test_background_from_another_energy_table_is_refused(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels, background = make_pixels(SOURCE), make_pixels()
    background["time_start"] = background["time_start"] - np.timedelta64(500, "D")
    with pytest.raises(ImagingError, match="different energy tables"):
        _sum(pixels, _range(0, 60), background=background)
    _sum(pixels, _range(0, 60), background=background, elut=None)
