"""Rises that are no flares: shifts of the energy scale, particles, single bins."""

from __future__ import annotations

import numpy as np
import xarray as xr

from stixflow.flares.curve import Curve, Floats

_LINE_ABOVE_KEV = 15.0
_DEFICIT_SIGMAS = 6.0
_DEFICIT_SHARE = 0.03
"""A band that falls by less may have its counts lost in dead time."""
_DEAD_TIME_S = 12.62e-6
_ACCUMULATORS = 15.0
_HARD_ABOVE_KEV = 25.0
_SOFT_BELOW_KEV = 15.0
_HARD_OVER_SOFT = 1.0
_HARD_SIGMAS = 4.0
_ONE_BIN_SHARE = 0.8
_SHARE_OF_BACKGROUND_DETECTOR = 0.5
"""The open area of the background detector is so small that flares raise it by less than this share of the others."""
_BACKGROUND_DETECTOR_SIGMAS = 6.0


def veto(
    curve: Curve, expected: Floats, variance: Floats, offset: Floats, limits: tuple[int, int], core: tuple[int, int]
) -> str:
    """Say why a rise is no flare, or return the empty text.

    Parameters
    ----------
    curve
        The light curve.
    expected, variance, offset
        (band, bin): quiet counts, variance of a bin, and what the expected counts may be off.
    limits, core
        Bins of the rise, half-open, and first and last bin above half of its peak.
    """
    reasons = []
    inside = slice(*limits)
    if (curve.rcr[max(limits[0] - 1, 0) : limits[1] + 1] > 0).any():
        return ""
    excess = curve.counts[:, inside] - expected[:, inside]
    if _line_falls(curve, expected, variance, offset, (inside, slice(core[0], core[1] + 1))):
        reasons.append("energy scale shifted: a band falls while lower ones rise")
    if _hard(curve, excess, variance[:, inside], offset[:, inside]):
        reasons.append("harder than any flare: particles or electronics")
    if _one_bin(excess[0]):
        reasons.append("a single bin")
    return "; ".join(reasons)


def _line_falls(curve: Curve, expected: Floats, variance: Floats, offset: Floats, spans: tuple[slice, slice]) -> bool:
    """Photons of the lines at 31 and 35 keV missing from their band were moved, not absorbed."""
    from stixflow.flares.poisson import deviate

    bands = np.flatnonzero(curve.energy_low >= _LINE_ABOVE_KEV)
    for span in spans:
        counts, mean, var, off = (v[bands, span].sum(axis=1) for v in (curve.counts, expected, variance, offset))
        total_rise = max(float((curve.counts[:, span] - expected[:, span]).sum()), 0.0)
        seconds = max(float(curve.seconds[span].sum()), 1e-9)
        lost = 3.0 * _DEAD_TIME_S * total_rise / seconds / _ACCUMULATORS
        z = deviate(counts, mean, var, off)
        if ((z < -_DEFICIT_SIGMAS) & (1.0 - counts / np.maximum(mean, 1e-9) > _DEFICIT_SHARE + lost)).any():
            return True
    return False


def _hard(curve: Curve, excess: Floats, variance: Floats, offset: Floats) -> bool:
    """Flares have many times more counts in 4-15 keV than above 25 keV; the background has not."""
    hard, soft = curve.energy_low >= _HARD_ABOVE_KEV, curve.energy_high <= _SOFT_BELOW_KEV
    if not hard.any() or not soft.any():
        return False
    high, low = excess[hard].sum(), excess[soft].sum()
    sigma = np.sqrt(variance[hard].sum() + np.square(offset[hard].sum(axis=1)).sum())
    return bool(high > _HARD_SIGMAS * sigma and high > _HARD_OVER_SOFT * low)


def _one_bin(excess: Floats) -> bool:
    total = float(np.maximum(excess, 0.0).sum())
    return total > 0 and float(excess.max()) > _ONE_BIN_SHARE * total


class Monitor:
    """The background detector beside a light curve: it sees particles as the others do, but hardly any flare."""

    __slots__ = ("_curve", "_quiet")

    def __init__(self, background: xr.Dataset) -> None:
        """Take a `ql_background` (time, energy); its variables are those of a light curve, `rcr` may be absent."""
        from stixflow.flares.quiet import quiet_model

        if "rcr" not in background:
            background = background.assign(rcr=("time", np.zeros(background.sizes["time"], dtype=np.uint8)))
        self._curve = Curve.of(background)
        self._quiet = quiet_model(self._curve, follow_particles=False)

    def veto(self, start: np.datetime64, stop: np.datetime64, relative_rise: float) -> str:
        """Say so if the detector rises like the others from `start` to `stop`.

        Parameters
        ----------
        relative_rise
            Counts of the lowest band of the light curve above the background, over the background.
        """
        inside = slice(*np.searchsorted(self._curve.start, [start, stop]).tolist())
        expected = self._quiet.rate[:, inside] * self._curve.seconds[inside]
        total = float(expected.sum())
        rise = float(self._curve.counts[:, inside].sum()) - total
        variance = float((self._quiet.dispersion[:, inside] * expected).sum())
        drift = float((self._quiet.rate_sigma[:, inside] * self._curve.seconds[inside]).sum())
        if total <= 0 or rise < _BACKGROUND_DETECTOR_SIGMAS * np.hypot(np.sqrt(variance), drift):
            return ""
        same = rise / total > _SHARE_OF_BACKGROUND_DETECTOR * relative_rise
        return "the background detector rises as much: particles" if same else ""
