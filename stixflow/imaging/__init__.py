"""Fourier imaging: pixel counts to visibilities to images, on stacks of images at once."""

from stixflow.imaging.back_projection import BackProjection
from stixflow.imaging.bins import correct_bin_shift
from stixflow.imaging.clean import Clean
from stixflow.imaging.em import EM
from stixflow.imaging.flare import FlareImages, image_flare
from stixflow.imaging.forward import Gaussian, Loop, expected_column_rates, expected_pixel_rates, source_visibilities
from stixflow.imaging.forward_fit import ForwardFit
from stixflow.imaging.grids import Grid
from stixflow.imaging.header import map_header
from stixflow.imaging.intervals import Interval, Intervals, flare_intervals
from stixflow.imaging.location import Location, locate
from stixflow.imaging.map_file import MapFile
from stixflow.imaging.maps import write_cube, write_map
from stixflow.imaging.mem_ge import MemGE
from stixflow.imaging.metadata import Source, find_sources
from stixflow.imaging.model_choice import ChosenFit, choose_model
from stixflow.imaging.old_previews import read_old_preview
from stixflow.imaging.reconstruction import chunks, reconstruct
from stixflow.imaging.rhessi import read_rhessi_visibilities
from stixflow.imaging.source import SourceImages, image_source
from stixflow.imaging.uncertainty import uncertainty
from stixflow.imaging.visibilities import STIXPY, Convention, from_arrays, recenter, stack, visibilities

__all__ = [
    "EM",
    "STIXPY",
    "BackProjection",
    "ChosenFit",
    "Clean",
    "Convention",
    "FlareImages",
    "ForwardFit",
    "Gaussian",
    "Grid",
    "Interval",
    "Intervals",
    "Location",
    "Loop",
    "MapFile",
    "MemGE",
    "Source",
    "SourceImages",
    "choose_model",
    "chunks",
    "correct_bin_shift",
    "expected_column_rates",
    "expected_pixel_rates",
    "find_sources",
    "flare_intervals",
    "from_arrays",
    "image_flare",
    "image_source",
    "locate",
    "map_header",
    "read_old_preview",
    "read_rhessi_visibilities",
    "recenter",
    "reconstruct",
    "source_visibilities",
    "stack",
    "uncertainty",
    "visibilities",
    "write_cube",
    "write_map",
]
