"""The preview of one flare: light curve, full disk, and its image by four methods, in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr

from stixflow.ephemeris import hpc_to_stix
from stixflow.ephemeris.constants import AU_M
from stixflow.errors import ImagingError, NotFound, UsageError
from stixflow.imaging import ForwardFit, Grid, SourceImages, image_source, map_header, reconstruct, visibilities
from stixflow.imaging.attitude import with_attitude
from stixflow.imaging.forward_fit import Kind
from stixflow.imaging.predicted import misfit
from stixflow.imaging.reconstruction import Method, find_method
from stixflow.imaging.source import MODULATED_SNR, location_energy
from stixflow.instrument import LOCATION_RESOLUTIONS, subcollimators
from stixflow.previews.image import Mark, SkyImage, draw_image
from stixflow.previews.lightcurve import draw_lightcurve
from stixflow.previews.theme import THEMES, Theme, ThemeName, new_figure
from stixflow.time import TimeRange, iso

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS = ("bp", "clean", "mem_ge", "forward_fit")
FitShape = Literal["circle", "ellipse", "multi", "loop"]
_SHAPES: Mapping[FitShape, tuple[Kind, ...]] = MappingProxyType(
    {"circle": ("circle",), "ellipse": ("ellipse",), "multi": ("circle", "circle"), "loop": ("loop",)}
)
_SHAPE_NAMES = {"circle": "circle", "ellipse": "ellipse", "multi": "two circles", "loop": "loop"}
_HARD_KEV = 16.0
METHOD_NAMES = {"bp": "back-projection", "clean": "CLEAN", "mem_ge": "MEM_GE", "em": "EM", "forward_fit": "forward fit"}
_DISK_PIXELS = 512
_DISK_WIDTH_RSUN = 2.6
_MARGIN_S = 120.0


def fit_shape(energy_range: tuple[float, float]) -> FitShape:
    """Shape fitted by the recipe of the data centre: an ellipse below 16 keV, else two circles, the footpoints."""
    return "ellipse" if energy_range[1] < _HARD_KEV else "multi"


def methods_of(
    names: Sequence[str], energy_range: tuple[float, float], shape: FitShape | None = None
) -> tuple[Method, ...]:
    """Methods by name with the parameters of the recipe; the fit of `shape`, or of that which goes with the energies.

    Raises
    ------
    UsageError
        If there is no such method.
    """
    fit = ForwardFit(_SHAPES[shape or fit_shape(energy_range)])
    return tuple(fit if name == "forward_fit" else find_method(name) for name in names)


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """Images of one flare in one energy band, on the sky."""

    time_range: TimeRange
    """As asked for; `source` knows the bins that cover it."""
    energy_range: tuple[float, float]
    methods: tuple[Method, ...]
    source: SourceImages
    full_disk: SkyImage
    images: tuple[SkyImage, ...]
    """One for each method."""
    requests: tuple[str, str]
    """Numbers of the request and of its background; empty where there is none."""
    shape: FitShape
    """What the forward fit, if there is one, fits."""
    size: int
    """Pixels along a side of the maps."""
    pixel: float
    """arcsec"""


def preview(
    pixels: xr.Dataset,
    time_range: TimeRange,
    energy_range: tuple[float, float],
    *,
    ephemeris: xr.Dataset,
    background: xr.Dataset | None = None,
    methods: Sequence[str] = METHODS,
    shape: FitShape | None = None,
    size: int = 129,
    pixel: float = 2.0,
) -> Preview:
    """Image one flare for its preview: the full disk by back-projection of coarse sub-collimators, and every method.

    Parameters
    ----------
    pixels, background, ephemeris
        As for `image_source`; a preview needs a known pointing.
    methods
        Names; see `methods_of`.
    shape
        What the forward fit fits; None for the one that goes with the energies.
    size, pixel
        As for `image_source`.

    Raises
    ------
    NotFound
        If the pointing at that time is unknown.
    ImagingError
        If no honest image can be made of the selection.
    """
    wanted = methods_of(methods, energy_range, shape)
    source = image_source(
        pixels,
        [(time_range, energy_range)],
        background=background, ephemeris=ephemeris, methods=wanted, size=size, pixel=pixel,
    )  # fmt: skip
    point, place = source.pointing, source.observer
    if point is None or point.source == "average" or place is None:
        raise NotFound(
            "the pointing is unknown, so there is no place on the Sun to draw",
            expected="an ephemeris that covers the flare",
            advice="ingest the ancillary file of the day, or use `stixflow image`",
        )
    _check_signal(float(source.visibility_snr[0]))
    images = tuple(_on_sky(stack, _image_title(stack, source.visibilities)) for stack in source.images)
    center = tuple(hpc_to_stix((0.0, 0.0), point).tolist())
    located_by = location_energy(pixels, energy_range)
    data = visibilities(
        pixels, time_range, located_by, background,
        location=(source.location.x, source.location.y), center=center,
        subcollimators=subcollimators(*LOCATION_RESOLUTIONS),
    )  # fmt: skip
    grid = Grid(_DISK_PIXELS, _DISK_WIDTH_RSUN * place.rsun_arcsec / _DISK_PIXELS, center=center)
    disk = with_attitude(reconstruct(data, grid, "bp"), [point], [place])
    numbers = [str(one.attrs.get("request_id", "")) if one is not None else "" for one in (pixels, background)]
    return Preview(
        time_range=time_range,
        energy_range=energy_range,
        methods=wanted,
        source=source,
        full_disk=_on_sky(disk, f"full disk, {located_by[0]:g}–{located_by[1]:g} keV back-projection"),
        images=images,
        requests=(numbers[0], numbers[1]),
        shape=shape or fit_shape(energy_range),
        size=size,
        pixel=float(pixel),
    )


def _check_signal(snr: float) -> None:
    if snr < MODULATED_SNR:
        raise ImagingError(
            f"the visibilities are {snr:.1f} times their errors (median); noise alone gives 1.2",
            expected=f"{MODULATED_SNR:g} or more",
            advice="choose a brighter time or other energies; `stixflow image` makes the map all the same",
        )


def _on_sky(stack: xr.Dataset, title: str) -> SkyImage:
    return SkyImage.of_header(stack["image"].to_numpy()[0], map_header(stack), title=title)


def _image_title(stack: xr.Dataset, data: xr.Dataset) -> str:
    """Name of the method, what it fitted, and how well the map explains what was measured."""
    method = str(stack.attrs["method"])
    name = METHOD_NAMES.get(method, method)
    if method == "bp":
        return name
    if method == "forward_fit":
        kinds = tuple(kind for kind in np.atleast_2d(stack["kind"].to_numpy())[0].tolist() if kind)
        shape = next((_SHAPE_NAMES[key] for key, known in _SHAPES.items() if known == kinds), " + ".join(kinds))
        at_bound = ", at a bound" if bool(stack["at_bound"].to_numpy()[0]) else ""
        return f"{name}: {shape}{at_bound}   χ² {float(stack['reduced_chi2'].to_numpy()[0]):.2g}"
    statistic = f"   C-stat {float(stack['cstat'].to_numpy()[0]):.2g}" if "cstat" in stack else ""
    return f"{name}   χ² {float(misfit(stack, data)[0]):.2g}{statistic}"


def panels_figure(
    shown: Preview,
    lightcurve: xr.Dataset | None = None,
    *,
    title: str = "",
    theme: ThemeName = "light",
    size: tuple[float, float] = (14.0, 8.4),
) -> Figure:
    """Draw the panels: light curve with the imaged window shaded, full disk with the location, one image per method.

    Parameters
    ----------
    lightcurve
        A `ql_lightcurve` around the flare, or of `pixel_lightcurve`; None where there is none, and the panel says so.
    title
        Lines above; empty for time range, energies, requests, counts, and how the pointing is known.
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
    figure.set_layout_engine("constrained", rect=(0.015, 0.0, 0.98, 0.99), hspace=0.03)
    _draw_curve(figure.add_subplot(2, 3, 1), lightcurve, shown.source.time_range, look)
    places = [Mark(*shown.source.hpc, kind="truth", label="located")] if shown.source.hpc else []
    draw_image(figure.add_subplot(2, 3, 2), shown.full_disk, look, contour_levels=(), marks=places)
    for number, image in enumerate(shown.images):
        draw_image(figure.add_subplot(2, 3, 3 + number), image, look, contour_levels=(0.3, 0.5, 0.7))
    first, _, rest = (title or _title(shown)).partition("\n")
    figure.suptitle(f"{first}\n" if rest else first, x=0.01, ha="left", fontsize=12, fontweight="bold", color=look.ink)
    figure.text(0.01, 0.95, rest, ha="left", va="bottom", fontsize=9.5, color=look.faint)
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
    axes.set_title("light curves, imaged time shaded", loc="left", fontsize=9.5, color=look.ink)
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
    (low, high), span = shown.energy_range, shown.source.time_range
    pointing, place, one = shown.source.pointing, shown.source.observer, shown.source.images[0]
    aspect = "aspect corrected" if pointing and pointing.source == "sas" else "aspect not corrected"
    stop = iso(span.stop)[:21].replace("T", " ")
    same_day = iso(span.start)[:10] == stop[:10]
    when = f"{iso(span.start)[:21].replace('T', ' ')} – {stop[11:] if same_day else stop} UTC ({span.seconds:.0f} s)"
    signal, quiet = shown.requests
    total, net = (float(one[name].to_numpy()[0]) for name in ("counts", "net_counts"))
    parts = [
        f"SIG/BKG: {signal or '–'}/{quiet or 'none'}",
        f"{_grouped(total)} counts, {_grouped(net)} net" if quiet else f"{_grouped(total)} counts",
        f"visibilities {shown.source.visibility_snr[0]:.1f} σ",
        "at x {:.0f}″, y {:.0f}″".format(*shown.source.hpc).replace("-", "−") if shown.source.hpc else "",
        f"seen from {place.distance_m / AU_M:.2f} au" if place else "",
        aspect,
        "contours at 30, 50, 70 %",
    ]
    return f"STIX {low:g}–{high:g} keV   {when}\n" + "   ·   ".join(part for part in parts if part)


def _grouped(number: float) -> str:
    return f"{number:,.0f}".replace(",", "\u2009")
