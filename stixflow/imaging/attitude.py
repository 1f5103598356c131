"""Where the instrument pointed and where the spacecraft was for every map of a stack, carried by the stack itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from stixflow.ephemeris import Observer, Pointing, stix_to_hpc
from stixflow.imaging.grids import FloatArray

_POINTING = (
    ("pointing_x", "x", "arcsec", "pointing, X of the spacecraft frame"),
    ("pointing_y", "y", "arcsec", "pointing, Y of the spacecraft frame"),
    ("roll", "roll", "deg", "roll of the spacecraft"),
    ("pointing_sigma", "sigma", "arcsec", "scatter of the pointing"),
)
_OBSERVER = (
    ("observer_distance", "distance_m", "m", "distance of the spacecraft from the Sun"),
    ("observer_hgln", "hgln_deg", "deg", "Stonyhurst longitude of the spacecraft"),
    ("observer_hglt", "hglt_deg", "deg", "Stonyhurst latitude of the spacecraft"),
    ("observer_rsun", "rsun_arcsec", "arcsec", "apparent radius of the Sun"),
)


def with_attitude(
    images: xr.Dataset, pointings: Sequence[Pointing | None], observers: Sequence[Observer | None]
) -> xr.Dataset:
    """Maps that carry pointing and place of the spacecraft, each its own; what is not known is NaN."""
    variables = {}
    for fields, owners in ((_POINTING, pointings), (_OBSERVER, observers)):
        for name, field, units, text in fields:
            values = np.array([np.nan if owner is None else getattr(owner, field) for owner in owners])
            variables[name] = ("image", values, {"units": units, "long_name": text})
    sources = np.array(["" if one is None else one.source for one in pointings])
    remarks = np.array(["" if one is None else "; ".join(one.warnings) for one in pointings])
    return images.assign(
        variables
        | {
            "pointing_source": ("image", sources, {"long_name": "source of the pointing"}),
            "pointing_remarks": ("image", remarks, {"long_name": "what is to be said of the pointing"}),
        }
    )


def attitude_of(
    images: xr.Dataset, index: int, pointing: Pointing | None = None, observer: Observer | None = None
) -> tuple[Pointing | None, Observer | None]:
    """Pointing and place of one map: those that the stack carries, or those given for stacks that carry none."""
    if "pointing_source" not in images:
        return pointing, observer
    one = {name: images.variables[name].values[index] for name, *_ in (*_POINTING, *_OBSERVER)}
    source = str(images.variables["pointing_source"].values[index])
    place = None
    if np.isfinite(one["observer_distance"]):
        place = Observer(*(float(one[name]) for name, *_ in _OBSERVER))
    if not source:
        return None, place
    remarks = str(images.variables["pointing_remarks"].values[index])
    x, y, roll, sigma = (float(one[name]) for name, *_ in _POINTING)
    known = Pointing(x, y, roll, source, sigma, tuple(remarks.split("; ")) if remarks else ())  # type: ignore[arg-type]
    return known, place


def centers_on_sky(images: xr.Dataset) -> FloatArray:
    """Middle of every map, (image, 2): helioprojective arcsec where all pointings are known, else the STIX frame."""
    centers = np.stack([images["center_x"].to_numpy(), images["center_y"].to_numpy()], axis=1)
    known = [point for point in (attitude_of(images, i)[0] for i in range(len(centers))) if point is not None]
    if len(known) < len(centers):
        return centers
    return np.array([stix_to_hpc(center, point) for center, point in zip(centers, known, strict=True)])
