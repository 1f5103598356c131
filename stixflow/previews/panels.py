"""The preview of one flare: light curve, full disk, and its image by four methods, in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from stixflow.ephemeris import Observer, Pointing, hpc_to_stix
from stixflow.errors import NotFound, UsageError
from stixflow.imaging import Grid, SourceImages, image_source, map_header, reconstruct, visibilities
from stixflow.instrument import LOCATION_RESOLUTIONS, subcollimators
from stixflow.previews.image import Mark, SkyImage, draw_image
from stixflow.previews.lightcurve import draw_lightcurve
from stixflow.previews.theme import THEMES, Theme, ThemeName, new_figure
from stixflow.time import TimeRange, iso

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS = ("bp", "clean", "mem_ge", "forward_fit")
_NAMES = {"bp": "back-projection", "clean": "CLEAN", "mem_ge": "MEM_GE", "em": "EM", "forward_fit": "forward fit"}
_DISK_PIXELS = 512
_DISK_WIDTH_RSUN = 2.6
_MARGIN_S = 120.0


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """Images of one flare in one energy band, on the sky."""

    time_range: TimeRange
    energy_range: tuple[float, float]
    source: SourceImages
    full_disk: SkyImage
    images: tuple[SkyImage, ...]
    """One for each method."""


def preview(
    pixels: xr.Dataset,
    time_range: TimeRange,
    energy_range: tuple[float, float],
    *,
    ephemeris: xr.Dataset,
    background: xr.Dataset | None = None,
    methods: Sequence[str] = METHODS,
    size: int = 129,
    pixel: float = 2.0,
) -> Preview:
    """Image one flare for its preview: the full disk by back-projection of coarse sub-collimators, and every method.

    Parameters
    ----------
    pixels, background, ephemeris
        As for `image_source`; a preview needs a known pointing.
    methods, size, pixel
        As for `image_source`.

    Raises
    ------
    NotFound
        If the pointing at that time is unknown.
    ImagingError
        If no honest image can be made of the selection.
    """
    source = image_source(
        pixels,
        [(time_range, energy_range)],
        background=background, ephemeris=ephemeris, methods=methods, size=size, pixel=pixel,
    )  # fmt: skip
    point, place = source.pointing, source.observer
    if point is None or point.source == "average" or place is None:
        raise NotFound(
            "the pointing is unknown, so there is no place on the Sun to draw",
            expected="an ephemeris that covers the flare",
            advice="ingest the ancillary file of the day, or use `stixflow image`",
        )
    images = tuple(
        _on_sky(stack, point, place, _NAMES.get(str(stack.attrs["method"]), str(stack.attrs["method"])))
        for stack in source.images
    )
    center = tuple(hpc_to_stix((0.0, 0.0), point).tolist())
    data = visibilities(
        pixels, time_range, energy_range, background,
        location=(source.location.x, source.location.y), center=center,
        subcollimators=subcollimators(*LOCATION_RESOLUTIONS),
    )  # fmt: skip
    grid = Grid(_DISK_PIXELS, _DISK_WIDTH_RSUN * place.rsun_arcsec / _DISK_PIXELS, center=center)
    disk = _on_sky(reconstruct(data, grid, "bp"), point, place, "full disk, back-projection")
    return Preview(time_range, energy_range, source, disk, images)


def _on_sky(stack: xr.Dataset, point: Pointing, place: Observer, title: str) -> SkyImage:
    header = map_header(stack, pointing=point, observer=place)
    return SkyImage.of_header(stack["image"].to_numpy()[0], header, title=title)


def panels_figure(
    shown: Preview,
    lightcurve: xr.Dataset | None = None,
    *,
    title: str = "",
    theme: ThemeName = "light",
    size: tuple[float, float] = (14.0, 8.2),
) -> Figure:
    """Draw the panels: light curve with the imaged window shaded, full disk with the location, one image per method.

    Parameters
    ----------
    lightcurve
        A `ql_lightcurve` around the flare; None where there is none, and the panel says so.
    title
        Line above; empty for time range, energies and how the pointing is known.
    size
        Inches.

    Raises
    ------
    UsageError
        If there are more than four images.
    """
    if not 1 <= len(shown.images) <= 4:
        raise UsageError(f"{len(shown.images)} images", expected="1 to 4 methods", advice="leave some out")
    look = THEMES[theme]
    figure = new_figure(*size, look)
    figure.set_layout_engine("constrained", rect=(0.015, 0.0, 0.98, 1.0), hspace=0.03)
    _draw_curve(figure.add_subplot(2, 3, 1), lightcurve, shown.time_range, look)
    places = [Mark(*shown.source.hpc, kind="truth", label="located")] if shown.source.hpc else []
    draw_image(figure.add_subplot(2, 3, 2), shown.full_disk, look, contour_levels=(), marks=places)
    for number, image in enumerate(shown.images):
        draw_image(figure.add_subplot(2, 3, 3 + number), image, look, contour_levels=(0.3, 0.5, 0.7))
    figure.suptitle(title or _title(shown), x=0.01, ha="left", fontsize=11.5, fontweight="bold", color=look.ink)
    return figure


def _draw_curve(axes: Axes, lightcurve: xr.Dataset | None, window: TimeRange, look: Theme) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    if lightcurve is None or not lightcurve.sizes["time"]:
        axes.axis("off")
        axes.text(0.5, 0.5, "no light curve of this time", ha="center", va="center", color=look.faint)
        return
    draw_lightcurve(axes, lightcurve, look)
    edges = date2num([window.start, window.stop])  # type: ignore[no-untyped-call]
    axes.axvspan(*edges, color=look.accent, alpha=0.25, linewidth=0)
    axes.set_title("quick-look light curves, imaged time shaded", loc="left", fontsize=9.5, color=look.ink)
    box = {"framealpha": 0.6, "edgecolor": "none", "facecolor": look.ground}
    axes.legend(loc="upper right", fontsize=7, labelcolor=look.ink, **box)
    axes.set_xlabel("UTC at the spacecraft", loc="left", fontsize=9)
    locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def around(window: TimeRange, start: np.datetime64, stop: np.datetime64) -> TimeRange:
    """Span of the light curve of a preview: flare and window, with a margin of two minutes or half of both."""
    first, last = min(window.start, start), max(window.stop, stop)
    margin = max((last - first) / 2, np.timedelta64(int(_MARGIN_S * 1e9), "ns"))
    return TimeRange(first - margin, last + margin)


def _title(shown: Preview) -> str:
    low, high = shown.energy_range
    pointing = shown.source.pointing
    aspect = "aspect corrected" if pointing and pointing.source == "sas" else "aspect not corrected"
    return f"{iso(shown.time_range.start)} to {iso(shown.time_range.stop)} UTC   {low:g}–{high:g} keV   {aspect}"
