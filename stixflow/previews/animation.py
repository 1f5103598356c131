"""Several maps in one picture: as an animation, or as contours over each other, in a common field of view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

import numpy as np

from stixflow.errors import UsageError
from stixflow.previews.image import Field, SkyImage, draw_image, draw_locator, draw_sun
from stixflow.previews.theme import THEMES, ThemeName, dress, new_figure

if TYPE_CHECKING:
    from matplotlib.animation import AbstractMovieWriter
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MILLISECONDS = 500
_DPI = 90
_MOVIE_INCHES = (6.0, 5.0)
"""Even numbers of pixels, which MP4 needs."""
_CONTRASTING = ("#56b4e9", "#e69f00", "#f0e442", "#009e73", "#cc79a7", "#ffffff", "#d55e00")
"""Colours that colour-blind eyes tell apart (Okabe and Ito)."""


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
    milliseconds: int = _MILLISECONDS,
    common_scale: bool = False,
    theme: ThemeName = "light",
) -> Path:
    """Write an animation of one image after the other, in the order given, all in the same field of view.

    Parameters
    ----------
    path
        Ends with .gif, or with .mp4, which needs the program ffmpeg: the extra `movie` brings it.
    milliseconds
        How long each image stays.
    common_scale
        Whether all images have the same colours for the same values, in place of each its own maximum as brightest.

    Raises
    ------
    UsageError
        If there is no image, the name has another ending, or there is no ffmpeg for an MP4.
    """
    from matplotlib import rc_context

    field, look = common_field(images), THEMES[theme]
    top = max(float(np.nanmax(image.data)) for image in images) if common_scale else None
    writer = _writer(Path(path), milliseconds)
    program = _ffmpeg() if Path(path).suffix == ".mp4" else "ffmpeg"
    figure = new_figure(*_MOVIE_INCHES, look)
    with rc_context({"animation.ffmpeg_path": program}), writer.saving(figure, str(path), _DPI):
        for image in images:
            figure.clear()
            draw_image(figure.add_subplot(), image, look, field=field, top=top)
            writer.grab_frame(facecolor=look.ground)
    return Path(path)


def _writer(path: Path, milliseconds: int) -> AbstractMovieWriter:
    """Writer of a kind of file."""
    from matplotlib.animation import FFMpegWriter, PillowWriter

    frames_a_second: Any = 1000.0 / milliseconds
    if path.suffix == ".gif":
        return PillowWriter(fps=frames_a_second)
    if path.suffix == ".mp4":
        # Nothing of the writer's process or time in the file: the same maps give the same bytes.
        options = ["-pix_fmt", "yuv420p", "-movflags", "+faststart", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
        return FFMpegWriter(fps=frames_a_second, codec="h264", extra_args=options)
    raise UsageError(f"{path.name} is no animation", expected="a name ending in .gif or .mp4", advice="change the name")


def _ffmpeg() -> str:
    """Program that writes MP4: the one on the path, or that of the package imageio-ffmpeg."""
    found = which("ffmpeg")
    if found:
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError as error:
        raise UsageError(
            "an MP4 needs the program ffmpeg, which is not here",
            expected="the extra: pip install stixflow[movie], or ffmpeg on the path",
            advice="install it, or make a GIF",
        ) from error
    return str(get_ffmpeg_exe())


def _colours(number: int) -> list[Any]:
    """A few colours as different as can be, or many from early to late."""
    from matplotlib import colormaps

    if number <= len(_CONTRASTING):
        return list(_CONTRASTING[:number])
    return [colormaps["plasma"](place) for place in np.linspace(0.35, 1.0, number)]


def _draw_outline(axes: Axes, image: SkyImage, levels: Sequence[float], colour: Any) -> None:
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
    from matplotlib.lines import Line2D

    field, look = common_field(images), THEMES[theme]
    figure = new_figure(8.4, 5.6, look, layout="compressed")
    axes = figure.add_subplot()
    dress(axes, look)
    colours = _colours(len(images))
    axes.set_facecolor("#10141a")
    axes.set_aspect("equal")
    axes.set_xlim(*field[:2])
    axes.set_ylim(*field[2:])
    draw_sun(axes, images[0].observer)
    for image, colour in zip(images, colours, strict=True):
        _draw_outline(axes, image, levels, colour)
    draw_locator(axes, images[0].observer)
    axes.set_xlabel("helioprojective x (arcsec)", fontsize=9)
    axes.set_ylabel("helioprojective y (arcsec)", fontsize=9)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=look.ink)
    lines = [Line2D([], [], color=colour, label=image.title) for image, colour in zip(images, colours, strict=True)]
    text = {"fontsize": 7, "frameon": False, "labelcolor": look.ink}
    axes.legend(handles=lines, loc="upper left", bbox_to_anchor=(1.01, 1), **text)
    return figure
