from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging import (
    EM,
    BackProjection,
    Clean,
    ForwardFit,
    Gaussian,
    Grid,
    MemGE,
    from_arrays,
    reconstruct,
    source_visibilities,
    stack,
    uncertainty,
    visibilities,
)
from stixflow.imaging.uncertainty import flux_error
from stixflow.instrument import detectors, subcollimators

from .conftest import PixelsMaker

U, V = detectors().u[subcollimators()], detectors().v[subcollimators()]
GRID = Grid((17, 20), 5.0)
SIGMA = np.linspace(0.1, 0.4, 24)


def _data(n: int = 2) -> Any:
    vis = source_visibilities([Gaussian(6.0, 12.0, -8.0, 14.0)], U, V) * np.arange(1, n + 1)[:, None]
    return from_arrays(U, V, vis, np.tile(SIGMA, (n, 1)))


def test_noise_of_a_back_projection_is_that_of_the_sum() -> None:
    found = uncertainty(_data(), GRID, "bp", realisations=2000)
    expected = np.sqrt((SIGMA**2).sum()) / 24
    np.testing.assert_allclose(found["uncertainty"], expected, rtol=0.1)
    np.testing.assert_allclose(found["mean"], reconstruct(_data(), GRID, "bp")["image"], atol=5 * expected / 2000**0.5)


@pytest.mark.parametrize("method", [Clean(niter=40), MemGE(), ForwardFit(), BackProjection()])
def test_noise_that_vanishes_moves_nothing(method: Any) -> None:
    data = _data(1)
    data = data.assign(sigma=data["sigma"] * 1e-6)
    found = uncertainty(data, GRID, method, realisations=3)
    assert (found["uncertainty"] < 1e-2 * np.abs(found["mean"]).max()).all()
    assert found["uncertainty"].attrs["units"] == reconstruct(data, GRID, method)["image"].attrs["units"]


def test_em_takes_its_noise_from_the_rates(make_pixels: PixelsMaker) -> None:
    pixels = make_pixels([Gaussian(3.0, 10.0, 5.0, 15.0)])
    data = visibilities(pixels, ("2022-11-09T00:00:00", "2022-11-09T00:01:00"), (6, 10))
    found = uncertainty(data, GRID, EM(max_iterations=25), realisations=12)
    image = reconstruct(data, GRID, EM(max_iterations=25))["image"].to_numpy()[0]
    peak = np.unravel_index(image.argmax(), GRID.shape)
    assert 0 < found["uncertainty"].to_numpy()[0][peak] < 0.3 * image[peak]
    assert found["mean"].to_numpy()[0][peak] == pytest.approx(image[peak], rel=0.2)


def test_cutting_the_stack_or_the_noise_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data(3)
    together = uncertainty(data, GRID, "clean", realisations=7)
    alone = stack([data.isel(image=[2])])
    np.testing.assert_allclose(
        uncertainty(alone, GRID, "clean", realisations=7)["uncertainty"][0], together["uncertainty"][2], rtol=1e-9
    )
    monkeypatch.setattr(sys.modules[uncertainty.__module__], "chunks", lambda noisy, _: (
        noisy.isel(image=part) for part in (slice(0, 2), slice(2, 3), slice(3, None))
    ))  # fmt: skip
    cut = uncertainty(data, GRID, "clean", realisations=7)
    np.testing.assert_allclose(cut["uncertainty"], together["uncertainty"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(cut["mean"], together["mean"], rtol=1e-9, atol=1e-12)


def test_too_few_realisations_and_unknown_errors_are_refused() -> None:
    with pytest.raises(UsageError, match="1 realisations"):
        uncertainty(_data(), GRID, "bp", realisations=1)
    with pytest.raises(ImagingError, match="not known"):
        uncertainty(from_arrays(U, V, np.ones(24)), GRID, "bp")


def test_the_flux_of_the_counts_has_noise_and_what_strays_is_counted() -> None:
    vis = source_visibilities([Gaussian(8.0, 6.0, -4.0, 14.0)], U, V)[None]
    columns = "image", "visibility", "column"
    data = from_arrays(U, V, vis, np.full(vis.shape, 1e-3)).assign(
        total_flux=("image", [8.0]), rate_sigma=(columns, np.full((1, U.size, 4), 0.2)),
        transmission=(columns[:2], np.full((1, U.size), 0.25)),
    )  # fmt: skip
    assert flux_error(data)[0] == pytest.approx(0.2 * 2 / np.sqrt(U.size))
    found = uncertainty(data, Grid(17, 8.0), MemGE(), realisations=40)
    assert found["not_converged"].item() == 0
    total = float(np.sqrt((found["uncertainty"] ** 2).sum())) * 64.0
    assert total > 0.3 * flux_error(data)[0]  # that of the visibilities alone is a hundred times less
    assert uncertainty(data, Grid(17, 8.0), MemGE(max_iterations=1), realisations=4)["not_converged"].item() == 4
    assert "not_converged" not in uncertainty(data, Grid(17, 8.0), "bp", realisations=2)
