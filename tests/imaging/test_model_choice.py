from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from stixflow.errors import UsageError
from stixflow.imaging import ChosenFit, ForwardFit, Gaussian, Grid, from_arrays, reconstruct, source_visibilities
from stixflow.instrument import detectors, subcollimators

U, V = detectors().u[subcollimators()], detectors().v[subcollimators()]
GRID = Grid(33, 4.0)
CIRCLE = [Gaussian(8.0, 6.0, -4.0, 14.0)]
ELLIPSE = [Gaussian(8.0, -6.0, 9.0, 40.0, 12.0, 35.0)]
PAIR = [Gaussian(6.0, -18.0, -12.0, 10.0), Gaussian(4.0, 16.0, 15.0, 13.0)]


def _data(*sources: list[Gaussian], sigma: float = 0.2, noise: float = 0.2) -> xr.Dataset:
    draws = np.random.default_rng(3).standard_normal((2, len(sources), U.size)) * noise
    vis = np.stack([source_visibilities(one, U, V) for one in sources]) + draws[0] + 1j * draws[1]
    return from_arrays(U, V, vis, np.full(vis.shape, sigma))


def test_every_image_of_a_stack_gets_the_sources_that_it_shows() -> None:
    fit = reconstruct(_data(CIRCLE, PAIR, ELLIPSE), GRID, "forward_fit")
    assert fit["model"].values.tolist() == ["circle", "circle+circle", "ellipse"]
    assert fit["kind"].values.tolist() == [["circle", ""], ["circle", "circle"], ["ellipse", ""]]
    assert fit["freedom"].values.tolist() == [44, 40, 42]
    assert np.isfinite(fit["fit"].sel(parameter="flux").values).tolist() == [[True, False], [True, True], [True, False]]
    np.testing.assert_allclose(fit["flux"], [8.0, 10.0, 8.0], rtol=0.05)


@pytest.mark.parametrize(("index", "kinds"), [(0, ("circle",)), (1, ("circle", "circle")), (2, ("ellipse",))])
def test_the_chosen_fit_is_the_fit_of_those_sources_alone(index: int, kinds: tuple[str, ...]) -> None:
    data = _data(CIRCLE, PAIR, ELLIPSE)
    chosen = reconstruct(data, GRID, "forward_fit").isel(image=[index])
    alone = reconstruct(data.isel(image=[index]), GRID, ForwardFit(kinds))
    for name in ("image", "chi2", "reduced_chi2", "bic", "flux", "converged", "model"):
        np.testing.assert_array_equal(chosen[name], alone[name])
    np.testing.assert_array_equal(chosen["fit"][:, : len(kinds)], alone["fit"])


def test_errors_that_are_too_small_make_no_second_source() -> None:
    fit = reconstruct(_data(CIRCLE, sigma=0.05), GRID, "forward_fit")
    assert fit["reduced_chi2"].item() > 10
    assert fit["model"].item() == "circle"


def test_the_recipe_of_the_previews_goes_by_energy() -> None:
    data = _data(CIRCLE, CIRCLE, CIRCLE)
    with pytest.raises(UsageError, match="do not say their energies"):
        reconstruct(data, GRID, ChosenFit("preview"))
    data = data.assign(energy_high=("image", [10.0, 16.0, 28.0]))
    fit = reconstruct(data, GRID, ChosenFit("preview"))
    assert fit["model"].values.tolist() == ["ellipse", "circle+circle", "circle+circle"]


def test_a_choice_without_anything_to_choose_is_refused() -> None:
    with pytest.raises(UsageError, match="0 candidates"):
        ChosenFit(candidates=())
    with pytest.raises(UsageError, match="a forward fit of"):
        ChosenFit(candidates=(("square",),))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="by the rule 'best'"):
        ChosenFit("best")  # type: ignore[arg-type]
