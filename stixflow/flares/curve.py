"""A quick-look light curve as the arrays that detection reads."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import SchemaError

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

NANOSECONDS = 1e9
_EXACT_BITS = 32
_MANTISSA_MASK = 0xF
_DETECTORS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The arrays of a light curve that detection reads, bands first.

    `open_fraction` is the share of detectors and pixels that were counted, 1 where all were; `mantissa_bits` those of
    the compression of the counts, which tell how coarsely they are quantised.
    """

    start: NDArray[np.datetime64]
    stop: NDArray[np.datetime64]
    seconds: Floats
    counts: Floats
    rcr: NDArray[np.int64]
    open_fraction: Floats
    energy_low: Floats
    energy_high: Floats
    mantissa_bits: int

    @classmethod
    def of(cls, lightcurve: xr.Dataset) -> Curve:
        """Read a `ql_lightcurve`.

        Raises
        ------
        SchemaError
            If it lacks a variable or its bins are not in order of time.
        """
        _check(lightcurve)
        start = lightcurve["time_start"].to_numpy().astype("datetime64[ns]")
        seconds = lightcurve["timedel"].to_numpy().astype(np.float64)
        return cls(
            start=start,
            stop=start + np.rint(seconds * NANOSECONDS).astype("timedelta64[ns]"),
            seconds=seconds,
            counts=np.ascontiguousarray(lightcurve["counts"].transpose("energy", "time").to_numpy(), dtype=np.float64),
            rcr=lightcurve["rcr"].to_numpy().astype(np.int64),
            open_fraction=_open_fraction(lightcurve),
            energy_low=lightcurve["energy_low"].to_numpy().astype(np.float64),
            energy_high=lightcurve["energy_high"].to_numpy().astype(np.float64),
            mantissa_bits=_mantissa_bits(lightcurve),
        )

    def __len__(self) -> int:
        return len(self.start)

    @property
    def bands(self) -> int:
        """Number of energy bands."""
        return len(self.energy_low)

    def part(self, chosen: slice) -> Curve:
        """Return a stretch of the curve."""
        return Curve(
            self.start[chosen],
            self.stop[chosen],
            self.seconds[chosen],
            self.counts[:, chosen],
            self.rcr[chosen],
            self.open_fraction[chosen],
            self.energy_low,
            self.energy_high,
            self.mantissa_bits,
        )

    def segments(self, longest_gap_s: float) -> list[slice]:
        """Cut where more than so many seconds pass from the start of a bin to the start of the next."""
        if not len(self):
            return []
        longest = np.timedelta64(round(longest_gap_s * NANOSECONDS), "ns")
        cuts = np.flatnonzero(np.diff(self.start) > longest) + 1
        return [slice(a, b) for a, b in pairwise([0, *cuts.tolist(), len(self)])]


def _check(lightcurve: xr.Dataset) -> None:
    needed = ("time_start", "timedel", "counts", "rcr", "energy_low", "energy_high")
    problems = [f"no variable {name!r}" for name in needed if name not in lightcurve]
    if not problems:
        start = lightcurve["time_start"].to_numpy()
        if np.isnat(start).any():
            problems.append(f"{np.isnat(start).sum()} bins without a time")
        if back := int((np.diff(start) <= np.timedelta64(0, "ns")).sum()):
            problems.append(f"{back} bins that do not start after the bin before them")
        if not np.isfinite(lightcurve["counts"].to_numpy()).all():
            problems.append("counts that are not finite")
    if problems:
        raise SchemaError(
            "the light curve has " + ", ".join(problems),
            expected="a ql_lightcurve with bins in order of time",
            advice="sort and de-duplicate the bins, or read the file with stixflow.fits.read_level1",
        )


def _open_fraction(lightcurve: xr.Dataset) -> Floats:
    """Share of the detectors and of the area of the pixels in the masks; each mask value is looked up once."""
    share = np.ones(lightcurve.sizes["time"])
    if "pixel_mask" in lightcurve:
        share *= _share(lightcurve["pixel_mask"].to_numpy(), _pixel_areas())
    if "detector_mask" in lightcurve:
        share *= _share(lightcurve["detector_mask"].to_numpy(), (1.0,) * _DETECTORS)
    return share


def _share(masks: NDArray[np.integer[Any]], weights: tuple[float, ...]) -> Floats:
    """Weight of the bits that are set, over that of all; 1 where none is, for then the mask says nothing."""
    values, which = np.unique(masks, return_inverse=True)
    chosen = [sum(weight for bit, weight in enumerate(weights) if int(value) >> bit & 1) for value in values]
    share = np.array(chosen, dtype=np.float64) / sum(weights)
    return np.asarray(np.where(share > 0, share, 1.0)[which])


@functools.cache
def _pixel_areas() -> tuple[float, ...]:
    from stixflow.instrument import pixels

    return tuple(float(area) for area in pixels().area_cm2)


def _mantissa_bits(lightcurve: xr.Dataset) -> int:
    """The fewest bits of any compressed bin: the coarsest scheme decides."""
    if "counts_skm" not in lightcurve:
        return _EXACT_BITS
    bits = np.unique(lightcurve["counts_skm"].to_numpy()) & _MANTISSA_MASK
    compressed = bits[bits > 0]
    return int(compressed.min()) if len(compressed) else _EXACT_BITS


def compression_variance(counts: Floats, mantissa_bits: int) -> Floats:
    """Variance of the quantisation of numbers of this size by the onboard compression: that of a uniform integer."""
    _, exponent = np.frexp(np.maximum(counts, 1.0))
    dropped = np.maximum(exponent - 1 - mantissa_bits, 0)
    return np.asarray((np.ldexp(1.0, 2 * dropped) - 1.0) / 12.0)
