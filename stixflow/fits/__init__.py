"""Official FITS products in and out."""

from stixflow.fits.compare import Difference, compare_files
from stixflow.fits.export import EXPORTED, level1_name, write_level1
from stixflow.fits.level1 import read_level1
from stixflow.fits.origin import Origin, read_origin

__all__ = [
    "EXPORTED",
    "Difference",
    "Origin",
    "compare_files",
    "level1_name",
    "read_level1",
    "read_origin",
    "write_level1",
]
