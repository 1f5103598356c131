"""The FITS header of a map: what it shows, when and where, and how it was made.

The array stays in the orientation of the STIX frame; the header turns it by 90° plus the roll of the spacecraft. Where
the pointing or the observer is unknown, the axes are those of the STIX frame and say so. Keywords of other
software that are not written are listed in docs/imaging.md, with what there is in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

import stixflow
from stixflow.ephemeris import Observer, Pointing, earth_delay, observer_keywords, stix_to_hpc
from stixflow.ephemeris.constants import LIGHT_SPEED_M_S, R_SUN_M
from stixflow.imaging.attitude import attitude_of
from stixflow.time import iso, to_utc

if TYPE_CHECKING:
    from astropy.io import fits

_METHOD_KEYWORDS = {
    "gain": ("CLN_GAIN", "part of the peak taken by one component"),
    "niter": ("CLN_NMAX", "most components"),
    "beam_fwhm": ("CLN_BEAM", "[arcsec] FWHM of the Gaussian beam"),
    "boxes": ("CLN_BOX", "[arcsec] boxes searched for components"),
    "weighting": ("WEIGHT", "weights of the visibilities"),
    "fraction": ("MEM_FRAC", "weight of the entropy"),
    "tolerance": ("TOLERANC", "tolerance of the stop rule"),
    "max_iterations": ("MAXITER", "most iterations"),
    "rule": ("FIT_RULE", "how the fitted sources were chosen"),
    "candidates": ("FIT_CAND", "kinds of sources to choose from"),
    "seed": ("SEED", "of starts and noise"),
    "precision": ("PRECISIO", "type computed in"),
    "rows": ("PIXROWS", "rows of pixels summed"),
    "elut": ("ELUTCORR", "correction to nominal energies"),
    "bins": ("BINRULE", "which bins make an interval"),
    "grids": ("GRIDMOD", "model of the grid transmission"),
    "amplitude": ("AMPLRULE", "amplitude calibration"),
    "subtract": ("BKGRULE", "how a background is subtracted"),
    "energy_shift_kev": ("ENSHIFT", "[keV] added to the nominal energies"),
    "systematic": ("SYSERR", "relative systematic error"),
    "request_id": ("REQ_ID", "request of the pixel data"),
    "bin_shift": ("BINSHIFT", "one-bin shift: none, corrected or possible"),
    "spice_mk": ("SPICE_MK", "SPICE meta kernel"),
}
IMAGE_KEYWORDS = {
    "energy_low": ("ENERGY_L", "[keV] lower edge of the energies"),
    "energy_high": ("ENERGY_H", "[keV] upper edge of the energies"),
    "counts": ("CNTS_TOT", "counts in the selection"),
    "background_counts": ("CNTS_BKG", "of these, background"),
    "live_time": ("LIVETIME", "[s] live time, mean of the detectors"),
    "exposure": ("XPOSURE", "[s] duration of the time bins"),
    "rcr": ("RCR", "rate control regime"),
    "total_flux": ("FLUX_TOT", "[ct / (s cm2 keV)] flux above the grids"),
    "iterations": ("NITER", "iterations, or components subtracted"),
    "converged": ("CONVERGD", "whether the method met its own stop rule"),
    "component_flux": ("CLN_FLUX", "flux in components"),
    "residual_rms": ("RES_RMS", "rms of the residual, unit of the visibilities"),
    "residual_max": ("RES_MAX", "highest residual, unit of the visibilities"),
    "flux": ("FLUX_MAP", "flux of the map, unit of the visibilities"),
    "model": ("FIT_KIND", "kinds of the fitted sources"),
    "freedom": ("FIT_DOF", "degrees of freedom of the fit"),
    "at_bound": ("FIT_BND", "whether a parameter lies at a bound"),
    "bic": ("FIT_BIC", "Bayesian information criterion"),
    "chi2": ("CHI2", "squared deviations over their errors"),
    "reduced_chi2": ("CHI2_RED", "the same per degree of freedom"),
    "cstat": ("CSTAT", "C-statistic of the column rates"),
    "duality_gap": ("DUAL_GAP", "most that the objective exceeds its least value"),
    "regularisation": ("MEM_LAMB", "lambda of the entropy"),
    "log_evidence": ("LOG_EVID", "log of the evidence"),
    "visibility_snr": ("VIS_SNR", "median of |V| over its error; 1.2 is noise"),
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
        At the time of the map, from `stixflow.ephemeris`, for a stack that does not carry its own as that of
        `image_source` does. Without either, or with a pointing that is only the average of the mission, the axes are
        those of the STIX frame.
    extra
        More keywords, written last.
    history
        Lines on how the map was made.
    """
    from astropy.io import fits

    pointing, observer = attitude_of(images, index, pointing, observer)
    header = fits.Header()
    header.update(header_cards(images, index, variable, pointing, observer, extra))
    for line in history_lines(history, pointing):
        header.add_history(line)
    return header


def header_cards(
    images: xr.Dataset,
    index: int,
    variable: str,
    pointing: Pointing | None,
    observer: Observer | None,
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Cards of the header of one map, values or pairs of a value and a comment, in their order."""
    one = {name: part.values[index] for name, part in images.variables.items() if part.dims == ("image",)}
    cards: dict[str, Any] = {
        "EXTNAME": "STIX MAP",
        "TIMESYS": "UTC",
        "ORIGIN": ("stixflow", "software that made this file"),
        "CREATOR": (f"stixflow {stixflow.__version__}", "with its version"),
        "LEVEL": "L3",
        "OBS_TYPE": "STIX-map",
        "TARGET": "Sun",
        "OBSRVTRY": "Solar Orbiter",
        "TELESCOP": "SOLO/STIX",
        "INSTRUME": "STIX",
        "BUNIT": images.variables[variable].attrs["units"],
        "ALG_USED": (str(images.attrs["method"]).upper(), "imaging algorithm"),
        "STX_X": (float(one["center_x"]), "[arcsec] middle of the map in the STIX frame"),
        "STX_Y": (float(one["center_y"]), "[arcsec] middle of the map in the STIX frame"),
    }
    cards |= _coordinates(images, one, pointing, observer)
    cards |= _dates(one, observer)
    cards |= _present(images.attrs, _METHOD_KEYWORDS)
    cards |= _present({name: one[name].item() for name in IMAGE_KEYWORDS if name in one}, IMAGE_KEYWORDS)
    return cards | dict(extra or {})


def history_lines(history: Sequence[str], pointing: Pointing | None) -> list[str]:
    """Lines of history, those of the caller and the warnings of the pointing."""
    return [*history, *(pointing.warnings if pointing else ())]


def _coordinates(
    images: xr.Dataset, one: Mapping[Any, Any], pointing: Pointing | None, observer: Observer | None
) -> dict[str, Any]:
    step_x, step_y = float(images.attrs["pixel_x_arcsec"]), float(images.attrs["pixel_y_arcsec"])
    center = float(one["center_x"]), float(one["center_y"])
    common: dict[str, Any] = {
        "CRPIX1": (images.sizes["x"] + 1) / 2,
        "CRPIX2": (images.sizes["y"] + 1) / 2,
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
        "RSUN_REF": (R_SUN_M, "[m] radius of the Sun"),
        "RSUN_ARC": (observer.rsun_arcsec, "[arcsec] apparent radius of the Sun"),
        "RSUN_OBS": (observer.rsun_arcsec, "[arcsec] apparent radius of the Sun"),
        **(observer_keywords(observer, _middle(one)) if "time_start" in one else {}),
    }


def _middle(one: Mapping[Any, Any]) -> str:
    start, stop = to_utc(one["time_start"]), to_utc(one["time_stop"])
    return iso(start + (stop - start) // 2)


def _matrix(angle_deg: float, step_x: float, step_y: float) -> dict[str, float]:
    cos, sin = float(np.cos(np.deg2rad(angle_deg))), float(np.sin(np.deg2rad(angle_deg)))
    return {"PC1_1": cos, "PC1_2": -sin * step_y / step_x, "PC2_1": sin * step_x / step_y, "PC2_2": cos}


def _dates(one: Mapping[Any, Any], observer: Observer | None) -> dict[str, Any]:
    if "time_start" not in one:
        return {}
    start = to_utc(one["time_start"])
    stop = to_utc(one["time_stop"])
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
        left = middle - np.timedelta64(round(observer.distance_m / LIGHT_SPEED_M_S * 1000), "ms")
        dates["DATE_SUN"] = (iso(left), "middle, when the light left the Sun")
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
