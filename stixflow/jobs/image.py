"""One flare to its position and its maps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stixflow.archive.layout import check_path
from stixflow.cubes.files import open_files
from stixflow.cubes.store import count_boxes, open_store
from stixflow.errors import StixflowError
from stixflow.time import TimeRange

if TYPE_CHECKING:
    import xarray as xr

    from stixflow.flares import ImagingWindow
    from stixflow.imaging import Source, SourceImages
    from stixflow.imaging.reconstruction import Method
    from stixflow.imaging.source import LocatedSource


Value = TypeVar("Value")

_KEPT = "energy_low", "energy_high", "time_start", "time_stop", "counts", "net_counts", "total_flux"


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One flare to be imaged from one pixel request."""

    flare_id: str
    start: np.datetime64
    peak: np.datetime64
    stop: np.datetime64
    pixels: str
    """URL of the store of the request."""
    boxes: int
    background: str | None
    background_id: str
    background_reason: str
    ephemeris: str | None
    root: str
    run_id: str
    energy_ranges: tuple[tuple[float, float], ...]
    methods: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    """What the maps are made of, by content: the same inputs give the same file, whichever run makes it."""


@dataclass(frozen=True, slots=True)
class Imaged:
    """What was made of one flare: rows for the catalog, the position, and why a band has no image."""

    images: tuple[Mapping[str, Any], ...]
    location: Mapping[str, Any]
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotImaged:
    """One flare of several that could not be imaged: the class of the error and what it says."""

    kind: str
    error: str


@dataclass(frozen=True, slots=True)
class _Located:
    """A flare that is located: its source and its rows for the catalog."""

    source: LocatedSource | None
    row: Mapping[str, Any]
    skipped: Mapping[str, str]


def image(job: ImageJob) -> Imaged:
    """Locate one flare and write its maps as FITS files below the root."""
    from stixflow.imaging.source import image_located

    located = _locate(job)
    if located.source is None:
        return Imaged((), {}, located.skipped)
    (source,) = image_located([located.source], methods=_parameters(job.methods))
    return _write(job, located, source)


def image_together(jobs: Sequence[ImageJob]) -> tuple[Imaged | NotImaged, ...]:
    """Image flares as `image` does each, but reconstruct the maps of all as one stack: half the work for each flare.

    A flare that cannot be imaged is told, and does not keep the others from it. All flares need the same methods.
    """
    from stixflow.imaging.source import image_located

    located = [_attempt(_locate, job) for job in jobs]
    todo = {i: one.source for i, one in enumerate(located) if isinstance(one, _Located) and one.source is not None}
    try:
        made = image_located(list(todo.values()), methods=_parameters(jobs[0].methods))
    except StixflowError:
        return tuple(_attempt(image, job) for job in jobs)
    sources = dict(zip(todo, made, strict=True))
    return tuple(
        one if isinstance(one, NotImaged)
        else _attempt(_write, job, one, sources[i]) if i in sources
        else Imaged((), {}, one.skipped)
        for i, (job, one) in enumerate(zip(jobs, located, strict=True))
    )  # fmt: skip


def _attempt(function: Callable[..., Value], *arguments: Any) -> Value | NotImaged:
    try:
        return function(*arguments)
    except Exception as error:  # one flare of several: the others go on
        return NotImaged(type(error).__name__, str(error))


def _parameters(methods: Sequence[str]) -> list[str | Method]:
    """Methods as they are run here: EM in the precision of the files, which halves its time."""
    from stixflow.imaging import EM

    return [EM(precision="float32") if method == "em" else method for method in methods]


def _locate(job: ImageJob) -> _Located:
    from stixflow.flares import ImagingWindow
    from stixflow.imaging.source import locate_source

    pixels = open_box(job.pixels, job.peak)
    background = open_box(job.background) if job.background else None
    windows = {energies: _window(pixels, job, energies) for energies in job.energy_ranges}
    chosen = [window for window in windows.values() if isinstance(window, ImagingWindow)]
    skipped = {_band(energies): window for energies, window in windows.items() if isinstance(window, str)}
    if not chosen:
        return _Located(None, {}, skipped)
    source = locate_source(
        pixels,
        [(window.time_range, window.energy_range) for window in chosen],
        background=background,
        ephemeris=open_store(job.ephemeris).load() if job.ephemeris else None,
    )
    window = chosen[0].time_range
    location = _location_row(job, source) | _sun_row(source, window) | _cfl_row(pixels, background, source, window)
    return _Located(source, location, skipped | {_band(energies): why for (_, energies), why in source.dropped})


def _write(job: ImageJob, located: _Located, source: SourceImages) -> Imaged:
    """Write all maps of a flare at once."""
    files: dict[str, bytes] = {}
    rows = [
        _image_row(job, stack, found, index, located.row, files)
        for stack, found in zip(source.images, source.sources, strict=True)
        for index in range(stack.sizes["image"])
    ]
    open_files(job.root).write(files)
    astray = [text for stack in source.images for text in _not_converged(stack)]
    told = "; ".join((*filter(None, [located.row["warnings"]]), *astray))
    return Imaged(tuple(rows), {**located.row, "warnings": told}, located.skipped)


def _not_converged(stack: xr.Dataset) -> Iterator[str]:
    """Maps that do not meet the stop rule of their method."""
    if "converged" not in stack:
        return
    for index in np.flatnonzero(~stack["converged"].to_numpy()).tolist():
        band = _band((float(stack["energy_low"][index]), float(stack["energy_high"][index])))
        yield f"the {stack.attrs['method']} map of {band} has not converged: do not trust it"


def open_box(url: str, time: np.datetime64 | None = None) -> xr.Dataset:
    """Read the box of a pixel request that holds a time, or the first one."""
    boxes = [open_store(url, box) for box in range(count_boxes(url))]
    holding = [
        box
        for box in boxes
        if time is not None and bool((box["time_start"] <= time).any() & (box["time"] >= time).any())
    ]
    return (holding or boxes)[0].load()


def _window(pixels: xr.Dataset, job: ImageJob, energies: tuple[float, float]) -> ImagingWindow | str:
    """Choose the window of one band, or say why there is none."""
    from stixflow.flares import NoWindow, imaging_window

    try:
        window = imaging_window(pixels, {"start": job.start, "stop": job.stop}, energies)
    except StixflowError as error:
        return str(error)
    return window.reason if isinstance(window, NoWindow) else window


def _band(energies: tuple[float, float]) -> str:
    return f"{energies[0]:g}-{energies[1]:g} keV"


def _location_row(job: ImageJob, source: LocatedSource) -> dict[str, Any]:
    hpc, sigma = source.hpc or (None, None), source.hpc_sigma or (None, None)
    location = source.location
    return {
        "x_stix": location.x,
        "y_stix": location.y,
        "sigma_x_stix": location.sigma_x,
        "sigma_y_stix": location.sigma_y,
        "x_hpc": hpc[0],
        "y_hpc": hpc[1],
        "sigma_x_hpc": sigma[0],
        "sigma_y_hpc": sigma[1],
        "sidelobe_ratio": location.sidelobe_ratio,
        "is_ambiguous": location.ambiguous,
        "background_request": job.background_id,
        "background_reason": job.background_reason,
        "pointing": source.pointing.source if source.pointing else "unknown",
        "warnings": "; ".join(source.warnings),
    }


def _sun_row(source: LocatedSource, window: TimeRange) -> dict[str, Any]:
    """Place the flare on the Sun and in the sky of the Earth; nothing where the pointing is unknown."""
    from stixflow.ephemeris import place_on_sun

    if source.hpc is None or source.observer is None:
        return {}
    place = place_on_sun(source.hpc, source.observer, window.middle)
    return {
        "hgs_lon": float(place.hgs_lon_deg),
        "hgs_lat": float(place.hgs_lat_deg),
        "hgc_lon": float(place.hgc_lon_deg),
        "hgc_lat": float(place.hgc_lat_deg),
        "x_hpc_earth": float(place.hpc_earth_x),
        "y_hpc_earth": float(place.hpc_earth_y),
        "is_on_disk": bool(place.on_disk),
        "is_visible_from_earth": bool(place.visible_from_earth),
        "earth_delay_s": float(place.delay_s),
    }


def _cfl_row(
    pixels: xr.Dataset, background: xr.Dataset | None, source: LocatedSource, window: TimeRange
) -> dict[str, Any]:
    """Locate the flare by the coarse flare locator, which knows no sidelobes; nothing where it was not sent."""
    from stixflow.ephemeris import hpc_to_stix
    from stixflow.flares import cfl_counts, locate_cfl

    if source.observer is None:
        return {}
    try:
        seen = cfl_counts(pixels, window, background=background)
        center = {} if source.pointing is None else {"center": tuple(hpc_to_stix((0.0, 0.0), source.pointing).tolist())}
        found = locate_cfl(
            seen.counts[None],
            np.atleast_1d(seen.fluence),
            rsun_arcsec=source.observer.rsun_arcsec,
            variance=seen.variance[None],
            mask=seen.mask,
            **center,
        )
    except StixflowError as error:
        return {"cfl_problem": str(error)}
    return {
        "x_cfl": float(found.x[0]),
        "y_cfl": float(found.y[0]),
        "sigma_x_cfl": float(found.sigma_x[0]),
        "sigma_y_cfl": float(found.sigma_y[0]),
        "is_cfl_ambiguous": bool(found.ambiguous[0]),
        "cfl_sigmas": float(found.sigmas_from(source.location.x, source.location.y)[0]),
    }


def _image_row(
    job: ImageJob,
    stack: xr.Dataset,
    found: Sequence[Source],
    index: int,
    location: Mapping[str, Any],
    files: dict[str, bytes],
) -> dict[str, Any]:
    """Row of one map for the catalog; its file is added to `files`."""
    from stixflow.imaging.maps import map_bytes
    from stixflow.imaging.metadata import source_rows

    one = {name: stack.variables[name].values[index] for name in _KEPT}
    method = str(stack.attrs["method"])
    low, high = float(one["energy_low"]), float(one["energy_high"])
    image_id = f"{job.flare_id}-{low:g}-{high:g}keV-{method}"
    day = str(job.peak.astype("datetime64[D]")).replace("-", "/")
    path = f"images/{day}/{job.flare_id}/{job.run_id}/{image_id}.fits"
    extra = {"FLARE_ID": (job.flare_id, "UTC minute of the peak"), "BKG_REQ": (job.background_id, "background request")}
    history = [*job.inputs, f"background: {job.background_reason}"]
    blob = files[check_path(path)] = map_bytes(stack, index, extra=extra, history=history, sources=found)
    names = ("x_hpc", "y_hpc", "sidelobe_ratio", "is_ambiguous", "background_request", "background_reason")
    return {
        "image_id": image_id,
        "flare_id": job.flare_id,
        "method": method,
        "energy_low": low,
        "energy_high": high,
        "start": one["time_start"],
        "stop": one["time_stop"],
        "path": path,
        "digest": hashlib.sha256(blob).hexdigest(),
        "counts": float(one["counts"]),
        "net_counts": float(one["net_counts"]),
        "total_flux": float(one["total_flux"]),
        "sources": source_rows([one for one in found if one.image == index]),
        **{name: location[name] for name in names},
    }
