"""A map as the Earth would see it: to lie over images of AIA, HMI or other telescopes near the Earth.

Every pixel of the view is followed to the photosphere, and from there to the map of the spacecraft: the source is taken
to lie on the surface. Loops high in the corona shift by their height; what lies off the limb, for either observer, is
NaN. Values are those of the map; the brightness is not what the Earth would measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.ephemeris import (
    Observer,
    Pointing,
    earth_delay,
    earth_observer,
    heliographic_to_hpc,
    hpc_to_heliographic,
    hpc_to_stix,
    stix_to_hpc,
)
from stixflow.errors import NotFound
from stixflow.imaging.attitude import attitude_of
from stixflow.imaging.grids import FloatArray
from stixflow.imaging.header import map_header
from stixflow.time import iso, to_utc

if TYPE_CHECKING:
    from astropy.io import fits

_MOST_PIXELS = 2048
_OF_THE_SPACECRAFT = (
    "STX_ROLL", "STX_PX", "STX_PY", "STX_PSRC", "OBS_VR", "SUN_TIME", "EAR_TDEL", "DATE_EAR", "CRLN_OBS", "CRLT_OBS",
    *(f"{name}{axis}_OBS" for name in ("HEE", "HCI", "HAE", "HEQ", "GSE") for axis in "XYZ"),
)  # fmt: skip


def earth_view(
    images: xr.Dataset, index: int = 0, *, pointing: Pointing | None = None, observer: Observer | None = None
) -> tuple[NDArray[np.float32], fits.Header]:
    """Array (y, x), north up, and header of one map as seen from the Earth, dated as the Earth sees it.

    Parameters
    ----------
    images, index, pointing, observer
        As for `map_header`.

    Raises
    ------
    NotFound
        If the pointing or the place of the spacecraft is unknown, or the Earth sees nothing of the map.
    """
    point, place = attitude_of(images, index, pointing, observer)
    if point is None or place is None or point.source == "average" or "time_start" not in images:
        raise NotFound(
            "the map has no place on the Sun", expected="a known pointing, place and time", advice="give an ephemeris"
        )
    start, stop = (to_utc(images[name].to_numpy()[index]) for name in ("time_start", "time_stop"))
    earth = earth_observer(start + (stop - start) // 2)
    x, y = _axes(images, index, point, place, earth)
    seen = hpc_to_heliographic(np.stack(np.meshgrid(x, y), axis=-1), earth)
    stix = hpc_to_stix(heliographic_to_hpc(seen[..., 0], seen[..., 1], place, hide=True), point)
    values = _interpolated(images, index, stix)
    if not np.isfinite(values).any():
        raise _unseen()
    return values.astype(np.float32), _header(images, index, point, place, earth, x, y)


def _unseen() -> NotFound:
    return NotFound(
        "the Earth sees nothing of the map", expected="a flare on the side of the Earth", advice="leave it out"
    )


def _axes(
    images: xr.Dataset, index: int, point: Pointing, place: Observer, earth: Observer
) -> tuple[FloatArray, FloatArray]:
    """Helioprojective axes of the view: the field of the map, in pixels as fine as those of the map."""
    center = (float(images[name].to_numpy()[index]) for name in ("center_x", "center_y"))
    offsets = np.stack(np.meshgrid(images["x"].to_numpy(), images["y"].to_numpy()), axis=-1)
    on_sun = hpc_to_heliographic(stix_to_hpc(offsets + np.array(list(center)), point), place)
    field = heliographic_to_hpc(on_sun[..., 0], on_sun[..., 1], earth, hide=True)
    if not np.isfinite(field).any():
        raise _unseen()
    step = min(images.attrs["pixel_x_arcsec"], images.attrs["pixel_y_arcsec"]) * place.distance_m / earth.distance_m
    low, high = np.nanmin(field, axis=(0, 1)), np.nanmax(field, axis=(0, 1))
    sizes = np.minimum(np.ceil((high - low) / step).astype(int) + 1, _MOST_PIXELS)
    x, y = ((low[axis] + high[axis]) / 2 + step * (np.arange(sizes[axis]) - (sizes[axis] - 1) / 2) for axis in range(2))
    return x, y


def _interpolated(images: xr.Dataset, index: int, stix: FloatArray) -> FloatArray:
    """The map between its pixels, NaN beside them."""
    from scipy.ndimage import map_coordinates

    columns, rows = (
        (stix[..., i] - float(images[f"center_{name}"].to_numpy()[index]) - images[name].to_numpy()[0])
        / images.attrs[f"pixel_{name}_arcsec"]
        for i, name in enumerate("xy")
    )
    places = np.nan_to_num(np.stack([rows, columns]), nan=-9.0)
    values = map_coordinates(images["image"].to_numpy()[index].astype(np.float64), places, order=1, cval=np.nan)
    return np.asarray(np.where(np.isfinite(rows), values, np.nan))


def _header(
    images: xr.Dataset,
    index: int,
    point: Pointing,
    place: Observer,
    earth: Observer,
    x: FloatArray,
    y: FloatArray,
) -> fits.Header:
    header = map_header(images, index, pointing=point, observer=place)
    for keyword in (*_OF_THE_SPACECRAFT, "PC1_2", "PC2_1"):
        header.remove(keyword, ignore_missing=True)
    header["EXTNAME"], header["OBS_TYPE"] = "STIX VIEW", "STIX-map-earth"
    header["CRPIX1"], header["CRPIX2"] = (x.size + 1) / 2, (y.size + 1) / 2
    header["CRVAL1"], header["CRVAL2"] = float(x.mean()), float(y.mean())
    header["CDELT1"] = header["CDELT2"] = float(x[1] - x[0])
    header["PC1_1"] = header["PC2_2"] = 1.0
    header["DSUN_OBS"], header["HGLN_OBS"], header["HGLT_OBS"] = earth.distance_m, earth.hgln_deg, earth.hglt_deg
    header["RSUN_ARC"] = header["RSUN_OBS"] = earth.rsun_arcsec
    if "CLN_BEAM" in header:
        header["CLN_BEAM"] = (header["CLN_BEAM"] * place.distance_m / earth.distance_m, "[arcsec] seen from the Earth")
    header["DATE_STX"] = (header["DATE-BEG"], "start, UTC at the spacecraft")
    for keyword in ("DATE-OBS", "DATE-BEG", "DATE-AVG", "DATE-END"):
        moment = to_utc(header[keyword])
        later = np.timedelta64(round(earth_delay(moment, place.distance_m) * 1000), "ms")
        header[keyword] = (iso(moment + later), "UTC at the Earth")
    header.add_history("as seen from the Earth, for sources on the photosphere")
    return header
