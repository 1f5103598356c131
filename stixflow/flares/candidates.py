"""Which pixel request is the background of another one.

A background must be another request within 60 days on either side, under the same energy look-up table, with all
detectors and the needed channels, at least 120 s long and without a listed flare inside. Its score falls with the
distance in time (to a half at a week) and with the root of the duration below a thermal cycle of 2400 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stixflow.flares.selection import BackgroundNeed
from stixflow.instrument.elut import elut_periods

_BACKGROUND_DAYS = 60.0
_BACKGROUND_MIN_S = 120.0
_THERMAL_CYCLE_S = 2400.0
"""Duration of a thermal cycle of the detectors; a background should cover one."""
_CLOSENESS_DAYS = 7.0
ALL_DETECTORS = 0xFFFFFFFF

_DAY_NS = 86_400 * 10**9


def choose_background(
    need: BackgroundNeed, candidates: pd.DataFrame, *, flares: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Score pixel requests as background of an imaging window, best first.

    Parameters
    ----------
    candidates
        One row per request: `request_id`, `start`, `stop`, `channel_start`, `channel_stop`, `detector_mask`; observed
        `duration_s` if it is less than stop - start, and `rcr_max` where they are known.
    flares
        Table of flares with `start` and `stop`.

    Returns
    -------
    The candidates with `apart_days`, `usable`, `score` (0 where not usable) and `reasons` (text) added.
    """
    known = Candidates(candidates, flares)
    rows = np.arange(len(candidates))
    judged = known.judge(need, rows)
    added = {
        "apart_days": judged.apart_days,
        "usable": judged.usable,
        "score": judged.score,
        "reasons": [known.reasons(judged, row) for row in range(len(rows))],
    }
    kept = candidates.drop(columns=list(added), errors="ignore")
    return pd.concat([kept, pd.DataFrame(added, index=kept.index)], axis=1).sort_values(
        ["score", "apart_days"], ascending=[False, True], kind="stable"
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """What some candidates are worth for one need; arrays of one value for each of `rows`."""

    need: BackgroundNeed
    rows: NDArray[np.intp]
    apart_days: NDArray[np.float64]
    faults: NDArray[np.bool_]
    """(8, candidates), in the order of the reasons."""
    score: NDArray[np.float64]

    @property
    def usable(self) -> NDArray[np.bool_]:
        return np.asarray(~self.faults.any(axis=0))


@dataclass(frozen=True, slots=True)
class Best:
    """The best of all candidates: its row in their table, and how good it is."""

    row: int
    score: float
    apart_days: float
    usable: bool
    reasons: str


class Candidates:
    """Pixel requests that may be the background of others, prepared once to be asked about every flare of a mission.

    Parameters as for `choose_background`.
    """

    def __init__(self, candidates: pd.DataFrame, flares: pd.DataFrame | None = None) -> None:
        self.table = candidates
        start, stop = (candidates[name].to_numpy("datetime64[ns]").astype(np.int64) for name in ("start", "stop"))
        self._twice_middle = start + stop
        self._order = np.argsort(self._twice_middle, kind="stable")
        self._sorted = self._twice_middle[self._order]
        self._request = candidates["request_id"].to_numpy()
        self._first, self._last = (candidates[name].to_numpy() for name in ("channel_start", "channel_stop"))
        self._duration = _column(candidates, "duration_s", (stop - start) / 1e9)
        self._elut = elut_periods(start.view("datetime64[ns]"))
        self._missing = np.array([32 - (int(m) & ALL_DETECTORS).bit_count() for m in candidates["detector_mask"]], int)
        self._flares = _flares_inside(flares, start, stop)
        self._attenuated = _column(candidates, "rcr_max", np.zeros(len(start))) > 0

    def best(self, need: BackgroundNeed) -> Best | None:
        """Return the best candidate, the first row of `choose_background`; None if there is none.

        Only requests within 60 days are looked at, so that the time does not grow with the mission.
        """
        if not len(self._sorted):
            return None
        middle, reach = _twice_middle(need), round(2 * _BACKGROUND_DAYS * _DAY_NS)
        first, last = np.searchsorted(self._sorted, (middle - reach, middle + reach + 1))
        near = np.sort(self._order[first:last]) if last > first else np.arange(len(self._sorted))
        judged = self.judge(need, near)
        index = int(np.lexsort((judged.apart_days, -judged.score))[0])
        score, apart = float(judged.score[index]), float(judged.apart_days[index])
        return Best(int(near[index]), score, apart, bool(judged.usable[index]), self.reasons(judged, index))

    def judge(self, need: BackgroundNeed, rows: NDArray[np.intp]) -> Judged:
        """Tell what the candidates of some rows are worth."""
        apart = np.abs(self._twice_middle[rows] - _twice_middle(need)) / (2 * _DAY_NS)
        duration = self._duration[rows]
        elut = int(elut_periods(need.time_range.start))
        faults = np.array(
            [
                (self._request[rows] == need.request_id) & (need.request_id is not None),
                apart > _BACKGROUND_DAYS,
                (self._elut[rows] != elut) | (elut < 0),
                (self._first[rows] > need.channel_start) | (self._last[rows] < need.channel_stop),
                self._missing[rows] > 0,
                duration < _BACKGROUND_MIN_S,
                self._flares[rows] > 0,
                self._attenuated[rows],
            ],
            dtype=bool,
        )
        score = np.sqrt(np.minimum(duration / _THERMAL_CYCLE_S, 1.0)) / (1.0 + apart / _CLOSENESS_DAYS)
        return Judged(need, rows, apart, faults, np.where(faults.any(axis=0), 0.0, score))

    def reasons(self, judged: Judged, index: int) -> str:
        """Say why a judged candidate cannot be the background, or what is poor about it."""
        row, need = int(judged.rows[index]), judged.need
        inside, duration = int(self._flares[row]), float(self._duration[row])
        texts = (
            "is the request of the flare itself",
            f"{judged.apart_days[index]:.0f} days away",
            "another energy table on board",
            f"lacks channels of {need.channel_start}-{need.channel_stop - 1}",
            f"{self._missing[row]} detectors missing",
            f"only {duration:.0f} s",
            f"{inside} listed flare{'s' if inside > 1 else ''} inside",
            "attenuator in",
        )
        faults = [text for text, holds in zip(texts, judged.faults[:, index], strict=True) if holds]
        if not faults and duration < _THERMAL_CYCLE_S:
            return f"{duration:.0f} s, less than a thermal cycle"
        return "; ".join(faults)


def _column(table: pd.DataFrame, name: str, missing: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(table[name].to_numpy(np.float64) if name in table else missing, dtype=np.float64)


def _twice_middle(need: BackgroundNeed) -> int:
    return int(need.time_range.start.astype(np.int64)) + int(need.time_range.stop.astype(np.int64))


def _flares_inside(flares: pd.DataFrame | None, start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the listed flares that touch each ``[start, stop)``: those begun before its end, less those over before."""
    if flares is None or flares.empty:
        return np.zeros(len(start), dtype=np.int64)
    begun, over = (np.sort(flares[name].to_numpy("datetime64[ns]").astype(np.int64)) for name in ("start", "stop"))
    return np.asarray(np.searchsorted(begun, stop, "left") - np.searchsorted(over, start, "right"), dtype=np.int64)
