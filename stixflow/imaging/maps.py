"""Maps as FITS files with a full world coordinate system that sunpy and every other reader understand.

The maps are the array of the file, see `stixflow.imaging.header` for what it says about them, and
`stixflow.imaging.map_tables` for the tables beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.ephemeris import Observer, Pointing
from stixflow.errors import UsageError
from stixflow.fits.hdus import image_hdu, write_hdus
from stixflow.imaging.attitude import attitude_of, centers_on_sky
from stixflow.imaging.header import IMAGE_KEYWORDS, header_cards, history_lines
from stixflow.imaging.map_tables import axis_hdu, interval_hdu, source_hdu
from stixflow.imaging.metadata import Source
from stixflow.time import iso

_SAME_ARCSEC = 0.01
_SAME_ROLL_DEG = 0.1
"""How far the spacecraft may roll during a cube: a quarter of an arcsec at 150 arcsec from the middle."""


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
    return _write(Path(path), [data])


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
    tables = [source_hdu(mine)] if (mine := [source for source in sources if source.image == index]) else []
    cards = header_cards(images, index, variable, pointing, observer, extra)
    return b"".join((_image_hdus(maps, cards, history_lines(history, pointing), last=not tables), *tables))


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
    own = {name for name, _ in IMAGE_KEYWORDS.values()}
    cards = header_cards(images, 0, variable, pointing, observer, extra)
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
        _image_hdus(maps, header, history_lines(history, pointing), last=False),
        axis_hdu(tables),
        interval_hdu(images),
        *([source_hdu(sources)] if sources else []),
    ]
    return _write(Path(path), hdus)


def _write(path: Path, hdus: Sequence[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_hdus(path, hdus)
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
