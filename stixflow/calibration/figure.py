"""The figure of a calibration: maps of the pixels, the sum of all spectra with what was fitted, the drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.calibration.lines import WINDOWS, expected_counts
from stixflow.calibration.reasons import n_calibrated
from stixflow.calibration.table import DRIFT_LIMIT_KEV, DRIFT_TO_KEV, drift_of
from stixflow.previews.theme import THEMES, Theme, ThemeName, dress, new_figure
from stixflow.time import iso

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_GRID_KEV = np.arange(22.0, 95.0, 0.25)
_FINE = 4.0
_COLOURS, _DIVERGING = "viridis", "RdBu_r"


def calibration_figure(
    calibration: xr.Dataset, run: xr.Dataset, *, theme: ThemeName = "light", limit_kev: float = DRIFT_LIMIT_KEV
) -> Figure:
    """Draw a calibration: gain, offset and widths by detector and pixel, the sum spectrum, the drift of the edges.

    Parameters
    ----------
    calibration
        As `calibrate` gives it.
    run
        The spectra it was made of.
    """
    look = THEMES[theme]
    figure = new_figure(13.0, 11.0, look)
    rows: list[Any] = [["gain", "offset"], ["31", "81"], ["sum", "sum"], ["drift", "edges"]]
    places = figure.subplot_mosaic(rows, height_ratios=[1, 1, 1.5, 1.2])
    width = calibration["line_fwhm"].values
    maps = {
        "gain": (calibration["gain"].values * 1000, "gain, eV per ADC channel"),
        "offset": (calibration["offset"].values, "offset, ADC channel of 0 keV"),
        "31": (width[..., 0], "FWHM at 31 keV, keV"),
        "81": (width[..., 2], "FWHM at 81 keV, keV"),
    }
    for name, (values, title) in maps.items():
        _draw_map(figure, places[name], values, title, look)
    _draw_sum(places["sum"], calibration, run, look)
    drift = drift_of(calibration, limit_kev=limit_kev)
    judged = drift["drift"].values[..., drift["energy"].values <= DRIFT_TO_KEV]
    worst = np.take_along_axis(judged, np.abs(np.nan_to_num(judged)).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    title = f"largest drift up to {DRIFT_TO_KEV:g} keV from table {drift.attrs['active']}, keV"
    _draw_map(figure, places["drift"], worst, title, look, limit=limit_kev)
    _draw_edges(places["edges"], drift, look)
    start, hours = calibration["time_start"].values[0], float(calibration["timedel"].values[0]) / 3600
    figure.suptitle(
        f"Energy calibration of {iso(np.datetime64(start, 's'))[:19]} UTC, {hours:.1f} h: "
        f"{n_calibrated(calibration)} of {calibration['gain'].size} pixels",
        color=look.ink,
    )
    return figure


def _draw_map(
    figure: Figure, axes: Axes, values: FloatArray, title: str, theme: Theme, limit: float | None = None
) -> None:
    """Draw values (detector, pixel), pixels upwards; those without a value are left open."""
    dress(axes, theme)
    known = values[np.isfinite(values)]
    scale: dict[str, Any] = {"cmap": _COLOURS}
    if limit is not None:
        scale = {"cmap": _DIVERGING, "vmin": -2 * limit, "vmax": 2 * limit}
    elif known.size:
        low, high = np.percentile(known, [1, 99])
        scale |= {"vmin": low, "vmax": high}
    image = axes.imshow(np.ma.masked_invalid(values.T), origin="lower", aspect="auto", **scale)
    bar = figure.colorbar(image, ax=axes, pad=0.01, extend="both")
    bar.ax.tick_params(colors=theme.faint, labelsize=8)
    axes.set_title(title, fontsize=10, color=theme.ink, loc="left")
    axes.set_xlabel("detector", fontsize=9)
    axes.set_ylabel("pixel", fontsize=9)
    axes.set_xticks(range(0, values.shape[0], 4), [str(number + 1) for number in range(0, values.shape[0], 4)])
    axes.set_yticks(range(0, values.shape[1], 3))


def _draw_sum(axes: Axes, calibration: xr.Dataset, run: xr.Dataset, theme: Theme) -> None:
    dress(axes, theme)
    axes.set_title("all calibrated pixels on one scale", fontsize=10, color=theme.ink, loc="left")
    axes.set_xlabel("keV", fontsize=9)
    axes.set_ylabel("counts per keV", fontsize=9)
    good = np.isfinite(calibration["gain"].values)
    if not good.any():
        axes.text(0.5, 0.5, "no pixel could be calibrated", transform=axes.transAxes, ha="center", color=theme.accent)
        return
    width = np.diff(_GRID_KEV)
    axes.stairs(sum_spectrum(calibration, run) / width, _GRID_KEV, color=theme.ink, lw=1.2, label="measured")
    fitted, centre = fitted_spectrum(calibration), (_GRID_KEV[1:] + _GRID_KEV[:-1]) / 2
    for number, (part, window) in enumerate(zip(fitted, WINDOWS, strict=True)):
        inside = (centre >= window.low) & (centre < window.high)
        label = "fitted" if number == 0 else None
        axes.plot(centre[inside], part[inside] / width[inside], color=theme.accent, lw=1.2, label=label)
    for energy in calibration["line_energy"].values:
        axes.axvline(energy, color=theme.line, lw=0.8, zorder=0)
        axes.annotate(
            f"{energy:.2f}", (energy, 0.03), xycoords=("data", "axes fraction"), color=theme.faint, fontsize=8
        )
    axes.set_yscale("log")
    axes.set_xlim(_GRID_KEV[0], _GRID_KEV[-1])
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=9)


def sum_spectrum(calibration: xr.Dataset, run: xr.Dataset) -> FloatArray:
    """Counts of all calibrated pixels between the edges of a grid in energy, points spread evenly over their width."""
    edges = (run["adc_start"].values * _FINE, run["adc_stop"].values * _FINE)
    order = np.argsort(edges[0], kind="stable")
    start, stop = (axis[order] for axis in edges)
    # Where points of two subspectra overlap, the narrow ones say more; here the first of a place is enough.
    keep = start >= np.concatenate([[0.0], np.maximum.accumulate(stop)[:-1]])
    counts = run["counts"].values[order][keep].reshape(int(keep.sum()), -1)
    axis = np.concatenate([start[keep], stop[keep][-1:]])
    total = np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0)])
    offset, gain = (calibration[name].values.reshape(-1) for name in ("offset", "gain"))
    spectra = [
        np.diff(np.interp(offset[pixel] + _GRID_KEV / gain[pixel], axis, total[:, pixel]))
        for pixel in np.flatnonzero(np.isfinite(gain))
    ]
    return np.asarray(np.sum(spectra, axis=0))


def fitted_spectrum(calibration: xr.Dataset) -> list[FloatArray]:
    """Expected counts of all calibrated pixels between the same edges, for each window."""
    good = np.isfinite(calibration["gain"].values)
    unknowns = calibration["fitted"].values[good]
    offset, gain = (calibration[name].values[good][:, None] for name in ("offset", "gain"))
    edges = offset + _GRID_KEV / gain
    return [expected_counts(window, unknowns, edges[:, :-1], edges[:, 1:])[0].sum(axis=0) for window in WINDOWS]


def _draw_edges(axes: Axes, drift: xr.Dataset, theme: Theme) -> None:
    dress(axes, theme)
    axes.set_title("drift of the edges: median, 90 % and all pixels", fontsize=10, color=theme.ink, loc="left")
    axes.set_xlabel("edge, keV", fontsize=9)
    axes.set_ylabel("true minus believed, keV", fontsize=9)
    values = drift["drift"].values.reshape(-1, drift.sizes["edge"])
    values = values[np.isfinite(values).all(axis=1)]
    if not values.size:
        return
    energy = drift["energy"].values
    for low, high, shade in ((0, 100, 0.15), (5, 95, 0.35)):
        axes.fill_between(energy, *np.percentile(values, [low, high], axis=0), color=theme.bands[0], alpha=shade, lw=0)
    axes.plot(energy, np.median(values, axis=0), color=theme.bands[0], lw=1.6)
    for sign in (-1, 1):
        axes.axhline(sign * drift.attrs["limit_kev"], color=theme.accent, lw=0.9, ls="--")
    axes.axvspan(DRIFT_TO_KEV, energy[-1], color=theme.line, alpha=0.4, lw=0, zorder=0)
    axes.set_xlim(energy[0], energy[-1])


__all__ = ["calibration_figure", "fitted_spectrum", "sum_spectrum"]
