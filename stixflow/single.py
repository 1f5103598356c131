"""One official pixel file, one source, its maps: `stixflow image`, without any archive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from stixflow.ephemeris import read_ancillary
from stixflow.errors import InputFileError
from stixflow.fits import read_level1
from stixflow.imaging import SourceImages, image_source, write_map
from stixflow.time import TimeRange


def image_file(
    path: Path,
    *,
    time_range: TimeRange,
    energy_range: tuple[float, float],
    background: Path | None = None,
    ephemeris: Path | None = None,
    methods: Sequence[str] = ("clean",),
    size: int = 129,
    pixel: float = 2.0,
    output: Path = Path(),
) -> dict[str, Any]:
    """Locate the source in an official level-1 pixel file, write its maps, and return what was found as plain values.

    Raises
    ------
    InputFileError
        If a file is not the product that is needed.
    ImagingError
        If no honest image can be made of the selection.
    """
    source = image_source(
        _pixels(path),
        [(time_range, energy_range)],
        background=_pixels(background) if background else None,
        ephemeris=read_ancillary(ephemeris) if ephemeris else None,
        methods=methods,
        size=size,
        pixel=pixel,
    )
    return {
        "location": _location(source),
        "maps": [str(_write(source, stack, path, background, ephemeris, output)) for stack in source.images],
        "counts": _counts(source.images[0]),
        "pointing": source.pointing.source if source.pointing else None,
        "warnings": list(source.warnings),
    }


def _pixels(path: Path) -> xr.Dataset:
    dataset = read_level1(path)
    if dataset.attrs["product"] != "sci_pixels":
        raise InputFileError(
            f"{path.name} is {dataset.attrs['product']}", expected="pixel data (xray-cpd)", advice="give another file"
        )
    return dataset


def _location(source: SourceImages) -> dict[str, Any]:
    location = source.location
    sigma = source.hpc_sigma or (location.sigma_x, location.sigma_y)
    return {
        "stix_arcsec": [location.x, location.y],
        "hpc_arcsec": None if source.hpc is None else list(source.hpc),
        "sigma_arcsec": list(sigma),
        "sidelobe_ratio": location.sidelobe_ratio,
        "ambiguous": location.ambiguous,
    }


def _counts(stack: xr.Dataset) -> dict[str, Any]:
    one = stack.isel(image=0)
    return {
        "total": float(one["counts"]),
        "net": float(one["net_counts"]),
        "time_range": f"{one['time_start'].values}/{one['time_stop'].values}",
        "energy_keV": [float(one["energy_low"]), float(one["energy_high"])],
    }


def _write(
    source: SourceImages, stack: xr.Dataset, path: Path, background: Path | None, ephemeris: Path | None, output: Path
) -> Path:
    one = stack.isel(image=0)
    start = str(one["time_start"].values.astype("datetime64[s]")).replace("-", "").replace(":", "")
    low, high = float(one["energy_low"]), float(one["energy_high"])
    name = f"stixflow_{start}_{low:g}-{high:g}keV_{stack.attrs['method']}.fits"
    files = {"FLNM_SCI": path, "FLNM_BKG": background, "FLNM_EPH": ephemeris}
    extra = {keyword: file.name for keyword, file in files.items() if file}
    return write_map(output / name, stack, pointing=source.pointing, observer=source.observer, extra=extra)
