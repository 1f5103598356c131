"""Which data the ground would have asked for: pixel data and spectrogram of every flare, and a quiet background."""

from __future__ import annotations

import numpy as np

from stixflow.simulate.observe import Request
from stixflow.simulate.response import QL_DETECTORS, FlareResponse
from stixflow.simulate.sun import FlareModel, Scenario
from stixflow.time import TICKS_PER_SECOND, Scet, TimeRange, iso, scet_to_utc, utc_to_scet

BACKGROUND_S = 3200
_LEAST_BACKGROUND_S = 600
_FLARE_CHANNELS = (1, 21)
_ALL_CHANNELS = (0, 32)
_BACKGROUND_CHANNELS = (1, 32)
_SPECTROGRAM_MARGIN_S = 300
_STRONG = 1000.0
"""Quick-look peak above which the bins around the peak are short."""
_FIRST_SEQ_CONTROL = 0xC000 + 1000


def plan_requests(scenario: Scenario, flares: tuple[FlareResponse, ...]) -> list[Request]:
    """Plan the science requests of a scenario: the background first, then two for every flare.

    The background is asked for in the middle of the longest stretch without a flare; there is none if that is shorter
    than ten minutes.
    """
    wanted: list[tuple[str, str, Scet, tuple[int, int], int]] = []
    quiet = quiet_span(scenario)
    if quiet is not None:
        wanted.append(("sci_pixels", "background", _edges(quiet, quiet.seconds), _BACKGROUND_CHANNELS, 0xFFFFFFFF))
    for response in flares:
        flare = response.components[0].flare
        around = _clip(flare.span, scenario.span)
        wide = _clip(_widen(flare.span, _SPECTROGRAM_MARGIN_S), scenario.span)
        edges = _flare_edges(flare, around, response.ql_peak_counts)
        wanted.append(("sci_pixels", "flare", edges, _FLARE_CHANNELS, 0xFFFFFFFF))
        wanted.append(("sci_spectrogram", "flare", _edges(wide, 1.0), _ALL_CHANNELS, QL_DETECTORS))
    return [
        Request(kind, purpose, _request_id(edges, number), _FIRST_SEQ_CONTROL + number, edges, channels, detectors)  # type: ignore[arg-type]
        for number, (kind, purpose, edges, channels, detectors) in enumerate(wanted)
    ]


def quiet_span(scenario: Scenario) -> TimeRange | None:
    """Choose a quiet stretch for the background: up to 3200 s in the middle of the longest one."""
    begin = scenario.span.start
    gaps = []
    for flare in sorted(scenario.flares, key=lambda one: one.extent.start):
        if flare.extent.start > begin:
            gaps.append(TimeRange(begin, flare.extent.start))
        begin = max(begin, flare.extent.stop)
    if begin < scenario.span.stop:
        gaps.append(TimeRange(begin, scenario.span.stop))
    longest = max(gaps, key=lambda gap: gap.seconds, default=None)
    if longest is None or longest.seconds < _LEAST_BACKGROUND_S:
        return None
    half = np.timedelta64(min(BACKGROUND_S, int(longest.seconds) - 2) * 500, "ms")
    return TimeRange(longest.middle - half, longest.middle + half)


def _flare_edges(flare: FlareModel, span: TimeRange, peak_counts: float) -> Scet:
    """Bins of 4 s around the peak of a strong flare, of 10 s elsewhere."""
    if peak_counts < _STRONG:
        return _edges(span, 10.0)
    before, after = np.timedelta64(round(1.5 * flare.rise_s), "s"), np.timedelta64(round(0.7 * flare.decay_s), "s")
    core = _clip(TimeRange(flare.peak - before, flare.peak + after), span)
    first = _edges(TimeRange(span.start, core.start), 10.0) if core.start > span.start else np.empty(0, np.int64)
    start = int(first[-1]) if first.size else int(utc_to_scet(core.start)) >> 16 << 16
    middle = _steps(start, int(utc_to_scet(core.stop)), 4)
    last = _steps(int(middle[-1]), int(utc_to_scet(span.stop)), 10)
    return np.concatenate([first[:-1], middle[:-1], last])


def _edges(span: TimeRange, seconds: float) -> Scet:
    """Edges of equal bins of whole onboard seconds that cover `span` to within one second."""
    start, stop = (int(value) for value in utc_to_scet(np.array([span.start, span.stop])))
    return _steps(start >> 16 << 16, stop, max(int(seconds), 1))


def _steps(start: int, stop: int, seconds: int) -> Scet:
    number = max(-(-(stop - start - TICKS_PER_SECOND) // (seconds * TICKS_PER_SECOND)), 1)
    return start + seconds * TICKS_PER_SECOND * np.arange(number + 1, dtype=np.int64)


def _widen(span: TimeRange, seconds: int) -> TimeRange:
    margin = np.timedelta64(seconds, "s")
    return TimeRange(span.start - margin, span.stop + margin)


def _clip(span: TimeRange, limits: TimeRange) -> TimeRange:
    return TimeRange(max(span.start, limits.start), min(span.stop, limits.stop))


def _request_id(edges: Scet, number: int) -> int:
    """Identifier yymmddnnnn from the start of the request."""
    day = iso(scet_to_utc(edges)[0])[2:10].replace("-", "")
    return int(day) * 10000 + number + 1
