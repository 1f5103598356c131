"""What the panels of a real flare show."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

from stixflow.errors import ImagingError, NotFound
from stixflow.imaging import ForwardFit
from stixflow.previews import Preview, fit_shape, panels_figure, preview
from stixflow.previews.panels import METHODS, around, methods_of
from stixflow.time import TimeRange, to_utc


def test_every_method_shows_the_flare_where_it_was_located(real_preview: Preview) -> None:
    """The full disk is cut by coarse sub-collimators at 8 arcsec a pixel; maps have 4 arcsec a pixel."""
    hpc = np.array(real_preview.source.hpc)
    assert len(real_preview.images) == len(METHODS)
    for image in real_preview.images:
        assert np.hypot(*(np.array(image.peak_xy()) - hpc)) < 8
    assert np.hypot(*(np.array(real_preview.full_disk.peak_xy()) - hpc)) < 12
    left, right, low, high = real_preview.full_disk.field()
    assert min(-left, right, -low, high) > real_preview.full_disk.observer.rsun_arcsec


def test_the_panels(real_preview: Preview, lightcurve: xr.Dataset) -> None:
    moved = lightcurve.assign_coords(time=lightcurve["time"] + (to_utc("2022-11-09T07:00:00") - lightcurve["time"][0]))
    figure = panels_figure(real_preview, moved)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert titles[:3] == ["light curves, imaged time shaded", "full disk, 6–10 keV back-projection", "back-projection"]
    for title, pattern in zip(
        titles[3:], (r"CLEAN   χ² [\d.]+", r"MEM_GE   χ² [\d.]+", r"forward fit: ellipse   χ² .+"), strict=True
    ):
        assert re.fullmatch(pattern, title)
    (shade,) = (patch for patch in figure.axes[0].patches if patch.get_alpha() == 0.25)
    seconds = (shade.get_extents().width / figure.axes[0].get_window_extent().width) * np.ptp(figure.axes[0].get_xlim())
    assert seconds * 86400 == pytest.approx(122.7, abs=0.5)
    assert figure._suptitle is not None  # type: ignore[attr-defined]
    assert figure._suptitle.get_text().strip() == (  # type: ignore[attr-defined]
        "STIX 4–10 keV   2022-11-09 07:19:31.1 – 07:21:33.8 UTC (123 s)"
    )
    (told,) = (text.get_text().split("   ·   ") for text in figure.texts if "SIG/BKG" in text.get_text())
    assert told[0] == "SIG/BKG: 2211091049/2211098157"
    counts = [int("".join(filter(str.isdigit, part))) for part in told[1].split(", ")]
    assert counts == [round(float(real_preview.source.images[0][name][0])) for name in ("counts", "net_counts")]
    assert told[2] == f"visibilities {real_preview.source.visibility_snr[0]:.1f} σ"
    assert told[-2:] == ["aspect not corrected", "contours at 30, 50, 70 %"]


def test_without_light_curve_the_panel_says_so(real_preview: Preview) -> None:
    figure = panels_figure(real_preview)
    assert [text.get_text() for text in figure.axes[0].texts] == ["no light curve of this time"]


def test_without_pointing_there_is_no_preview(real_inputs: dict[str, xr.Dataset]) -> None:
    other = real_inputs["ephemeris"]
    other = other.assign_coords(time=other["time"] - np.timedelta64(30, "D"))
    span = TimeRange.parse("2022-11-09T07:20:24/2022-11-09T07:21:04")
    with pytest.raises(NotFound, match="pointing is unknown"):
        preview(real_inputs["pixels"], span, (4.0, 10.0), ephemeris=other, methods=("bp",), size=33)


def test_noise_is_not_shown_as_an_image(real_inputs: dict[str, xr.Dataset]) -> None:
    """Before the flare: 500 counts above the background, and no modulation."""
    span = TimeRange.parse("2022-11-09T07:17:24/2022-11-09T07:18:23")
    with pytest.raises(ImagingError, match=r"times their errors \(median\); noise alone gives 1.2"):
        preview(real_inputs["pixels"], span, (10.0, 15.0), **{k: real_inputs[k] for k in ("background", "ephemeris")})


def test_the_light_curve_reaches_around_flare_and_window() -> None:
    window = TimeRange.parse("2022-11-09T07:20:00/2022-11-09T07:21:00")
    start, stop = to_utc("2022-11-09T07:10:00"), to_utc("2022-11-09T07:30:00")
    span = around(window, start, stop)
    assert (span.start, span.stop) == (to_utc("2022-11-09T07:00:00"), to_utc("2022-11-09T07:40:00"))
    close = around(window, window.start, window.stop)
    assert (close.start, close.stop) == (to_utc("2022-11-09T07:18:00"), to_utc("2022-11-09T07:23:00"))


@pytest.mark.parametrize(
    ("band", "shape", "sources"),
    [((4.0, 10.0), "ellipse", ("ellipse",)), ((10.0, 15.0), "ellipse", ("ellipse",)),
     ((10.0, 16.0), "multi", ("circle", "circle")), ((16.0, 28.0), "multi", ("circle", "circle"))],
)  # fmt: skip
def test_soft_sources_are_ellipses_and_hard_ones_two_circles(
    band: tuple[float, float], shape: str, sources: tuple[str, ...]
) -> None:
    assert fit_shape(band) == shape
    (fit,) = methods_of(["forward_fit"], band)
    assert isinstance(fit, ForwardFit)
    assert fit.sources == sources
    (other,) = methods_of(["forward_fit"], band, "loop")
    assert isinstance(other, ForwardFit)
    assert other.sources == ("loop",)
