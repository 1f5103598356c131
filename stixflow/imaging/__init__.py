"""Fourier imaging: pixel counts to visibilities to images, on stacks of images at once."""

from stixflow.imaging.back_projection import BackProjection
from stixflow.imaging.clean import Clean
from stixflow.imaging.em import EM
from stixflow.imaging.forward import Gaussian, Loop, expected_column_rates, expected_pixel_rates, source_visibilities
from stixflow.imaging.forward_fit import ForwardFit, choose_model
from stixflow.imaging.grids import Grid
from stixflow.imaging.location import Location, locate
from stixflow.imaging.maps import map_header, write_map
from stixflow.imaging.mem_ge import MemGE
from stixflow.imaging.reconstruction import chunks, reconstruct
from stixflow.imaging.source import SourceImages, image_source
from stixflow.imaging.uncertainty import uncertainty
from stixflow.imaging.visibilities import from_arrays, recenter, stack, visibilities

__all__ = [
    "EM",
    "BackProjection",
    "Clean",
    "ForwardFit",
    "Gaussian",
    "Grid",
    "Location",
    "Loop",
    "MemGE",
    "SourceImages",
    "choose_model",
    "chunks",
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
    "uncertainty",
    "visibilities",
    "write_map",
]
