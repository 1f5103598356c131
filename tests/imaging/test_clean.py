from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging import Clean, Gaussian, Grid, source_visibilities
from stixflow.imaging.back_projection import Weighting, back_project, point_spread
from stixflow.imaging.clean import PointSpread, clean, natural_beam, subtract_components
from stixflow.instrument import detectors, subcollimators

ORACLES = [
    "xrv_circle_measured_low", "xrv_double_measured_high", "xrv_ellipse_measured_high", "xrv_loop_measured_low",
    "xrv_triple_measured_high", "real_stix_20200607_65x2", "real_stix_20200607_129x2", "rhessi_sample",
]  # fmt: skip


def _plain_rule(residual: np.ndarray, psf: np.ndarray, gain: float, niter: int) -> list[int]:
    """The rule as it is written, one pixel window at a time."""
    ny, nx = residual.shape
    peaks: list[int] = []
    while len(peaks) < niter and not -residual.min() > residual.max():
        peak = int(residual.argmax())
        iy, ix = divmod(peak, nx)
        window = psf[ny - 1 - iy : 2 * ny - 1 - iy, nx - 1 - ix : 2 * nx - 1 - ix]
        residual -= gain * residual[iy, ix] * window
        peaks.append(peak)
    return peaks


def _stix() -> tuple[np.ndarray, np.ndarray]:
    return detectors().u[subcollimators()], detectors().v[subcollimators()]


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("weighting", ["natural", "uniform"])
def test_maps_components_and_residuals_equal_the_reference(shared: Path, name: str, weighting: Weighting) -> None:
    made = np.load(shared / "oracle/imaging" / f"{name}.npz")
    parameters = json.loads(str(made["params"]))
    grid, rule = Grid(parameters["n"], float(parameters["pixel_arcsec"])), parameters["clean"]
    maps = clean(
        made["vis"], made["u"], made["v"], grid, Clean(rule["gain"], rule["niter"], rule["beam_fwhm"], weighting)
    )
    for found, wanted in ((maps.components, f"clean_model_{weighting}"), (maps.image, f"clean_{weighting}")):
        np.testing.assert_allclose(found[0], made[wanted], rtol=0, atol=1e-10 * np.abs(made[wanted]).max())
    beam_area = maps.residual[0].max() / made[f"clean_resid_{weighting}"].max()
    np.testing.assert_allclose(
        maps.residual[0], made[f"clean_resid_{weighting}"] * beam_area, atol=1e-10 * maps.residual.max()
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(5, 24), st.integers(5, 24)),
    gain=st.sampled_from([0.05, 0.1, 0.3, 1.0]),
    noise=st.floats(0.0, 1.0),
)
def test_the_sequence_of_components_is_that_of_the_plain_rule(
    seed: int, shape: tuple[int, int], gain: float, noise: float
) -> None:
    random, (u, v), grid = np.random.default_rng(seed), _stix(), Grid(shape, 4.0)
    vis = source_visibilities([Gaussian(1.0, *random.uniform(-20, 20, 2), 8.0)], u, v)
    vis = vis + noise * (random.standard_normal(24) + 1j * random.standard_normal(24))
    residual, psf = np.array(back_project(vis, u, v, grid)[0]), point_spread(u, v, grid)
    expected_residual = residual.copy()
    wanted = _plain_rule(expected_residual, psf, gain, 150)
    peaks, _ = subtract_components(residual, PointSpread(psf), gain, 150)
    assert peaks.tolist() == wanted
    np.testing.assert_allclose(residual, expected_residual, atol=1e-10)


@pytest.mark.parametrize("limit_bytes", [0, 20_000])
def test_memory_for_the_point_spread_changes_nothing(monkeypatch: pytest.MonkeyPatch, limit_bytes: int) -> None:
    (u, v), grid = _stix(), Grid((20, 24), 4.0)
    psf = point_spread(u, v, grid)
    start = back_project(source_visibilities([Gaussian(1.0, 9.0, -14.0, 20.0)], u, v), u, v, grid)[0]
    wanted, found = np.array(start), np.array(start)
    peaks, _ = subtract_components(wanted, PointSpread(psf), 0.1, 100)
    monkeypatch.setattr("stixflow.imaging.clean._SHEETS_LIMIT_BYTES", limit_bytes)
    spread = PointSpread(psf)
    np.testing.assert_array_equal(subtract_components(found, spread, 0.1, 100)[0], peaks)
    np.testing.assert_allclose(found, wanted, atol=1e-13)
    assert len(spread._sheets) <= limit_bytes // (39 * 24 * 8)


@pytest.mark.parametrize("shape", [(32, 40), (33, 41)])
@pytest.mark.parametrize("boxes", [None, ((-20.0, -20.0, 30.0, 10.0),)])
def test_components_and_residual_balance(shape: tuple[int, int], boxes: tuple[tuple[float, ...], ...] | None) -> None:
    (u, v), grid = _stix(), Grid(shape, 3.0)
    vis = source_visibilities([Gaussian(5.0, 12.0, -6.0, 12.0), Gaussian(2.0, -14.0, 5.0, 9.0)], u, v)
    maps = clean(vis, u, v, grid, Clean(niter=60, boxes=boxes))  # type: ignore[arg-type]
    iy, ix = np.nonzero(maps.components[0])
    flux = maps.components[0][iy, ix]
    removed = (
        flux[:, None] * np.exp(2j * np.pi * (np.multiply.outer(grid.x[ix], u) + np.multiply.outer(grid.y[iy], v)))
    ).sum(axis=0)
    dirty = back_project(vis - removed, u, v, grid)[0]
    np.testing.assert_allclose(maps.residual[0], dirty, atol=1e-11)


def test_boxes_hold_all_components() -> None:
    (u, v), grid = _stix(), Grid(65, 2.0)
    vis = source_visibilities([Gaussian(5.0, 30.0, 30.0, 10.0), Gaussian(2.0, -30.0, -20.0, 10.0)], u, v)
    maps = clean(vis, u, v, grid, Clean(boxes=((-50.0, -40.0, -10.0, 0.0),)))
    y, x = np.nonzero(maps.components[0])
    assert x.size > 0
    assert (grid.x[x] <= -10).all()
    assert (grid.y[y] <= 0).all()


def test_a_stack_equals_its_images_one_by_one() -> None:
    (u, v), grid, random = _stix(), Grid(33, 3.0), np.random.default_rng(1)
    vis = np.stack([source_visibilities([Gaussian(1.0, *random.uniform(-30, 30, 2), 12.0)], u, v) for _ in range(18)])
    together = clean(vis, u, v, grid)
    for i, one in enumerate(vis):
        alone = clean(one, u, v, grid)
        assert alone.iterations[0] == together.iterations[i]
        np.testing.assert_allclose(alone.image[0], together.image[i], atol=1e-12)


def test_flux_of_a_compact_source_is_kept_in_even_and_odd_maps() -> None:
    (u, v) = _stix()
    vis = source_visibilities([Gaussian(10.0, 3.0, 5.0, 10.0)], u, v)
    for n in (64, 65):
        maps = clean(vis, u, v, Grid(n, 2.0), Clean(niter=300))
        assert maps.components.sum() == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize(
    ("coarse_to", "natural", "uniform"),
    [(1, 17.8, 11.6), (2, 22.6, 15.4), (3, 31.0, 22.1), (4, 43.6, 33.0), (5, 54.3, 43.4), (6, 72.4, 61.0),
     (7, 96.9, 86.6)],
)  # fmt: skip
def test_natural_beam_equals_the_table(coarse_to: int, natural: float, uniform: float) -> None:
    k = subcollimators(*range(10, coarse_to - 1, -1))
    u, v = detectors().u[k], detectors().v[k]
    assert natural_beam(u, v) == pytest.approx(natural, abs=0.06)
    assert natural_beam(u, v, "uniform") == pytest.approx(uniform, abs=0.06)


def test_nothing_to_clean_gives_no_components() -> None:
    u, v = _stix()
    maps = clean(np.zeros(24), u, v, Grid(17, 2.0), Clean(niter=0))
    assert maps.iterations[0] == 0
    assert not maps.image.any()


def test_values_that_are_not_numbers_are_refused() -> None:
    u, v = _stix()
    with pytest.raises(ImagingError, match="not finite"):
        clean(np.full(24, np.nan), u, v, Grid(9, 2.0))


@pytest.mark.parametrize("parameters", [{"gain": 0.0}, {"gain": 1.5}, {"niter": -1}, {"beam_fwhm": 0.0}])
def test_senseless_parameters_are_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="CLEAN"):
        Clean(**parameters)  # type: ignore[arg-type]


def test_a_box_outside_the_map_is_refused() -> None:
    u, v = _stix()
    with pytest.raises(UsageError, match="boxes"):
        clean(np.ones(24), u, v, Grid(9, 2.0), Clean(boxes=((500.0, 500.0, 600.0, 600.0),)))
