"""The preview of a flare of an archive, or of official files: figures, maps, an animation, and scripts for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from stixflow.archive import Archive
from stixflow.cubes.store import open_store
from stixflow.ephemeris import read_ancillary, write_ancillary
from stixflow.errors import NotFound, StixflowError
from stixflow.fits import level1_name, read_level1, write_level1
from stixflow.flares import ImagingWindow, imaging_window
from stixflow.imaging import image_flare, write_map
from stixflow.imaging.source import MODULATED_SNR
from stixflow.jobs import ImageJob
from stixflow.jobs.image import open_box
from stixflow.previews import (
    FitShape,
    Preview,
    ScriptFiles,
    animation_script,
    figure_png,
    idl_script,
    overlay_figure,
    panels_figure,
    pixel_lightcurve,
    preview,
    python_script,
    read_images,
    series_figure,
    visibility_figure,
    write_animation,
    write_pdf,
)
from stixflow.previews.panels import METHODS, around
from stixflow.previews.series import MOST_MAPS
from stixflow.single import choose_of_files, read_pixels
from stixflow.stages.images import ENERGY_RANGES, flare_job
from stixflow.time import TimeRange, iso

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FRAMES = 12
Band = tuple[float, float]
Movie = Literal["gif", "mp4"]


@dataclass(frozen=True, slots=True)
class PreviewWanted:
    """What to make."""

    energy_ranges: tuple[Band, ...] = ENERGY_RANGES
    """keV"""
    methods: tuple[str, ...] = METHODS
    shape: FitShape | None = None
    """Of the forward fit; None for the one that goes with the energies."""
    frames: int = _FRAMES
    """Maps of the animation, at most; it is made for the first band that can be imaged."""
    movie: Movie = "gif"
    has_pdf: bool = False
    """Whether all figures are written as the pages of one PDF, too."""


@dataclass(frozen=True, slots=True, eq=False)
class _Subject:
    """One flare with all that its preview is made of."""

    name: str
    within: TimeRange
    pixels: xr.Dataset
    background: xr.Dataset | None
    background_reason: str
    ephemeris: xr.Dataset
    lightcurve: xr.Dataset
    files: ScriptFiles
    cards: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of the maps."""

    @property
    def history(self) -> list[str]:
        return [f"background: {self.background_reason}"] if self.background_reason else []


def write_previews(
    archive: Archive, flare_id: str, output: Path, wanted: PreviewWanted | None = None
) -> dict[str, Any]:
    """Write the preview of one flare of an archive into a folder and return what was written as plain values.

    Each band gets its panels, its maps and its scripts; the first one that can be imaged an animation and an overlay
    over the flare. The files that the scripts read lie beside them.

    Raises
    ------
    NotFound
        If the archive has no such flare, no pixel data or ephemeris of it, or it has too few counts in every band.
    """
    wanted = wanted or PreviewWanted()
    job = flare_job(archive, flare_id)
    if job.ephemeris is None:
        raise NotFound(
            f"the archive has no ephemeris of flare {flare_id}, so there is no place on the Sun to draw",
            expected="the ancillary file of the day",
            advice="ingest it, or use `stixflow image`",
        )
    within = TimeRange(job.start, job.stop)
    pixels, background = open_box(job.pixels, job.peak), open_box(job.background) if job.background else None
    windows, left_out = _windows(pixels, within, wanted, f"flare {flare_id}")
    output.mkdir(parents=True, exist_ok=True)
    ephemeris = open_store(job.ephemeris).load()
    files = _write_inputs(output, pixels, background, ephemeris)
    subject = _Subject(
        name=flare_id,
        within=within,
        pixels=read_level1(output / files.pixels),
        background=read_level1(output / files.background) if files.background else None,
        background_reason=job.background_reason,
        ephemeris=read_ancillary(output / files.ephemeris),
        lightcurve=_lightcurve(archive, job, windows, pixels),
        files=files,
        cards={"FLARE_ID": (flare_id, "UTC minute of the peak")},
    )
    inputs = [name for name in (files.pixels, files.background, files.ephemeris) if name]
    return {"flare_id": flare_id, "inputs": inputs} | _write(subject, windows, left_out, output, wanted)


def write_file_previews(
    path: Path,
    output: Path,
    wanted: PreviewWanted | None = None,
    *,
    ephemeris: Path,
    backgrounds: Sequence[Path] = (),
    time_range: TimeRange | None = None,
) -> dict[str, Any]:
    """Write the preview of an official level-1 pixel file, as `write_previews` does of a flare.

    Every band is imaged at its peak in the time range, or in all of the file; with several backgrounds the one of the
    best score is taken. The scripts name the files where they are.

    Raises
    ------
    InputFileError
        If a file is not the product that is needed.
    NotFound
        If there are too few counts in every band.
    """
    wanted = wanted or PreviewWanted()
    pixels = read_pixels(path)
    background, name, reason = choose_of_files(pixels, backgrounds, wanted.energy_ranges)
    start, last = pixels["time_start"].to_numpy()[0], pixels["time_start"].to_numpy()[-1]
    stop = last + np.timedelta64(round(float(pixels["timedel"].to_numpy()[-1]) * 1e9), "ns")
    within = time_range or TimeRange(start, stop)
    windows, left_out = _windows(pixels, within, wanted, path.name)
    output.mkdir(parents=True, exist_ok=True)
    quiet = next((one for one in backgrounds if one.name == name), None)
    subject = _Subject(
        name=f"{iso(within.start)[:19].replace('-', '').replace(':', '')}_{pixels.attrs.get('request_id', 'pixels')}",
        within=within,
        pixels=pixels,
        background=background,
        background_reason=reason,
        ephemeris=read_ancillary(ephemeris),
        lightcurve=pixel_lightcurve(pixels),
        files=ScriptFiles(
            str(path.resolve()), str(ephemeris.resolve()), str(quiet.resolve()) if quiet is not None else ""
        ),
    )
    inputs = [one for one in (str(path), str(quiet or ""), str(ephemeris)) if one]
    return {"inputs": inputs} | _write(subject, windows, left_out, output, wanted)


def _windows(
    pixels: xr.Dataset, within: TimeRange, wanted: PreviewWanted, name: str
) -> tuple[dict[Band, TimeRange], dict[str, str]]:
    """Time to image in every band, and why there is none in the others."""
    found = {band: _window(pixels, within, band) for band in wanted.energy_ranges}
    chosen = {band: window for band, window in found.items() if isinstance(window, TimeRange)}
    left_out = {_band(band): window for band, window in found.items() if isinstance(window, str)}
    if not chosen:
        raise NotFound(
            f"{name} has no window to image: {next(iter(left_out.values()))}",
            expected="enough counts in one of the energy ranges",
            advice="give other energies",
        )
    return chosen, left_out


def _window(pixels: xr.Dataset, within: TimeRange, band: Band) -> TimeRange | str:
    try:
        found = imaging_window(pixels, {"start": within.start, "stop": within.stop}, band)
    except StixflowError as error:
        return str(error)
    return found.time_range if isinstance(found, ImagingWindow) else found.reason


def _band(band: Band) -> str:
    return f"{band[0]:g}-{band[1]:g}keV"


def _write_inputs(
    output: Path, pixels: xr.Dataset, background: xr.Dataset | None, ephemeris: xr.Dataset
) -> ScriptFiles:
    """Write the files that the scripts read; what is shown is made of them, because angles lose digits in files."""
    names = [level1_name(dataset, version="V02") for dataset in (pixels, background) if dataset is not None]
    for name, dataset in zip(names, (pixels, background), strict=False):
        if dataset is not None:
            write_level1(output / name, dataset, version="V02", ephemeris=ephemeris)
    day = str(ephemeris["time"].to_numpy()[len(ephemeris["time"]) // 2].astype("datetime64[D]")).replace("-", "")
    place = f"solo_L2_stix-aux-ephemeris_{day}_V01.fits"
    write_ancillary(output / place, ephemeris)
    return ScriptFiles(names[0], place, names[1] if background is not None else "")


def _lightcurve(archive: Archive, job: ImageJob, windows: Mapping[Band, TimeRange], pixels: xr.Dataset) -> xr.Dataset:
    """Quick-look curves around the flare; those of the pixel data where there are none."""
    first, last = (
        pick(getattr(window, side) for window in windows.values()) for pick, side in ((min, "start"), (max, "stop"))
    )
    span = around(TimeRange(first, last), job.start, job.stop)
    try:
        return archive.lightcurves(span.start, span.stop).load()
    except NotFound:
        return pixel_lightcurve(pixels)


def _write(
    subject: _Subject,
    windows: Mapping[Band, TimeRange],
    left_out: dict[str, str],
    output: Path,
    wanted: PreviewWanted,
) -> dict[str, Any]:
    previews: list[dict[str, Any]] = []
    pages: list[Figure] = []
    for band, window in windows.items():
        try:
            shown = preview(
                subject.pixels,
                window,
                band,
                ephemeris=subject.ephemeris,
                background=subject.background,
                methods=wanted.methods,
                shape=wanted.shape,
            )
        except StixflowError as error:
            left_out[_band(band)] = str(error)
            continue
        previews.append(_write_band(subject, shown, output, pages))
    if not previews:
        raise NotFound(
            f"{subject.name} has no image: {next(iter(left_out.values()))}",
            expected="a source that can be imaged in one of the energy ranges",
            advice="give other energies",
        )
    first = tuple(previews[0]["energy_keV"])
    animation = _write_animation(subject, first, output, wanted, left_out, pages)
    pdf = write_pdf(output / f"{subject.name}.pdf", pages, title=subject.name).name if wanted.has_pdf else None
    background = {"name": Path(subject.files.background).name or None, "reason": subject.background_reason or None}
    return {
        "output": str(output), "background": background, "previews": previews, "animation": animation, "pdf": pdf,
        "left_out": left_out,
    }  # fmt: skip


def _cards(subject: _Subject) -> dict[str, Any]:
    files = {
        "FLNM_SCI": subject.files.pixels,
        "FLNM_BKG": subject.files.background,
        "FLNM_EPH": subject.files.ephemeris,
    }
    return {keyword: Path(name).name for keyword, name in files.items() if name} | dict(subject.cards)


def _write_band(subject: _Subject, shown: Preview, output: Path, pages: list[Figure]) -> dict[str, Any]:
    """Write all that one energy range gets, and add its figures to the pages."""
    stem = f"{subject.name}_{_band(shown.energy_range)}"
    paths = {kind: output / f"{stem}{end}" for kind, end in (
        ("panels", "_panels.png"), ("visibilities", "_visibilities.png"), ("python", ".py"), ("idl", ".pro"),
    )}  # fmt: skip
    figures = {"panels": panels_figure(shown, subject.lightcurve), "visibilities": visibility_figure(shown)}
    for kind, figure in figures.items():
        paths[kind].write_bytes(figure_png(figure))
        pages.append(figure)
    paths["python"].write_text(python_script(shown, subject.files), encoding="utf-8")
    has_idl = bool(subject.files.background)
    if has_idl:
        paths["idl"].write_text(idl_script(shown, subject.files), encoding="utf-8")
    maps = [
        write_map(
            output / f"{stem}_{stack.attrs['method']}.fits", stack,
            extra=_cards(subject), history=subject.history, sources=sources,
        )
        for stack, sources in zip(shown.source.images, shown.source.sources, strict=True)
    ]  # fmt: skip
    return {
        "energy_keV": list(shown.energy_range),
        "time_range": str(shown.source.time_range),
        "hpc_arcsec": list(shown.source.hpc or ()),
        "panels": paths["panels"].name,
        "visibilities": paths["visibilities"].name,
        "maps": [path.name for path in maps],
        "python": paths["python"].name,
        "idl": paths["idl"].name if has_idl else None,
        "warnings": list(shown.source.warnings),
    }


def _write_animation(
    subject: _Subject,
    band: Band,
    output: Path,
    wanted: PreviewWanted,
    left_out: dict[str, str],
    pages: list[Figure],
) -> dict[str, Any]:
    """Image the flare at even steps, as maps, animation, overlay, and the script that makes both of the maps."""
    try:
        flare = image_flare(
            subject.pixels, [band],
            cadence=_covered_s(subject) / wanted.frames, within=subject.within, background=subject.background,
            ephemeris=subject.ephemeris,
        )  # fmt: skip
    except StixflowError as error:
        left_out["animation"] = str(error)
        return {}
    stack, stem = flare.source.images[0], f"{subject.name}_{_band(band)}"
    snr = flare.source.visibility_snr
    spans = [TimeRange(*pair) for pair in zip(stack["time_start"].values, stack["time_stop"].values, strict=True)]
    order = [i for i in np.argsort(stack["time_start"].to_numpy(), kind="stable").tolist() if snr[i] >= MODULATED_SNR]
    faint = [
        (spans[i], f"noise: the visibilities are {snr[i]:.1f} times their errors")
        for i in range(len(spans))
        if i not in order
    ]
    faint += [(when, reason) for (when, _), reason in flare.left_out]
    if not order:
        left_out["animation"] = f"{faint[0][0]} {faint[0][1]}"
        return {}
    maps = [
        write_map(
            output / f"{stem}_frame{number:02d}.fits", stack, index, extra=_cards(subject), history=subject.history
        )
        for number, index in enumerate(order)
    ]
    images = read_images(maps)
    movie, overlay, series, script = (
        output / f"{stem}_{end}" for end in (f"animation.{wanted.movie}", "overlay.png", "series.png", "animation.py")
    )
    write_animation(movie, images)
    shown = slice(None, None, -(-len(images) // MOST_MAPS))
    times = [spans[i] for i in order]
    title = f"STIX {band[0]:g}–{band[1]:g} keV   {iso(times[0].start)[:10]}"
    page = series_figure(images[shown], times[shown], subject.lightcurve, title=title)
    outlines = overlay_figure(images, levels=(0.5,), title="50 % of each map")
    for path, figure in ((series, page), (overlay, outlines)):
        path.write_bytes(figure_png(figure))
        pages.append(figure)
    names = [path.name for path in maps]
    script.write_text(animation_script(names, output=f"animation.{wanted.movie}"), encoding="utf-8")
    return {
        "movie": movie.name, "overlay": overlay.name, "series": series.name, "script": script.name, "maps": names,
        "left_out": [{"time_range": str(when), "reason": reason} for when, reason in faint],
    }  # fmt: skip


def _covered_s(subject: _Subject) -> float:
    """Seconds of the flare that there are pixel data of."""
    inside = subject.within.covers(subject.pixels["time"].to_numpy())
    return float(subject.pixels["timedel"].to_numpy()[inside].sum()) or subject.within.seconds


def format_previews(payload: dict[str, Any]) -> str:
    """Write what was made as text."""
    lines = []
    for one in payload["previews"]:
        files = (one["panels"], one["visibilities"], *one["maps"], one["python"], one["idl"])
        lines.append(f"{one['time_range']}  " + "  ".join(name for name in files if name))
        lines += [f"  {warning}" for warning in one["warnings"]]
    if payload["animation"]:
        animation = payload["animation"]
        lines.append(f"{animation['movie']}  {len(animation['maps'])} maps, {len(animation['left_out'])} left out")
    if payload["pdf"]:
        lines.append(payload["pdf"])
    background = payload["background"]
    lines.append(f"background: {background['name'] or 'none'} ({background['reason'] or 'no candidate'})")
    lines += [f"left out: {name}: {reason}" for name, reason in payload["left_out"].items()]
    return "\n".join([*lines, f"in {payload['output']}"])
