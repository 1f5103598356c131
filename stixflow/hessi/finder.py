"""Flares in an observing summary, by the rule of June 2000 and by that of the flight."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import NotFound, UsageError
from stixflow.hessi.flare_list import FLAG_IDS, FLARE, FlareList, make_flare_list
from stixflow.hessi.summary import INTERVAL_S, ObservingSummary

Rule = Literal["2000", "flight"]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_SIGNIFICANCE = 3.0
BACKGROUND_S = 60.0
_RUNNING_S = 60.0

_BACKGROUND_REACH_S = 1200.0
_PARTICLE_KEV = 2000.0
_SHORTEST = 3
_JOIN = 2
ECLIPSE_FLAGS = ("Eclipse", "ECLIPSE_FLAG")
SAA_FLAGS = ("SAA passage", "SAA_FLAG")
_ATTENUATOR = ("Attenuator State", "ATTENUATOR_STATE")
_FAST = ("Fast Rate Mode", "FAST_RATE_MODE")
_PARTICLES = ("PARTICLE_FLAG", "PARTSTORM", "NON_SOLAR_EVENT")
_DECIMATION = ("DECIMATION_ENERGY", "DECIMATION_WEIGHT")
_GAP = ("Data Gap", "GAP_FLAG")
_BANDS: dict[Rule, tuple[float, float]] = {"2000": (6.0, 25.0), "flight": (6.0, 12.0)}


def find_flares(
    summary: ObservingSummary,
    *,
    rule: Rule = "2000",
    energy_range: tuple[float, float] | None = None,
    first_id: int = 1,
) -> FlareList:
    """Find flares in an observing summary.

    Stretches between eclipses, passages of the South Atlantic anomaly, gaps and changes of decimation are searched one
    by one. Rule "2000" takes the quietest minute within 20 minutes as background and keeps runs of at least three
    intervals of 6-25 keV that lie 3 sigma above it. Rule "flight" compares 6-12 keV, steps of the attenuator undone,
    with the mean of the minute before, which stands still during a flare, and drops what the particle flags mark and
    what reaches 2 MeV. Positions are NaN: a summary holds none.

    Parameters
    ----------
    energy_range
        Bands to search, keV, instead of those of the rule: those of another instrument.

    Returns
    -------
    A list whose flares have their background interval and the edges of the highest band with a signal.

    Raises
    ------
    UsageError, NotFound
        If there is no such rule; if the summary holds no rates.
    """
    if rule not in _BANDS:
        raise UsageError(f"rule {rule!r}", expected="2000 or flight")
    data = summary.get("data")
    if isinstance(data, int):
        raise NotFound("the summary holds no rates", advice="getdata first")
    edges = np.asarray(summary.get("obs_summ_rate").info["energy_edges"], dtype=np.float64)
    rates = np.asarray(data["countrate"], dtype=np.float64)
    energies = energy_range or _BANDS[rule]
    bands = _in_range(edges, energies)
    lowest = int(np.argmax(bands))
    rate = rates[:, bands].sum(axis=1)
    watched = ~(
        is_flagged(summary, ECLIPSE_FLAGS) | is_flagged(summary, SAA_FLAGS) | is_flagged(summary, _GAP) | np.isnan(rate)
    )
    if rule == "flight":
        rate = undo_steps(rate, _value(summary, _ATTENUATOR), watched)
        watched &= ~is_flagged(summary, _PARTICLES)
    found: list[tuple[int, int, slice]] = []
    for first, stop in _stretches(watched, summary):
        search = _quiet_rule if rule == "2000" else _running_rule
        found += [
            (first + a, first + b, slice(first + c.start, first + c.stop)) for a, b, c in search(rate[first:stop])
        ]
    rows = [_flare(summary, data["time"], rate, rates, edges, place, lowest) for place in found]
    flares = np.array(rows, dtype=FLARE)
    if rule == "flight":
        flares = flares[flares["ENERGY_HI"][:, 0] < _PARTICLE_KEV]
    flares["ID_NUMBER"] = first_id + np.arange(len(flares))
    span = (float(data["time"][0]), float(data["time"][-1] + INTERVAL_S))
    simulated = bool(summary.get("info")["simulated_data"])
    return make_flare_list(flares, span, energy_range=energies, simulated=simulated)


def undo_steps(rate: FloatArray, state: NDArray[np.uint8], watched: BoolArray) -> FloatArray:
    """Rates as without attenuator: each step in or out is undone by the ratio of the rates on its two sides.

    A step that raises the rate when the attenuator goes in changes nothing.
    """
    result = rate.copy()
    for step in np.flatnonzero(np.diff(state.astype(np.int64)) > 0) + 1:
        lower = np.flatnonzero(state[step:] < state[step])
        end = int(step + lower[0]) if lower.size else len(rate)
        if not (watched[step - 1] and watched[min(int(step) + 1, len(rate) - 1)]):
            continue
        before, after = result[max(int(step) - 3, 0) : step].mean(), result[step : step + 3].mean()
        if after > 0:
            result[step:end] *= max(before / after, 1.0)
    return result


def _quiet_rule(rate: FloatArray) -> list[tuple[int, int, slice]]:
    """(first, stop, background) of the runs above the quietest minute within 20 minutes of them."""
    from scipy.ndimage import minimum_filter1d

    width = min(round(BACKGROUND_S / INTERVAL_S), len(rate))
    reach = round(_BACKGROUND_REACH_S / INTERVAL_S)
    means = np.convolve(rate, np.full(width, 1.0 / width), mode="valid")
    near = minimum_filter1d(means, 2 * reach + 1, mode="nearest")
    level = near[np.clip(np.arange(len(rate)) - width // 2, 0, len(means) - 1)]
    sigma = np.sqrt(np.maximum(level, 1.0 / INTERVAL_S) / INTERVAL_S)
    found = []
    for first, stop in _joined(rate > level + _SIGNIFICANCE * sigma):
        middle = (first + stop) // 2 - width // 2
        low = min(max(middle - reach, 0), len(means) - 1)
        quiet = low + int(np.argmin(means[low : max(middle + reach + 1, low + 1)]))
        found.append((first, stop, slice(quiet, quiet + width)))
    return found


def _running_rule(rate: FloatArray) -> list[tuple[int, int, slice]]:
    """The same against the mean of the minute before, which stands still while the rate is high."""
    width = round(_RUNNING_S / INTERVAL_S)
    found: list[tuple[int, int, slice]] = []
    at = width
    while at < len(rate) - _SHORTEST:
        level = float(rate[at - width : at].mean())
        limit = level + _SIGNIFICANCE * _sigma(level)
        if not (rate[at : at + _SHORTEST] > limit).all():
            at += 1
            continue
        low = rate[at:] <= limit
        ends = np.flatnonzero(low[:-1] & low[1:])
        stop = at + int(ends[0]) if ends.size else len(rate)
        found.append((at, stop, slice(at - width, at)))
        at = stop + width
    return found


def _sigma(level: float) -> float:
    """Standard error of a rate over one interval; at least that of one count."""
    return float(np.sqrt(max(level, 1.0 / INTERVAL_S) / INTERVAL_S))


def _stretches(watched: BoolArray, summary: ObservingSummary) -> list[tuple[int, int]]:
    """Spans watched without a change of the decimation, which steps the rates."""
    settings = np.stack([_value(summary, (name,)) for name in _DECIMATION])
    changes = np.flatnonzero((np.diff(settings.astype(np.int64), axis=1) != 0).any(axis=0)) + 1
    whole = np.split(np.arange(len(watched)), changes)
    return [(part[0] + first, part[0] + stop) for part in whole for first, stop in runs(watched[part])]


def _joined(above: BoolArray) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, stop in runs(above):
        if joined and first - joined[-1][1] <= _JOIN:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((first, stop))
    return [(first, stop) for first, stop in joined if above[first:stop].sum() >= _SHORTEST]


def runs(inside: BoolArray) -> list[tuple[int, int]]:
    """First and last-but-one index of every run of true values."""
    steps = np.flatnonzero(np.diff(np.r_[False, inside, False].astype(np.int8)))
    return [(int(a), int(b)) for a, b in steps.reshape(-1, 2)]


def _flare(
    summary: ObservingSummary,
    times: FloatArray,
    rate: FloatArray,
    rates: FloatArray,
    edges: FloatArray,
    place: tuple[int, int, slice],
    lowest: int,
) -> tuple[Any, ...]:
    first, stop, quiet = place
    peak = first + int(np.argmax(rate[first:stop]))
    return (
        0,
        times[first],
        times[stop - 1] + INTERVAL_S,
        times[peak],
        (times[quiet.start], times[quiet.stop - 1] + INTERVAL_S),
        _highest_band(rates, edges, first, stop, quiet, lowest),
        rate[peak],
        rate[quiet].mean(),
        rate[first:stop].sum() * INTERVAL_S,
        (np.nan, np.nan),
        b"",
        _flags(summary, first, stop, peak),
    )


def _highest_band(
    rates: FloatArray, edges: FloatArray, first: int, stop: int, quiet: slice, lowest: int
) -> tuple[float, float]:
    """Edges of the last of the bands from `lowest` up whose mean in the flare lies 3 sigma above its background."""
    background, flare = rates[quiet].mean(axis=0), rates[first:stop].mean(axis=0)
    seconds, quiet_seconds = (stop - first) * INTERVAL_S, (quiet.stop - quiet.start) * INTERVAL_S
    sigma = np.sqrt(np.maximum(background, 1.0 / quiet_seconds) * (1.0 / seconds + 1.0 / quiet_seconds))
    silent = np.flatnonzero(flare[lowest + 1 :] <= (background + _SIGNIFICANCE * sigma)[lowest + 1 :])
    top = lowest + (int(silent[0]) if silent.size else len(flare) - 1 - lowest)
    return float(edges[top]), float(edges[top + 1])


def _flags(summary: ObservingSummary, first: int, stop: int, peak: int) -> NDArray[np.uint8]:
    """Flags of June 2000: what borders the flare, or holds in it."""
    saa, eclipse = is_flagged(summary, SAA_FLAGS), is_flagged(summary, ECLIPSE_FLAGS)
    fast, attenuator = is_flagged(summary, _FAST), _value(summary, _ATTENUATOR)
    before, after = max(first - 1, 0), min(stop, len(saa) - 1)
    values = {
        "SAA At Start": saa[before],
        "SAA at End": saa[after],
        "SAA": saa[first:stop].any(),
        "Eclipse at Start": eclipse[before],
        "Eclipse At End": eclipse[after],
        "Flare at SOF": first == 0,
        "Flare at EOF": stop == len(saa),
        "Fast Rate Mode": fast[first:stop].any(),
        "Decimation": False,
        "Att State at peak": attenuator[peak],
    }
    flags = np.zeros(32, np.uint8)
    flags[: len(FLAG_IDS)] = [int(values[name]) for name in FLAG_IDS]
    return flags


def _in_range(edges: FloatArray, energies: tuple[float, float]) -> BoolArray:
    low, high = energies
    inside = (edges[:-1] >= low) & (edges[1:] <= high)
    if not inside.any():
        raise NotFound(f"no band of the summary lies in {low:g}-{high:g} keV", expected="bands such as 6-12, 12-25 keV")
    return np.asarray(inside)


def _value(summary: ObservingSummary, names: tuple[str, ...]) -> NDArray[np.uint8]:
    for name in names:
        try:
            return summary.flag(name)
        except LookupError:
            continue
    return np.zeros(len(summary.get("data")), np.uint8)


def is_flagged(summary: ObservingSummary, names: tuple[str, ...]) -> BoolArray:
    """Tell where any of the flags is set; a flag that the summary does not have is not."""
    flags = [np.asarray(_value(summary, (name,)) > 0) for name in names]
    return np.asarray(np.logical_or.reduce(flags))
