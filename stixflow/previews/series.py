"""A flare over time on one page: its light curve with the intervals of the maps, and the maps in a common field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from stixflow.errors import UsageError
from stixflow.previews.animation import common_field
from stixflow.previews.image import SkyImage, draw_image
from stixflow.previews.lightcurve import draw_lightcurve
from stixflow.previews.theme import THEMES, ThemeName, new_figure
from stixflow.time import TimeRange

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MAPS = 24
_COLUMNS = 6
_PANEL_INCHES, _CURVE_INCHES = 2.5, 2.6


def series_figure(
    images: Sequence[SkyImage],
    time_ranges: Sequence[TimeRange],
    lightcurve: xr.Dataset,
    *,
    levels: Sequence[float] = (0.3, 0.5, 0.7),
    theme: ThemeName = "light",
    title: str = "",
) -> Figure:
    """Draw the light curve with the interval of every map, and below it the maps, numbered in the order given.

    Parameters
    ----------
    images, time_ranges
        The maps, at most 24, and the times they are of.
    lightcurve
        A `ql_lightcurve`, or of `pixel_lightcurve`.
    levels
        Of the contours, as parts of each map's maximum.

    Raises
    ------
    UsageError
        If there is no map, there are too many, or not one time for each.
    """
    from matplotlib.dates import date2num

    if not 0 < len(images) <= MOST_MAPS or len(images) != len(time_ranges):
        raise UsageError(
            f"{len(images)} maps with {len(time_ranges)} time ranges",
            expected=f"1 to {MOST_MAPS} maps, each with its time",
            advice="choose longer intervals, or every other map",
        )
    look, field = THEMES[theme], common_field(images)
    columns = min(_COLUMNS, max(len(images), 3))
    rows = -(-len(images) // columns)
    figure = new_figure(_PANEL_INCHES * columns, _CURVE_INCHES + _PANEL_INCHES * rows, look)
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[_CURVE_INCHES, *[_PANEL_INCHES] * rows])
    curve = figure.add_subplot(grid[0, :])
    draw_lightcurve(curve, lightcurve, look, title=title)
    for number, (image, when) in enumerate(zip(images, time_ranges, strict=True)):
        start, stop = date2num([when.start, when.stop])  # type: ignore[no-untyped-call]
        curve.axvspan(start, stop, color=look.accent, alpha=0.1 + 0.12 * (number % 2), linewidth=0)
        curve.text(
            (start + stop) / 2, 0.98, str(number + 1), transform=curve.get_xaxis_transform(), ha="center", va="top",
            fontsize=8, color=look.accent,
        )  # fmt: skip
        axes = figure.add_subplot(grid[1 + number // columns, number % columns])
        draw_image(axes, image, look, field=field, contour_levels=levels, is_small=True)
        clock = np.datetime_as_string(when.start, unit="s")[11:]
        axes.set_title(f"{number + 1}  {clock} +{when.seconds:.0f} s", loc="left", fontsize=8, color=look.ink)
        if number % columns:
            axes.set_yticklabels([])
        elif number // columns == (rows - 1) // 2:
            axes.set_ylabel("helioprojective y (arcsec)", fontsize=9)
        if number + columns < len(images):
            axes.set_xticklabels([])
    figure.supxlabel("helioprojective x (arcsec)", fontsize=9, color=look.ink)
    return figure
