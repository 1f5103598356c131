"""Fourier imaging: pixel counts to visibilities to images, on stacks of images at once."""

from stixflow.imaging.back_projection import BackProjection
from stixflow.imaging.clean import Clean
from stixflow.imaging.forward import Gaussian, expected_column_rates, expected_pixel_rates, source_visibilities
from stixflow.imaging.grids import Grid
from stixflow.imaging.location import Location, locate
from stixflow.imaging.maps import map_header, write_map
from stixflow.imaging.reconstruction import reconstruct
from stixflow.imaging.source import SourceImages, image_source
from stixflow.imaging.visibilities import from_arrays, recenter, stack, visibilities

__all__ = [
    "BackProjection",
    "Clean",
    "Gaussian",
    "Grid",
    "Location",
    "SourceImages",
    "expected_column_rates",
    "expected_pixel_rates",
    "from_arrays",
    "image_source",
    "locate",
    "map_header",
    "recenter",
    "reconstruct",
    "source_visibilities",
    "stack",
    "visibilities",
    "write_map",
]
