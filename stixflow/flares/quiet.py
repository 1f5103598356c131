"""What the instrument counts when the Sun is quiet, modelled band by band at every minute.

The level of a minute is the mean of the quiet minutes around it, near ones first; its uncertainty grows with the time
to the nearest of them, because the background drifts. Nothing reaches further than `REACH`: a day with its neighbours
has the same background as the same day in a curve of years, so days can be searched in parallel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.flares.curve import Curve, Floats, compression_variance

Bools = NDArray[np.bool_]

REACH = np.timedelta64(24, "h")
_BLOCK_S = 60
_LEAST_BINS = 5
"""A minute with fewer bins is not used."""
_RADII_MIN = (60, 180, 360)
"""Half widths of the triangular windows whose quiet minutes are averaged."""
_ENOUGH_MIN = 20.0
"""A window counts as much as the next wider one when it holds this many minutes."""
_DRIFT_PER_ROOT_HOUR = 0.003
"""Relative change of the background in an hour, growing with the root of time."""
_ANCHOR_MIN = 30
_QUANTILE_RADIUS_MIN = 360
_SCATTER_RADIUS_MIN = 180
_SLOW_BLOCK_MIN = 8
_SLOW_LIMITS = (0.003, 0.03)
"""Least and largest relative scatter of the level at ten minutes: thermal cycles, faint activity of the Sun."""
_PARTICLE_BAND_KEV = (25.0, 100.0)
_PARTICLE_RADIUS_MIN = 10
_PARTICLE_FLOOR = 0.02
"""Rises of the highest band by less than this, and three standard deviations, are not taken for particles."""
_MASK_SIGMAS = 3.0
_MASK_WIDTHS_MIN = (1, 4, 16)
ROUNDS = 2

_LOW_QUANTILE = 0.2
_LOW_QUANTILE_SIGMAS = 0.84
_KEPT = 0.7
_KEPT_VARIANCE = 0.3095
"""Mean of the squares of the 70 % smallest of normal deviates."""


@dataclass(frozen=True, slots=True, eq=False)
class QuietModel:
    """Background of every bin of a curve: arrays (band, bin) in counts per second, and (bin,).

    Attributes
    ----------
    rate
        Expected quiet counts per second.
    rate_sigma
        Uncertainty of that: counting statistics, drift since the nearest quiet minute, scatter at ten minutes.
    dispersion
        Variance of the counts of a quiet bin over that of Poisson counts, at least 1; quantisation is part of it.
    age_s
        Time to the nearest quiet minute, 0 inside one.
    """

    rate: Floats
    rate_sigma: Floats
    dispersion: Floats
    age_s: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Minutes:
    """Sums over whole UTC minutes on an unbroken grid; minutes without data hold zeros."""

    first: int
    counts: Floats
    seconds: Floats
    exposure: Floats
    bins: Floats
    used: Bools

    @property
    def rate(self) -> Floats:
        """Counts per second of open detector."""
        return np.asarray(self.counts / np.where(self.used, self.exposure, 1.0))


def model_background(lightcurve: xr.Dataset) -> xr.Dataset:
    """Model the quiet background of a light curve.

    Parameters
    ----------
    lightcurve
        A `ql_lightcurve` (time, energy); days before and after the one of interest make its edges better.

    Returns
    -------
    Dataset (time, energy) with `background` and `background_sigma` (counts per bin), `scatter` (counts per bin, of a
    quiet bin) and `age_s` (seconds to the nearest quiet minute).
    """
    curve = Curve.of(lightcurve)
    quiet = quiet_model(curve)
    expected = quiet.rate * curve.seconds
    scatter = np.sqrt(quiet.dispersion * expected)
    per_bin = {
        "background": (expected, "quiet counts expected in the bin"),
        "background_sigma": (quiet.rate_sigma * curve.seconds, "uncertainty of the expected counts"),
        "scatter": (scatter, "standard deviation of the counts of a quiet bin"),
    }
    data = {
        name: (("time", "energy"), values.T, {"units": "count", "long_name": text})
        for name, (values, text) in per_bin.items()
    }
    age = ("time", quiet.age_s, {"units": "s", "long_name": "time to the nearest quiet minute"})
    return xr.Dataset({**data, "age_s": age}, coords={"time": lightcurve["time"], "energy": lightcurve["energy"]})


def quiet_model(curve: Curve, *, follow_particles: bool = True) -> QuietModel:
    """Model the quiet background at every bin of a curve; with particles, as far as the highest band tells of them."""
    if not len(curve):
        nothing = np.zeros((curve.bands, 0))
        return QuietModel(nothing, nothing, nothing, np.zeros(0))
    minutes, at = _minutes(curve)
    white = _dispersion(minutes, curve.mantissa_bits)
    particles = _particle_factor(curve, minutes, white) if follow_particles else np.ones(len(minutes.bins))
    minutes = replace(minutes, exposure=minutes.exposure * particles)
    level = _low_level(minutes, white)
    quiet = minutes.used
    for _ in range(ROUNDS):
        quiet = _quiet_minutes(minutes, level, white)
        level, weight = _local_mean(minutes, quiet, level)
    share = curve.open_fraction * particles[at]
    expected = np.maximum(level[:, at] * share * curve.seconds, 1e-9)
    white = _quiet_dispersion(curve, minutes, at, quiet, expected, white)
    slow = _slow_scatter(minutes, level, white)
    age = _age_s(quiet)
    drift = _DRIFT_PER_ROOT_HOUR * np.sqrt(0.5 + age / 3600.0)
    counting = white * level / (np.maximum(weight, 1.0) * _BLOCK_S)
    sigma = np.sqrt(counting + np.square(level) * (np.square(drift) + np.square(slow)))
    return QuietModel(level[:, at] * share, sigma[:, at] * share, white[:, at], age[at])


def _minutes(curve: Curve) -> tuple[_Minutes, NDArray[np.intp]]:
    number = curve.start.astype("datetime64[s]").astype(np.int64) // _BLOCK_S
    first = int(number[0])
    at = (number - first).astype(np.intp)
    size = int(at[-1]) + 1
    plain = _plain(curve)
    seconds = np.where(plain, curve.seconds, 0.0)

    def total(weights: Floats) -> Floats:
        return np.asarray(np.bincount(at, weights=weights, minlength=size), dtype=np.float64)

    counts = np.stack([total(band * plain) for band in curve.counts])
    bins = total(plain.astype(np.float64))
    exposure = total(seconds * curve.open_fraction)
    return _Minutes(first, counts, total(seconds), exposure, bins, bins >= _LEAST_BINS), at


def _plain(curve: Curve) -> Bools:
    """Bins without attenuator; all, where it was never out."""
    out = curve.rcr == 0
    return out if out.any() else np.ones(len(out), dtype=np.bool_)


def _windows(minutes: _Minutes, values: Floats, radius: int) -> tuple[NDArray[np.intp], Floats]:
    """Cut the windows around every whole half hour: (anchor, band, minute), NaN outside and where unused."""
    size = values.shape[-1]
    offset = -minutes.first % _ANCHOR_MIN
    anchors = np.arange(offset - _ANCHOR_MIN, size + _ANCHOR_MIN, _ANCHOR_MIN)
    padded = np.pad(values, ((0, 0), (radius + _ANCHOR_MIN, radius + 2 * _ANCHOR_MIN)), constant_values=np.nan)
    view = np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1, axis=-1)
    nearest = np.clip((np.arange(size) - anchors[0] + _ANCHOR_MIN // 2) // _ANCHOR_MIN, 0, len(anchors) - 1)
    return nearest, view[:, anchors + _ANCHOR_MIN].swapaxes(0, 1)


def _low_level(minutes: _Minutes, white: Floats) -> Floats:
    """First guess: what one minute in five stays below, corrected for the noise of a minute."""
    rate = np.where(minutes.used, minutes.rate, np.nan)
    nearest, windows = _windows(minutes, rate, _QUANTILE_RADIUS_MIN)
    low = _quantile(windows, _LOW_QUANTILE)[nearest].T
    return np.asarray(low + _LOW_QUANTILE_SIGMAS * np.sqrt(white * np.maximum(low, 0.0) / _BLOCK_S))


def _quantile(windows: Floats, share: float) -> Floats:
    """Quantile along the last axis of what is not NaN; where there is nothing, the median of the others."""
    ordered = np.sort(windows, axis=-1)
    number = np.isfinite(ordered).sum(axis=-1)
    position = np.maximum(np.floor(share * (number - 1)), 0).astype(np.intp)
    values = np.take_along_axis(ordered, position[..., np.newaxis], axis=-1)[..., 0]
    if (number == 0).any():
        known = np.where(number > 0, values, np.nan)
        instead = np.nanmedian(known, axis=0) if (number > 0).any() else np.zeros(values.shape[1])
        values = np.where(number > 0, values, instead)
    return np.asarray(values)


def _dispersion(minutes: _Minutes, mantissa_bits: int) -> Floats:
    """Robust variance of the counts over that of Poisson counts, from neighbouring minutes, per minute and band."""
    both = minutes.used & np.roll(minutes.used, -1)
    both[-1] = False
    rate = minutes.rate
    change = np.roll(rate, -1, axis=-1) - rate
    noise = 2.0 * rate / np.where(minutes.used, minutes.exposure, 1.0)
    ratio = np.where(both, np.square(change) / np.maximum(noise, 1e-12), np.nan)
    nearest, windows = _windows(minutes, ratio, _SCATTER_RADIUS_MIN)
    measured = _small_mean(windows) / _KEPT_VARIANCE
    per_bin = minutes.counts[:, minutes.used].sum(axis=1) / max(minutes.bins[minutes.used].sum(), 1.0)
    usual = 1.0 + compression_variance(per_bin, mantissa_bits) / np.maximum(per_bin, 1.0)
    return np.asarray(np.maximum(np.where(measured > 0, measured, usual), 1.0)[nearest].T)


def _particle_factor(curve: Curve, minutes: _Minutes, white: Floats) -> Floats:
    """Rise of the background with that of the highest band, per minute, at least 1.

    Particles raise all bands alike for hours. Flares raise the highest one for minutes, and the others so much more
    that a background raised with it makes no difference to them.
    """
    low, high = _PARTICLE_BAND_KEV
    bands = np.flatnonzero((curve.energy_low >= low) & (curve.energy_low < high))
    if not len(bands):
        return np.ones(len(minutes.bins))
    band = slice(int(bands[-1]), int(bands[-1]) + 1)
    level = _low_level(minutes, white)[band]
    used = minutes.used.astype(np.float64)
    expected = _box(level * minutes.exposure * used, _PARTICLE_RADIUS_MIN)[0]
    counts = _box(minutes.counts[band] * used, _PARTICLE_RADIUS_MIN)[0]
    known = np.maximum(expected, 1.0)
    doubt = _PARTICLE_FLOOR + 3.0 * np.sqrt(white[band][0] / known)
    return np.asarray(np.where((expected > 0) & (counts / known > 1.0 + doubt), counts / known, 1.0))


def _quiet_dispersion(
    curve: Curve, minutes: _Minutes, at: NDArray[np.intp], quiet: Bools, expected: Floats, guess: Floats
) -> Floats:
    """Variance over mean of the bins of quiet minutes around each minute, drawn to the guess where there are few."""
    plain = _plain(curve)
    ratio = np.square(curve.counts - expected) / expected * plain
    sums = [np.asarray(np.bincount(at, weights=band, minlength=len(quiet)) * quiet, dtype=np.float64) for band in ratio]
    total = _box(np.stack(sums), _SCATTER_RADIUS_MIN)
    bins = _box((minutes.bins * quiet)[np.newaxis], _SCATTER_RADIUS_MIN)
    few = _ENOUGH_MIN * _BLOCK_S / float(np.median(curve.seconds))
    return np.asarray(np.maximum((total + few * guess) / (bins + few), 1.0))


def _small_mean(windows: Floats) -> Floats:
    """Mean of the smallest 70 % of what is not NaN along the last axis; 0 where there is too little."""
    ordered = np.sort(windows, axis=-1)
    number = np.floor(_KEPT * np.isfinite(ordered).sum(axis=-1)).astype(np.intp)
    sums = np.cumsum(np.nan_to_num(ordered), axis=-1)
    total = np.take_along_axis(sums, np.maximum(number - 1, 0)[..., np.newaxis], axis=-1)[..., 0]
    return np.asarray(np.where(number >= _LEAST_BINS, total / np.maximum(number, 1), 0.0))


def _slow_scatter(minutes: _Minutes, level: Floats, white: Floats) -> Floats:
    """Relative scatter of the level at ten minutes beyond counting noise, from neighbouring blocks of eight minutes."""
    offset = -minutes.first % _SLOW_BLOCK_MIN
    blocks = (level.shape[-1] - offset) // _SLOW_BLOCK_MIN
    if blocks < 2:
        return np.full_like(level, _SLOW_LIMITS[0])

    def fold(values: Floats) -> Floats:
        inside = values[..., offset : offset + blocks * _SLOW_BLOCK_MIN]
        return np.asarray(inside.reshape(*values.shape[:-1], blocks, _SLOW_BLOCK_MIN).sum(axis=-1))

    used = minutes.used.astype(np.float64)
    exposure = fold(minutes.exposure * used)
    whole = fold(used) >= _SLOW_BLOCK_MIN - 1
    mean = fold(minutes.counts * used) / np.where(whole, exposure, 1.0)
    change = np.where(whole[:-1] & whole[1:], np.square(np.diff(mean, axis=-1)) / 2.0, np.nan)
    change = np.repeat(change, _SLOW_BLOCK_MIN, axis=-1)
    rest = level.shape[-1] - offset - change.shape[-1]
    change = np.pad(change, ((0, 0), (offset, rest)), constant_values=np.nan)
    nearest, windows = _windows(minutes, change, _QUANTILE_RADIUS_MIN)
    total = (_small_mean(windows[..., ::_SLOW_BLOCK_MIN]) / _KEPT_VARIANCE)[nearest].T
    counting = white * level / (_SLOW_BLOCK_MIN * _BLOCK_S)
    relative = np.sqrt(np.maximum(total - counting, 0.0)) / np.maximum(level, 1e-12)
    return np.asarray(np.clip(relative, *_SLOW_LIMITS))


def _quiet_minutes(minutes: _Minutes, level: Floats, white: Floats) -> Bools:
    """Minutes in no window that lies above the level, or below it, in any band."""
    usable = minutes.used.astype(np.float64)
    counts, expected = minutes.counts * usable, level * minutes.exposure * usable
    busy = np.zeros(len(usable), dtype=np.bool_)
    for width in _MASK_WIDTHS_MIN:
        k, m, v = (_running(values, width) for values in (counts, expected, white * expected))
        slow = np.square(2.0 * _SLOW_LIMITS[0] * m)
        hot = (np.abs(k - m) > _MASK_SIGMAS * np.sqrt(np.maximum(v, 1.0) + slow)).any(axis=0)
        busy |= _spread(hot, width, len(usable))
    return np.asarray(minutes.used & ~busy)


def _running(values: Floats, width: int) -> Floats:
    """Sums over every window of so many minutes; the first window starts before the data."""
    padded = np.pad(values, ((0, 0), (width, width - 1)))
    sums = np.cumsum(padded, axis=-1)
    return np.asarray(sums[:, width:] - sums[:, :-width])


def _spread(hot: Bools, width: int, size: int) -> Bools:
    """Every minute of a hot window; window i covers the minutes i - width + 1 to i."""
    step = np.zeros(size + width, dtype=np.int64)
    where = np.flatnonzero(hot)
    np.add.at(step, np.maximum(where - width + 1, 0), 1)
    np.add.at(step, np.minimum(where + 1, size), -1)
    return np.asarray(np.cumsum(step)[:size] > 0)


def _local_mean(minutes: _Minutes, quiet: Bools, guess: Floats) -> tuple[Floats, Floats]:
    """Mean over quiet minutes, each window shrunk towards the next wider one; and the minutes that went in."""
    weight = quiet.astype(np.float64)
    counts, exposure = minutes.counts * weight, minutes.exposure * weight
    level = guess
    total = np.zeros(len(weight))
    for radius in reversed(_RADII_MIN):
        held = _triangle(exposure[np.newaxis], radius)[0]
        level = (_triangle(counts, radius) + _ENOUGH_MIN * _BLOCK_S * level) / (held + _ENOUGH_MIN * _BLOCK_S)
        total = np.maximum(total, held / _BLOCK_S)
    return level, total


def _triangle(values: Floats, radius: int) -> Floats:
    """Sum with triangular weights over +-radius minutes, as two means over half of it."""
    half = radius // 2
    return _box(_box(values, half), half) / (2 * half + 1)


def _box(values: Floats, radius: int) -> Floats:
    """Sum over +-radius minutes."""
    sums = np.cumsum(np.pad(values, ((0, 0), (radius + 1, radius))), axis=-1)
    return np.asarray(sums[:, 2 * radius + 1 :] - sums[:, : -(2 * radius + 1)])


def _age_s(quiet: Bools) -> Floats:
    """Seconds from each minute to the nearest quiet one."""
    index = np.arange(len(quiet))
    far = 10 * int(REACH / np.timedelta64(1, "m"))
    before = np.maximum.accumulate(np.where(quiet, index, -far))
    after = np.minimum.accumulate(np.where(quiet, index, len(quiet) + far)[::-1])[::-1]
    apart = np.minimum(index - before, after - index)
    return np.asarray(np.minimum(apart, far) * float(_BLOCK_S))
