"""The coarse flare locator on simulated shadows and real flares located by imaging."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from stixflow.ephemeris import hpc_to_stix, observer, pointing, read_ancillary
from stixflow.errors import UsageError
from stixflow.fits import read_level1
from stixflow.flares import cfl, cfl_counts
from stixflow.flares.cfl_counts import RAW_IMAGING_AREA_MM2
from stixflow.flares.cfl_mask import RAW_MASK, expected_area
from stixflow.time import TimeRange

_RSUN = 1200.0


def _sample(x, y, fluence, seed, n_pixels=12):
    rng = np.random.default_rng(seed)
    return rng.poisson(fluence * expected_area(x, y, n_pixels=n_pixels))


@settings(max_examples=15, deadline=None)
@given(st.floats(-800, 800), st.floats(-800, 800), st.sampled_from([8, 12]), st.integers(0, 1000))
def test_bright_flares_come_out_where_they_are(x, y, n_pixels, seed):
    found = cfl.locate_cfl(_sample(x, y, 2000.0, seed, n_pixels)[None], 2000.0, rsun_arcsec=_RSUN)
    assert np.abs(found.x[0] - x) < 4.5 * max(found.sigma_x[0], 25.0)
    assert np.abs(found.y[0] - y) < 4.5 * max(found.sigma_y[0], 25.0)


def test_errors_are_those_of_the_counts():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-500, 500, (2, 200))
    # Errors of the model are part of the fluence and of every pixel, as the likelihood assumes.
    fluence = np.full(200, 60.0)
    counts = rng.poisson(60.0 * expected_area(x, y))
    found = cfl.locate_cfl(counts, fluence * rng.normal(1, 0.01, 200), rsun_arcsec=_RSUN)
    for pull in ((found.x - x) / found.sigma_x, (found.y - y) / found.sigma_y):
        assert 0.7 < np.percentile(np.abs(pull), 68) < 1.25
    assert 0.3 < np.median(found.chi2) < 1.5
    assert np.percentile(found.chi2, 95) < 3.0


def test_second_source_is_seen_and_pulls_the_first_less(monkeypatch):
    rng = np.random.default_rng(2)
    both = 0.7 * expected_area(-500.0, 700.0) + 0.3 * expected_area(300.0, -600.0)
    counts = rng.poisson(100.0 * both, (20, 12))
    found = cfl.locate_cfl(counts, 100.0, rsun_arcsec=_RSUN)
    assert (found.second_probability > 0.9).all()
    assert np.median(found.second_part) == pytest.approx(0.3, abs=0.1)
    apart = np.hypot(found.x + 500, found.y - 700)
    assert found.ambiguous[apart > 400].all()
    monkeypatch.setattr(cfl, "_SECOND_PROBABILITY", 0.0)
    blind = cfl.locate_cfl(counts, 100.0, rsun_arcsec=_RSUN)
    assert np.median(apart) < 0.6 * np.median(np.hypot(blind.x + 500, blind.y - 700))
    monkeypatch.undo()
    alone = cfl.locate_cfl(rng.poisson(100.0 * expected_area(-500.0, 700.0), (20, 12)), 100.0, rsun_arcsec=_RSUN)
    assert np.median(alone.second_probability) < 0.2


def test_weak_flares_are_called_ambiguous_and_noise_in_background_widens():
    weak = cfl.locate_cfl(np.full((1, 8), 1.0), 0.6, rsun_arcsec=_RSUN)
    assert weak.ambiguous[0]
    counts = 200.0 * expected_area(300.0, 400.0)[None]
    clean = cfl.locate_cfl(counts, 200.0, rsun_arcsec=_RSUN)
    noisy = cfl.locate_cfl(counts, 200.0, rsun_arcsec=_RSUN, variance=20.0 * counts)
    assert noisy.sigma_x[0] > 1.5 * clean.sigma_x[0]


def test_posterior_has_nested_contours_about_the_flare():
    posterior = cfl.cfl_posterior(_sample(200.0, -500.0, 100.0, 4), 100.0, rsun_arcsec=_RSUN)
    density, levels = posterior.density, posterior.levels
    assert density.sum() == pytest.approx(1.0)
    assert density.shape == (posterior.y.size, posterior.x.size)
    assert levels[0] > levels[1] > levels[2] > 0
    for level, probability in zip(levels, (0.6827, 0.9545, 0.9973), strict=True):
        assert density[density >= level].sum() >= probability
    assert density[np.argmin(np.abs(posterior.y + 500)), np.argmin(np.abs(posterior.x - 200))] >= levels[2]


@pytest.mark.parametrize(
    ("counts", "fluence", "rsun"),
    [
        (np.ones(8), 1.0, _RSUN),
        (np.ones((1, 9)), 1.0, _RSUN),
        (np.zeros((1, 8)), 1.0, _RSUN),
        (np.ones((1, 8)), 0.0, _RSUN),
        (np.ones((1, 8)), np.nan, _RSUN),
        (np.ones((1, 8)), 1.0, 0.0),
    ],
)
def test_what_cannot_be_located(counts, fluence, rsun):
    with pytest.raises(UsageError):
        cfl.locate_cfl(counts, fluence, rsun_arcsec=rsun)


def test_real_flares_beat_the_public_look_up_and_the_neural_net(shared):
    """Every sixth of 3000 flares that imaging located; about half of them went into the constants of the mask."""
    oracle = {
        name: values[::6] for name, values in np.load(shared / "oracle/imaging/cfl_real.npz").items() if values.ndim
    }
    rsun = [_rsun(text) for text in oracle["start_time"]]
    fluence = oracle["tot_counts"] / RAW_IMAGING_AREA_MM2
    found = cfl.locate_cfl(oracle["cfl_counts_8"], fluence, rsun_arcsec=rsun, mask=RAW_MASK)
    apart = np.hypot(found.x - oracle["loc_imaging"][:, 0], found.y - oracle["loc_imaging"][:, 1])
    net, table = (np.hypot(*(oracle[name] - oracle["loc_imaging"]).T) for name in ("loc_mlp", "loc_lut"))
    assert np.median(apart) < 60.0
    assert np.median(apart) < 0.8 * np.median(net) < 0.7 * np.median(table)
    assert apart.mean() < 0.95 * net.mean()
    assert np.median(apart[~found.ambiguous]) < np.median(apart)
    assert 0.02 < found.ambiguous.mean() < 0.12


def _rsun(text):
    from stixflow.ephemeris import position

    day, month, rest = text.strip().split("-")
    number = 1 + "JanFebMarAprMayJunJulAugSepOctNovDec".index(month) // 3
    year, clock = rest.split(" ", 1)
    return position(f"{year}-{number:02d}-{int(day):02d}T{clock}").rsun_arcsec


@pytest.fixture(scope="module")
def november(shared):
    """Return every third flare of November 2022, located from its pixel file, beside the positions of the list."""
    folder = shared / "data/flares_202211"
    flares = pd.read_csv(folder / "flarelist_with_paths.csv")
    listed = pd.read_csv(folder / "flare_locations_stix_frame.csv").set_index("flare ID")
    background = read_level1(next((folder / "pixel_data").glob("*2211098157*")))
    ephemeris = {
        day: read_ancillary(folder / f"ephemeris/solo_L2_stix-aux-ephemeris_{day}_V01.fits")
        for day in ("20221109", "20221110", "20221111")
    }
    present = flares["pixel_paths"].map(lambda path: (folder / path).exists()) & flares["flare_id"].isin(listed.index)
    rows = []
    for flare in flares[present].iloc[1::3].to_dict("records"):
        peak = np.datetime64(flare["peak_UTC"].replace(" ", "T"), "ns")
        span = TimeRange(peak - np.timedelta64(20, "s"), peak + np.timedelta64(20, "s"))
        day = ephemeris[flare["peak_UTC"][:10].replace("-", "")]
        data = cfl_counts(read_level1(folder / flare["pixel_paths"]), span, background=background)
        center = hpc_to_stix((0.0, 0.0), pointing(day, span))
        found = cfl.locate_cfl(
            data.counts[None], data.fluence, variance=data.variance[None], mask=data.mask,
            rsun_arcsec=observer(day, peak).rsun_arcsec, center=(float(center[0]), float(center[1])),
        )  # fmt: skip
        x, y = listed.loc[flare["flare_id"], ["STIX MAX X BP COORD", "STIX MAX Y BP COORD"]]
        sigmas = float(found.sigmas_from(x, y)[0])
        rows.append((flare["flare_id"], np.hypot(found.x[0] - x, found.y[0] - y), sigmas, data.counts[:8].sum()))
    return pd.DataFrame(rows, columns=["flare_id", "apart", "sigmas", "counts"])


def test_pixel_files_give_positions_near_those_of_imaging(november):
    assert november["apart"].median() < 75.0
    assert november.loc[november["counts"] > 2000, "apart"].median() < 50.0


def test_a_side_lobe_in_the_list_is_exposed(november):
    """The list has flare 2211100617 off the Sun, at a side lobe; all others are where the locator sees them."""
    assert list(november.loc[november["sigmas"] > 4.0, "flare_id"]) == [2211100617]
    assert np.percentile(november["sigmas"], 68) < 2.0


def test_sigmas_from_a_place():
    found = cfl.locate_cfl(_sample([300.0, -200.0], [400.0, 100.0], 100.0, 5), 100.0, rsun_arcsec=_RSUN)
    assert_allclose(found.sigmas_from(found.x, found.y), 0.0, atol=1e-12)
    assert (found.sigmas_from(found.x + 5 * found.sigma_x, found.y) >= 5.0 - 1e-9).all()
