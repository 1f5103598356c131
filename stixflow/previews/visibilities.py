"""How well images explain the measurement: amplitudes and phases of the visibilities, measured and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.imaging.predicted import misfit, predicted_visibilities
from stixflow.previews.image import unit_text
from stixflow.previews.panels import METHOD_NAMES, Preview
from stixflow.previews.theme import THEMES, Theme, ThemeName, dress, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "D", "^", "v")
_SPREAD = 0.5


def visibility_figure(
    shown: Preview, *, title: str = "", theme: ThemeName = "light", size: tuple[float, float] = (10.0, 6.0)
) -> Figure:
    """Draw amplitude and phase of every sub-collimator, coarse to fine, with those that each map predicts.

    Parameters
    ----------
    title
        Line above; empty for time and energies.
    size
        Inches.
    """
    look, data = THEMES[theme], shown.source.visibilities
    stacks = [stack for stack in shown.source.images if stack.attrs["method"] != "bp"]
    measured, sigma = data["visibility"].to_numpy()[0], data["sigma"].to_numpy()[0]
    labels = data["label"].to_numpy().tolist()
    order = np.array(sorted(range(len(labels)), key=lambda k: (-int(labels[k][:-1]), labels[k][-1])))
    predicted = [predicted_visibilities(stack, data)[0][order] for stack in stacks]
    figure = new_figure(*size, look)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    vis, error = measured[order], sigma[order]
    _draw(upper, look, np.abs(vis), error, [np.abs(one) for one in predicted])
    turned = [np.rad2deg(np.angle(one / vis)) for one in predicted]
    phase_error = np.rad2deg(np.minimum(error / np.maximum(np.abs(vis), 1e-300), np.pi))
    _draw(lower, look, np.zeros(len(vis)), phase_error, turned)
    upper.set_ylabel(f"amplitude ({unit_text(str(data['visibility'].attrs.get('units', '')))})")
    upper.set_ylim(bottom=0)
    lower.set_ylabel("phase less measured (°)")
    reach = min(180.0, 1.2 * max(20.0, *(float(np.abs(one).max()) for one in turned), float(phase_error.max())))
    lower.set_ylim(-reach, reach)
    lower.set_xticks(np.arange(len(order)), [labels[k] for k in order], fontsize=8)
    lower.set_xlabel("sub-collimator, coarse to fine")
    _legend(upper, look, stacks, data)
    low, high = shown.energy_range
    text = title or f"visibilities, {low:g}–{high:g} keV, {shown.source.time_range}"
    upper.set_title(text, loc="left", fontsize=10.5, fontweight="bold", color=look.ink)
    return figure


def _draw(
    axes: Axes,
    look: Theme,
    measured: NDArray[np.float64],
    error: NDArray[np.float64],
    predicted: Sequence[NDArray[np.float64]],
) -> None:
    dress(axes, look)
    places = np.arange(len(measured))
    axes.errorbar(places, measured, error, fmt="_", color=look.ink, markersize=12, linewidth=1.2, label="measured")
    for number, values in enumerate(predicted):
        shift = _SPREAD * ((number + 1) / (len(predicted) + 1) - 0.5)
        axes.plot(
            places + shift, values, linestyle="none", marker=_MARKERS[number % len(_MARKERS)], markersize=4.5,
            color=look.bands[number % len(look.bands)], label=f"_{number}",
        )  # fmt: skip
    axes.grid(color=look.line, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(axes: Axes, look: Theme, stacks: Sequence[xr.Dataset], data: xr.Dataset) -> None:
    handles, _ = axes.get_legend_handles_labels()
    methods = [METHOD_NAMES.get(str(stack.attrs["method"]), "") for stack in stacks]
    fits = [float(misfit(stack, data)[0]) for stack in stacks]
    names = [f"{method}   χ² {fit:.2g}" for method, fit in zip(methods, fits, strict=True)]
    lines = [line for line in axes.get_lines() if line.get_marker() in _MARKERS]
    text = {"fontsize": 8.5, "frameon": False, "labelcolor": look.ink}
    axes.legend([*handles, *lines], ["measured", *names], loc="upper right", **text)
