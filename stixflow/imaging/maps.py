"""Maps as FITS files with a full world coordinate system that sunpy and every other reader understand.

The array stays in the orientation of the STIX frame; the header turns it by 90° plus the roll of the spacecraft. Where
the pointing or the observer is unknown, the axes are those of the STIX frame and say so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

import stixflow
from stixflow.ephemeris import Observer, Pointing, earth_delay, stix_to_hpc
from stixflow.errors import UsageError
from stixflow.time import iso, to_utc

if TYPE_CHECKING:
    from astropy.io import fits

_R_SUN_REF_M = 695_700_000.0
_METHOD_KEYWORDS = {
    "gain": ("CLN_GAIN", "part of the peak taken by one component"),
    "niter": ("CLN_NMAX", "most components"),
    "beam_fwhm": ("CLN_BEAM", "[arcsec] FWHM of the Gaussian beam"),
    "boxes": ("CLN_BOX", "[arcsec] boxes searched for components"),
    "weighting": ("WEIGHT", "weights of the visibilities"),
    "precision": ("PRECISIO", "type computed in"),
    "rows": ("PIXROWS", "rows of pixels summed"),
    "elut": ("ELUTCORR", "correction to nominal energies"),
    "systematic": ("SYSERR", "relative systematic error"),
    "request_id": ("REQ_ID", "request of the pixel data"),
    "bin_shift": ("BINSHIFT", "one-bin shift: none, corrected or possible"),
}
_IMAGE_KEYWORDS = {
    "energy_low": ("ENERGY_L", "[keV] lower edge of the energies"),
    "energy_high": ("ENERGY_H", "[keV] upper edge of the energies"),
    "counts": ("CNTS_TOT", "counts in the selection"),
    "background_counts": ("CNTS_BKG", "of these, background"),
    "live_time": ("LIVETIME", "[s] live time, mean of the detectors"),
    "exposure": ("XPOSURE", "[s] duration of the time bins"),
    "rcr": ("RCR", "rate control regime"),
    "total_flux": ("FLUX_TOT", "[ct / (s cm2 keV)] flux above the grids"),
    "iterations": ("CLN_ITER", "components subtracted"),
    "component_flux": ("CLN_FLUX", "flux in components"),
    "residual_rms": ("RES_RMS", "rms of the residual, unit of the visibilities"),
    "residual_max": ("RES_MAX", "highest residual, unit of the visibilities"),
    "location_x": ("LOC_X", "[arcsec] where the transmission is taken"),
    "location_y": ("LOC_Y", "[arcsec] where the transmission is taken"),
}


def map_header(
    images: xr.Dataset,
    index: int = 0,
    *,
    variable: str = "image",
    pointing: Pointing | None = None,
    observer: Observer | None = None,
    extra: Mapping[str, Any] | None = None,
    history: Sequence[str] = (),
) -> fits.Header:
    """FITS header of one map.

    Parameters
    ----------
    images
        From `reconstruct`.
    index
        Which of the stack.
    variable
        "image", or for CLEAN "residual" or "components".
    pointing, observer
        At the time of the map, from `stixflow.ephemeris`. Without either, or with a pointing that is only the average
        of the mission, the axes are those of the STIX frame.
    extra
        More keywords, written last.
    history
        Lines on how the map was made.
    """
    from astropy.io import fits

    one = images.isel(image=index)
    header = fits.Header()
    header["EXTNAME"] = "STIX MAP"
    header["TIMESYS"] = "UTC"
    header["ORIGIN"] = ("stixflow", "software that made this file")
    header["CREATOR"] = (f"stixflow {stixflow.__version__}", "with its version")
    header["LEVEL"] = "L3"
    header["OBS_TYPE"] = "STIX-map"
    header["OBSRVTRY"], header["TELESCOP"], header["INSTRUME"] = "Solar Orbiter", "SOLO/STIX", "STIX"
    header["BUNIT"] = one[variable].attrs["units"]
    header["ALG_USED"] = (str(images.attrs["method"]).upper(), "imaging algorithm")
    header["STX_X"] = (float(one["center_x"]), "[arcsec] middle of the map in the STIX frame")
    header["STX_Y"] = (float(one["center_y"]), "[arcsec] middle of the map in the STIX frame")
    header.update(_coordinates(images, one, pointing, observer))
    header.update(_dates(one, observer))
    header.update(_present(images.attrs, _METHOD_KEYWORDS))
    header.update(_present({name: one[name].item() for name in _IMAGE_KEYWORDS if name in one}, _IMAGE_KEYWORDS))
    header.update(dict(extra or {}))
    for line in (*history, *(pointing.warnings if pointing else ())):
        header.add_history(line)
    return header


def write_map(
    path: str | Path,
    images: xr.Dataset,
    index: int = 0,
    *,
    variable: str = "image",
    pointing: Pointing | None = None,
    observer: Observer | None = None,
    extra: Mapping[str, Any] | None = None,
    history: Sequence[str] = (),
) -> Path:
    """Write one map as a FITS file with checksums; arguments as `map_header`. A file of that name is replaced whole.

    Raises
    ------
    UsageError
        If the stack has no such image or variable.
    """
    from astropy.io import fits

    if variable not in images.variables or not 0 <= index < images[variable].shape[0]:
        raise UsageError(
            f"no {variable!r} number {index}", expected="a map of the stack", advice="give another index or variable"
        )
    header = map_header(
        images, index, variable=variable, pointing=pointing, observer=observer, extra=extra, history=history
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    pixels = images[variable].to_numpy()[index].astype(np.float32)
    fits.PrimaryHDU(pixels, header).writeto(partial, overwrite=True, checksum=True)
    os.replace(partial, path)
    return path


def _coordinates(
    images: xr.Dataset, one: xr.Dataset, pointing: Pointing | None, observer: Observer | None
) -> dict[str, Any]:
    step_x, step_y = float(images.attrs["pixel_x_arcsec"]), float(images.attrs["pixel_y_arcsec"])
    center = float(one["center_x"]), float(one["center_y"])
    common: dict[str, Any] = {
        "CRPIX1": (one.sizes["x"] + 1) / 2,
        "CRPIX2": (one.sizes["y"] + 1) / 2,
        "CDELT1": step_x,
        "CDELT2": step_y,
        "CUNIT1": "arcsec",
        "CUNIT2": "arcsec",
    }
    if pointing is None or observer is None or pointing.source == "average":
        common |= _matrix(0.0, step_x, step_y)
        return common | {
            "CTYPE1": ("SXLN-TAN", "X of the STIX imaging frame"),
            "CTYPE2": ("SXLT-TAN", "Y of the STIX imaging frame"),
            "CRVAL1": center[0],
            "CRVAL2": center[1],
        }
    x, y = stix_to_hpc(center, pointing)
    common |= _matrix(90.0 + pointing.roll, step_x, step_y)
    return common | {
        "CTYPE1": "HPLN-TAN",
        "CTYPE2": "HPLT-TAN",
        "CRVAL1": (float(x), "middle of the map"),
        "CRVAL2": (float(y), "middle of the map"),
        "STX_ROLL": (pointing.roll, "[deg] roll of the spacecraft"),
        "STX_PX": (pointing.x, "[arcsec] pointing, X of the spacecraft frame"),
        "STX_PY": (pointing.y, "[arcsec] pointing, Y of the spacecraft frame"),
        "STX_PSRC": (pointing.source, "source of the pointing"),
        "DSUN_OBS": (observer.distance_m, "[m] distance of the spacecraft from the Sun"),
        "HGLN_OBS": (observer.hgln_deg, "[deg] Stonyhurst longitude"),
        "HGLT_OBS": (observer.hglt_deg, "[deg] Stonyhurst latitude"),
        "RSUN_REF": (_R_SUN_REF_M, "[m] radius of the Sun"),
        "RSUN_ARC": (observer.rsun_arcsec, "[arcsec] apparent radius of the Sun"),
        "RSUN_OBS": (observer.rsun_arcsec, "[arcsec] apparent radius of the Sun"),
    }


def _matrix(angle_deg: float, step_x: float, step_y: float) -> dict[str, float]:
    cos, sin = float(np.cos(np.deg2rad(angle_deg))), float(np.sin(np.deg2rad(angle_deg)))
    return {"PC1_1": cos, "PC1_2": -sin * step_y / step_x, "PC2_1": sin * step_x / step_y, "PC2_2": cos}


def _dates(one: xr.Dataset, observer: Observer | None) -> dict[str, Any]:
    if "time_start" not in one:
        return {}
    start = to_utc(one["time_start"].values)
    stop = to_utc(one["time_stop"].values)
    middle = start + (stop - start) // 2
    dates: dict[str, Any] = {
        "DATE-OBS": (iso(start), "start, UTC at the spacecraft"),
        "DATE-BEG": iso(start),
        "DATE-AVG": (iso(middle), "middle"),
        "DATE-END": iso(stop),
    }
    if observer is not None:
        delay = earth_delay(middle, observer.distance_m)
        at_earth = middle + np.timedelta64(round(delay * 1000), "ms")
        dates["EAR_TDEL"] = (delay, "[s] light reaches the Earth later by this")
        dates["DATE_EAR"] = (iso(at_earth), "middle, as seen from the Earth")
    return dates


def _present(values: Mapping[Any, Any], keywords: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Keyword cards of the values that there are; what is not a number is left out."""
    cards = {}
    for name, (keyword, comment) in keywords.items():
        value = values.get(name)
        if value is None or (isinstance(value, float) and not np.isfinite(value)):
            continue
        cards[keyword] = (value, comment)
    return cards
