"""Fourier imaging: pixel counts to visibilities to images, on stacks of images at once."""

from stixflow.imaging.forward import Gaussian, expected_column_rates, expected_pixel_rates, source_visibilities
from stixflow.imaging.grids import Grid

__all__ = ["Gaussian", "Grid", "expected_column_rates", "expected_pixel_rates", "source_visibilities"]
