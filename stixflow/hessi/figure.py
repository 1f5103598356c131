"""The count-rate plot of the catalog: bands over time, night shaded, flares and their backgrounds marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import NotFound, UsageError
from stixflow.hessi.finder import ECLIPSE_FLAGS, SAA_FLAGS, is_flagged, runs
from stixflow.hessi.flare_list import FlareList
from stixflow.hessi.rates import utc_of_ut
from stixflow.hessi.summary import INTERVAL_S, ObservingSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#1d5fa8", "#0b8a79", "#b07700", "#c4476f", "#6b5ca5")
_NIGHT, _ANOMALY, _BACKGROUND = "#d9dfe5", "#f3e3c3", "#c2410c"


def rate_figure(
    summary: ObservingSummary,
    bands: Sequence[tuple[float, float]] = ((6.0, 100.0),),
    flares: FlareList | None = None,
    *,
    size: tuple[float, float] = (11.0, 4.4),
) -> Figure:
    """Draw count rates over time, with gaps where the anomaly switches the detectors off.

    Parameters
    ----------
    bands
        Energy ranges in keV, each the sum of the bands of the summary inside it.
    flares
        Their background intervals are drawn in red, their peaks dotted.
    size
        Inches; save it as PNG or SVG with ``figure.savefig``.

    Raises
    ------
    NotFound, UsageError
        If the summary holds no rates, or no band inside a range.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    data = summary.get("data")
    if isinstance(data, int):
        raise NotFound("the summary holds no rates", advice="getdata first")
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    times = utc_of_ut(data["time"])
    is_off = is_flagged(summary, SAA_FLAGS) & (data["countrate"] == 0).all(axis=1)
    for i, energies in enumerate(bands):
        rate = np.where(is_off, np.nan, _band(summary, data["countrate"], energies))
        name = f"{energies[0]:g}-{energies[1]:g} keV"
        axes.step(times, rate, where="post", color=_COLOURS[i % len(_COLOURS)], lw=0.8, label=name)
    _shade(axes, summary, data["time"])
    if flares is not None:
        _mark(axes, flares)
    axes.set(ylabel="counts / s", xlabel="UTC", xlim=(times[0], times[-1] + np.timedelta64(4, "s")))
    locator = AutoDateLocator(minticks=5, maxticks=11)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.005, 1.0), borderaxespad=0.0)
    return figure


def _band(summary: ObservingSummary, rates: NDArray[np.float32], energies: tuple[float, float]) -> NDArray[np.float64]:
    edges = np.asarray(summary.get("obs_summ_rate").info["energy_edges"], dtype=np.float64)
    inside = (edges[:-1] >= energies[0]) & (edges[1:] <= energies[1])
    if not inside.any():
        limits = ", ".join(f"{edge:g}" for edge in edges)
        raise UsageError(f"no band in {energies[0]:g}-{energies[1]:g} keV", expected=f"edges of {limits} keV")
    return np.asarray(rates[:, inside].sum(axis=1), dtype=np.float64)


def _shade(axes: Axes, summary: ObservingSummary, seconds: NDArray[np.float64]) -> None:
    for names, colour, label in ((ECLIPSE_FLAGS, _NIGHT, "night"), (SAA_FLAGS, _ANOMALY, "anomaly")):
        for i, (first, stop) in enumerate(runs(is_flagged(summary, names))):
            start, end = utc_of_ut(np.array([seconds[first], seconds[stop - 1] + INTERVAL_S]))
            axes.axvspan(start, end, color=colour, lw=0, zorder=0, label=label if i == 0 else None)


def _mark(axes: Axes, flares: FlareList) -> None:
    for flare in flares.get("data"):
        start, stop = utc_of_ut(flare["bck_time"])
        axes.plot([start, stop], [flare["bck_countrate"]] * 2, color=_BACKGROUND, lw=3)
        peak = utc_of_ut(flare["peak_time"])
        axes.plot(
            [peak, peak], [0, 1], transform=axes.get_xaxis_transform(), color=_BACKGROUND, lw=0.6, ls=":", zorder=0.5
        )
