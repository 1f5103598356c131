"""Energy calibration of the pixels: the lines of 133Ba in the spectra of a run, all pixels in one batch."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.calibration.descent import Minima, Points, descend, windows_of
from stixflow.calibration.lines import ALPHA, GAMMA, LINE_ENERGIES, LINE_NAMES, UNKNOWNS
from stixflow.calibration.reasons import FATAL, FLAGS, flag_attributes
from stixflow.calibration.start import OFFSETS, SLOPES, find_scale, first_guess
from stixflow.errors import UsageError
from stixflow.telemetry.compression import packed_variance

FloatArray = NDArray[np.float64]
_Mask = NDArray[np.bool_]

_FINE = 4.0
"""Fine ADC channels in one of those that calibration spectra count in, of which there are 1024."""
_FEWEST_COUNTS = 50
_LINES_ADC = 1150.0, 1650.0
"""ADC channels between the foot of the X-rays and the gamma line, in pixels with a usual scale."""
_REACH_ADC = 1000.0, 2000.0
"""ADC channels that the windows of any pixel lie in."""
_LEAST_CORRELATION = 0.8
_LEAST_COVER = 0.7
_LEAST_SIGNIFICANCE = 5.0
_LARGEST_CHI2 = 10.0
_WIDEST_KEV = 4.0
_WIDE_KEV = 1.5
_FWHM = 2 * np.sqrt(2 * np.log(2))
_SPAN_KEV = GAMMA - ALPHA
_KNOWN_BAD = ((29, 5), (29, 6))
_ROUNDS = 2


def calibrate(run: xr.Dataset) -> xr.Dataset:
    """Find gain and offset of every pixel from the lines of 133Ba in the spectra of a calibration run.

    Position and width of the lines at 31, 35 and 81 keV, their tails and the floors below them are fitted together, so
    that the energy scale is straight through all three.

    Parameters
    ----------
    run
        Product ``cal_spectrum``: counts (adc, detector, pixel) of points of one or more ADC channels of 1024.

    Returns
    -------
    Dataset of product ``energy_calibration`` (detector, pixel, line): gain in keV per ADC channel (of 4096), offset in
    ADC channels, their errors and correlation, positions, widths and counts of the lines, reduced chi2, and flags;
    the values of a pixel that cannot be calibrated are NaN. Errors are of counting and compression, widened by the root
    of a reduced chi2 above 1.

    Raises
    ------
    UsageError
        If this is no calibration run.
    """
    if run.attrs.get("product") != "cal_spectrum":
        raise UsageError(
            f"this is a dataset of the product {run.attrs.get('product')}",
            expected="cal_spectrum",
            advice="give a calibration run, as archive.calibration(key)",
        )
    start, stop, spectra = _spectra(run)
    scale = find_scale(spectra[0], spectra[2].astype(bool), start, stop)
    flags = np.zeros(len(scale), dtype=np.int64)
    first_reasons = {
        "not_received": ~spectra[2].any(axis=1),
        "line_not_covered": spectra[2] @ _within(start, stop) < _LEAST_COVER * (_LINES_ADC[1] - _LINES_ADC[0]),
        "few_counts": spectra[0].sum(axis=1) < _FEWEST_COUNTS,
        "no_spectrum": ~(scale[:, 2] >= _LEAST_CORRELATION),
    }
    for name, where in first_reasons.items():
        _set(flags, name, np.asarray(where & (flags == 0)))
    rows = np.flatnonzero(flags == 0)
    fitted = _fit(scale[rows, :2], start, stop, tuple(part[rows] for part in spectra))
    values = _values(fitted[0])
    flags[rows] |= _judge(values, *fitted)
    shape = run["counts"].shape[1:]
    return _dataset(run, values, rows[(flags[rows] & FATAL) == 0], rows, flags, scale[:, 2], shape)


def _spectra(run: xr.Dataset) -> tuple[FloatArray, FloatArray, tuple[FloatArray, FloatArray, FloatArray]]:
    """ADC channels of the points; counts, variance of their compression, and whether they can be used (pixel, point).

    Where points of two subspectra overlap, the narrower one is taken.
    """
    start, stop = (run[name].values.astype(np.float64) * _FINE for name in ("adc_start", "adc_stop"))
    near = np.flatnonzero((stop > _REACH_ADC[0]) & (start < _REACH_ADC[1]))
    start, stop = start[near], stop[near]
    order = np.lexsort((stop - start, start))
    width, number = stop - start, np.arange(start.size)
    is_overlapped = (start[:, None] < stop) & (start < stop[:, None])
    is_better = (width < width[:, None]) | ((width == width[:, None]) & (number < number[:, None]))
    keep = order[~(is_overlapped & is_better).any(axis=1)[order]]
    counts = run["counts"].values[near[keep]].reshape(keep.size, -1).T
    observed = run["observed"].values[near[keep]].reshape(keep.size, -1).T
    scheme = np.broadcast_to(run["counts_skm"].values.reshape(-1)[0], counts.shape)
    variance = packed_variance(counts, scheme)
    return start[keep], stop[keep], (counts.astype(np.float64), variance, observed.astype(np.float64))


def _within(start: FloatArray, stop: FloatArray) -> FloatArray:
    """Channels of every point between those where the lines of all pixels lie."""
    low, high = _LINES_ADC
    return np.asarray(np.maximum(np.minimum(stop, high) - np.maximum(start, low), 0.0))


def _fit(
    scale: FloatArray, start: FloatArray, stop: FloatArray, spectra: tuple[FloatArray, ...]
) -> tuple[Minima, tuple[Points, ...]]:
    """Fit in the windows of the scale that was found, then in those of the scale that was fitted."""
    for _ in range(_ROUNDS):
        points = windows_of(scale, start, stop, spectra)
        counts = np.maximum((points[0].counts * points[0].used).sum(axis=1) * 0.7, 1.0)
        minima = descend(points, first_guess(scale, counts))
        found = _scale_of(minima.unknowns)
        scale = np.where(_is_in_range(found)[:, None], found, scale)
    return minima, points


def _scale_of(unknowns: FloatArray) -> FloatArray:
    """Offset in ADC channels, and ADC channels per keV, (pixel, 2)."""
    slope = (unknowns[:, 1] - unknowns[:, 0]) / _SPAN_KEV
    return np.stack([unknowns[:, 0] - ALPHA * slope, slope], axis=1)


def _is_in_range(scale: FloatArray) -> _Mask:
    inside = (scale >= (OFFSETS[0], SLOPES[0])) & (scale <= (OFFSETS[-1], SLOPES[-1]))
    return np.asarray(inside.all(axis=1))


def _values(minima: Minima) -> dict[str, FloatArray]:
    """Gain, offset, lines and their errors, from what was fitted."""
    unknowns, n_points = minima.unknowns, minima.points
    reduced = minima.chi2 / np.maximum(n_points - unknowns.shape[1], 1)
    covariance = minima.covariance * np.maximum(reduced, 1.0)[:, None, None]
    offset, slope = _scale_of(unknowns).T
    places = covariance[:, :2, :2]
    gain = 1 / slope
    # Slopes of gain and offset in the positions of 31 and 81 keV.
    of_gain = gain[:, None] ** 2 / _SPAN_KEV * np.array([1.0, -1.0])
    of_offset = np.broadcast_to(np.array([GAMMA, -ALPHA]) / _SPAN_KEV, of_gain.shape)
    gain_error, offset_error = (np.sqrt(_sandwich(one, places, one)) for one in (of_gain, of_offset))
    along = (LINE_ENERGIES - ALPHA) / _SPAN_KEV
    weights = np.stack([1 - along, along], axis=1)
    errors = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0))
    widths, counts = np.exp(unknowns[:, [2, 2, 3]]) * _FWHM * gain[:, None], np.exp(unknowns[:, 4:7])
    return {
        "gain": gain,
        "offset": offset,
        "gain_error": gain_error,
        "offset_error": offset_error,
        "correlation": _sandwich(of_gain, places, of_offset) / np.maximum(gain_error * offset_error, 1e-300),
        "line_position": offset[:, None] + LINE_ENERGIES * slope[:, None],
        "line_position_error": np.sqrt(np.einsum("li,pij,lj->pl", weights, places, weights)),
        "line_fwhm": widths,
        "line_fwhm_error": widths * errors[:, [2, 2, 3]],
        "line_counts": counts,
        "line_counts_error": counts * errors[:, 4:7],
        "reduced_chi2": reduced,
        "fitted": unknowns,
    }


def _sandwich(left: FloatArray, middle: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("pi,pij,pj->p", left, middle, right))


def _judge(values: dict[str, FloatArray], minima: Minima, points: tuple[Points, ...]) -> NDArray[np.int64]:
    """Flags of the pixels that were fitted."""
    flags = np.zeros(len(minima.chi2), dtype=np.int64)
    scale = np.stack([values["offset"], 1 / values["gain"]], axis=1)
    _set(flags, "line_not_covered", _is_cut(points, scale))
    with np.errstate(invalid="ignore", divide="ignore"):
        significance = (values["line_counts"] / values["line_counts_error"])[:, [0, 2]].min(axis=1)
    _set(flags, "no_line", ~(significance >= _LEAST_SIGNIFICANCE))
    is_sound = np.isfinite(values["gain_error"]) & np.isfinite(values["offset_error"])
    _set(flags, "not_converged", ~minima.is_done | ~is_sound)
    _set(flags, "out_of_range", ~_is_in_range(scale) | ~(values["line_fwhm"] <= _WIDEST_KEV).all(axis=1))
    _set(flags, "poor_fit", ~(values["reduced_chi2"] <= _LARGEST_CHI2))
    _set(flags, "wide_lines", values["line_fwhm"][:, 0] > _WIDE_KEV)
    return flags


def _is_cut(points: tuple[Points, ...], scale: FloatArray) -> _Mask:
    """Whether a window lacks more than some of its channels."""
    cut = np.zeros(len(scale), np.bool_)
    for one in points:
        covered = np.where(one.used, one.stop - one.start, 0.0).sum(axis=1)
        cut |= covered < _LEAST_COVER * (one.window.high - one.window.low) * scale[:, 1]
    return cut


def _set(flags: NDArray[np.int64], name: str, where: _Mask) -> None:
    flags[where] |= FLAGS[name].bit


UNITS = {
    "gain": ("keV / adu", "width of an ADC channel (of 4096)"),
    "offset": ("adu", "ADC channel (of 4096) of 0 keV"),
    "gain_error": ("keV / adu", "one sigma of the gain"),
    "offset_error": ("adu", "one sigma of the offset"),
    "correlation": ("1", "correlation of the errors of gain and offset"),
    "line_position": ("adu", "position of the line"),
    "line_position_error": ("adu", "one sigma of the position"),
    "line_fwhm": ("keV", "full width at half maximum that a single line has, without its tail"),
    "line_fwhm_error": ("keV", "one sigma of the width"),
    "line_counts": ("count", "counts of the line with its tail"),
    "line_counts_error": ("count", "one sigma of the counts"),
    "reduced_chi2": ("1", "chi2 over degrees of freedom"),
}
"""Units of what is found of every pixel, and what it is."""
_INNER = {"fitted": ("1", "what was fitted, as in the coordinate; logarithms but for the positions")}


def _dataset(
    run: xr.Dataset,
    values: dict[str, FloatArray],
    good: NDArray[np.intp],
    fitted: NDArray[np.intp],
    flags: NDArray[np.int64],
    likeness: FloatArray,
    shape: tuple[int, ...],
) -> xr.Dataset:
    """Put the values of good pixels in their place, all others are NaN."""
    variables: dict[str, tuple[tuple[str, ...], NDArray[np.generic], dict[str, object]]] = {}
    chosen = np.isin(fitted, good)
    for name, (unit, text) in (UNITS | _INNER).items():
        part = values[name][chosen]
        full = np.full((flags.size, *part.shape[1:]), np.nan)
        full[good] = part
        dims = ("detector", "pixel", "unknown" if name in _INNER else "line")[: 1 + full.ndim]
        variables[name] = (dims, full.reshape(*shape, *full.shape[1:]), {"units": unit, "long_name": text})
    for detector, pixel in _KNOWN_BAD:
        flags[detector * shape[1] + pixel] |= FLAGS["known_bad"].bit
    likeness_text = "correlation of the spectrum with that of 133Ba"
    variables["flags"] = (
        ("detector", "pixel"),
        flags.astype(np.uint16).reshape(shape),
        flag_attributes(),
    )
    variables["likeness"] = (
        ("detector", "pixel"),
        likeness.reshape(shape),
        {"units": "1", "long_name": likeness_text},
    )
    coords = {
        "detector": run["detector"].values,
        "pixel": run["pixel"].values,
        "line": list(LINE_NAMES),
        "line_energy": ("line", LINE_ENERGIES, {"units": "keV"}),
        "unknown": list(UNKNOWNS),
    }
    attrs = {name: value for name, value in run.attrs.items() if name not in _NOT_KEPT}
    made = xr.Dataset(variables, coords, {**attrs, "product": "energy_calibration", "level": "CAL"})
    return made.assign({str(name): part for name, part in run.variables.items() if set(part.dims) <= {"time", "adc"}})


_NOT_KEPT = ("books", "corrections", "data_model_version")


__all__ = ["UNITS", "calibrate"]
