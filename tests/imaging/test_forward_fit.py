from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging import ForwardFit, Gaussian, Grid, Loop, choose_model, from_arrays, source_visibilities
from stixflow.imaging.fit_models import Model
from stixflow.imaging.fit_parameters import PARAMETERS, _matched, scatter
from stixflow.imaging.forward_fit import Kind, fit_image, forward_fit
from stixflow.instrument import detectors, subcollimators

U, V = detectors().u[subcollimators()], detectors().v[subcollimators()]
CIRCLE = Gaussian(6.0, 12.0, -8.0, 14.0)
ELLIPSE = Gaussian(8.0, -6.0, 9.0, 40.0, 15.0, 35.0)
LOOP = Loop(12.0, 3.0, 5.0, 50.0, 25.0, 70.0, 90.0)
PAIR = [Gaussian(6.0, -18.0, -12.0, 10.0), Gaussian(4.0, 16.0, 15.0, 13.0)]
FITS = [
    "circle_measured_high|circle", "circle_measured_low|circle", "double_measured_high|circle+circle",
    "double_measured_low|circle+circle", "ellipse_measured_high|ellipse", "ellipse_measured_high|circle",
    "ellipse_measured_low|ellipse", "ellipse_measured_low|circle", "loop_measured_low|loop",
    "loop_measured_low|ellipse", "triple_measured_high|circle+circle+ellipse",
]  # fmt: skip


def _noisy(sources: list[Any], n: int, seed: int = 0, sigma: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(seed).standard_normal((2, n, 24))
    return source_visibilities(sources, U, V) + sigma * (noise[0] + 1j * noise[1]), np.full((n, 24), sigma)


def _simulated(shared: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    made = np.load(shared / "oracle/imaging" / f"sim_{name}.npz")
    k = made["isc24"] - 1
    return made["vis_obs"][k], made["sigamp"][k], made["u"][k], made["v"][k]


@pytest.mark.parametrize("name", FITS)
def test_fits_reach_the_best_known_minima(shared: Path, name: str) -> None:
    best = json.loads((shared / "oracle/imaging/best_fits.json").read_text())["fits"][name]
    data, kinds = name.split("|")
    parameters = ForwardFit(tuple(kinds.split("+")))  # type: ignore[arg-type]
    fits = forward_fit(*_simulated(shared, data), parameters)
    counted = parameters.n_parameters + (kinds == "loop")  # the reference counts 8 for a loop
    assert fits.chi2[0] / (48 - counted) == pytest.approx(best["redchi2"], rel=1e-6)
    assert fits.converged[0]
    assert not fits.at_bound[0]
    wanted = sorted(best["sources"], key=lambda source: (source[0], -source[1]))
    for kind, values, (wanted_kind, *numbers) in zip(fits.kinds, fits.values[0], wanted, strict=True):
        assert kind == wanted_kind
        n = len(numbers)
        np.testing.assert_allclose(values[:n], numbers, rtol=2e-3, atol=0.02)


@pytest.mark.parametrize(
    ("name", "kinds", "key"),
    [
        ("circle_measured_high", ("circle",), "circle"),
        ("ellipse_measured_high", ("ellipse",), "ellipse"),
        ("loop_measured_low", ("loop",), "loop"),
        ("double_measured_high", ("circle", "circle"), "circle-circle"),
    ],
)
def test_fits_are_not_worse_than_those_of_the_ground_software(
    shared: Path, name: str, kinds: tuple[Kind, ...], key: str
) -> None:
    reference = np.load(shared / "oracle/imaging" / f"idl_{name}.npz")
    u, v, sigma = reference["u"], reference["v"], reference["sigamp"]
    fits = forward_fit(reference["vis_re"] + 1j * reference["vis_im"], sigma, u, v, ForwardFit(kinds))
    freedom = fits.degrees_of_freedom - (kinds == ("loop",))
    assert fits.chi2[0] / freedom <= reference[f"redchisq_{key}"][0] * (1 + 1e-4)
    order = sorted(range(len(kinds)), key=lambda i: -reference[f"fit_{key}_{i}_{kinds[i]}"][0])
    for values, errors, i in zip(fits.values[0], fits.errors[0], order, strict=True):
        has = np.isfinite(values)
        np.testing.assert_allclose(values[has], reference[f"fit_{key}_{i}_{kinds[i]}"][has], rtol=1e-3, atol=5e-3)
        noise = np.where(has, reference[f"fitsig_{key}_{i}_{kinds[i]}"], 0.0)
        known = noise > 0  # not estimated for several sources
        assert ((errors[known] > noise[known] / 2) & (errors[known] < noise[known] * 2)).all()
    wanted = reference[f"map_{key}"]
    np.testing.assert_allclose(fit_image(fits, Grid(65, 2.0))[0], wanted, atol=1e-3 * wanted.max())


@pytest.mark.parametrize("kinds", [("circle",), ("ellipse",), ("loop",), ("loop", "ellipse", "circle")])
def test_derivatives_are_those_of_the_model(kinds: tuple[str, ...]) -> None:
    some = {"circle": [3, 5, -4, 2.5], "ellipse": [3, 5, -4, 2.5, 0.4, -0.3], "loop": [3, 5, -4, 3.0, 0.8, 0.7, -1.2]}
    thin = {"circle": [1, 0, 9, 0.1], "ellipse": [1, 0, 9, 3.0, 1e-4, 2e-4], "loop": [1, 0, 9, 1.0, 1.5, 4.0, 2.9]}
    model = Model(kinds, U, V)
    for numbers in (some, thin):
        point = np.concatenate([numbers[kind] for kind in kinds])[None].astype(np.float64)
        _, slopes = model(point)
        for i in range(point.shape[1]):
            step = np.zeros_like(point)
            step[0, i] = 1e-5
            wanted = (model(point + step)[0] - model(point - step)[0]) / 2e-5
            np.testing.assert_allclose(slopes[:, i], wanted, atol=2e-7 * max(np.abs(slopes[:, i]).max(), 1e-3))


@pytest.mark.parametrize(("kind", "source"), [("circle", CIRCLE), ("ellipse", ELLIPSE), ("loop", LOOP)])
def test_sources_without_noise_are_found_exactly(kind: Kind, source: Any) -> None:
    vis = source_visibilities([source], U, V)
    fits = forward_fit(vis, np.full(24, 0.1), U, V, ForwardFit((kind,)))
    found = fits.sources()[0]
    assert type(found) is type(source)
    for name in ("flux", "x", "y", "fwhm", "fwhm_minor", "angle", "loop_angle"):
        wanted = getattr(source, name, None)
        if wanted is not None and not (kind == "circle" and name == "angle"):
            assert getattr(found, name) == pytest.approx(wanted, abs=2e-3)
    np.testing.assert_allclose(fits.vis[0], vis, atol=1e-4)
    assert fits.chi2[0] < 1e-6


def test_a_circle_fitted_as_an_ellipse_is_round() -> None:
    fits = forward_fit(source_visibilities([CIRCLE], U, V), np.full(24, 0.1), U, V, ForwardFit(("ellipse",)))
    assert fits.values[0, 0, 3] == pytest.approx(fits.values[0, 0, 4], rel=0.01)


@pytest.mark.parametrize(("kinds", "sources"), [(("circle",), [CIRCLE]), (("ellipse",), [ELLIPSE])])
def test_fisher_errors_are_the_scatter_of_fits_and_those_of_made_up_noise(
    kinds: tuple[Kind, ...], sources: list[Any]
) -> None:
    vis, sigma = _noisy(sources, 400)
    fits = forward_fit(vis, sigma, U, V, ForwardFit(kinds))
    has = np.isfinite(fits.errors[0, 0])
    scatter = fits.values[:, 0].std(axis=0, ddof=1)
    np.testing.assert_allclose(np.median(fits.errors[:, 0], axis=0)[has], scatter[has], rtol=0.15)
    noise = ForwardFit(kinds, uncertainty="monte_carlo", realisations=300)
    by_noise = forward_fit(vis[:2], sigma[:2], U, V, noise)
    np.testing.assert_allclose(by_noise.errors[:, 0][:, has], fits.errors[:2, 0][:, has], rtol=0.2)
    np.testing.assert_array_equal(by_noise.values, fits.values[:2])


def test_chi2_of_the_right_model_is_that_of_the_noise() -> None:
    vis, sigma = _noisy([CIRCLE], 300)
    fits = forward_fit(vis, sigma, U, V)
    mean, error = fits.chi2.mean(), np.sqrt(2 * fits.degrees_of_freedom / 300)
    assert abs(mean - fits.degrees_of_freedom) < 4 * error


def test_exchanged_sources_do_not_widen_the_errors() -> None:
    values = np.full((1, 2, 7), np.nan)
    values[0, :, :5] = [[6.0, -18.0, -12.0, 10.0, 10.0], [5.9, 16.0, 15.0, 13.0, 13.0]]
    noisy = np.repeat(values[:, None], 40, axis=1) + 0.1 * np.random.default_rng(0).standard_normal((1, 40, 2, 7))
    exchanged = noisy.copy()
    exchanged[:, ::2] = noisy[:, ::2, ::-1]
    kinds = ("circle", "circle")
    np.testing.assert_array_equal(_matched(exchanged, values, kinds)[..., :5], noisy[..., :5])
    np.testing.assert_array_equal(scatter(exchanged, values, kinds), scatter(noisy, values, kinds))
    assert np.nanmax(scatter(exchanged, values, kinds)) < 0.2


def test_angles_that_differ_by_half_a_turn_are_the_same() -> None:
    values = np.array([[[12.0, 3.0, 5.0, 50.0, 25.0, 179.5, 90.0]]])
    noisy = np.repeat(values[:, None], 3, axis=1)
    noisy[0, :, 0, 5:] = [[179.0, 90.0], [0.5, -91.0], [1.0, -89.0]]
    spread = scatter(noisy, values, ("loop",))
    assert spread[0, 0, 5] == pytest.approx(np.std([-0.5, 1.0, 1.5], ddof=1))
    assert spread[0, 0, 6] == pytest.approx(1.0)


def test_sources_come_in_order_of_flux() -> None:
    for sources in (PAIR, PAIR[::-1]):
        vis = source_visibilities(sources, U, V)
        fits = forward_fit(vis, np.full(24, 0.1), U, V, ForwardFit(("circle", "circle")))
        np.testing.assert_allclose(fits.values[0, :, 0], [6.0, 4.0], atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 100), scale=st.floats(1e-2, 1e5))
def test_fits_scale_with_the_visibilities_and_ignore_their_order(seed: int, scale: float) -> None:
    vis, sigma = _noisy([ELLIPSE], 1, seed)
    order = np.random.default_rng(seed).permutation(24)
    wanted = forward_fit(vis, sigma, U, V, ForwardFit(("ellipse",)))
    other = forward_fit(vis[:, order] * scale, sigma[:, order] * scale, U[order], V[order], ForwardFit(("ellipse",)))
    assert other.chi2[0] == pytest.approx(wanted.chi2[0], rel=1e-6)
    np.testing.assert_allclose(other.values[0, 0, 1:6], wanted.values[0, 0, 1:6], rtol=1e-3, atol=1e-2)
    assert other.values[0, 0, 0] == pytest.approx(wanted.values[0, 0, 0] * scale, rel=1e-4)


def test_a_fit_does_not_depend_on_its_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    vis, sigma = _noisy(PAIR, 6)
    parameters = ForwardFit(("circle", "circle"), uncertainty="monte_carlo", realisations=5)
    together = forward_fit(vis, sigma, U, V, parameters)
    monkeypatch.setattr("stixflow.imaging.forward_fit._STACK", 100)
    cut = forward_fit(vis, sigma, U, V, parameters)
    np.testing.assert_allclose(cut.values, together.values, rtol=1e-6)
    np.testing.assert_allclose(cut.errors, together.errors, rtol=1e-4)
    alone = forward_fit(vis[4], sigma[4], U, V, parameters)
    np.testing.assert_allclose(alone.values[0], together.values[4], rtol=1e-6)


def test_visibilities_of_another_instrument_are_fitted(shared: Path) -> None:
    made = np.load(shared / "oracle/imaging/rhessi_sample.npz")
    chi2 = {
        kinds: forward_fit(made["vis"], made["sigamp"], made["u"], made["v"], ForwardFit(kinds)).chi2[0]
        for kinds in (("circle",), ("ellipse",), ("loop",))
    }
    assert chi2[("loop",)] < chi2[("ellipse",)] < chi2[("circle",)]


def test_the_image_has_the_flux_of_the_sources_where_they_are() -> None:
    fits = forward_fit(source_visibilities([LOOP], U, V), np.full(24, 0.1), U, V, ForwardFit(("loop",)))
    grid = Grid((161, 141), (1.5, 1.0), center=(700.0, 100.0))
    image = fit_image(fits, grid)[0]
    assert image.sum() * grid.pixel_area == pytest.approx(12.0, rel=1e-3)
    assert (image.sum(axis=0) @ grid.offset_x) / image.sum() == pytest.approx(3.0, abs=0.05)
    assert (image.sum(axis=1) @ grid.offset_y) / image.sum() == pytest.approx(5.0, abs=0.05)


@pytest.mark.parametrize(
    ("sources", "chosen"),
    [([CIRCLE], 0), ([ELLIPSE], 1), ([LOOP], 2), (PAIR, 3)],
    ids=["circle", "ellipse", "loop", "two"],
)
@pytest.mark.parametrize("criterion", ["bic", "evidence"])
def test_the_model_that_made_the_data_is_chosen(sources: list[Any], chosen: int, criterion: Any) -> None:
    vis, sigma = _noisy(sources, 12, sigma=0.1)
    choice = choose_model(from_arrays(U, V, vis, sigma), criterion=criterion)
    assert (choice.best == chosen).mean() >= 0.9
    assert len(choice.sources()) == len(sources)
    assert choice.bic.shape == choice.log_evidence.shape == (12, 4)


def test_a_source_at_a_bound_is_told() -> None:
    far = source_visibilities([Gaussian(5.0, 60.0, 0.0, 12.0)], U, V)
    fits = forward_fit(far, np.full(24, 0.1), U, V, ForwardFit(reach=40.0))
    assert fits.at_bound[0]
    assert not forward_fit(far, np.full(24, 0.1), U, V).at_bound[0]
    assert abs(fits.values[0, 0, PARAMETERS.index("x")]) <= 40.0


@pytest.mark.parametrize(
    ("vis", "sigma", "kinds", "words"),
    [
        (np.full(24, np.nan), np.ones(24), ("circle",), "not usable"),
        (np.ones(24), np.zeros(24), ("circle",), "not usable"),
        (np.zeros(24), np.ones(24), ("circle",), "no signal"),
        (np.ones(24), np.ones(24), ("circle",) * 12, "48 data for 48 parameters"),
    ],
)
def test_what_cannot_be_fitted_is_refused(vis: Any, sigma: Any, kinds: Any, words: str) -> None:
    with pytest.raises(ImagingError, match=words):
        forward_fit(vis, sigma, U, V, ForwardFit(kinds))


@pytest.mark.parametrize(
    "parameters",
    [{"sources": ()}, {"sources": ("square",)}, {"starts": 0}, {"uncertainty": "bayes"}, {"realisations": 1},
     {"reach": 0.0}, {"largest": 0.5}],
)  # fmt: skip
def test_senseless_parameters_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="forward fit"):
        ForwardFit(**parameters)


def test_a_choice_without_candidates_is_refused() -> None:
    with pytest.raises(UsageError, match="0 candidates"):
        choose_model(from_arrays(U, V, np.ones(24), np.ones(24)), ())
