"""Figure of quick-look light curves with the flares found in them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from stixflow.flares.snip import smooth
from stixflow.previews.theme import THEMES, Theme, ThemeName, dress, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELLED_FLARES = 14
_BAND_EDGES = (4.0, 10.0, 15.0, 25.0, 50.0, 84.0)
"""Energies of the quick-look light curves, keV."""
_GAP_BINS = 1.5
_LABEL_WIDTH = 0.015
"""Of the name of a flare, as a part of the light curve."""
_SMOOTHED_BELOW_S = 8.0


def lightcurve_figure(
    lightcurve: xr.Dataset,
    flares: pd.DataFrame | None = None,
    *,
    title: str = "",
    theme: ThemeName = "light",
    size: tuple[float, float] = (11.0, 4.4),
) -> Figure:
    """Draw count rates per energy band over time, flares shaded and the brightest named.

    Parameters
    ----------
    lightcurve
        A `ql_lightcurve` (time, energy); gaps stay empty.
    flares
        Table with `start`, `peak`, `stop`, and where known `peak_counts` and `goes_class`.
    size
        Inches.
    """
    look = THEMES[theme]
    figure = new_figure(*size, look)
    draw_lightcurve(figure.add_subplot(), lightcurve, look, flares=flares, title=title)
    return figure


def draw_lightcurve(
    axes: Axes, lightcurve: xr.Dataset, look: Theme, *, flares: pd.DataFrame | None = None, title: str = ""
) -> None:
    """Draw count rates with flares, attenuator and legend into axes."""
    dress(axes, look)
    _draw_bands(axes, lightcurve, look)
    _draw_regime(axes, lightcurve, look)
    without = flares is None or flares.empty
    if flares is not None and not without:
        times = lightcurve["time"].to_numpy()
        apart = (times[-1] - times[0]) * _LABEL_WIDTH if len(times) else np.timedelta64(0, "s")
        _draw_flares(axes, flares, look, pd.Timedelta(apart))
    _finish(axes, lightcurve, look, title, unlabelled=without)


def pixel_lightcurve(pixels: xr.Dataset) -> xr.Dataset:
    """Light curve of pixel data: counts of all detectors in the bands of the quick-look curves that they reach.

    Parameters
    ----------
    pixels
        A `sci_pixels` or `sci_pixel_sums`; energies that were not received leave a gap in their band.

    Returns
    -------
    Dataset with the variables of a `ql_lightcurve` that are drawn.
    """
    low, high = pixels["energy_low"].to_numpy(), pixels["energy_high"].to_numpy()
    counts = pixels["counts"].to_numpy().sum(axis=(2, 3), dtype=np.float64)
    counts[~pixels["observed"].to_numpy()] = np.nan
    chosen = [(low >= a) & (high <= b) for a, b in pairwise(_BAND_EDGES)]
    there = [band for band in chosen if band.any()] or [np.ones(low.size, dtype=np.bool_)]
    return xr.Dataset(
        {
            "counts": (("time", "energy"), np.stack([counts[:, band].sum(axis=1) for band in there], axis=1)),
            "timedel": ("time", pixels["timedel"].to_numpy()),
            "rcr": ("time", pixels["rcr"].to_numpy()),
            "energy_low": ("energy", [low[band].min() for band in there]),
            "energy_high": ("energy", [high[band].max() for band in there]),
        },
        coords={"time": pixels["time"].to_numpy()},
    )


def _draw_bands(axes: Axes, lightcurve: xr.Dataset, look: Theme) -> None:
    """Draw what was counted faintly, and its mean over a minute on top."""
    counted = lightcurve["counts"].to_numpy() / lightcurve["timedel"].to_numpy()[:, None]
    edges = list(zip(lightcurve["energy_low"].to_numpy(), lightcurve["energy_high"].to_numpy(), strict=True))
    times, rates = _with_breaks(lightcurve, counted)
    is_fine = len(counted) > 0 and np.median(lightcurve["timedel"].to_numpy()) < _SMOOTHED_BELOW_S
    means = _with_breaks(lightcurve, smooth(counted.T).T)[1] if is_fine else rates
    for band, (low, high) in enumerate(edges):
        colour, front = look.bands[band % len(look.bands)], len(edges) - band
        axes.plot(times, rates[:, band], linewidth=0.5, alpha=0.3, color=colour, zorder=front)
        axes.plot(
            times, means[:, band], linewidth=1.3, color=colour, label=f"{low:g}–{high:g} keV", zorder=len(edges) + front
        )


def _with_breaks(
    lightcurve: xr.Dataset, rates: NDArray[np.float64]
) -> tuple[NDArray[np.datetime64], NDArray[np.float64]]:
    """Bin centres and rates with a missing value in every gap, so that no line crosses it."""
    times, seconds = lightcurve["time"].to_numpy(), lightcurve["timedel"].to_numpy()
    positive = np.where(rates > 0, rates, np.nan)
    if len(times) < 2:
        return times, positive
    between = np.diff(times) / np.timedelta64(1, "s") - (seconds[1:] + seconds[:-1]) / 2
    after = np.flatnonzero(between > _GAP_BINS * np.median(seconds)) + 1
    middle = times[after - 1] + (times[after] - times[after - 1]) / 2
    return np.insert(times, after, middle), np.insert(positive, after, np.nan, axis=0)


def _draw_regime(axes: Axes, lightcurve: xr.Dataset, look: Theme) -> None:
    """Mark along the bottom when the attenuator was in."""
    attenuated = lightcurve["rcr"].to_numpy() > 0
    if attenuated.any():
        axes.fill_between(
            lightcurve["time"].to_numpy(),
            0,
            0.02,
            where=attenuated.tolist(),
            transform=axes.get_xaxis_transform(),
            color=look.accent,
            linewidth=0,
            label="attenuator in",
        )


def _draw_flares(axes: Axes, flares: pd.DataFrame, look: Theme, apart: pd.Timedelta) -> None:
    for start, stop in zip(flares["start"], flares["stop"], strict=True):
        axes.axvspan(start, stop, color=look.accent, alpha=0.13, linewidth=0)
    for _, flare in _named(flares, apart).iterrows():
        axes.annotate(
            _flare_label(flare),
            xy=(flare["peak"], 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="left",
            va="bottom",
            rotation=40,
            fontsize=8,
            color=look.accent,
            annotation_clip=False,
        )


def _named(flares: pd.DataFrame, apart: pd.Timedelta) -> pd.DataFrame:
    """The brightest flares whose names fit: at most so many, and none nearer to another than the width of a name."""
    ordered = flares.sort_values("peak_counts", ascending=False) if "peak_counts" in flares else flares
    chosen: list[int] = []
    for row, peak in enumerate(ordered["peak"]):
        if len(chosen) < _LABELLED_FLARES and all(abs(peak - ordered["peak"].iloc[one]) >= apart for one in chosen):
            chosen.append(row)
    return ordered.iloc[sorted(chosen)]


def _flare_label(flare: pd.Series) -> str:
    time = f"{pd.Timestamp(flare['peak']):%H:%M}"
    known = flare.get("goes_class")
    return f"{known} {time}" if isinstance(known, str) and known else time


def _finish(axes: Axes, lightcurve: xr.Dataset, look: Theme, title: str, *, unlabelled: bool) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    times = lightcurve["time"].to_numpy()
    if np.nanmax(lightcurve["counts"].to_numpy(), initial=0) > 0:
        axes.set_yscale("log")
    if len(times) > 1:
        axes.set_xlim(times[0], times[-1])
    locator = AutoDateLocator(minticks=5, maxticks=11)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.xaxis.get_offset_text().set_color(look.faint)
    axes.grid(color=look.line, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_ylabel("counts / s")
    axes.set_xlabel("UTC at the spacecraft")
    if title:
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=look.ink, pad=8 if unlabelled else 40)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.005, 1.0),
        frameon=False,
        fontsize=9,
        labelcolor=look.ink,
        handlelength=1.4,
        borderaxespad=0.0,
    )
