from __future__ import annotations

import numpy as np
import pytest
from astropy import units

from stixflow.errors import UsageError
from stixflow.imaging import BackProjection, Clean, Gaussian, Grid, from_arrays, reconstruct, source_visibilities
from stixflow.imaging.visibilities import UNIT
from stixflow.instrument import detectors, subcollimators

U, V = detectors().u[subcollimators()], detectors().v[subcollimators()]
SOURCE = [Gaussian(8.0, 12.0, -20.0, 12.0)]


def test_methods_by_name_are_those_with_their_usual_parameters() -> None:
    data, grid = from_arrays(U, V, source_visibilities(SOURCE, U, V)), Grid(65, 2.0)
    for name, parameters in (("clean", Clean()), ("bp", BackProjection())):
        by_name, by_value = reconstruct(data, grid, name), reconstruct(data, grid, parameters)
        np.testing.assert_array_equal(by_name["image"], by_value["image"])
        assert by_name.attrs["method"] == by_value.attrs["method"] == name


def test_a_clean_map_shows_the_source_where_it_is_with_its_flux() -> None:
    data, grid = from_arrays(U, V, source_visibilities(SOURCE, U, V)), Grid((65, 81), (2.0, 1.5))
    images = reconstruct(data, grid, Clean(beam_fwhm=15.0))
    assert images["image"].dims == ("image", "y", "x")
    iy, ix = np.unravel_index(int(images["image"].to_numpy()[0].argmax()), grid.shape)
    assert abs(images["x"][ix] - 12.0) <= 1.5
    assert abs(images["y"][iy] + 20.0) <= 2.0
    assert images["component_flux"].item() == pytest.approx(8.0, rel=0.03)
    restored = images["image"][0] - images["residual"][0] / (np.pi * 15.0**2 / (4 * np.log(2)))
    assert restored.sum().item() * grid.pixel_area == pytest.approx(images["component_flux"].item(), rel=0.01)
    assert images["residual_max"].item() == images["residual"].max().item()


def test_units_are_those_of_a_brightness_for_clean_and_of_v_for_back_projection() -> None:
    data, grid = from_arrays(U, V, source_visibilities(SOURCE, U, V)), Grid(9, 2.0)
    brightness = units.Unit(reconstruct(data, grid, "clean")["image"].attrs["units"])
    assert brightness == units.Unit(UNIT) / units.arcsec**2
    assert units.Unit(reconstruct(data, grid, "bp")["image"].attrs["units"]) == units.Unit(UNIT)


def test_a_grid_with_a_centre_moves_the_map_to_it() -> None:
    moved = [Gaussian(8.0, 412.0, -320.0, 12.0)]
    far = from_arrays(U, V, source_visibilities(moved, U, V))
    near = from_arrays(U, V, source_visibilities(SOURCE, U, V), center=(400.0, -300.0))
    for data in (far, near):
        images = reconstruct(data, Grid(65, 2.0, center=(400.0, -300.0)), "bp")
        iy, ix = np.unravel_index(int(images["image"].to_numpy()[0].argmax()), (65, 65))
        assert (images["x"][ix], images["y"][iy]) == (12.0, -20.0)
        assert (images["center_x"].item(), images["center_y"].item()) == (400.0, -300.0)


def test_each_image_of_a_stack_keeps_its_own_centre_without_one_for_the_grid() -> None:
    centers = np.array([(100.0, 50.0), (-700.0, 20.0)])
    data = from_arrays(U, V, np.tile(source_visibilities(SOURCE, U, V), (2, 1)), center=centers)
    images = reconstruct(data, Grid(33, 2.0), "bp")
    np.testing.assert_allclose(images["image"][0], images["image"][1], atol=1e-12)
    assert images["center_x"].values.tolist() == [100.0, -700.0]


def test_parameters_are_the_provenance() -> None:
    data = from_arrays(U, V, source_visibilities(SOURCE, U, V))
    boxes = ((-5.0, -5.0, 5.0, 5.0),)
    attrs = reconstruct(data, Grid(9, 2.0), Clean(gain=0.2, niter=7, beam_fwhm=None, boxes=boxes)).attrs
    assert (attrs["gain"], attrs["niter"], attrs["boxes"]) == (0.2, 7, str(boxes))
    assert attrs["beam_fwhm"] == pytest.approx(31.0, abs=0.1)


@pytest.mark.parametrize("method", ["mem", "CLEAN", 3, None])
def test_unknown_methods_are_refused_with_the_known_ones(method: object) -> None:
    data = from_arrays(U, V, source_visibilities(SOURCE, U, V))
    with pytest.raises(UsageError, match=r"'bp', 'clean'"):
        reconstruct(data, Grid(9, 2.0), method)  # type: ignore[arg-type]
