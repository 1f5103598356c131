"""What maps predict, against the visibilities that they were made from."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from stixflow.errors import UsageError
from stixflow.imaging import Clean, ForwardFit, Gaussian, Grid, MemGE, from_arrays, reconstruct, source_visibilities
from stixflow.imaging.predicted import misfit, predicted_visibilities
from stixflow.instrument import detectors, subcollimators

CENTER = (420.0, -310.0)


def _data() -> xr.Dataset:
    """Two images, one source each, off the middle; 1 % errors and no noise."""
    u, v = detectors().u[subcollimators()], detectors().v[subcollimators()]
    sources = ([Gaussian(6.0, 14.0, -22.0, 16.0)], [Gaussian(2.0, -30.0, 5.0, 24.0, 12.0, 40.0)])
    vis = np.stack([source_visibilities(one, u, v) for one in sources])
    sigma = np.tile([[0.06], [0.02]], len(u))
    return from_arrays(u, v, vis, sigma, center=CENTER)


def test_what_a_fit_predicts_is_what_was_measured() -> None:
    data = _data()
    images = reconstruct(data, Grid((129, 101), (1.5, 2.0)), ForwardFit(("ellipse",)))
    apart = np.abs(predicted_visibilities(images, data) - data["visibility"].to_numpy())
    assert (apart.max(axis=1) < 1e-3 * np.array([6.0, 2.0])).all()


def test_greatest_entropy_knows_its_own_misfit() -> None:
    data = _data()
    images = reconstruct(data, Grid((129, 101), (1.5, 2.0)), MemGE())
    np.testing.assert_allclose(misfit(images, data) * 2 * data.sizes["visibility"], images["chi2"], rtol=1e-6)


def test_what_clean_leaves_is_the_map_of_what_its_components_do_not_predict() -> None:
    data, grid = _data(), Grid((129, 101), (1.5, 2.0))
    images = reconstruct(data, grid, Clean(niter=300))
    rest = data["visibility"].to_numpy() - predicted_visibilities(images, data)
    dirty = reconstruct(data.assign_coords(visibility=(("image", "visibility"), rest)), grid, "bp")["image"]
    np.testing.assert_allclose(images["residual"], dirty, atol=1e-9)


def test_a_map_about_another_place_predicts_the_same() -> None:
    data, method = _data(), ForwardFit(("ellipse",))
    here, there = (reconstruct(data, Grid(129, 1.5, center=center), method) for center in (None, (426.0, -301.0)))
    np.testing.assert_allclose(predicted_visibilities(here, data), predicted_visibilities(there, data), atol=2e-3)


def test_the_misfit_is_one_where_everything_is_off_by_its_error() -> None:
    data = _data()
    images = reconstruct(data, Grid(129, 1.5), ForwardFit(("ellipse",)))
    off = data["visibility"].to_numpy() + data["sigma"].to_numpy() * (1 + 1j)
    moved = data.assign_coords(visibility=(("image", "visibility"), off))
    assert misfit(images, data) == pytest.approx(0.0, abs=1e-3)
    assert misfit(images, moved) == pytest.approx(1.0, abs=0.02)


def test_a_back_projection_predicts_nothing() -> None:
    data = _data()
    with pytest.raises(UsageError, match="back-projection"):
        predicted_visibilities(reconstruct(data, Grid(33, 4.0), "bp"), data)
