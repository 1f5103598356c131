"""From the frame of the instrument to the sky of an observer on Solar Orbiter, and back.

The chain of the ground software in the small-angle form: STIX imaging frame, spacecraft frame (axes swapped, pointing
added), Helioprojective (rolled). A full spherical rotation differs by less than 0.03 arcsec within 2000 arcsec.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.ephemeris.attitude import Pointing


def stix_to_hpc(xy: ArrayLike, pointing: Pointing) -> NDArray[np.float64]:
    """Helioprojective position, seen from Solar Orbiter, of a position in the STIX imaging frame.

    Parameters
    ----------
    xy
        (..., 2) arcsec.

    Returns
    -------
    (..., 2) arcsec.
    """
    stix = np.asarray(xy, dtype=np.float64)
    return _rotate(pointing.x - stix[..., 1], pointing.y + stix[..., 0], pointing.roll)


def hpc_to_stix(xy: ArrayLike, pointing: Pointing) -> NDArray[np.float64]:
    """Position in the STIX imaging frame of a Helioprojective one: the inverse of `stix_to_hpc`."""
    sky = np.asarray(xy, dtype=np.float64)
    spacecraft = _rotate(sky[..., 0], sky[..., 1], -pointing.roll)
    return np.stack([spacecraft[..., 1] - pointing.y, pointing.x - spacecraft[..., 0]], axis=-1)


def _rotate(x: NDArray[np.float64], y: NDArray[np.float64], angle_deg: float) -> NDArray[np.float64]:
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
