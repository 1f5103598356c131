"""Simulated months with known flares: what a detector finds, what it misses, what it makes up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from stixflow.flares import detect, estimate_goes, smooth
from stixflow.simulate.observe import build_sky, expected_light_curve, light_curve
from stixflow.simulate.sun import FlareModel, Scenario, Source
from stixflow.telemetry.compression import compress, decompress
from stixflow.time import TimeRange, utc_to_scet

CHUNK_DAYS = 3
FLARES_PER_DAY = 12
PEAK_COUNTS = (12.0, 3e4)
EDGES = np.array([4.0, 10.0, 15.0, 25.0, 50.0, 84.0])
QUIET = np.array([262.0, 54.0, 73.0, 947.0, 460.0])
SCHEME = (0, 5, 3)
SIGNIFICANCE_EDGES = (0.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 1e9)
METHODS = ("poisson", "snip")
_DAY = np.timedelta64(1, "D")
_MATCH = np.timedelta64(90, "s")


@dataclass(frozen=True, slots=True)
class Month:
    """Light curves of some days without a break, and the flares in them.

    `truth` has a row per flare: `peak` of the noise-free curve, `significance` of its peak minute over the noise of a
    quiet minute, `start` and `stop` between which it adds a count, and `alone`: no other flare is stronger at its peak.
    """

    curve: xr.Dataset
    truth: pd.DataFrame


def simulate_days(first: np.datetime64, days: int, seed: int) -> Month:
    """Draw flares at any time, of any length, with peaks evenly spread in log counts, overlapping as they fall."""
    rng = np.random.default_rng(seed)
    span = TimeRange(first, first + days * _DAY)
    distance = float(rng.uniform(0.35, 0.98))
    flares = tuple(_flare(rng, span, distance) for _ in range(int(rng.poisson(FLARES_PER_DAY * days))))
    scenario = Scenario(span, flares, distance, background=float(rng.uniform(0.9, 1.15)), seed=seed)
    sky = build_sky(scenario)
    curve = light_curve(sky)
    start = int(utc_to_scet(span.start))
    edges = start + 4 * 65536 * np.arange(curve.sizes["time"] + 1, dtype=np.int64)
    utc = curve["time_start"].to_numpy()
    own = []
    for response in sky.flares:
        alone = type(sky)(scenario, sky.background, (response,))
        first_bin = max(int(np.searchsorted(utc, response.components[0].flare.extent.start)) - 1, 0)
        last_bin = min(int(np.searchsorted(utc, response.components[0].flare.extent.stop)) + 1, len(utc))
        counts, _ = expected_light_curve(alone, edges[first_bin : last_bin + 1])
        quiet, _ = expected_light_curve(type(sky)(scenario, sky.background, ()), edges[first_bin : first_bin + 2])
        own.append((first_bin, counts[:, 0] - quiet[0, 0], quiet[0, 0]))
    return Month(curve, _truth(utc, own))


def _flare(rng: np.random.Generator, span: TimeRange, distance: float) -> FlareModel:
    low, high = np.log10(PEAK_COUNTS)
    counts = 10 ** rng.uniform(low, high)
    flux = float(estimate_goes(counts, 0.0, distance).flux)
    peak = span.start + np.timedelta64(int(rng.uniform(0, span.seconds) * 1e3), "ms")
    rise = float(np.exp(rng.uniform(np.log(15.0), np.log(200.0))))
    return FlareModel(
        peak,
        max(flux, 1.27e-7),
        (Source(float(rng.uniform(-600, 600)), float(rng.uniform(-600, 600)), 20.0),),
        rise_s=rise,
        decay_s=rise * float(rng.uniform(1.5, 4.0)),
        temperature=float(rng.uniform(1.0, 1.7)),
        non_thermal=float(rng.uniform(0.003, 0.05)),
    )


def _truth(utc: NDArray[np.datetime64], own: list[tuple[int, NDArray[np.float64], float]]) -> pd.DataFrame:
    total = np.zeros(len(utc))
    for at, counts, _ in own:
        total[at : at + len(counts)] += counts
    rows = []
    for at, counts, quiet in own:
        minute = smooth(counts)
        peak = int(np.argmax(minute))
        lit = np.flatnonzero(counts > 1.0)
        first, last = (lit[0], lit[-1]) if len(lit) else (peak, peak)
        rows.append(
            {
                "peak": utc[at + peak],
                "start": utc[at + first],
                "stop": utc[at + last],
                "counts": float(counts.max()),
                "significance": float(minute[peak] / np.sqrt(1.3 * quiet / 15.0)),
                "alone": bool(counts[peak] > 0.5 * total[at + peak]),
            }
        )
    return pd.DataFrame(rows).sort_values("peak", ignore_index=True)


def quiet_days(first: np.datetime64, days: int, seed: int, *, cycle: bool) -> xr.Dataset:
    """Days without a flare, compressed as on board; with `cycle`, the thermal cycle and the drift of a real day."""
    rng = np.random.default_rng(seed)
    start = first + np.arange(days * 21600) * np.timedelta64(4, "s")
    seconds = (start - first) / np.timedelta64(1, "s")
    rates = np.tile(QUIET, (len(start), 1))
    if cycle:
        period = 2100.0 * (1 + 0.02 * np.sin(seconds / 1e4))
        rates[:, 0] *= 1 + 0.015 * np.sin(2 * np.pi * seconds / period)
        rates *= (1 + 0.02 * np.sin(2 * np.pi * seconds / 1.3e5))[:, np.newaxis]
    counts = decompress(compress(rng.poisson(rates), SCHEME), SCHEME)
    return xr.Dataset(
        {
            "time_start": ("time", start),
            "timedel": ("time", np.full(len(start), 4.0)),
            "energy_low": ("energy", EDGES[:-1]),
            "energy_high": ("energy", EDGES[1:]),
            "counts": (("time", "energy"), counts),
            "counts_skm": ("time", np.full(len(start), 5 << 4 | 3, dtype=np.uint16)),
            "rcr": ("time", np.zeros(len(start), np.uint8)),
        },
        coords={"time": start + np.timedelta64(2, "s")},
    )


def find(curve: xr.Dataset, method: str, **options: float) -> pd.DataFrame:
    """Detect as in operation: the operational detector day by day, ours on the whole."""
    if method == "poisson":
        return detect(curve, method, **options)
    days = curve["time_start"].to_numpy().astype("datetime64[D]")
    tables = [detect(curve.isel(time=np.flatnonzero(days == day)), method) for day in np.unique(days)]
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else detect(curve.isel(time=slice(0, 0)), method)


def judge(month: Month, found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pair flares with finds, nearest peaks first, strong flares first.

    Returns
    -------
    The truth with `found` (row of the find, -1 if none), and the finds with `kind`: flare, part (of a flare that has a
    better find) or false.
    """
    truth, found = month.truth.copy(), found.copy()
    peaks = found["peak"].to_numpy()
    free = np.ones(len(found), dtype=bool)
    truth["found"] = -1
    for row in truth.sort_values("counts", ascending=False).itertuples():
        near = np.abs(peaks - np.datetime64(row.peak, "ns"))
        width = max(_MATCH, (np.datetime64(row.stop) - np.datetime64(row.start)) / 6)
        candidates = np.flatnonzero(free & (near <= width))
        if len(candidates):
            best = candidates[np.argmin(near[candidates])]
            truth.loc[row.Index, "found"] = best
            free[best] = False
    first, last = truth["start"].to_numpy(), truth["stop"].to_numpy()
    touches = np.array([((first <= p) & (last >= p)).any() for p in peaks], dtype=bool)
    found["kind"] = np.where(~free, "flare", np.where(touches, "part", "false"))
    return truth, found


def measure(days: int, seed: int = 1) -> dict[str, object]:
    """Completeness and purity of both detectors on the same simulated days."""
    truths: dict[str, list[pd.DataFrame]] = {method: [] for method in METHODS}
    finds: dict[str, list[pd.DataFrame]] = {method: [] for method in METHODS}
    for number in range(0, days, CHUNK_DAYS):
        length = min(CHUNK_DAYS, days - number)
        first = np.datetime64("2022-03-01", "ns") + number * _DAY
        month = simulate_days(first, length, seed * 10_000 + number)
        for method in METHODS:
            truth, found = judge(month, find(month.curve, method))
            truth["off_s"] = _off(truth, found, "peak")
            truth["pull"] = truth["off_s"] / _picked(truth, found, "peak_sigma_s")
            truths[method].append(truth)
            finds[method].append(found)
    return {
        method: _summary(pd.concat(truths[method], ignore_index=True), pd.concat(finds[method], ignore_index=True))
        for method in METHODS
    }


def _picked(truth: pd.DataFrame, found: pd.DataFrame, column: str) -> NDArray[np.float64]:
    values = np.append(found[column].to_numpy(dtype=np.float64), np.nan)
    return values[truth["found"].to_numpy()]


def _off(truth: pd.DataFrame, found: pd.DataFrame, column: str) -> NDArray[np.float64]:
    times = np.append(found[column].to_numpy().astype("datetime64[ns]"), np.datetime64("NaT", "ns"))
    return (times[truth["found"].to_numpy()] - truth["peak"].to_numpy()) / np.timedelta64(1, "s")


def _summary(truth: pd.DataFrame, found: pd.DataFrame) -> dict[str, object]:
    rows = []
    for low, high in pairwise(SIGNIFICANCE_EDGES):
        inside = truth[(truth["significance"] >= low) & (truth["significance"] < high)]
        alone = inside[inside["alone"]]
        hit = inside[inside["found"] >= 0]
        rows.append(
            {
                "from": low,
                "flares": len(inside),
                "found": len(hit),
                "alone": len(alone),
                "alone_found": int((alone["found"] >= 0).sum()),
                "peak_off_s": float(np.nanmedian(np.abs(hit["off_s"]))) if len(hit) else None,
                "pull": float(1.4826 * np.nanmedian(np.abs(hit["pull"]))) if hit["pull"].notna().any() else None,
            }
        )
    kinds = found["kind"].value_counts()
    return {
        "bins": rows,
        "finds": len(found),
        **{kind: int(kinds.get(kind, 0)) for kind in ("flare", "part", "false")},
        "purity": float((found["kind"] != "false").mean()) if len(found) else None,
    }


def false_alarms(days: int, seed: int = 1, rate: float = 0.02) -> dict[str, dict[str, float]]:
    """Finds a day on days without flares."""
    result: dict[str, dict[str, float]] = {}
    for name, cycle in (("steady", False), ("thermal cycle and drift", True)):
        counts = dict.fromkeys(METHODS, 0)
        for number in range(0, days, 10):
            length = min(10, days - number)
            curve = quiet_days(np.datetime64("2022-03-01", "ns"), length, seed * 100_000 + number, cycle=cycle)
            for method in METHODS:
                seek = partial(find, curve, method)
                counts[method] += len(seek(false_alarms_per_day=rate) if method == "poisson" else seek())
        result[name] = {method: counts[method] / days for method in METHODS}
    return result


def format_tables(result: dict[str, Any]) -> str:
    """Write the result of `measure` and `false_alarms` as Markdown."""
    months, alarms = result["months"], result["false_alarms_per_day"]
    lines = [
        "| peak minute over noise | flares | poisson found | alone | snip found | alone | peak off, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for ours, theirs in zip(months["poisson"]["bins"], months["snip"]["bins"], strict=True):
        off = "" if ours["peak_off_s"] is None else f"{ours['peak_off_s']:.0f}"
        lines.append(
            f"| {ours['from']:g} and more | {ours['flares']} | {_share(ours['found'], ours['flares'])} "
            f"| {_share(ours['alone_found'], ours['alone'])} | {_share(theirs['found'], theirs['flares'])} "
            f"| {_share(theirs['alone_found'], theirs['alone'])} | {off} |"
        )
    lines += ["", "| | poisson | snip |", "|---|---|---|"]
    for name, text in {
        "finds": "finds",
        "flare": "of these flares",
        "part": "second finds of a flare",
        "false": "nothing",
    }.items():
        lines.append(f"| {text} | {months['poisson'][name]} | {months['snip'][name]} |")
    lines.append(f"| purity | {months['poisson']['purity']:.4f} | {months['snip']['purity']:.4f} |")
    for name, rates in alarms.items():
        lines.append(f"| finds a day without flares, {name} | {rates['poisson']:.3f} | {rates['snip']:.3f} |")
    return "\n".join(lines) + "\n"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"
