"""Images from visibilities with any of the methods: one door for all."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from stixflow.errors import UsageError
from stixflow.imaging.back_projection import BackProjection, back_project
from stixflow.imaging.clean import Clean, clean, natural_beam
from stixflow.imaging.grids import Grid
from stixflow.imaging.visibilities import recenter

Method = BackProjection | Clean

_METHODS: dict[str, type[Method]] = {"bp": BackProjection, "clean": Clean}
_NAMES = {kind: name for name, kind in _METHODS.items()}
_CARRIED = (
    "time_start", "time_stop", "energy_low", "energy_high", "counts", "background_counts", "net_counts", "live_time",
    "exposure", "total_flux", "location_x", "location_y", "rcr", "center_x", "center_y",
)  # fmt: skip


def reconstruct(data: xr.Dataset, grid: Grid, method: str | Method = "clean") -> xr.Dataset:
    """Images of a stack of visibilities.

    Parameters
    ----------
    data
        From `visibilities` or `from_arrays`.
    grid
        Pixels of the maps. With a centre, the visibilities are shifted to it; without, each map is centred on the phase
        centre of its visibilities.
    method
        "clean" or "bp" with its usual parameters, or `Clean(...)`, `BackProjection(...)`.

    Returns
    -------
    Dataset with `image` (image, y, x), whose coordinates x and y are arcsec from the middle of each map, and the
    position of that middle in the STIX frame as `center_x`, `center_y` (image). CLEAN maps are per arcsec²;
    back-projections have the unit of the visibilities. Attributes name the method and its parameters.

    Raises
    ------
    UsageError
        If there is no such method.
    """
    parameters = find_method(method)
    if grid.center is not None:
        data = recenter(data, grid.center)
    vis, u, v = (data[name].to_numpy() for name in ("visibility", "u", "v"))
    unit = data["visibility"].attrs.get("units", "")
    maps = "image", "y", "x"
    attrs: dict[str, Any] = {"method": _NAMES[type(parameters)], **_plain(asdict(parameters))}
    if isinstance(parameters, Clean):
        cleaned = clean(vis, u, v, grid, parameters)
        unit_map = f"{unit} / arcsec2" if not unit.endswith(")") else f"{unit[:-1]} arcsec2)"
        residual = cleaned.residual
        variables: dict[str, Any] = {
            "image": (maps, cleaned.image, {"units": unit_map, "long_name": "brightness"}),
            "components": (maps, cleaned.components, {"units": unit, "long_name": "flux of the CLEAN components"}),
            "residual": (maps, residual, {"units": unit, "long_name": "residual of the dirty map"}),
            "iterations": ("image", cleaned.iterations, {"long_name": "components subtracted"}),
            "component_flux": ("image", cleaned.components.sum(axis=(1, 2)), {"units": unit}),
            "residual_rms": ("image", np.sqrt((residual**2).mean(axis=(1, 2))), {"units": unit}),
            "residual_max": ("image", residual.max(axis=(1, 2)), {"units": unit}),
        }
        attrs["beam_fwhm"] = parameters.beam_fwhm or natural_beam(u, v, parameters.weighting)
    else:
        dirty = back_project(vis, u, v, grid, parameters)
        variables = {"image": (maps, dirty, {"units": unit, "long_name": "back-projection (not per arcsec²)"})}
    carried = {name: data[name].variable for name in _CARRIED if name in data}
    offsets = {
        name: (name, values, {"units": "arcsec", "long_name": f"{name} from the middle of the map, STIX frame"})
        for name, values in (("x", grid.offset_x), ("y", grid.offset_y))
    }
    attrs |= {"pixel_y_arcsec": grid.pixel[0], "pixel_x_arcsec": grid.pixel[1]}
    return xr.Dataset(variables | carried, coords=offsets, attrs=data.attrs | attrs)


def find_method(method: str | Method) -> Method:
    """Return the parameters of a method given by name, or those given.

    Raises
    ------
    UsageError
        If there is no such method.
    """
    if isinstance(method, BackProjection | Clean):
        return method
    if isinstance(method, str) and method in _METHODS:
        return _METHODS[method]()
    raise UsageError(
        f"no imaging method {method!r}",
        expected=f"one of {', '.join(map(repr, _METHODS))}, or BackProjection(...), Clean(...)",
        advice="choose one of them",
    )


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as attributes that any file format takes."""
    return {name: "none" if value is None else str(value) if isinstance(value, tuple) else value
            for name, value in parameters.items()}  # fmt: skip
