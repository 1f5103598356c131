"""How far noise moves the brightness of every pixel: images of made-up noise, in stacks."""

from __future__ import annotations

import numpy as np
import xarray as xr

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging.em import EM
from stixflow.imaging.grids import FloatArray, Grid
from stixflow.imaging.reconstruction import Method, chunks, find_method, reconstruct

_KEPT = "center_x", "center_y", "time_start", "time_stop", "energy_low", "energy_high"


def uncertainty(
    data: xr.Dataset, grid: Grid, method: str | Method = "clean", *, realisations: int = 50, seed: int = 0
) -> xr.Dataset:
    """Standard deviation of the images of a stack over made-up noise (parametric bootstrap).

    Each image is made again from its visibilities with Gaussian noise of their errors added to both parts; with EM,
    from its column rates with noise of theirs. A flux of the counts, which MEM_GE holds a map to, has noise of its own.
    The same draws serve every image, so that the result for an image does not depend on the stack.

    Parameters
    ----------
    data, grid, method
        As of `reconstruct`.
    realisations
        Images of noise for each image. The standard deviation itself is known to 1 / sqrt(2 realisations).
    seed
        Of the noise.

    Returns
    -------
    Dataset with `uncertainty` (image, y, x), and `mean` of the images of noise, in the unit of the image; and how many
    of those have `not_converged` (image), where the method knows.

    Raises
    ------
    UsageError
        If there are fewer than 2 realisations.
    ImagingError
        If an error is not known.
    """
    if realisations < 2:
        raise UsageError(f"{realisations} realisations", expected="at least 2", advice="ask for more, 50 for instance")
    parameters = find_method(method)
    name, error = ("rate", "rate_sigma") if isinstance(parameters, EM) else ("visibility", "sigma")
    if error in data and not np.isfinite(data[error]).all():
        raise ImagingError("some errors are not known", expected="finite errors", advice="give sigma= with the data")
    spread = np.empty((data.sizes["image"], *grid.shape))
    mean = np.empty_like(spread)
    astray = np.zeros(data.sizes["image"], np.int64)
    images = None
    for i in range(data.sizes["image"]):
        moments = _Moments(grid)
        for part in chunks(_noisy(data.isel(image=[i]), name, error, realisations, seed), grid):
            images = reconstruct(part, grid, parameters)
            moments.add(images["image"].to_numpy().astype(np.float64))
            astray[i] += int((~images["converged"].to_numpy()).sum()) if "converged" in images else 0
        mean[i], spread[i] = moments.mean, np.sqrt(moments.squares / (realisations - 1))
    if images is None:
        raise ImagingError("no images in the data", expected="at least one", advice="choose other intervals")
    unit = {"units": images["image"].attrs.get("units", "")}
    maps = "image", "y", "x"
    return xr.Dataset(
        {
            "uncertainty": (maps, spread, unit | {"long_name": "standard deviation over made-up noise"}),
            "mean": (maps, mean, unit | {"long_name": "mean over made-up noise"}),
            **{key: data[key].variable for key in _KEPT if key in data},
            **({"not_converged": ("image", astray, {"long_name": "images of noise"})} if "converged" in images else {}),
        },
        coords={"x": images["x"].variable, "y": images["y"].variable},
        attrs=images.attrs | {"realisations": realisations, "seed": seed},
    )


class _Moments:
    """Mean and squares of deviations of maps that come in parts."""

    def __init__(self, grid: Grid) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(grid.shape), np.zeros(grid.shape)

    def add(self, maps: FloatArray) -> None:
        mean, n = maps.mean(axis=0), len(maps)
        total = self.count + n
        shift = mean - self.mean
        self.squares += ((maps - mean) ** 2).sum(axis=0) + shift**2 * (self.count * n / total)
        self.mean += shift * (n / total)
        self.count = total


def _noisy(one: xr.Dataset, name: str, error: str, realisations: int, seed: int) -> xr.Dataset:
    """Return copies of one image with noise."""
    copies = one.isel(image=np.zeros(realisations, np.intp))
    values = one[name].to_numpy()
    random = np.random.default_rng(seed)
    draws = random.standard_normal((2, realisations, *values.shape[1:]))
    noise = draws[0] + 1j * draws[1] if np.iscomplexobj(values) else draws[0]
    changed = values + one[error].to_numpy() * noise
    variable = (one[name].dims, changed, one[name].attrs)
    if all(key in one for key in ("total_flux", "rate_sigma", "transmission")):
        flux = one["total_flux"].to_numpy() + flux_error(one) * random.standard_normal(realisations)
        copies = copies.assign(total_flux=("image", flux, one["total_flux"].attrs))
    return copies.assign_coords({name: variable}) if name in copies.coords else copies.assign({name: variable})


def flux_error(data: xr.Dataset) -> FloatArray:
    """Standard error (image,) of the flux of the counts: of the mean over the sub-collimators."""
    open_part = 4.0 * data["transmission"].to_numpy()
    variance = (data["rate_sigma"].to_numpy() ** 2).sum(axis=-1) / open_part**2
    return np.asarray(np.sqrt(variance.sum(axis=1)) / variance.shape[1])
