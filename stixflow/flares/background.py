"""What the instrument counts when the Sun is quiet: hourly statistics, and the nearest quiet hour to a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

_FRAME_SECONDS = 3600.0
_QUIET_STD_FACTOR = 3.0
"""A frame is quiet where the scatter of the lowest band stays below this many times the root of its median."""
_QUIET_MAX_COUNTS = 500.0
"""A frame with more counts per bin in the lowest band never serves as background."""
_SIGMA_SPAN = np.timedelta64(12, "h")

_STATISTICS = ("median", "mean", "std", "max", "min")


@dataclass(frozen=True, slots=True)
class Background:
    """Background per energy band, in counts per bin, and where it was taken.

    `median` is that of the frame `[start, stop)`. `sigma` is the median scatter of the quiet frames of the day around:
    scatter changes less than level, and counts are quantised so coarsely that that of one hour is itself noise.
    `age_s` is the time between the flare and the nearer end of the frame, 0 inside it.
    """

    median: NDArray[np.float64]
    sigma: NDArray[np.float64]
    start: np.datetime64
    stop: np.datetime64
    age_s: float


def quiet_statistics(lightcurve: xr.Dataset, *, frame_seconds: float = _FRAME_SECONDS) -> xr.Dataset:
    """Describe a light curve by frames of an hour, counted from its first bin; hours without a bin are left out.

    Parameters
    ----------
    lightcurve
        A `ql_lightcurve` (time, energy).

    Returns
    -------
    Dataset (frame, energy) with median, mean, std, max, min in counts per bin, and per frame start, stop, bins,
    is_quiet; join days with ``xr.concat(..., "frame")``. A bin belongs to the frame in which it starts.
    """
    times = lightcurve["time_start"].to_numpy()
    counts = lightcurve["counts"].to_numpy().astype(np.float64)
    if not len(times):
        return _frames(times, times, np.zeros((len(_STATISTICS), 0, counts.shape[1])), np.zeros(0, dtype=np.int64))
    length = np.timedelta64(round(frame_seconds * 1e9), "ns")
    number = (times - times[0]) // length
    first = np.flatnonzero(np.diff(number, prepend=-1))
    last = np.append(first[1:], len(times))
    rows = [_describe(counts[a:b]) for a, b in zip(first, last, strict=True)]
    bin_length = (lightcurve["timedel"].to_numpy()[last - 1] * 1e9).round().astype("timedelta64[ns]")
    return _frames(times[first], times[last - 1] + bin_length, np.stack(rows, axis=1), last - first)


def _describe(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    values = [np.median(counts, 0), counts.mean(0), counts.std(0), counts.max(0), counts.min(0)]
    return np.stack(values)


def _frames(
    start: NDArray[np.datetime64], stop: NDArray[np.datetime64], values: NDArray[np.float64], bins: NDArray[np.int64]
) -> xr.Dataset:
    median, std = values[0, :, 0], values[2, :, 0]
    per_band = {
        name: (("frame", "energy"), array, {"units": "1", "long_name": f"{name} of the counts per bin"})
        for name, array in zip(_STATISTICS, values, strict=True)
    }
    per_frame = {
        "start": ("frame", start.astype("datetime64[ns]"), {"units": "", "long_name": "start of the first bin, UTC"}),
        "stop": ("frame", stop.astype("datetime64[ns]"), {"units": "", "long_name": "end of the last bin, UTC"}),
        "bins": ("frame", bins, {"units": "1", "long_name": "bins in the frame"}),
        "is_quiet": (
            "frame",
            std < _QUIET_STD_FACTOR * np.sqrt(median),
            {"units": "1", "long_name": "scatter of the lowest band compatible with a quiet Sun"},
        ),
    }
    return xr.Dataset({**per_band, **per_frame})


def _usable_frames(statistics: xr.Dataset) -> NDArray[np.bool_]:
    """Tell which frames may serve as background: quiet, and never above 500 counts per bin in the lowest band."""
    return np.asarray(statistics["is_quiet"].to_numpy() & (statistics["max"].to_numpy()[:, 0] < _QUIET_MAX_COUNTS))


def nearest_quiet(
    statistics: xr.Dataset, time: np.datetime64, *, excluded: NDArray[np.bool_] | None = None
) -> Background | None:
    """Return the quiet frame whose start is nearest to a time, before or after it; None if there is none.

    Parameters
    ----------
    statistics
        From `quiet_statistics`, any order.
    excluded
        Frames not to be used, for instance because they hold the flare itself.
    """
    usable = _usable_frames(statistics)
    if excluded is not None:
        usable = usable & ~excluded
    candidates = np.flatnonzero(usable)
    if not len(candidates):
        return None
    start, stop = statistics["start"].to_numpy(), statistics["stop"].to_numpy()
    best = candidates[np.argmin(np.abs(start[candidates] - time))]
    around = candidates[np.abs(start[candidates] - start[best]) <= _SIGMA_SPAN]
    apart = max(start[best] - time, time - stop[best], np.timedelta64(0, "ns"))
    return Background(
        median=statistics["median"].to_numpy()[best],
        sigma=np.median(statistics["std"].to_numpy()[around], axis=0),
        start=start[best],
        stop=stop[best],
        age_s=float(apart / np.timedelta64(1, "ns")) / 1e9,
    )
