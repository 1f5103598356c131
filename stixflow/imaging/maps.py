"""Maps as FITS files with a full world coordinate system that sunpy and every other reader understand.

The array stays in the orientation of the STIX frame; the header turns it by 90° plus the roll of the spacecraft. Where
the pointing or the observer is unknown, the axes are those of the STIX frame and say so. Keywords of other
software that are not written are listed in docs/imaging.md, with what there is in their place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import stixflow
from stixflow.ephemeris import Observer, Pointing, earth_delay, observer_keywords, stix_to_hpc
from stixflow.errors import UsageError
from stixflow.imaging.attitude import attitude_of, centers_on_sky
from stixflow.imaging.fits_bytes import Column, image_hdu, table_hdu
from stixflow.imaging.grids import FloatArray
from stixflow.imaging.metadata import Source
from stixflow.time import iso, to_utc

if TYPE_CHECKING:
    from astropy.io import fits

_R_SUN_REF_M = 695_700_000.0
_LIGHT_SPEED_M_S = 299_792_458.0
_SAME_ARCSEC = 0.01
_SAME_ROLL_DEG = 0.1
"""How far the spacecraft may roll during a cube: a quarter of an arcsec at 150 arcsec from the middle."""
_INTERVAL_COLUMNS = (
    "energy_low", "energy_high", "counts", "background_counts", "live_time", "exposure", "total_flux", "center_x",
    "center_y", "pointing_x", "pointing_y", "roll",
)  # fmt: skip
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
_IMAGE_KEYWORDS = {
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
    header.update(_cards(images, index, variable, pointing, observer, extra))
    for line in _history(history, pointing):
        header.add_history(line)
    return header


def _cards(
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
    cards |= _present({name: one[name].item() for name in _IMAGE_KEYWORDS if name in one}, _IMAGE_KEYWORDS)
    return cards | dict(extra or {})


def _history(history: Sequence[str], pointing: Pointing | None) -> list[str]:
    return [*history, *(pointing.warnings if pointing else ())]


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
    sources: Sequence[Source] = (),
) -> Path:
    """Write one map as a FITS file with checksums; arguments as `map_header`. A file of that name is replaced whole.

    The map is the primary array. A stack with an `uncertainty` gives an image extension UNCERTAINTY; `sources` (of the
    stack or of this map, from `find_sources`) a table SOURCES.

    Raises
    ------
    UsageError
        If the stack has no such image or variable.
    """
    data = map_bytes(
        images, index, variable=variable, pointing=pointing, observer=observer, extra=extra, history=history,
        sources=sources,
    )  # fmt: skip
    return _replace_file(Path(path), data)


def map_bytes(
    images: xr.Dataset,
    index: int = 0,
    *,
    variable: str = "image",
    pointing: Pointing | None = None,
    observer: Observer | None = None,
    extra: Mapping[str, Any] | None = None,
    history: Sequence[str] = (),
    sources: Sequence[Source] = (),
) -> bytes:
    """Content of the file that `write_map` writes; the same map gives the same bytes.

    Raises
    ------
    UsageError
        If the stack has no such image or variable.
    """
    if variable not in images.variables or not 0 <= index < images[variable].shape[0]:
        raise UsageError(
            f"no {variable!r} number {index}", expected="a map of the stack", advice="give another index or variable"
        )
    pointing, observer = attitude_of(images, index, pointing, observer)
    maps = {variable: images.variables[variable].values[index]}
    if variable == "image" and "uncertainty" in images:
        maps["uncertainty"] = images.variables["uncertainty"].values[index]
    tables = [_source_hdu(mine)] if (mine := [source for source in sources if source.image == index]) else []
    cards = _cards(images, index, variable, pointing, observer, extra)
    return b"".join((_image_hdus(maps, cards, _history(history, pointing), last=not tables), *tables))


def _image_hdus(
    maps: Mapping[str, NDArray[Any]], cards: Mapping[str, Any], history: Sequence[str], *, last: bool
) -> bytes:
    """The primary array, and its uncertainty as an extension if there is one."""
    (main, *others) = maps.items()
    hdus = [image_hdu(main[1].astype(np.float32), cards, history, is_primary=True, last=last and not others)]
    for name, values in others:
        own = {
            **cards,
            "EXTNAME": name.upper(),
            "OBS_TYPE": ("STIX-map-sigma", "standard error of the primary array"),
        }
        hdus.append(image_hdu(values.astype(np.float32), own, history, is_primary=False, last=last))
    return b"".join(hdus)


def write_cube(
    path: str | Path,
    images: xr.Dataset,
    *,
    variable: str = "image",
    pointing: Pointing | None = None,
    observer: Observer | None = None,
    extra: Mapping[str, Any] | None = None,
    history: Sequence[str] = (),
    sources: Sequence[Source] = (),
) -> Path:
    """Write a stack of every time with every energy as one FITS cube (x, y, energy, time in the order of FITS).

    The third and fourth axis are tabular (-TAB) coordinates: the middle energy in keV, and the middle time in seconds
    from MJDREF. The table INTERVALS lists limits, counts and live time of every map; arguments as `write_map`.

    Raises
    ------
    UsageError
        If the maps have different centres, or are not every time with every energy.
    """
    n_times, n_energies = _cube_shape(images)
    pointing, observer = attitude_of(images, 0, pointing, observer)
    own = {name for name, _ in _IMAGE_KEYWORDS.values()}
    cards = _cards(images, 0, variable, pointing, observer, extra)
    header = {keyword: value for keyword, value in cards.items() if keyword not in own} | {"EXTNAME": "STIX CUBE"}
    start, stop = (images[name].to_numpy().astype("datetime64[ns]") for name in ("time_start", "time_stop"))
    header["DATE-END"] = iso(stop.max())
    low, high = images["energy_low"].to_numpy(), images["energy_high"].to_numpy()
    header["ENERGY_L"], header["ENERGY_H"] = float(low.min()), float(high.max())
    reference = start.min()
    middle = ((start - reference) + (stop - start) / 2) / np.timedelta64(1, "s")
    header.update(_tabular_axis(3, "ENER-TAB", "keV", "ENERGY"))
    header.update(_tabular_axis(4, "TIME-TAB", "s", "TIME"))
    header["DATEREF"] = (iso(reference), "zero of the time axis, UTC")
    tables = {"ENERGY": ((low + high) / 2)[:n_energies], "TIME": middle[::n_energies]}
    cube = images[variable].to_numpy().astype(np.float32).reshape(n_times, n_energies, *images[variable].shape[1:])
    maps = {variable: cube}
    if variable == "image" and "uncertainty" in images:
        maps["uncertainty"] = images["uncertainty"].to_numpy().reshape(cube.shape)
    hdus = [
        _image_hdus(maps, header, _history(history, pointing), last=False),
        _axis_hdu(tables),
        _interval_hdu(images),
        *([_source_hdu(sources)] if sources else []),
    ]
    return _replace_file(Path(path), b"".join(hdus))


def _replace_file(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)
    return path


def _cube_shape(images: xr.Dataset) -> tuple[int, int]:
    """Times and energies of a stack that has every time with every energy, the time slowest."""
    keys = ("time_start", "time_stop", "energy_low", "energy_high")
    problem = "it does not say its times and energies" if not all(key in images for key in keys) else ""
    if not problem:
        when = np.stack([images[key].to_numpy().astype("datetime64[ns]").astype(np.int64) for key in keys[:2]], axis=1)
        energies = np.stack([images[key].to_numpy() for key in keys[2:]], axis=1)
        n_energies = len(np.unique(energies, axis=0))
        n_times, rest = divmod(len(when), n_energies)
        if rest or (when.reshape(n_times, n_energies, 2) != when[::n_energies][:, None]).any():
            problem = "its maps are not every time with every energy"
        elif (energies.reshape(n_times, n_energies, 2) != energies[:n_energies]).any():
            problem = "its energies are not in the same order at every time"
        elif np.ptp(centers_on_sky(images), axis=0).max() > _SAME_ARCSEC:
            problem = "its maps have different centres"
        elif "roll" in images and np.ptp(np.unwrap(images["roll"].to_numpy(), period=360.0)) > _SAME_ROLL_DEG:
            problem = "the spacecraft rolled"
    if problem:
        raise UsageError(
            f"the stack is no cube: {problem}",
            expected="maps of every time with every energy (time slowest), with one centre",
            advice="write single maps with write_map",
        )
    return n_times, n_energies


def _tabular_axis(axis: int, kind: str, unit: str, column: str) -> dict[str, Any]:
    return {
        f"CTYPE{axis}": kind,
        f"CUNIT{axis}": unit,
        f"CRPIX{axis}": 1.0,
        f"CDELT{axis}": 1.0,
        f"CRVAL{axis}": 1.0,
        f"PC{axis}_{axis}": 1.0,
        f"PS{axis}_0": ("AXES", "extension of the coordinates"),
        f"PS{axis}_1": (column, "column of the coordinates"),
        f"PV{axis}_1": 1,
        f"PV{axis}_2": 1,
        f"PV{axis}_3": 1,
    }


def _axis_hdu(tables: Mapping[str, FloatArray]) -> bytes:
    units = {"ENERGY": "keV", "TIME": "s"}
    columns = [
        Column(name, values.reshape(1, -1), units[name], dim=f"(1,{values.size})") for name, values in tables.items()
    ]
    return table_hdu("AXES", columns, EXTVER=(1, "extension value"))


def _interval_hdu(images: xr.Dataset) -> bytes:
    columns = [
        Column(name.upper(), np.array([iso(time) for time in images[name].to_numpy()]))
        for name in ("time_start", "time_stop")
    ]
    columns += [
        Column(name.upper(), images[name].to_numpy().astype(np.float64), images[name].attrs.get("units"))
        for name in _INTERVAL_COLUMNS
        if name in images
    ]
    return table_hdu("INTERVALS", columns)


def _source_hdu(sources: Sequence[Source]) -> bytes:
    """Table of sources; positions of the STIX frame, of the sky and of the Sun, NaN where not known."""

    def values(name: str, kind: type) -> NDArray[Any]:
        return np.array([getattr(source, name) for source in sources], dtype=kind)

    def pairs(name: str) -> FloatArray:
        return np.array([getattr(source, name) or (np.nan, np.nan) for source in sources], dtype=np.float64)

    columns = [
        Column(keyword, values(name, kind), unit)
        for keyword, kind, unit, name in (
            ("IMAGE", np.int32, None, "image"), ("NUMBER", np.int32, None, "number"),
            ("PEAK", np.float64, None, "peak"), ("SNR", np.float64, None, "snr"), ("X", np.float64, "arcsec", "x"),
            ("Y", np.float64, "arcsec", "y"), ("SIGMA", np.float64, "arcsec", "sigma"),
            ("XCENTRE", np.float64, "arcsec", "centroid_x"), ("YCENTRE", np.float64, "arcsec", "centroid_y"),
            ("AREA", np.float64, "arcsec2", "area"), ("FLUX", np.float64, None, "flux"),
            ("PEAKS", np.int32, None, "peaks"), ("CUT", np.bool_, None, "is_cut"),
        )
    ]  # fmt: skip
    columns += [
        Column(keyword, pairs(name), unit)
        for keyword, unit, name in (
            ("HPC", "arcsec", "hpc"), ("HPC_SIG", "arcsec", "hpc_sigma"), ("HGS", "deg", "hgs"),
            ("HGS_SIG", "deg", "hgs_sigma"),
        )
    ]  # fmt: skip
    columns.append(Column("CONTOUR", [source.contour.ravel().astype(np.float32) for source in sources], "arcsec"))
    return table_hdu("SOURCES", columns)


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
        "RSUN_REF": (_R_SUN_REF_M, "[m] radius of the Sun"),
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
        left = middle - np.timedelta64(round(observer.distance_m / _LIGHT_SPEED_M_S * 1000), "ms")
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
