"""Official FITS products in and out."""

from stixflow.fits.level1 import read_level1

__all__ = ["read_level1"]
