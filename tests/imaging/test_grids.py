from __future__ import annotations

import numpy as np
import pytest

from stixflow.errors import UsageError
from stixflow.imaging import Grid


def test_pixel_centres_are_symmetric_about_the_centre() -> None:
    grid = Grid((3, 4), (2.0, 1.0), center=(100.0, -50.0))
    np.testing.assert_array_equal(grid.x, 100.0 + np.array([-1.5, -0.5, 0.5, 1.5]))
    np.testing.assert_array_equal(grid.y, -50.0 + np.array([-2.0, 0.0, 2.0]))
    np.testing.assert_array_equal(grid.offset_x, -grid.offset_x[::-1])
    assert grid.pixel_area == 2.0


def test_one_number_means_a_square() -> None:
    assert Grid(65, 2.0) == Grid((65, 65), (2.0, 2.0))
    assert Grid(65, 2.0).twice.shape == (129, 129)


@pytest.mark.parametrize(("shape", "pixel"), [(0, 1.0), ((3, 0), 1.0), (3, 0.0), (3, (1.0, -1.0)), (3, float("nan"))])
def test_impossible_grids_are_refused(shape: int | tuple[int, int], pixel: float | tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="at least one pixel"):
        Grid(shape, pixel)
