from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stixflow.errors import ImagingError, UsageError
from stixflow.fits import read_level1
from stixflow.imaging import Gaussian, from_arrays, locate, recenter, source_visibilities, stack, visibilities
from stixflow.imaging.back_projection import shift_phase_center
from stixflow.imaging.visibilities import STIXPY, Convention, calibrate
from stixflow.instrument import detectors, grid_transmission, subcollimators

RANGE = "2022-11-09T00:00:10/2022-11-09T00:00:40"
SOURCES = [Gaussian(10.0, -12.0, 5.0, 15.0), Gaussian(4.0, 14.0, -9.0, 12.0)]
LOCATION = (300.0, -450.0)
CASES = [
    "circle_measured_high",
    "double_measured_low",
    "ellipse_measured_high",
    "loop_measured_low",
    "triple_measured_high",
]


@pytest.mark.parametrize("case", CASES)
def test_rates_to_visibilities_equal_the_ground_software(shared: Path, case: str) -> None:
    folder = shared / "oracle/imaging"
    measured, ground = np.load(folder / f"sim_{case}.npz"), np.load(folder / f"idl_{case}.npz")
    k, center = ground["isc"].astype(int) - 1, measured["center"]
    transmission = grid_transmission(*center)[k]
    vis, sigma = calibrate(measured["rates"][k], measured["rates_err"][k], transmission, k)
    vis = shift_phase_center(vis[None], detectors().u[k], detectors().v[k], *center)[0]
    wanted = ground["vis_re"] + 1j * ground["vis_im"]
    np.testing.assert_allclose(vis, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    np.testing.assert_allclose(sigma, ground["sigamp"], rtol=1e-4)
    np.testing.assert_allclose(transmission, ground["subc_transmission"][k], rtol=1e-6)


@pytest.fixture(scope="module")
def synthetic(shared: Path) -> tuple[xr.Dataset, xr.Dataset, dict[str, np.ndarray]]:
    """Return a file with known truth, the background that the peer subtracted, and what the peer made of them."""
    folder = shared / "oracle/imaging"
    pixels = read_level1(next(folder.glob("synth_solo_L1*.fits"))).load()
    background = read_level1(next((shared / "data/l1").glob("*cpd_20240308T193915*.fits"))).load()
    return pixels, background, dict(np.load(folder / "stixpy_synth_cpd.npz"))


@pytest.mark.parametrize("amplitude", ["shadow", "ideal"])
@pytest.mark.parametrize(
    ("rows", "name"),
    [("top+bottom", "top+bot"), ("top", "top"), ("bottom", "bot"), ("all", "all"), ("small", "small")],
)
def test_the_choices_of_stixpy_give_its_visibilities(
    synthetic: tuple[xr.Dataset, xr.Dataset, dict[str, np.ndarray]], rows: str, name: str, amplitude: str
) -> None:
    pixels, background, peer = synthetic
    energies = [(6, 10), (4, 15), (18, 28), (9, 10), (10, 11), (28, 50)]
    k = peer["isc"].astype(int) - 1
    choices = replace(STIXPY, amplitude=amplitude)
    when, where = tuple(map(str, peer["request"])), peer["location"]
    found = visibilities(
        pixels, when, energies, background, location=where, rows=rows, subcollimators=k, elut="stixpy",
        convention=choices,
    )  # fmt: skip
    for i, (low, high) in enumerate(energies):
        key = f"e{low}-{high}_{name}_{'shadow' if amplitude == 'shadow' else 'noshadow'}"
        net = (peer[f"{key}_sci_rate"] - peer[f"{key}_bkg_rate"])[k]
        error = np.hypot(peer[f"{key}_sci_err"], peer[f"{key}_bkg_err"])[k]
        np.testing.assert_allclose(found["rate"][i], net, rtol=0, atol=1e-13 * np.abs(net).max())
        np.testing.assert_allclose(found["rate_sigma"][i], error, rtol=2e-9)
        vis = peer[f"{key}_cal_vis"]
        np.testing.assert_allclose(found["visibility"][i], vis, rtol=0, atol=1e-12 * np.abs(vis).max())
        np.testing.assert_allclose(found["sigma"][i], peer[f"{key}_cal_sig"], rtol=2e-9)


def test_the_peers_differ_by_what_is_known(
    synthetic: tuple[xr.Dataset, xr.Dataset, dict[str, np.ndarray]],
) -> None:
    pixels, background, peer = synthetic
    when, where = tuple(map(str, peer["request"])), peer["location"]
    ours = visibilities(pixels, when, (6, 10), background, location=where)
    theirs = visibilities(pixels, when, (6, 10), background, location=where, elut="stixpy", convention=STIXPY)
    ratio = np.abs(theirs["visibility"][0] / ours["visibility"][0]).to_numpy()
    resolution = detectors().resolution[subcollimators()]
    assert ((ratio > 0.9) & (ratio < 1.05))[resolution > 4].all()
    assert ((ratio > 0.55) & (ratio < 0.70))[resolution == 3].all()
    rates = visibilities(pixels, when, (6, 10), background, location=where, convention=Convention(subtract="rates"))
    np.testing.assert_allclose(rates["visibility"], ours["visibility"], atol=0.01 * np.abs(ours["visibility"]).max())
    np.testing.assert_allclose(rates["background_counts"], ours["background_counts"], rtol=0.02)


def test_a_real_flare_has_the_visibilities_that_were_published(shared: Path) -> None:
    """Those of 2021, with frequencies up to 5 % off, the phases of that time, and a map centre in another frame."""
    published = np.load(shared / "oracle/imaging/real_stix_20200607_65x2.npz")
    folder = shared / "data/flare_20200607"
    pixels = read_level1(next(folder.glob("solo_L1*T213709*")))
    background = read_level1(next(folder.glob("solo_L1*T003001*")))
    when, k = tuple(map(str, published["time_range"])), published["isc"].astype(int) - 1
    place = locate(pixels, when, (6, 10), background, rsun_arcsec=1900.0)
    found = visibilities(pixels, when, (6, 10), background, location=(place.x, place.y), subcollimators=k)
    ratio = found["visibility"].to_numpy()[0] / published["vis"]
    coarse = detectors().resolution[k] >= 7
    assert ((np.abs(ratio) > 0.88) & (np.abs(ratio) < 1.0))[coarse].all()
    assert np.abs(np.angle(ratio, deg=True))[coarse].max() < 16
    spacecraft = np.array([26.1 - place.y, 58.2 + place.x])
    assert np.hypot(*(spacecraft - published["offset"])) < 15


@pytest.mark.parametrize(
    ("rows", "tolerance"), [("top+bottom", 4e-4), ("top", 4e-4), ("bottom", 4e-4), ("small", 4e-3), ("all", 4e-3)]
)
def test_simulated_pixels_give_back_the_visibilities(
    make_pixels: Callable[..., xr.Dataset], rows: str, tolerance: float
) -> None:
    pixels = make_pixels(SOURCES, location=LOCATION, scale=1e3)
    found = visibilities(pixels, RANGE, [(6, 10), (4, 8)], location=LOCATION, rows=rows, elut=None)
    truth = 1e3 * source_visibilities(SOURCES, found["u"], found["v"])
    assert found["visibility"].dims == ("image", "visibility")
    np.testing.assert_allclose(found["visibility"].to_numpy(), [truth, truth], atol=tolerance * np.abs(truth).max())
    np.testing.assert_allclose(found["total_flux"], 14e3, rtol=tolerance)
    assert (found["sigma"] >= 0.05 * np.abs(found["visibility"])).all()


def test_the_phase_centre_may_be_elsewhere(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels(SOURCES, location=LOCATION, scale=10.0)
    here = visibilities(pixels, RANGE, (6, 10), location=LOCATION)
    axis = visibilities(pixels, RANGE, (6, 10), location=LOCATION, center=(0.0, 0.0))
    assert (axis["center_x"].item(), axis["center_y"].item()) == (0.0, 0.0)
    back = recenter(axis, LOCATION)
    np.testing.assert_allclose(back["visibility"], here["visibility"], atol=1e-9)
    assert (back["center_x"].item(), back["center_y"].item()) == LOCATION


def test_what_was_observed_is_kept(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels(SOURCES, background=3.0, scale=10.0)
    found = visibilities(pixels, RANGE, [(6, 10), (4, 15)], make_pixels(background=3.0, n_times=30))
    assert found["time_start"].values[1] == np.datetime64("2022-11-09T00:00:10")
    assert found["time_stop"].values[1] == np.datetime64("2022-11-09T00:00:40")
    assert found["energy_high"].values.tolist() == [10.0, 15.0]
    np.testing.assert_allclose(found["counts"] - found["background_counts"], found["net_counts"])
    assert (found["exposure"] == 30).all()
    assert ((found["live_time"] < 30) & (found["live_time"] > 28)).all()
    assert found.attrs["background_subtracted"] == 1
    assert found.attrs["request_id"] == 2211090305


def test_stacks_of_files_join_along_images(make_pixels: Callable[..., xr.Dataset]) -> None:
    parts = [
        visibilities(make_pixels(SOURCES, scale=scale), RANGE, (6, 10), location=(10.0 * scale, 0.0))
        for scale in (10.0, 20.0)
    ]
    joined = stack(parts)
    assert joined["visibility"].shape == (2, 24)
    assert joined["u"].dims == ("visibility",)
    np.testing.assert_array_equal(joined["visibility"][1], parts[1]["visibility"][0])
    assert joined["center_x"].values.tolist() == [100.0, 200.0]
    with pytest.raises(ImagingError, match="different spatial frequencies"):
        stack([parts[0], visibilities(make_pixels(SOURCES), RANGE, (6, 10), subcollimators=subcollimators(10, 9))])


def test_arrays_of_any_instrument_become_a_dataset() -> None:
    data = from_arrays([0.01, 0.02], [0.0, 0.01], np.ones((3, 2)), center=[(1, 2), (3, 4), (5, 6)])
    assert data["visibility"].dtype == np.complex128
    assert np.isnan(data["sigma"]).all()
    assert data["center_y"].values.tolist() == [2.0, 4.0, 6.0]
    with pytest.raises(UsageError, match="do not fit together"):
        from_arrays([0.01, 0.02], [0.0, 0.01], np.ones(3))


@pytest.mark.parametrize("options", [{"bins": "some"}, {"grids": "new"}, {"amplitude": "high"}, {"subtract": "all"}])
def test_conventions_that_do_not_exist_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="one of"):
        Convention(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"rows": "middle"}, {"elut": "cubic"}])
def test_unknown_choices_are_refused(make_pixels: Callable[..., xr.Dataset], options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"one of|choose"):
        visibilities(make_pixels(SOURCES), RANGE, (6, 10), **options)  # type: ignore[arg-type]


def test_rates_and_transmission_go_together(make_pixels: Callable[..., xr.Dataset]) -> None:
    """So that EM, which starts from the rates, sees the same source whatever the convention."""
    pixels = make_pixels(SOURCES, location=LOCATION, scale=1e3)
    ground, shadow = (
        visibilities(pixels, RANGE, (6, 10), location=LOCATION, elut=None, convention=Convention(amplitude=amplitude))
        for amplitude in ("modulation", "shadow")
    )
    assert (shadow["transmission"] == 0.25).all()
    np.testing.assert_allclose(shadow["flux"], ground["flux"])
    np.testing.assert_allclose(shadow["rate"] * 4 * ground["transmission"], ground["rate"])


def test_transparent_slats_dim_the_modulation_but_not_the_result(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels(SOURCES, location=LOCATION, scale=1e3, channels=(1, 30))
    low, high = (
        [
            visibilities(pixels, RANGE, e, location=LOCATION, elut=None, convention=Convention(grids=model))
            for model in ("measured", "wedge")
        ]
        for e in ((6, 10), (84, 120))
    )
    np.testing.assert_allclose(low[1]["visibility"], low[0]["visibility"], rtol=0.04)
    ratio = np.abs(high[1]["visibility"] / high[0]["visibility"]).to_numpy()
    assert ((ratio > 1.0) & (ratio < 3.0)).all()
    assert (high[1]["transmission"] > high[0]["transmission"]).all()
    assert (high[1]["flux"] < high[0]["flux"]).all()


def test_energies_of_november_2020_are_those_that_were_measured(make_pixels: Callable[..., xr.Dataset]) -> None:
    pixels = make_pixels(SOURCES, scale=1e3)
    moved = pixels.assign(time_start=pixels["time_start"] - np.timedelta64(720, "D"))
    when = "2020-11-19T00:00:10/2020-11-19T00:00:40"
    found = visibilities(moved, when, (4.4, 8.4))
    usual = visibilities(pixels, RANGE, (6, 10))
    assert (found["energy_low"].item(), found["energy_high"].item()) == pytest.approx((4.4, 8.4))
    assert found.attrs["energy_shift_kev"] == -1.6
    assert found["counts"].item() == usual["counts"].item()
    assert "energy_shift_kev" not in usual.attrs
    np.testing.assert_allclose(found["visibility"], usual["visibility"], rtol=0.1)


def test_no_modulation_gives_an_error_of_the_noise(make_pixels: Callable[..., xr.Dataset]) -> None:
    flat = make_pixels(background=5.0)
    found = visibilities(flat, RANGE, (6, 10), elut=None)
    assert np.abs(found["visibility"]).max() == 0
    assert (found["sigma"] > 0).all()


def test_sets_that_hold_other_things_are_not_stacked() -> None:
    one = from_arrays([0.01], [0.02], [[1 + 1j]])
    joined = stack([one.assign_attrs(rows="all", a=1), one.assign_attrs(rows="all", a=2, b=3)])
    assert joined["visibility"].shape == (2, 1)
    assert joined.attrs == {"rows": "all", "b": 3}
    assert joined["u"].shape == (1,)
    with pytest.raises(ImagingError, match="have rcr, others not"):
        stack([one, one.assign(rcr=("image", [1]))])
