"""Detection by likelihood ratio: windows of twelve seconds to twenty-five minutes against the modelled background.

For every window the deviance of Poisson counts against the background is taken in each band below 50 keV, divided by
the dispersion of quiet counts (quantisation is part of it) and widened by the uncertainty of the background; rises of
all bands add up. Under a quiet Sun this sum follows a mixture of chi-square laws, which with the number of independent
windows in a day gives the rate of false alarms. What passes is a rise; its limits are the change points of the
likelihood, its peaks flares or sub-peaks by their prominence. Everything is local: see `quiet.REACH`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

from stixflow.flares.attenuator import continued
from stixflow.flares.curve import NANOSECONDS, Curve, Floats, Indices, compression_variance
from stixflow.flares.find import WIDTH_LEVELS, Find
from stixflow.flares.quiet import QuietModel, quiet_model
from stixflow.flares.snip import smooth
from stixflow.flares.veto import veto

FALSE_ALARMS_PER_DAY = 0.02
_SEARCH_BELOW_KEV = 50.0
"""Bands that start above hold hardly any photons of flares that the others miss."""
_WIDTHS_S = (12, 20, 32, 52, 84, 136, 220, 356, 576, 932, 1508)
_STRIDES_PER_WIDTH = 8
_INDEPENDENT_WINDOWS = (4.0, 20.0, 3.0)
"""Independent windows per window length, with all shifts and neighbouring lengths: this many at this score, growing
with this power of the score. Measured on days without flares, with quantisation and thermal cycle."""
_GAP_S = 300.0
"""Rises are never followed across a longer gap."""
_LONGEST_RISE_S = 3 * 3600.0
_CHANGE_SIGMAS = 0.75
"""Rise above the background, over the scatter of a bin, on which start and end are decided."""
_CHANGE_DROP = 8.0
"""The search for a limit ends where the log likelihood has fallen by this since its best."""
_SPLIT_SIGMAS = 5.0
SPLIT_SHARE, SPLIT_SHARE_APART, APART_S = 0.5, 0.2, 240.0
"""A peak is a flare of its own if it stands out by half of its height, or by a fifth if no higher peak is near."""
_SUB_PEAK_SIGMAS = 4.0
_PEAK_SIGMAS = 1.5
"""The peak lies where the smoothed curve is no more than this below its top: measured on simulated months."""
_SMOOTH_LIMITS = (3, 15)
FLARES_PER_DAY = 3.0
"""Prior for the probability that a rise is real."""


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """The curve with what is expected of it; (band, bin) or (bin,)."""

    curve: Curve
    quiet: QuietModel
    expected: Floats
    variance: Floats
    offset: Floats
    """Uncertainty of the expected counts, the same in neighbouring bins."""
    excess: Floats
    """Counts above the background in the bands searched, continued across attenuator motions; for shapes only."""
    segment: Indices
    number: NDArray[np.int64]
    """Bins since 1970: where windows start does not depend on where the curve starts."""
    bin_s: float
    search: tuple[int, ...]

    @classmethod
    def of(cls, curve: Curve) -> _Field:
        quiet = quiet_model(curve)
        expected = quiet.rate * curve.seconds
        bin_s = round(float(np.median(curve.seconds)), 1)
        parts = curve.segments(_GAP_S)
        segment = np.repeat(np.arange(len(parts)), [part.stop - part.start for part in parts])
        variance = quiet.dispersion * expected
        search = tuple(np.flatnonzero(curve.energy_low < _SEARCH_BELOW_KEV).tolist()) or (0,)
        excess = [
            continued(curve.counts[band] - expected[band], curve.rcr, np.sqrt(variance[band]), segment)
            for band in search
        ]
        number = curve.start.astype(np.int64) // round(bin_s * NANOSECONDS)
        offset = quiet.rate_sigma * curve.seconds
        return cls(curve, quiet, expected, variance, offset, np.stack(excess), segment, number, bin_s, search)


@dataclass(frozen=True, slots=True)
class _Seed:
    """A window that no quiet Sun explains."""

    score: float
    left: int
    right: int


@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    """Windows that no quiet Sun explains, by score."""

    score: NDArray[np.float32]
    left: Indices
    right: Indices

    def best(self) -> _Seed:
        return _Seed(float(self.score[0]), int(self.left[0]), int(self.right[0]))

    def outside(self, left: int, right: int) -> _Windows:
        """Leave out what overlaps bins that are taken."""
        kept = (self.right <= left) | (self.left >= right)
        return _Windows(self.score[kept], self.left[kept], self.right[kept])


@dataclass(frozen=True, slots=True)
class _Limit:
    at: int
    sigma_s: float


def find_poisson(curve: Curve, *, false_alarms_per_day: float = FALSE_ALARMS_PER_DAY) -> list[Find]:
    """Find rises above the quiet background, vetoed ones too, in order of time."""
    if not len(curve):
        return []
    field = _Field.of(curve)
    if not (field.expected > 0).any():
        return []
    threshold = score_of_rate(false_alarms_per_day, len(field.search), field.bin_s)
    free = np.ones(len(curve), dtype=np.bool_)
    finds: list[Find] = []
    windows = _significant(field, threshold)
    while len(windows.score):
        first = windows.best()
        taken, found = _resolve(field, first, free)
        free[slice(*taken)] = False
        windows = windows.outside(*taken)
        finds.extend(found)
    return sorted(finds, key=lambda find: find.peak)


def _windows_per_day(score: float, bin_s: float = 4.0) -> float:
    """Independent windows of all lengths in a day, for chance rises of about this score."""
    number, at, power = _INDEPENDENT_WINDOWS
    lengths = [max(round(width / bin_s), 1) * bin_s for width in _WIDTHS_S]
    growth = float(max(score, at) / at) ** power
    return float(number * growth * sum(86400.0 / length for length in lengths))


def chance(score: float, bands: int) -> float:
    """Probability that the positive parts of so many squared normal deviates add up to more than `score`."""
    from scipy.special import gammaincc

    return float(sum(comb(bands, k) * gammaincc(k / 2, score / 2) for k in range(1, bands + 1)) / 2**bands)


def score_of_rate(false_alarms_per_day: float, bands: int, bin_s: float = 4.0) -> float:
    """Score that chance exceeds so many times a day."""
    from scipy.optimize import brentq

    def excess(score: float) -> float:
        return float(np.log(max(false_alarm_rate(score, bands, bin_s), 1e-300) / false_alarms_per_day))

    return float(brentq(excess, 1e-6, 1200.0))


def _significant(field: _Field, threshold: float) -> _Windows:
    """Windows of every length above the threshold, the most significant first; of equal ones the earlier, shorter."""
    search = list(field.search)
    sums = [_cumulate(values[search]) for values in (field.curve.counts, field.expected, field.variance, field.offset)]
    found = []
    for width_s in _WIDTHS_S:
        width = max(round(width_s / field.bin_s), 1)
        left = _window_starts(field, width)
        score = _score(*(_differences(total, left, width) for total in sums))
        # Single precision: windows of equal counts shall tie, whatever the rounding of the sums before them.
        high = np.flatnonzero(score > threshold)
        found.append((score[high].astype(np.float32), left[high], left[high] + width))
    scores, lefts, rights = zip(*found, strict=True)
    windows = _Windows(np.concatenate(scores), np.concatenate(lefts), np.concatenate(rights))
    order = np.lexsort((windows.right, windows.left, -windows.score))
    return _Windows(windows.score[order], windows.left[order], windows.right[order])


def _differences(total: Floats, left: Indices, width: int) -> Floats:
    """Sums over windows; where they start at every bin, without an index."""
    if len(left) == total.shape[1] - width:
        return np.asarray(total[:, width:] - total[:, :-width])
    return np.asarray(total[:, left + width] - total[:, left])


def _cumulate(values: Floats) -> Floats:
    return np.pad(np.cumsum(values, axis=-1), ((0, 0), (1, 0)))


def _window_starts(field: _Field, width: int) -> Indices:
    stride = max(width // _STRIDES_PER_WIDTH, 1)
    left = np.flatnonzero(field.number[: max(len(field.number) - width + 1, 0)] % stride == 0)
    return np.asarray(left[field.segment[left] == field.segment[left + width - 1]])


def _score(counts: Floats, expected: Floats, variance: Floats, offset: Floats) -> Floats:
    """Sum over bands of the squared significance of rises."""
    return np.asarray(np.square(np.maximum(deviate(counts, expected, variance, offset), 0.0)).sum(axis=0))


def deviate(counts: Floats, expected: Floats, variance: Floats, offset: Floats) -> Floats:
    """Signed root of the Poisson deviance, divided by the dispersion and by what the background may be off."""
    mean = np.maximum(expected, 1e-9)
    ratio = np.maximum(counts, 1e-9) / mean
    deviance = 2.0 * mean * (ratio * np.log(ratio) - ratio + 1.0)
    wide = (variance + np.square(offset)) / mean
    return np.asarray(np.sign(counts - mean) * np.sqrt(np.maximum(deviance, 0.0) / np.maximum(wide, 1e-9)))


def _resolve(field: _Field, seed: _Seed, free: NDArray[np.bool_]) -> tuple[tuple[int, int], list[Find]]:
    """Turn a seed into flares; return the bins that they take, and the flares."""
    band = _band(field, seed)
    width = _smooth_width(seed)
    low, high = _reach(field, seed, free)
    smoothed = smooth(field.excess[field.search.index(band), low:high], width)
    summit = low + _argmax(smoothed, seed.left - low, seed.right - low)
    start, stop = _change_points(field, band, seed, summit, (low, high))
    left, right = min(start.at, summit), max(stop.at, summit + 1)
    finds = []
    for piece in _pieces(field, band, smoothed[left - low : right - low], left, width):
        limits = (
            start if piece.left == left else _Limit(piece.left, field.bin_s * width / 2),
            stop if piece.right == right else _Limit(piece.right, field.bin_s * width / 2),
        )
        finds.append(_find(field, band, seed, piece, limits, smoothed, low, width))
    return (min(left, seed.left), max(right, seed.right)), finds


def _argmax(values: Floats, left: int, right: int) -> int:
    return left + int(np.argmax(values[left:right]))


def _band(field: _Field, seed: _Seed) -> int:
    """Follow the lowest band unless another rises more than twice as significantly."""
    inside = slice(seed.left, seed.right)
    z = deviate(
        *(v[:, inside].sum(axis=1) for v in (field.curve.counts, field.expected, field.variance, field.offset))
    )[list(field.search)]
    best = int(np.argmax(z))
    return 0 if z[0] >= z[best] / 2 else field.search[best]


def _smooth_width(seed: _Seed) -> int:
    """Odd, a quarter of the most significant window, within limits."""
    least, most = _SMOOTH_LIMITS
    return int(np.clip((seed.right - seed.left) // 4, least, most)) // 2 * 2 + 1


def _reach(field: _Field, seed: _Seed, free: NDArray[np.bool_]) -> tuple[int, int]:
    """Bins that may belong to the rise: same segment, not taken, not too far."""
    most = round(_LONGEST_RISE_S / field.bin_s)
    low, high = max(seed.left - most, 0), min(seed.right + most, len(free))
    closed = ~free[low:high] | (field.segment[low:high] != field.segment[seed.left])
    at = np.flatnonzero(closed) + low
    before, after = at[at < seed.left], at[at >= seed.right]
    return (int(before[-1]) + 1 if len(before) else low), (int(after[0]) if len(after) else high)


def _change_points(field: _Field, band: int, seed: _Seed, summit: int, reach: tuple[int, int]) -> tuple[_Limit, _Limit]:
    """Start and end of a rise: where the likelihood of a rise over the background is best."""
    low, high = reach
    inside = slice(seed.left, seed.right)
    mean = field.expected[band, low:high]
    mean_rise = float((field.curve.counts[band, inside] - field.expected[band, inside]).mean())
    scatter = np.sqrt(field.variance[band, low:high])
    rise = np.maximum(np.minimum(_CHANGE_SIGMAS * scatter, mean_rise), 0.05 * scatter)
    counts = field.curve.counts[band, low:high]
    gain = (counts * np.log1p(rise / np.maximum(mean, 1e-9)) - rise) / field.quiet.dispersion[band, low:high]
    attenuated = field.curve.rcr[low:high] > 0
    if not attenuated.all():
        gain = np.where(attenuated, np.maximum(gain, 1.0), gain)
    at = summit - low
    back, back_spread = _walk(gain[: at + 1][::-1])
    on, on_spread = _walk(gain[at:])
    return _Limit(summit - back, back_spread * field.bin_s), _Limit(summit + on + 1, on_spread * field.bin_s)


def _walk(gain: Floats) -> tuple[int, float]:
    """Index of the last bin of a rise that begins at index 0, and its standard deviation in bins."""
    total = np.cumsum(gain)
    fallen = np.flatnonzero(np.maximum.accumulate(total) - total > _CHANGE_DROP)
    total = total[: fallen[0]] if len(fallen) else total
    best = int(np.argmax(total))
    likely = np.flatnonzero(total >= total[best] - 0.5)
    return best, max((int(likely[-1]) - int(likely[0])) / 2.0, 1.0 / np.sqrt(12.0))


@dataclass(frozen=True, slots=True)
class _Piece:
    peak: int
    left: int
    right: int
    prominence: float
    sub_peaks: tuple[int, ...]


def _pieces(field: _Field, band: int, smoothed: Floats, offset: int, width: int) -> list[_Piece]:
    """Split a rise at its valleys: peaks that stand out become flares, lesser ones sub-peaks."""
    from scipy.signal import find_peaks

    # Counts are quantised: equal peaks are common, and each would have the prominence of both.
    ordered = np.round(smoothed, 6) - 1e-7 * np.arange(len(smoothed))
    padded = np.pad(ordered, 1, constant_values=min(0.0, float(ordered.min())) - 1.0)
    peaks, properties = find_peaks(padded, prominence=0.0)
    prominence = properties["prominences"]
    peaks = peaks - 1
    sigma = _smoothed_sigma(field, band, peaks + offset, smoothed[peaks], width)
    out = prominence >= _SUB_PEAK_SIGMAS * sigma
    out[np.argmax(ordered[peaks])] = True
    peaks, prominence, sigma = peaks[out], prominence[out], sigma[out]
    share = np.where(_is_apart(peaks, ordered, field.bin_s), SPLIT_SHARE_APART, SPLIT_SHARE)
    own = (prominence >= _SPLIT_SIGMAS * sigma) & (prominence >= share * smoothed[peaks])
    own[np.argmax(ordered[peaks])] = True
    lesser = (prominence >= _SUB_PEAK_SIGMAS * sigma) & ~own
    tops = peaks[own]
    valleys = [a + int(np.argmin(smoothed[a:b])) for a, b in pairwise(tops)]
    edges = [0, *valleys, len(smoothed)]
    return [
        _Piece(
            int(top) + offset,
            edges[i] + offset,
            edges[i + 1] + offset,
            float(high),
            tuple(int(p) + offset for p in peaks[lesser] if edges[i] <= p < edges[i + 1]),
        )
        for i, (top, high) in enumerate(zip(tops, prominence[own], strict=True))
    ]


def _is_apart(peaks: Indices, values: Floats, bin_s: float) -> NDArray[np.bool_]:
    """Tell which peaks have no higher one within the time in which one flare often has several."""
    height, near = values[peaks], APART_S / bin_s
    return np.array(
        [not (height[np.abs(peaks - peak) < near] > top).any() for peak, top in zip(peaks, height, strict=True)]
    )


def _smoothed_sigma(field: _Field, band: int, at: Indices, excess: Floats, width: int) -> Floats:
    """Scatter of the smoothed curve at bins with this excess, counting and quantisation."""
    counts = np.maximum(excess, 0.0) + field.expected[band, at]
    quantised = compression_variance(counts, field.curve.mantissa_bits)
    return np.asarray(np.sqrt((field.quiet.dispersion[band, at] * counts + quantised) / width))


def _find(
    field: _Field,
    band: int,
    seed: _Seed,
    piece: _Piece,
    limits: tuple[_Limit, _Limit],
    smoothed: Floats,
    low: int,
    width: int,
) -> Find:
    curve, quiet = field.curve, field.quiet
    start, stop = limits
    peak, left, right = piece.peak, start.at, max(stop.at, piece.peak + 1)
    height = float(smoothed[peak - low])
    widths = _widths(smoothed, peak - low, (left - low, right - low), low)
    sigma = float(_smoothed_sigma(field, band, np.array([peak]), np.array([height]), width)[0])
    near = _around(smoothed, peak - low, (left - low, right - low), height - _PEAK_SIGMAS * sigma)
    core = widths[WIDTH_LEVELS.index(50)]
    score = max(_window_score(field, left, right), _window_score(field, core[0], core[1] + 1))
    if seed.left < right and seed.right > left:
        score = max(score, min(seed.score, _own(score, seed.score, piece, seed)))
    rate = false_alarm_rate(score, len(field.search), field.bin_s)
    edges = field.segment
    return Find(
        peak=peak,
        left=left,
        right=right,
        height=height + float(field.expected[band, peak]),
        prominence=piece.prominence,
        baseline=float(field.expected[band, peak]),
        is_boundary=bool(
            left == 0 or edges[left - 1] != edges[left] or right == len(curve) or edges[right] != edges[left]
        ),
        widths=widths,
        band=band,
        background=field.expected[:, peak],
        background_sigma=np.sqrt(field.variance[:, peak]),
        background_age_s=float(quiet.age_s[peak]),
        significance=float(np.sqrt(score)),
        false_alarms_per_day=rate,
        probability=FLARES_PER_DAY / (FLARES_PER_DAY + rate),
        start_sigma_s=start.sigma_s,
        peak_sigma_s=field.bin_s * max((near[1] - near[0]) / 2.0, 1.0 / np.sqrt(12.0)),
        stop_sigma_s=stop.sigma_s,
        sub_peaks=piece.sub_peaks,
        veto=veto(curve, field.expected, field.variance, field.offset, (left, right), core),
    )


def _own(score: float, seed_score: float, piece: _Piece, seed: _Seed) -> float:
    """The significance of the seed belongs to the piece that holds its middle."""
    middle = (seed.left + seed.right) // 2
    return seed_score if piece.left <= middle < piece.right else score


def false_alarm_rate(score: float, bands: int, bin_s: float = 4.0) -> float:
    """Chance rises of at least this score in a day."""
    return _windows_per_day(score, bin_s) * chance(score, bands)


def _window_score(field: _Field, left: int, right: int) -> float:
    search = list(field.search)
    inside = slice(left, right)
    sums = (
        values[search, inside].sum(axis=1, keepdims=True)
        for values in (field.curve.counts, field.expected, field.variance, field.offset)
    )
    return float(_score(*sums)[0])


def _widths(smoothed: Floats, peak: int, limits: tuple[int, int], low: int) -> tuple[tuple[int, int], ...]:
    found = []
    for level in WIDTH_LEVELS:
        left, right = _around(smoothed, peak, limits, smoothed[peak] * (1.0 - level / 100.0))
        found.append((left + low, right + low))
    return tuple(found)


def _around(values: Floats, peak: int, limits: tuple[int, int], floor: float) -> tuple[int, int]:
    """First and last bin of the run around the peak that stays above `floor`, within the limits."""
    left, right = limits
    below = np.flatnonzero(values[left:right] < floor) + left
    before, after = below[below < peak], below[below > peak]
    return (int(before[-1]) + 1 if len(before) else left), (int(after[0]) - 1 if len(after) else right - 1)
