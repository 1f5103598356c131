"""What an image says that the instrument measures: its visibilities, and how far they are from the measured ones."""

from __future__ import annotations

import numpy as np
import xarray as xr

from stixflow.errors import UsageError
from stixflow.imaging.forward import ComplexArray
from stixflow.imaging.grids import FloatArray

_TURN = 2j * np.pi


def predicted_visibilities(images: xr.Dataset, data: xr.Dataset) -> ComplexArray:
    """Visibilities (image, visibility) of maps, with the phases of the data; for CLEAN those of its components.

    Parameters
    ----------
    images
        From `reconstruct`.
    data
        The visibilities that they were made from, image by image.

    Raises
    ------
    UsageError
        For back-projections, which are no images of a source.
    """
    if images.attrs["method"] == "bp":
        raise UsageError("a back-projection predicts nothing", expected="another method", advice="leave it out")
    u, v = (data[name].to_numpy() for name in ("u", "v"))
    if "components" in images:
        flux = images["components"].to_numpy()
    else:
        flux = images["image"].to_numpy() * (images.attrs["pixel_x_arcsec"] * images.attrs["pixel_y_arcsec"])
    across, up = (np.exp(_TURN * np.outer(w, images[axis].to_numpy())) for w, axis in ((u, "x"), (v, "y")))
    seen = np.einsum("nyx,kx,ky->nk", flux, across, up, optimize=True)
    off_x, off_y = ((images[name].to_numpy() - data[name].to_numpy())[:, None] for name in ("center_x", "center_y"))
    return np.asarray(seen * np.exp(_TURN * (off_x * u + off_y * v)))


def misfit(images: xr.Dataset, data: xr.Dataset) -> FloatArray:
    """Squared deviations of the predicted visibilities over their errors, per real and imaginary part, (image,)."""
    apart = predicted_visibilities(images, data) - data["visibility"].to_numpy()
    return np.asarray((np.abs(apart / data["sigma"].to_numpy()) ** 2).mean(axis=1) / 2)
