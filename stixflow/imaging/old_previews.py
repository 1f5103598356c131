"""Maps that the data centre published in 2021 and 2022, with headers that today's readers take.

Their axes are called ``solar_x`` in ``arcsecs``, the roll is in ``CROTA``, the date may be that of the processing, and
the observer is missing, so that readers refuse them or place the observer at the Earth. The position of the Sun in
the spacecraft frame has had both signs over time: absolute positions are good to about an arcmin.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.ephemeris import R_SUN_M, Observer, apparent_radius, observer
from stixflow.errors import InputFileError, MissingFile, UsageError
from stixflow.time import iso, to_utc

if TYPE_CHECKING:
    from astropy.io import fits

_ALGORITHMS = {"BPROJ": "BP", "CLEAN": "CLEAN", "EM": "EM", "VIS_PSO": "FORWARD_FIT", "VIS_FWDFIT": "FORWARD_FIT"}
_ORIGIN = re.compile(r"^STIX (?P<algorithm>\w+) (?P<low>[\d.]+)-(?P<high>[\d.]+) keV")
_NAME_TIMES = (
    re.compile(r"_(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+)_"),
    re.compile(r"_(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)_"),
)
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_REMARK = "position on the Sun good to about 1 arcmin: the pointing was applied with either sign"


def read_old_preview(
    path: str | Path, *, ephemeris: xr.Dataset | None = None, part: int = 0
) -> tuple[NDArray[np.float32], fits.Header]:
    """Read one of the data centre's old preview maps and repair its header.

    Parameters
    ----------
    path
        FITS file such as ``stix_ql_image_sci_5316_uid_2111010024_..._bp_map.fits`` or ``sci_9111_uid_..._bp.fits``.
    ephemeris
        Dataset of the product `ephemeris` for the place of the spacecraft. Without one it is that of the file (HGLN_OBS
        and its companions, or the older L0, B0 and RSUN); a file without either claims no observer.
    part
        Which image of the file; CLEAN maps have several.

    Returns
    -------
    Image (y, x) and header, for ``sunpy.map.Map(data, header)``.

    Raises
    ------
    MissingFile, InputFileError
        If the file is not there, or is no such map.
    UsageError
        If the file has fewer images.
    """
    path = Path(path)
    data, old = _read(path, part)
    found = _ORIGIN.match(str(old.get("ORIGIN", "")).strip())
    if found is None or data.ndim != 2 or not str(old.get("CTYPE1", "")).lower().startswith("solar_x"):
        raise InputFileError(
            f"{path.name} is no preview map of the data centre (ORIGIN {old.get('ORIGIN')!r})",
            expected="a map whose header says STIX, the algorithm, and solar_x",
            advice="newer maps need no repair: open them with sunpy",
        )
    return data, _repaired(path, data, old, found, ephemeris)


def _read(path: Path, part: int) -> tuple[NDArray[np.float32], fits.Header]:
    from astropy.io import fits

    if not path.is_file():
        raise MissingFile(f"there is no file {path}", expected="a FITS map", advice="correct the path")
    try:
        with fits.open(path, memmap=False) as file:
            images = [hdu for hdu in file if getattr(hdu, "is_image", False) and hdu.header.get("NAXIS", 0) > 0]
            if not 0 <= part < len(images):
                raise UsageError(f"{path.name} has no image number {part}", expected=f"0 to {len(images) - 1}")
            header = fits.Header(file[0].header, copy=True)
            header.update(images[part].header)
            return np.asarray(images[part].data, dtype=np.float32), header
    except OSError as error:
        raise InputFileError(f"{path.name} is not FITS", expected="a FITS map", advice=str(error)) from error


def _repaired(
    path: Path, data: NDArray[np.float32], old: fits.Header, origin: re.Match[str], ephemeris: xr.Dataset | None
) -> fits.Header:
    from astropy.io import fits

    start, seconds = _start(path, old), float(old.get("EXPTIME", 0.0))
    header = fits.Header()
    header["OBSRVTRY"], header["TELESCOP"], header["INSTRUME"] = "Solar Orbiter", "SOLO/STIX", "STIX"
    header["TIMESYS"] = "UTC"
    header["ALG_USED"] = _ALGORITHMS.get(origin["algorithm"], origin["algorithm"])
    header["ENERGY_L"] = (float(origin["low"]), "[keV] lower edge of the energies")
    header["ENERGY_H"] = (float(origin["high"]), "[keV] upper edge of the energies")
    header["FILENAME"] = path.name
    _write_axes(header, data, old)
    middle = start + np.timedelta64(round(seconds * 5e8), "ns")
    header["DATE-OBS"] = header["DATE-BEG"] = iso(start)
    if seconds > 0:
        header["DATE-AVG"], header["DATE-END"] = iso(middle), iso(start + (middle - start) * 2)
        header["XPOSURE"] = (seconds, "[s] duration")
    place, source = (observer(ephemeris, middle), "ephemeris") if ephemeris is not None else _observer(old)
    if place is not None:
        header["HGLN_OBS"] = (place.hgln_deg, "[deg] Stonyhurst longitude")
        header["HGLT_OBS"] = (place.hglt_deg, "[deg] Stonyhurst latitude")
        header["DSUN_OBS"] = (place.distance_m, "[m] distance of the spacecraft from the Sun")
        header["RSUN_OBS"] = (place.rsun_arcsec, "[arcsec] apparent radius of the Sun")
        header["RSUN_REF"] = (R_SUN_M, "[m] radius of the Sun")
    for line in (f"header of {path.name} repaired by stixflow", f"observer: {source}", _REMARK):
        header.add_history(line)
    return header


def _write_axes(header: fits.Header, data: NDArray[np.float32], old: fits.Header) -> None:
    step_x, step_y = float(old["CDELT1"]), float(old["CDELT2"])
    angle = np.deg2rad(float(old.get("CROTA2", old.get("CROTA1", 0.0))))
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    header["CTYPE1"], header["CTYPE2"] = "HPLN-TAN", "HPLT-TAN"
    header["CUNIT1"] = header["CUNIT2"] = "arcsec"
    for axis, step in ((1, step_x), (2, step_y)):
        header[f"CRPIX{axis}"], header[f"CDELT{axis}"] = float(old[f"CRPIX{axis}"]), step
        header[f"CRVAL{axis}"] = float(old.get(f"CRVAL{axis}", 0.0))
    header["PC1_1"], header["PC1_2"] = cos, -sin * step_y / step_x
    header["PC2_1"], header["PC2_2"] = sin * step_x / step_y, cos
    header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, data.shape[1], data.shape[0]


def _start(path: Path, old: fits.Header) -> np.datetime64:
    """Start of the observation: that in the name of the file, which the date of the header may refine but not move."""
    written = _date(str(old.get("DATE-OBS", old.get("DATE_OBS", ""))))
    for pattern in _NAME_TIMES:
        found = pattern.search(path.name)
        if found:
            parts = found.groups()
            named = to_utc(parts[0] if len(parts) == 1 else "{}-{}-{}T{}:{}:{}".format(*parts))
            return written if written is not None and abs(written - named) < np.timedelta64(1, "s") else named
    if written is None:
        raise InputFileError(f"{path.name} has no date", expected="one in its name or header", advice="keep its name")
    return written


def _date(text: str) -> np.datetime64 | None:
    """Date as ISO 8601, or as IDL writes it (22-Apr-2022 09:17:15.00)."""
    found = re.match(r"^(\d{1,2})-([A-Z][a-z]{2})-(\d{4}) (\S+)$", text.strip())
    if found and found[2] in _MONTHS:
        text = f"{found[3]}-{_MONTHS.index(found[2]) + 1:02d}-{int(found[1]):02d}T{found[4]}"
    try:
        return to_utc(text)
    except UsageError:
        return None


def _observer(old: fits.Header) -> tuple[Observer | None, str]:
    if all(name in old for name in ("HGLN_OBS", "HGLT_OBS", "DSUN_OBS")):
        distance = float(old["DSUN_OBS"])
        place = float(old["HGLN_OBS"]), float(old["HGLT_OBS"])
        return Observer(
            distance, *place, float(apparent_radius(distance))
        ), "HGLN_OBS, HGLT_OBS and DSUN_OBS of the file"
    if all(name in old for name in ("L0", "B0", "RSUN")):
        radius = float(old["RSUN"])
        distance = R_SUN_M / float(np.sin(np.deg2rad(radius / 3600.0)))
        return Observer(
            distance, float(old["L0"]), float(old["B0"]), radius
        ), "L0 (Stonyhurst), B0 and RSUN of the file"
    return None, "not known; readers may assume the Earth, which is wrong"
