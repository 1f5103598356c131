"""Several maps in one picture: as an animation, or as contours over each other, in a common field of view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stixflow.errors import UsageError
from stixflow.previews.image import Field, SkyImage, draw_image, draw_sun
from stixflow.previews.theme import THEMES, ThemeName, dress, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MILLISECONDS = 500
_DPI = 90


def read_images(paths: Sequence[str | Path]) -> list[SkyImage]:
    """Read maps from FITS files, as `write_map` writes them.

    Raises
    ------
    InputFileError
        If a map has no place on the Sun.
    """
    from astropy.io import fits

    images = []
    for path in paths:
        with fits.open(path) as file:
            images.append(SkyImage.of_header(np.array(file[0].data, dtype=np.float64), file[0].header))
    return images


def common_field(images: Sequence[SkyImage]) -> Field:
    """Smallest field of view that shows every image whole.

    Raises
    ------
    UsageError
        If there is no image.
    """
    if not images:
        raise UsageError("there is no image to draw", expected="at least one", advice="give a SkyImage")
    left, right, low, high = zip(*(image.field() for image in images), strict=True)
    return min(left), max(right), min(low), max(high)


def write_animation(
    path: str | Path,
    images: Sequence[SkyImage],
    *,
    milliseconds: int = MILLISECONDS,
    common_scale: bool = False,
    theme: ThemeName = "light",
) -> Path:
    """Write a GIF that shows one image after the other, in the order given, all in the same field of view.

    Parameters
    ----------
    milliseconds
        How long each image stays.
    common_scale
        Whether all images have the same colours for the same values, in place of each its own maximum as brightest.

    Raises
    ------
    UsageError
        If there is no image.
    """
    from matplotlib.animation import PillowWriter

    field, look = common_field(images), THEMES[theme]
    top = max(float(np.nanmax(image.data)) for image in images) if common_scale else None
    figure = new_figure(5.6, 4.8, look)
    writer = PillowWriter(fps=1000.0 / milliseconds)  # type: ignore[arg-type]
    with writer.saving(figure, str(path), _DPI):
        for image in images:
            figure.clear()
            draw_image(figure.add_subplot(), image, look, field=field, top=top)
            writer.grab_frame(facecolor=look.ground)
    return Path(path)


def _draw_outline(axes: Axes, image: SkyImage, levels: Sequence[float], colour: tuple[float, ...]) -> None:
    top = float(np.nanmax(image.data))
    if not top > 0:
        return
    rows, columns = image.data.shape
    x, y = image.sky(*np.meshgrid(np.arange(columns), np.arange(rows)))
    axes.contour(x, y, image.data, levels=sorted(top * level for level in levels), colors=[colour], linewidths=1.1)


def overlay_figure(
    images: Sequence[SkyImage],
    *,
    levels: Sequence[float] = (0.5, 0.8),
    theme: ThemeName = "light",
    title: str = "",
) -> Figure:
    """Draw the contours of all images over each other, on limb and 10 degree grid as the first sees them.

    Parameters
    ----------
    levels
        Fractions of each image's maximum.

    Raises
    ------
    UsageError
        If there is no image.
    """
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    field, look = common_field(images), THEMES[theme]
    figure = new_figure(8.4, 5.6, look, layout="compressed")
    axes = figure.add_subplot()
    dress(axes, look)
    colours = [colormaps["turbo"](place) for place in np.linspace(0.12, 0.92, len(images))]
    axes.set_facecolor("#10141a")
    axes.set_aspect("equal")
    axes.set_xlim(*field[:2])
    axes.set_ylim(*field[2:])
    draw_sun(axes, images[0].observer)
    for image, colour in zip(images, colours, strict=True):
        _draw_outline(axes, image, levels, colour)
    axes.set_xlabel("helioprojective x (arcsec)", fontsize=9)
    axes.set_ylabel("helioprojective y (arcsec)", fontsize=9)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=look.ink)
    lines = [Line2D([], [], color=colour, label=image.title) for image, colour in zip(images, colours, strict=True)]
    text = {"fontsize": 7, "frameon": False, "labelcolor": look.ink}
    axes.legend(handles=lines, loc="upper left", bbox_to_anchor=(1.01, 1), **text)
    return figure
