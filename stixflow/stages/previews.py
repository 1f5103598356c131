"""The preview of a flare of an archive: figures, an animation, and scripts with the files that they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stixflow.archive import Archive
from stixflow.cubes.store import open_store
from stixflow.ephemeris import read_ancillary, write_ancillary
from stixflow.errors import NotFound, StixflowError
from stixflow.fits import level1_name, read_level1, write_level1
from stixflow.flares import ImagingWindow, imaging_window
from stixflow.imaging import image_flare, write_map
from stixflow.jobs import ImageJob
from stixflow.jobs.image import open_box
from stixflow.previews import (
    Preview,
    ScriptFiles,
    animation_script,
    figure_png,
    idl_script,
    overlay_figure,
    panels_figure,
    preview,
    python_script,
    read_images,
    write_animation,
)
from stixflow.previews.panels import METHODS, around
from stixflow.stages.images import ENERGY_RANGES, flare_job
from stixflow.time import TimeRange

FRAMES = 12
Band = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    pixels: xr.Dataset
    background: xr.Dataset | None
    ephemeris: xr.Dataset
    files: ScriptFiles


def write_previews(
    archive: Archive,
    flare_id: str,
    output: Path,
    *,
    energy_ranges: Sequence[Band] = ENERGY_RANGES,
    methods: Sequence[str] = METHODS,
    frames: int = FRAMES,
) -> dict[str, Any]:
    """Write the preview of one flare into a folder and return what was written as plain values.

    Each band gets its panels and its scripts; the first one that can be imaged an animation and an overlay of at most
    so many `frames` over the flare. The files that the scripts read lie beside them.

    Raises
    ------
    NotFound
        If the archive has no such flare, no pixel data or ephemeris of it, or it has too few counts in every band.
    """
    job = flare_job(archive, flare_id)
    if job.ephemeris is None:
        raise NotFound(
            f"the archive has no ephemeris of flare {flare_id}, so there is no place on the Sun to draw",
            expected="the ancillary file of the day",
            advice="ingest it, or use `stixflow image`",
        )
    pixels, background = open_box(job.pixels, job.peak), open_box(job.background) if job.background else None
    windows = {band: _window(pixels, job, band) for band in energy_ranges}
    chosen = {band: found for band, found in windows.items() if isinstance(found, TimeRange)}
    left_out = {_name(band): found for band, found in windows.items() if isinstance(found, str)}
    if not chosen:
        raise NotFound(
            f"flare {flare_id} has no window to image: {next(iter(left_out.values()))}",
            expected="enough counts in one of the energy ranges",
            advice="give other energies",
        )
    output.mkdir(parents=True, exist_ok=True)
    inputs = _write_inputs(output, pixels, background, open_store(job.ephemeris).load())
    previews = []
    for band, window in chosen.items():
        try:
            shown = preview(
                inputs.pixels,
                window,
                band,
                ephemeris=inputs.ephemeris,
                background=inputs.background,
                methods=methods,
            )
        except StixflowError as error:
            left_out[_name(band)] = str(error)
            continue
        previews.append(_write_band(archive, job, shown, inputs, output, methods))
    if not previews:
        raise NotFound(
            f"flare {flare_id} has no image: {next(iter(left_out.values()))}",
            expected="a source that can be imaged in one of the energy ranges",
            advice="give other energies",
        )
    first = tuple(previews[0]["energy_keV"])
    animation = _write_animation(job, inputs, first, output, frames, left_out)
    return {
        "flare_id": flare_id, "output": str(output), "inputs": _listed(inputs.files), "previews": previews,
        "animation": animation, "left_out": left_out,
    }  # fmt: skip


def _window(pixels: xr.Dataset, job: ImageJob, band: Band) -> TimeRange | str:
    """Choose the time to image in one band, or say why there is none."""
    try:
        found = imaging_window(pixels, {"start": job.start, "stop": job.stop}, band)
    except StixflowError as error:
        return str(error)
    return found.time_range if isinstance(found, ImagingWindow) else found.reason


def _name(band: Band) -> str:
    return f"{band[0]:g}-{band[1]:g}keV"


def _listed(files: ScriptFiles) -> list[str]:
    return [name for name in (files.pixels, files.background, files.ephemeris) if name]


def _write_inputs(output: Path, pixels: xr.Dataset, background: xr.Dataset | None, ephemeris: xr.Dataset) -> _Inputs:
    """Write the files that the scripts read, and read them back: angles lose digits in them, and maps shall agree."""
    names = [level1_name(dataset, version="V02") for dataset in (pixels, background) if dataset is not None]
    for name, dataset in zip(names, (pixels, background), strict=False):
        if dataset is not None:
            write_level1(output / name, dataset, version="V02", ephemeris=ephemeris)
    day = str(ephemeris["time"].to_numpy()[len(ephemeris["time"]) // 2].astype("datetime64[D]")).replace("-", "")
    place = f"solo_L2_stix-aux-ephemeris_{day}_V01.fits"
    write_ancillary(output / place, ephemeris)
    files = ScriptFiles(names[0], place, names[1] if background is not None else "")
    read = [read_level1(output / name) for name in names]
    return _Inputs(read[0], read[1] if background is not None else None, read_ancillary(output / place), files)


def _write_band(
    archive: Archive, job: ImageJob, shown: Preview, inputs: _Inputs, output: Path, methods: Sequence[str]
) -> dict[str, Any]:
    stem = f"{job.flare_id}_{_name(shown.energy_range)}"
    panels = output / f"{stem}_panels.png"
    panels.write_bytes(figure_png(panels_figure(shown, _lightcurve(archive, job, shown.time_range))))
    python, idl = output / f"{stem}.py", output / f"{stem}.pro"
    python.write_text(python_script(shown, inputs.files, methods=methods), encoding="utf-8")
    if inputs.files.background:
        idl.write_text(idl_script(shown, inputs.files), encoding="utf-8")
    return {
        "energy_keV": list(shown.energy_range),
        "time_range": str(shown.time_range),
        "hpc_arcsec": list(shown.source.hpc or ()),
        "panels": panels.name,
        "python": python.name,
        "idl": idl.name if inputs.files.background else None,
        "warnings": list(shown.source.warnings),
    }


def _lightcurve(archive: Archive, job: ImageJob, window: TimeRange) -> xr.Dataset | None:
    span = around(window, job.start, job.stop)
    try:
        return archive.lightcurves(span.start, span.stop).load()
    except NotFound:
        return None


def _write_animation(
    job: ImageJob, inputs: _Inputs, band: Band, output: Path, frames: int, left_out: dict[str, str]
) -> dict[str, Any]:
    """Image the flare at even steps, as maps, animation, overlay, and the script that makes both of the maps."""
    within = TimeRange(job.start, job.stop)
    cadence = float((job.stop - job.start) / np.timedelta64(1, "s")) / frames
    try:
        flare = image_flare(
            inputs.pixels, [band],
            cadence=cadence, within=within, background=inputs.background, ephemeris=inputs.ephemeris,
        )  # fmt: skip
    except StixflowError as error:
        left_out["animation"] = str(error)
        return {}
    source, stack = flare.source, flare.source.images[0]
    maps = [
        write_map(
            output / f"{job.flare_id}_{_name(band)}_frame{index:02d}.fits", stack, index,
            pointing=source.pointing, observer=source.observer,
        )
        for index in np.argsort(stack["time_start"].to_numpy(), kind="stable").tolist()
    ]  # fmt: skip
    images, stem = read_images(maps), f"{job.flare_id}_{_name(band)}"
    gif, overlay, script = (output / f"{stem}_{end}" for end in ("animation.gif", "overlay.png", "animation.py"))
    write_animation(gif, images)
    overlay.write_bytes(figure_png(overlay_figure(images, levels=(0.5,))))
    script.write_text(animation_script([path.name for path in maps]), encoding="utf-8")
    names = {"gif": gif.name, "overlay": overlay.name, "script": script.name}
    faint = [{"time_range": str(when), "reason": reason} for (when, _), reason in flare.left_out]
    return names | {"maps": [path.name for path in maps], "left_out": faint}


def format_previews(payload: dict[str, Any]) -> str:
    """Write what was made as text."""
    lines = [
        f"{one['panels']}  {one['time_range']}  {one['python']}  {one['idl'] or ''}" for one in payload["previews"]
    ]
    if payload["animation"]:
        lines.append(f"{payload['animation']['gif']}  {len(payload['animation']['maps'])} maps")
    lines += [f"left out: {name}: {reason}" for name, reason in payload["left_out"].items()]
    return "\n".join([*lines, f"in {payload['output']}"])
