"""One source, its maps, written to a folder: `stixflow image`, from an official pixel file or a flare of an archive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from stixflow.ephemeris import read_ancillary
from stixflow.errors import InputFileError, NotFound, UsageError
from stixflow.fits import read_level1
from stixflow.flares import BackgroundNeed, ImagingWindow, choose_background, imaging_window
from stixflow.imaging import SourceImages, image_flare, image_source, write_cube, write_map
from stixflow.imaging.earth_view import earth_view
from stixflow.imaging.metadata import source_rows
from stixflow.imaging.reconstruction import find_method
from stixflow.imaging.source import Selection
from stixflow.time import TimeRange, iso, to_utc

if TYPE_CHECKING:
    from stixflow.archive import Archive


@dataclass(frozen=True, slots=True)
class MapsWanted:
    """What to make: energies, methods, size, where to; and a `demand` (counts, snr or cadence) for a time series."""

    energy_ranges: tuple[tuple[float, float], ...]
    """keV; for a flare of an archive, none means those of its images."""
    methods: tuple[str, ...] = ("clean",)
    size: int = 129
    pixel: float = 2.0
    demand: Mapping[str, float] = field(default_factory=dict)
    realisations: int = 0
    """Maps of noise for the uncertainty of each map; 0 for none."""
    output: Path = Path()
    has_cubes: bool = False
    """Whether each method gets a cube of all its maps, too."""
    has_earth_views: bool = False
    """Whether each map is written as the Earth sees it, too."""


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    pixels: xr.Dataset
    background: xr.Dataset | None
    background_name: str
    background_reason: str
    ephemeris: xr.Dataset | None
    cards: Mapping[str, Any]
    """Further keywords of the maps."""

    @property
    def history(self) -> list[str]:
        return [f"background: {self.background_reason}"] if self.background_reason else []


def image_file(
    path: Path,
    wanted: MapsWanted,
    *,
    time_range: TimeRange,
    backgrounds: Sequence[Path] = (),
    ephemeris: Path | None = None,
) -> dict[str, Any]:
    """Locate the source in an official level-1 pixel file, write its maps, and return what was found as plain values.

    With several `backgrounds` the one of the best score is taken.

    Raises
    ------
    InputFileError
        If a file is not the product that is needed.
    ImagingError
        If no honest image can be made of the selection.
    """
    _check_methods(wanted)
    pixels = read_pixels(path)
    background, name, reason = choose_of_files(pixels, backgrounds, wanted.energy_ranges)
    files = {"FLNM_SCI": path.name, "FLNM_BKG": name, "FLNM_EPH": ephemeris.name if ephemeris else ""}
    cards = {keyword: file for keyword, file in files.items() if file}
    places = read_ancillary(ephemeris) if ephemeris else None
    inputs = _Inputs(pixels, background, name, reason, places, cards)
    return _image(inputs, wanted, [(time_range, band) for band in wanted.energy_ranges], time_range)


def image_archived(
    archive: Archive, flare_id: str, wanted: MapsWanted, *, time_range: TimeRange | None = None
) -> dict[str, Any]:
    """Image a flare of an archive with its request, background and ephemeris, as `image_file`; nothing is published.

    Without a time range and a demand every band is imaged around its peak, as in the images of the archive.

    Raises
    ------
    NotFound
        If the archive has no such flare, or no pixel data of it.
    """
    from stixflow.cubes.store import open_store
    from stixflow.jobs.image import open_box
    from stixflow.stages.images import ENERGY_RANGES, flare_job

    _check_methods(wanted)
    wanted = wanted if wanted.energy_ranges else replace(wanted, energy_ranges=ENERGY_RANGES)
    job = flare_job(archive, flare_id)
    pixels = open_box(job.pixels, job.peak)
    background = open_box(job.background) if job.background else None
    places = open_store(job.ephemeris).load() if job.ephemeris else None
    cards = {"FLARE_ID": flare_id, "BKG_REQ": job.background_id}
    inputs = _Inputs(pixels, background, job.background_id, job.background_reason, places, cards)
    within = time_range or TimeRange(job.start, job.stop)
    chosen: list[Selection] = [(within, band) for band in wanted.energy_ranges]
    skipped: list[tuple[Selection, str]] = []
    if not wanted.demand and time_range is None:
        row = {"start": job.start, "stop": job.stop}
        windows = [(band, imaging_window(pixels, row, band)) for band in wanted.energy_ranges]
        chosen = [(window.time_range, band) for band, window in windows if isinstance(window, ImagingWindow)]
        skipped = [((within, band), window.reason) for band, window in windows if not isinstance(window, ImagingWindow)]
        if not chosen:
            raise NotFound(
                f"flare {flare_id} has no window to image: {skipped[0][1]}",
                expected="enough counts in one of the energy ranges",
                advice="give other energies, a time range, or --counts-per-image",
            )
    return {"flare_id": flare_id} | _image(inputs, wanted, chosen, within, skipped)


def _check_methods(wanted: MapsWanted) -> None:
    for method in wanted.methods:
        find_method(method)


def _image(
    inputs: _Inputs,
    wanted: MapsWanted,
    selections: Sequence[Selection],
    within: TimeRange,
    skipped: Sequence[tuple[Selection, str]] = (),
) -> dict[str, Any]:
    source, left_out = _reconstruct(inputs, wanted, selections, within)
    images = [
        _write(source, number, index, inputs, wanted.output)
        for number, stack in enumerate(source.images)
        for index in range(stack.sizes["image"])
    ]
    cubes, no_cubes = _cubes(source, inputs, wanted.output) if wanted.has_cubes else ([], [])
    views, no_views = _earth_views(source, inputs, images) if wanted.has_earth_views else ([], [])
    first = images[0]
    remarks = [] if inputs.background is not None or not inputs.background_reason else [inputs.background_reason]
    return {
        "location": _location(source),
        "maps": [image["path"] for image in images],
        "counts": {
            "total": first["counts"],
            "net": first["net_counts"],
            "time_range": first["time_range"],
            "energy_keV": first["energy_keV"],
        },
        "pointing": source.pointing.source if source.pointing else None,
        "background": {"name": inputs.background_name or None, "reason": inputs.background_reason or None},
        "warnings": [*source.warnings, *remarks, *no_cubes, *no_views],
        "images": images,
        "cubes": cubes,
        "earth_views": views,
        "left_out": [
            {"time_range": str(when), "energy_keV": list(band), "reason": reason}
            for (when, band), reason in [*skipped, *left_out]
        ],
    }


def _reconstruct(
    inputs: _Inputs, wanted: MapsWanted, selections: Sequence[Selection], within: TimeRange
) -> tuple[SourceImages, Sequence[tuple[Selection, str]]]:
    """Return the images of a source and what of it could not be imaged, with why."""
    options: dict[str, Any] = {
        "background": inputs.background, "ephemeris": inputs.ephemeris, "methods": wanted.methods,
        "size": wanted.size, "pixel": wanted.pixel, "realisations": wanted.realisations,
    }  # fmt: skip
    if wanted.demand:
        options |= wanted.demand
        flare = image_flare(inputs.pixels, wanted.energy_ranges, within=within, **options)
        return flare.source, flare.left_out
    source = image_source(inputs.pixels, selections, **options)
    return source, source.dropped


def read_pixels(path: Path) -> xr.Dataset:
    """Read an official level-1 file of pixel data.

    Raises
    ------
    InputFileError
        If it is another product.
    """
    dataset = read_level1(path)
    if dataset.attrs["product"] not in ("sci_pixels", "sci_pixel_sums"):
        raise InputFileError(
            f"{path.name} is {dataset.attrs['product']}", expected="pixel data (xray-cpd)", advice="give another file"
        )
    return dataset


def choose_of_files(
    pixels: xr.Dataset, paths: Sequence[Path], bands: Iterable[tuple[float, float]]
) -> tuple[xr.Dataset | None, str, str]:
    """Choose the background of the best score, and return it with its name and the reason; one alone is not judged."""
    if not paths:
        return None, "", ""
    candidates = [read_pixels(path) for path in paths]
    if len(paths) == 1:
        return candidates[0], paths[0].name, "given"
    rows = pd.DataFrame([_candidate(number, one) for number, one in enumerate(candidates)])
    needs = [BackgroundNeed.of(pixels, band) for band in bands]
    need = BackgroundNeed(
        needs[0].time_range,
        min(one.channel_start for one in needs),
        max(one.channel_stop for one in needs),
        needs[0].request_id,
    )
    best = choose_background(need, rows).iloc[0]
    number = int(best["number"])
    if not best["usable"]:
        return None, "", f"no background: the best candidate {paths[number].name} {best['reasons']}"
    reason = f"score {best['score']:.2f}, {best['apart_days']:.1f} days away {best['reasons']}".strip()
    return candidates[number], paths[number].name, reason


def _candidate(number: int, pixels: xr.Dataset) -> dict[str, Any]:
    start, duration = pixels["time_start"].to_numpy(), pixels["timedel"].to_numpy()
    return {
        "number": number,
        "request_id": pixels.attrs["request_id"],
        "start": start[0],
        "stop": start[-1] + np.timedelta64(round(duration[-1] * 1e9), "ns"),
        "channel_start": int(pixels["channel_start"].min()),
        "channel_stop": int(pixels["channel_stop"].max()),
        "detector_mask": int(np.bitwise_and.reduce(pixels["detector_mask"].to_numpy())),
        "rcr_max": int(pixels["rcr"].max()),
        "duration_s": float(duration.sum()),
    }


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


def _write(source: SourceImages, number: int, index: int, inputs: _Inputs, output: Path) -> dict[str, Any]:
    """Write one map of the stack of a method, and return what it is."""
    stack, found = source.images[number], source.sources[number]
    one = stack.isel(image=index)
    begin, end = (to_utc(one[name].values) for name in ("time_start", "time_stop"))
    low, high = float(one["energy_low"]), float(one["energy_high"])
    name = f"stixflow_{_stamp(begin)}_{low:g}-{high:g}keV_{stack.attrs['method']}.fits"
    path = write_map(output / name, stack, index, extra=inputs.cards, history=inputs.history, sources=found)
    return {
        "path": str(path),
        "method": str(stack.attrs["method"]),
        "time_range": f"{begin}/{end}",
        "energy_keV": [low, high],
        "counts": float(one["counts"]),
        "net_counts": float(one["net_counts"]),
        "visibility_snr": float(one["visibility_snr"]),
        "sources": source_rows([item for item in found if item.image == index]),
    }


def _earth_views(
    source: SourceImages, inputs: _Inputs, images: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Write every map as the Earth sees it beside the map; the paths, and why there is none."""
    from astropy.io import fits

    paths, problems = [], []
    maps = ((stack, index) for stack in source.images for index in range(stack.sizes["image"]))
    for (stack, index), image in zip(maps, images, strict=True):
        path = Path(image["path"]).with_name(f"{Path(image['path']).stem}_earth.fits")
        try:
            data, header = earth_view(stack, index)
        except NotFound as error:
            problems.append(f"no view from the Earth: {error}")
            continue
        header.update(inputs.cards)
        fits.PrimaryHDU(data, header).writeto(path, overwrite=True, checksum=True)
        paths.append(str(path))
    return paths, list(dict.fromkeys(problems))


def _cubes(source: SourceImages, inputs: _Inputs, output: Path) -> tuple[list[str], list[str]]:
    """Write the maps of each method as a cube, or one for each energy range; the paths, and why there is none."""
    paths, problems = [], []
    for stack in source.images:
        stack = stack.isel(image=np.lexsort([stack["energy_low"].to_numpy(), stack["time_start"].to_numpy()]))
        try:
            paths.append(_write_cube(stack, inputs, output))
        except UsageError as error:
            several, why = _cubes_by_energy(stack, inputs, output)
            paths += several
            problems += [
                f"no cube of {stack.attrs['method']}: {reason}" for reason in (why if several else [str(error)])
            ]
    return paths, problems


def _cubes_by_energy(stack: xr.Dataset, inputs: _Inputs, output: Path) -> tuple[list[str], list[str]]:
    """One cube for each energy range, where not every time has every energy; the paths, and why there is none."""
    paths, problems = [], []
    for low in np.unique(stack["energy_low"].to_numpy()).tolist():
        one = stack.isel(image=np.flatnonzero(stack["energy_low"].to_numpy() == low))
        try:
            paths.append(_write_cube(one, inputs, output, f"_{low:g}-{float(one['energy_high'][0]):g}keV"))
        except UsageError as error:
            problems.append(f"from {low:g} keV: {error}")
    return paths, problems


def _write_cube(stack: xr.Dataset, inputs: _Inputs, output: Path, band: str = "") -> str:
    begin = _stamp(to_utc(stack["time_start"].to_numpy().min()))
    path = output / f"stixflow_{begin}{band}_{stack.attrs['method']}_cube.fits"
    return str(write_cube(path, stack, extra=inputs.cards, history=inputs.history))


def _stamp(time: np.datetime64) -> str:
    """Compact time for a file name: to the second, or to the millisecond where it has a fraction."""
    text = iso(time).removesuffix(".000")
    return text.replace("-", "").replace(":", "")


def demand_of(counts: float | None, snr: float | None, cadence: float | None) -> dict[str, float]:
    """Which demand is made of every map of a time series, if any.

    Raises
    ------
    UsageError
        If there is more than one.
    """
    made = {"counts": counts, "snr": snr, "cadence": cadence}
    chosen = {name: value for name, value in made.items() if value is not None}
    if len(chosen) > 1:
        raise UsageError(
            f"more than one demand: {', '.join(chosen)}",
            expected="one of --counts-per-image, --snr, --cadence",
            advice="choose one",
        )
    return chosen
