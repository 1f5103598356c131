"""The figures of the mission, drawn: what a day costs, and how long the whole mission takes on more and more cores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stixflow.bench.mission import FEATURES

_COLOURS = {"ingest": "#8da0cb", "cubes": "#1b6ca8", "flares": "#e6a817", "images": "#c8553d"}
_TARGET_H = 3.0


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Draw the measured days beside the fit, and the time of the mission against cores, into one PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
        _days(left, found)
        _mission(right, found)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _days(axes: Any, found: Mapping[str, Any]) -> None:
    rows = sorted(found["days"], key=lambda row: row["megabytes"])
    place, bottom = np.arange(len(rows)), np.zeros(len(rows))
    for stage, colour in _COLOURS.items():
        seconds = np.array([row["worker_seconds"].get(stage, 0.0) for row in rows])
        axes.bar(place, seconds, bottom=bottom, color=colour, width=0.72, label=stage)
        bottom += seconds
    costs = found["model"]["coefficients"]
    fitted = [sum(costs[s][name] * row[name] for s in FEATURES for name in FEATURES[s]) for row in rows]
    axes.plot(place, fitted, "o", color="black", markersize=4, label="fit")
    axes.set_xticks(place, [f"{row['megabytes']:.0f}\n{row['images']}" for row in rows])
    axes.set_xlabel("day: MB of telemetry, images made")
    axes.set_ylabel("processor time of the workers, s")
    axes.set_title("What a simulated day costs", loc="left", fontweight="bold")
    axes.legend(frameon=False, loc="upper left")


def _mission(axes: Any, found: Mapping[str, Any]) -> None:
    serial, hours = found["serial"], found["worker_hours"]
    cores = np.geomspace(2, 512, 200)
    wall = {}
    for name, value in hours.items():
        shared = (3600 * value + serial["writing_s"]) / (cores * found["efficiency"])
        wall[name] = (serial["planning_s"] + np.maximum(shared, serial["writing_s"])) / 3600
    axes.loglog(cores, wall["middle"], color=_COLOURS["cubes"], lw=2)
    axes.fill_between(cores, wall["low"], wall["high"], color=_COLOURS["cubes"], alpha=0.25, lw=0)
    for row in found["whole_mission"]:
        axes.plot(row["cores"], row["hours"], "o", color=_COLOURS["images"], zorder=3)
        text = f"{row['hours']:.1f} h" if row["hours"] >= 1 else f"{60 * row['hours']:.0f} min"
        axes.annotate(f"{row['cores']} cores\n{text}", (row["cores"], row["hours"]), xytext=(6, 8),
                      textcoords="offset points")  # fmt: skip
    limit = (serial["planning_s"] + serial["writing_s"]) / 3600
    axes.axhline(limit, color="grey", ls=":", lw=1)
    axes.annotate("planning and catalog: one process", (2, limit), xytext=(0, 4), textcoords="offset points",
                  color="grey")  # fmt: skip
    axes.plot([2], [_TARGET_H], "_", color="black", markersize=16)
    axes.annotate("target", (2, _TARGET_H), xytext=(8, -3), textcoords="offset points")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("cores")
    axes.set_ylabel("hours")
    axes.set_title("The whole mission", loc="left", fontweight="bold")
