"""FITS files of images as sunpy maps, from wherever the archive is."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from stixflow.cubes.files import local_copy
from stixflow.errors import StoreError

if TYPE_CHECKING:
    from sunpy.map import GenericMap


def read_map(url: str) -> GenericMap:
    """Read the primary image of a file as a map; an image extension UNCERTAINTY becomes its uncertainty.

    Raises
    ------
    StoreError
        If the file is lost, or holds no image.
    """
    import sunpy.map
    from astropy.io import fits
    from astropy.nddata import StdDevUncertainty
    from astropy.utils.exceptions import AstropyUserWarning

    try:
        with warnings.catch_warnings(), local_copy(url) as place:
            warnings.simplefilter("error", AstropyUserWarning)  # it only warns of a file that is cut short
            with fits.open(place, memmap=False) as hdus:
                data, header = hdus[0].data, hdus[0].header.copy()
                sigma = hdus["UNCERTAINTY"].data if "UNCERTAINTY" in hdus else None
    except (OSError, AstropyUserWarning, ValueError, TypeError) as error:
        raise StoreError(
            f"{url} is lost or damaged: {error}",
            expected="a FITS file of an image",
            advice="run `stixflow process`, which makes lost images again",
        ) from error
    if data is None:
        raise StoreError(
            f"{url} holds no image", expected="an image in its first HDU", advice="remove it, then process"
        )
    known = {} if sigma is None else {"uncertainty": StdDevUncertainty(sigma)}
    made: GenericMap = sunpy.map.Map(data, header, **known)
    return made
