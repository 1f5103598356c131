"""Figures of X-ray images on the Sun: helioprojective, north up, with limb and heliographic grid."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.ephemeris import Observer, apparent_radius, heliographic_to_hpc
from stixflow.errors import InputFileError, UsageError
from stixflow.imaging.source import MODULATED_SNR
from stixflow.previews.theme import THEMES, Theme, ThemeName, dress, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_GRID_STEP_DEG = 10
_COLOUR_MAP = "inferno"
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SkyImage:
    """An image and its place on the sky, seen from the spacecraft.

    A pixel (column, row), counted from 0, lies at ``reference_xy + matrix @ (pixel - reference_pixel)`` arcsec in
    helioprojective coordinates.
    """

    data: Array
    reference_pixel: tuple[float, float]
    reference_xy: tuple[float, float]
    matrix: tuple[tuple[float, float], tuple[float, float]]
    observer: Observer
    title: str = ""
    unit: str = ""
    beam: float = 0.0
    """FWHM of the CLEAN beam, arcsec; 0 for images without one."""
    visibility_snr: float = math.nan
    """Median of the visibilities over their errors; NaN where it is not known."""

    @property
    def is_noise(self) -> bool:
        """Whether the image is known to show nothing but noise."""
        return self.visibility_snr < MODULATED_SNR

    @classmethod
    def of_header(cls, data: ArrayLike, header: Mapping[str, Any], *, title: str = "") -> SkyImage:
        """Read the place from FITS keywords: linear WCS in arcsec, with PC or CROTA2, and the observer.

        Raises
        ------
        InputFileError
            If the header lacks the observer or a keyword of the linear WCS.
        """
        needed = ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CDELT1", "CDELT2", "DSUN_OBS", "HGLN_OBS", "HGLT_OBS")
        absent = [name for name in needed if header.get(name) is None]
        if absent:
            raise InputFileError(
                f"the image header lacks {', '.join(absent)}",
                expected="a linear WCS in arcsec with the observer (DSUN_OBS, HGLN_OBS, HGLT_OBS)",
                advice="write the map with stixflow, or complete its header",
            )
        number = {name: float(header[name]) for name in needed}
        distance = number["DSUN_OBS"]
        return cls(
            data=np.asarray(data, dtype=np.float64),
            reference_pixel=(number["CRPIX1"] - 1, number["CRPIX2"] - 1),
            reference_xy=(number["CRVAL1"], number["CRVAL2"]),
            matrix=_matrix(header, number["CDELT1"], number["CDELT2"]),
            observer=Observer(distance, number["HGLN_OBS"], number["HGLT_OBS"], float(apparent_radius(distance))),
            title=title or _title(header),
            unit=str(header.get("BUNIT", "")),
            beam=float(header.get("CLN_BEAM", 0.0)),
            visibility_snr=float(header.get("VIS_SNR", math.nan)),
        )

    @classmethod
    def of_map(cls, sky_map: Any, *, title: str = "") -> SkyImage:
        """Take a sunpy map, or anything with `data` and `meta`."""
        header = {str(key).upper(): value for key, value in dict(sky_map.meta).items()}
        return cls.of_header(sky_map.data, header, title=title)

    def sky(self, column: ArrayLike, row: ArrayLike) -> tuple[Array, Array]:
        """Helioprojective x and y (arcsec) of pixels counted from 0."""
        dx = np.asarray(column, dtype=np.float64) - self.reference_pixel[0]
        dy = np.asarray(row, dtype=np.float64) - self.reference_pixel[1]
        (a, b), (c, d) = self.matrix
        return self.reference_xy[0] + a * dx + b * dy, self.reference_xy[1] + c * dx + d * dy

    def peak_xy(self) -> tuple[float, float]:
        """Helioprojective position of the brightest pixel."""
        row, column = np.unravel_index(int(np.nanargmax(self.data)), self.data.shape)
        x, y = self.sky(column, row)
        return float(x), float(y)

    def field(self) -> tuple[float, float, float, float]:
        """Left, right, lower and upper limit of the image on the sky, arcsec."""
        rows, columns = self.data.shape
        x, y = self.sky([-0.5, columns - 0.5, columns - 0.5, -0.5], [-0.5, -0.5, rows - 0.5, rows - 0.5])
        return float(x.min()), float(x.max()), float(y.min()), float(y.max())


def _matrix(header: Mapping[str, Any], step_x: float, step_y: float) -> tuple[tuple[float, float], tuple[float, float]]:
    if "PC1_1" in header or "PC1_2" in header:
        pc = [float(header.get(f"PC{i}_{j}", i == j)) for i in (1, 2) for j in (1, 2)]
        return (pc[0] * step_x, pc[1] * step_y), (pc[2] * step_x, pc[3] * step_y)
    angle = np.deg2rad(float(header.get("CROTA2", 0.0) or 0.0))
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return (cos * step_x, -sin * step_y), (sin * step_x, cos * step_y)


def _title(header: Mapping[str, Any]) -> str:
    low, high = header.get("ENERGY_L"), header.get("ENERGY_H")
    band = f"{float(low):g}–{float(high):g} keV" if low is not None and high is not None else ""
    method = str(header.get("ALG_USED", header.get("METHOD", "")))
    when = str(header.get("DATE-BEG", header.get("DATE-OBS", "")))[:19].replace("T", " ")
    lasts = f"+{_seconds(header):.0f} s" if _seconds(header) else ""
    return "  ".join(part for part in (method, band, f"{when} {lasts}".strip()) if part)


def _seconds(header: Mapping[str, Any]) -> float:
    begin, end = (header.get(f"DATE-{name}") for name in ("BEG", "END"))
    return float((np.datetime64(end) - np.datetime64(begin)) / np.timedelta64(1, "s")) if begin and end else 0.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A position to mark, helioprojective arcsec; true positions are open circles, found ones crosses."""

    x: float
    y: float
    kind: Literal["truth", "found"] = "found"
    label: str = ""
    """Text of the legend; empty for the kind."""


def image_figure(
    images: SkyImage | Sequence[SkyImage],
    *,
    contour_levels: Sequence[float] = (0.5,),
    marks: Sequence[Mark] = (),
    field_of_view: float | None = None,
    title: str = "",
    theme: ThemeName = "light",
    panel: float = 4.2,
) -> Figure:
    """Draw images side by side, at most three in a row, each with limb, 10 degree grid, contours and marks.

    Parameters
    ----------
    contour_levels
        Fractions of each image's maximum; not drawn where the field is wider than the disk, among all its sidelobes.
    field_of_view
        Width of the shown field around the brightest pixel in arcsec; None shows the whole image.
    panel
        Width of one image in inches.

    Raises
    ------
    UsageError
        If there is no image.
    """
    shown = [images] if isinstance(images, SkyImage) else list(images)
    if not shown:
        raise UsageError("there is no image to draw", expected="at least one", advice="give a SkyImage")
    columns = 2 if len(shown) == 4 else min(len(shown), 3)
    rows = -(-len(shown) // columns)
    look = THEMES[theme]
    figure = new_figure(panel * columns, 0.9 * panel * rows + (0.3 if title else 0.0), look, layout="compressed")
    for index, image in enumerate(shown):
        axes = figure.add_subplot(rows, columns, index + 1)
        draw_image(axes, image, look, contour_levels=contour_levels, marks=marks, field_of_view=field_of_view)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=look.ink)
    return figure


Field = tuple[float, float, float, float]
"""Left, right, lower and upper limit, helioprojective arcsec."""


def draw_image(
    axes: Axes,
    image: SkyImage,
    look: Theme,
    *,
    contour_levels: Sequence[float] = (0.5,),
    marks: Sequence[Mark] = (),
    field_of_view: float | None = None,
    field: Field | None = None,
    top: float | None = None,
    is_small: bool = False,
) -> None:
    """Draw an image with limb, 10 degree grid, contours, marks and colour bar into axes; noise without contours.

    Parameters
    ----------
    field
        What is shown, in place of a `field_of_view` around the peak.
    top
        Value of the brightest colour; None for the maximum of the image.
    is_small
        Whether it is one of many: without names of axes, colour bar, beam, and place on the disk.
    """
    dress(axes, look)
    drawn = _draw_pixels(axes, image, top)
    _set_field(axes, image, field_of_view, field)
    draw_sun(axes, image.observer, beside_beam=image.beam > 0 and not is_small, beside_legend=bool(marks))
    if image.is_noise:
        _say_noise(axes, image)
    else:
        _draw_contours(axes, image, contour_levels, 0.7 if is_small else 1.1)
    _draw_marks(axes, marks)
    axes.set_title(image.title, loc="left", fontsize=9, color=look.ink)
    axes.locator_params(nbins=3 if is_small else 5)
    if is_small:
        axes.tick_params(labelsize=7)
        return
    _draw_beam(axes, image)
    draw_locator(axes, image.observer)
    axes.set_xlabel("helioprojective x (arcsec)", fontsize=9)
    axes.set_ylabel("helioprojective y (arcsec)", fontsize=9)
    _draw_colour_bar(axes, drawn, image, look)


def _draw_colour_bar(axes: Axes, drawn: AxesImage, image: SkyImage, look: Theme) -> None:
    from matplotlib.ticker import ScalarFormatter

    powers = ScalarFormatter(useMathText=True)
    powers.set_powerlimits((-2, 4))
    bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.02, format=powers)
    bar.ax.tick_params(colors=look.faint, labelsize=8)
    bar.outline.set_visible(False)
    bar.ax.yaxis.get_offset_text().set(color=look.faint, fontsize=8)
    if image.unit:
        bar.set_label(unit_text(image.unit), color=look.faint, fontsize=8)


def unit_text(unit: str) -> str:
    """Write a unit as people do: ``ct / (s cm2)`` as counts s⁻¹ cm⁻²."""
    over, _, under = unit.partition(" / ")
    powers = [re.fullmatch(r"([A-Za-z]+)(\d*)", part) for part in under.strip("()").split()]
    if not all(powers):
        return unit
    parts = [f"{found[1]}⁻{(found[2] or '1').translate(_RAISED)}" for found in powers if found]
    return " ".join(["counts" if over == "ct" else over, *parts])


def _draw_pixels(axes: Axes, image: SkyImage, brightest: float | None = None) -> AxesImage:
    """Draw the array where it is on the sky: an affine transform turns it, nothing is resampled."""
    from matplotlib import colormaps
    from matplotlib.transforms import Affine2D

    (a, b), (c, d) = image.matrix
    x0, y0 = image.sky(0.0, 0.0)
    place = Affine2D(np.array([[a, b, float(x0)], [c, d, float(y0)], [0.0, 0.0, 1.0]]))
    top = float(np.nanmax(image.data)) if brightest is None else brightest
    drawn = axes.imshow(
        image.data,
        origin="lower",
        cmap=_COLOUR_MAP,
        vmin=0.0,
        vmax=top if top > 0 else 1.0,
        interpolation="bilinear",
        transform=place + axes.transData,
    )
    axes.set_facecolor(colormaps[_COLOUR_MAP](0.0))
    axes.set_aspect("equal")
    return drawn


def _set_field(axes: Axes, image: SkyImage, field_of_view: float | None, field: Field | None = None) -> None:
    if field_of_view is not None and field is None:
        (x, y), half = image.peak_xy(), field_of_view / 2
        field = x - half, x + half, y - half, y + half
    left, right, low, high = field or image.field()
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def draw_sun(axes: Axes, observer: Observer, *, beside_beam: bool = False, beside_legend: bool = False) -> None:
    """Draw limb and heliographic grid into axes whose limits are set; no name where beam or legend will be."""
    from matplotlib.patches import Circle

    fine = np.linspace(-180.0, 180.0, 721)
    for longitude in np.arange(-180, 180, _GRID_STEP_DEG):
        x, y = heliographic_to_hpc(np.full(721, longitude), fine / 2, observer, hide=True).T
        axes.plot(x, y, color="white", linewidth=0.45, alpha=0.4)
        _label_line(axes, x, y, _degrees(int(longitude), "EW"), "x", (beside_beam, beside_legend))
    for latitude in np.arange(-80, 90, _GRID_STEP_DEG):
        x, y = heliographic_to_hpc(observer.hgln_deg + fine, np.full(721, latitude), observer, hide=True).T
        axes.plot(x, y, color="white", linewidth=0.45, alpha=0.4)
        _label_line(axes, x, y, _degrees(int(latitude), "SN"), "y", (beside_beam, beside_legend))
    axes.add_patch(Circle((0, 0), observer.rsun_arcsec, fill=False, color="white", linewidth=1.1, alpha=0.9))


def _degrees(value: int, sides: str) -> str:
    """Write a heliographic angle as astronomers do: N10, E60; Stonyhurst longitudes count from the Earth."""
    return f"{sides[value > 0] if value else sides[1]}{abs(value)}"


def _label_line(axes: Axes, x: Array, y: Array, text: str, along: Literal["x", "y"], taken: tuple[bool, bool]) -> None:
    """Write the value of a grid line where it enters the field from below or from the left, if that is not taken.

    `taken` are the lower left and the lower right corner.
    """
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    margin_x, margin_y = 0.04 * (right - left), 0.04 * (high - low)
    seen = (x > left + margin_x) & (x < right - margin_x) & (y > low + margin_y) & (y < high - margin_y)
    if not seen.any() or right - left > 1500:
        return
    at = np.flatnonzero(seen)
    first = at[np.argmin(y[at] if along == "x" else x[at])]
    edge = y[first] - low if along == "x" else x[first] - left
    across = (x[first] - left) / (right - left)
    is_taken = y[first] < low + 0.15 * (high - low) and ((taken[0] and across < 0.35) or (taken[1] and across > 0.65))
    if edge < 0.12 * (high - low if along == "x" else right - left) and not is_taken:
        axes.text(x[first], y[first], text, color="white", alpha=0.75, fontsize=7, ha="center", va="center")


def _say_noise(axes: Axes, image: SkyImage) -> None:
    text = f"noise: visibilities {image.visibility_snr:.1f} × their errors"
    axes.text(0.03, 0.97, text, transform=axes.transAxes, color="white", fontsize=7.5, ha="left", va="top")


def _draw_contours(axes: Axes, image: SkyImage, levels: Sequence[float], width: float) -> None:
    top, (left, right) = float(np.nanmax(image.data)), axes.get_xlim()
    if not levels or not top > 0 or right - left > 2 * image.observer.rsun_arcsec:
        return
    rows, columns = image.data.shape
    x, y = image.sky(*np.meshgrid(np.arange(columns), np.arange(rows)))
    values = sorted(top * level for level in levels)
    axes.contour(x, y, image.data, levels=values, colors="#7ee8fa", linewidths=width)


_MARKS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "truth": {"marker": "o", "fillstyle": "none", "markersize": 11, "color": "#8ce99a"},
        "found": {"marker": "+", "markersize": 11, "color": "#ffffff"},
    }
)


def _draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=3.2, foreground="#000000")]
    for mark in marks:
        label, style = mark.label or mark.kind, _MARKS[mark.kind]
        axes.plot([mark.x], [mark.y], linestyle="none", markeredgewidth=1.5, path_effects=outline, label=label, **style)
    if marks:
        box = {"facecolor": "black", "framealpha": 0.45, "edgecolor": "none"}
        axes.legend(loc="lower right", markerscale=0.65, fontsize=7.5, labelcolor="white", **box)


def _draw_beam(axes: Axes, image: SkyImage) -> None:
    """Show the width of the CLEAN beam in the lower left corner, where it is small beside the field."""
    from matplotlib.patches import Circle

    (left, right), low = axes.get_xlim(), axes.get_ylim()[0]
    if not 0 < image.beam < 0.3 * (right - left):
        return
    reach = image.beam / 2 + 0.03 * (right - left)
    axes.add_patch(Circle((left + reach, low + reach), image.beam / 2, facecolor="#ffffff55", edgecolor="white"))
    place = left + reach + 0.6 * image.beam, low + reach
    axes.text(*place, f"beam {image.beam:.0f}″", color="white", fontsize=7, va="center")


def draw_locator(axes: Axes, observer: Observer) -> None:
    """Show in a corner where on the disk the field lies, unless it shows most of the disk anyway."""
    from matplotlib.patches import Circle, Rectangle

    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    radius = observer.rsun_arcsec
    if right - left > radius:
        return
    inset = axes.inset_axes((0.79, 0.79, 0.2, 0.2))
    inset.set_aspect("equal")
    inset.axis("off")
    inset.add_patch(Circle((0, 0), radius, facecolor="#ffd8a8", alpha=0.22, edgecolor="white", linewidth=0.8))
    inset.add_patch(Rectangle((left, low), right - left, high - low, fill=False, edgecolor="#7ee8fa", linewidth=1.2))
    reach = max(1.08 * radius, abs(left), abs(right), abs(low), abs(high))
    inset.set_xlim(-reach, reach)
    inset.set_ylim(-reach, reach)
