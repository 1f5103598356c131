"""Calibrated visibilities: from arrays of any instrument, or from STIX pixel counts of many intervals at once.

A set of visibilities is a Dataset with the dimensions ``image`` (one per interval and energy range) and ``visibility``
(one per sub-collimator), ``V(u, v) = ∬ I(x, y) exp(+2πi (ux + vy)) dx dy``, x and y from the phase centre of the image.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging.back_projection import shift_phase_center
from stixflow.imaging.bands import ElutMode
from stixflow.imaging.bins import BinRule, energy_ranges, time_ranges, with_energy_shift
from stixflow.imaging.counts import IntervalCounts, interval_counts
from stixflow.imaging.forward import ComplexArray, modulation_amplitude, sum_case
from stixflow.imaging.grid_models import GridModel, grid_response
from stixflow.imaging.grids import FloatArray
from stixflow.imaging.readout import readout_of
from stixflow.instrument import SumCase, detectors
from stixflow.instrument import subcollimators as subcollimator_indices
from stixflow.time import TimeRange

UNIT = "ct / (s cm2 keV)"
"""Unit of STIX visibilities, readable by astropy."""

AmplitudeRule = Literal["modulation", "shadow", "ideal"]
BackgroundRule = Literal["counts", "rates", "stixpy"]


@dataclass(frozen=True, slots=True)
class Convention:
    """Where the analysis packages differ on the way to visibilities; the defaults are those of the ground software.

    Raises
    ------
    UsageError
        If one of the choices does not exist.
    """

    bins: BinRule = "cover"
    """"cover": the whole bins that cover a range; "stixpy": time bins that touch it, energy bins inside it."""
    grids: GridModel = "measured"
    """"measured", "wedge" (slats that let high energies through), "metrology", "stixpy" (that with a known mistake)."""
    amplitude: AmplitudeRule = "modulation"
    """"modulation": as strong as grids of their transmission modulate; "shadow": the rates divided by four times the
    transmission and the amplitudes of ideal grids; "ideal": ideal grids and no shadowing."""
    subtract: BackgroundRule = "counts"
    """"counts": scaled by live time, before the energy correction; "rates": those of both, each corrected with its own
    energies; "stixpy": the same after the correction for shadowing, which the background is left without."""

    def __post_init__(self) -> None:
        choices = {"bins": BinRule, "grids": GridModel, "amplitude": AmplitudeRule, "subtract": BackgroundRule}
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                expected = f"one of {', '.join(map(repr, get_args(kind)))}"
                raise UsageError(f"{name}={getattr(self, name)!r}", expected=expected, advice="choose one of them")


GROUND_SOFTWARE = Convention()
STIXPY = Convention("stixpy", "stixpy", "shadow", "stixpy")
"""What stixpy (and its guide) does, together with ``elut="stixpy"``."""


def from_arrays(
    u: ArrayLike,
    v: ArrayLike,
    vis: ArrayLike,
    sigma: ArrayLike | None = None,
    *,
    center: ArrayLike = (0.0, 0.0),
    label: Sequence[str] | None = None,
    units: str = UNIT,
) -> xr.Dataset:
    """Visibilities of any instrument as a Dataset that `reconstruct` takes.

    Parameters
    ----------
    u, v
        Spatial frequencies, 1/arcsec, shape (visibility,), for ``V = ∬ I exp(+2πi (ux + vy))``.
    vis
        Complex, shape (visibility,) or (image, visibility).
    sigma
        Standard error of the amplitudes, shape as `vis`; NaN where unknown.
    center
        Where the phases refer to, (x, y) in arcsec, one pair or one per image.
    label
        Names of the visibilities.

    Raises
    ------
    UsageError
        If the shapes do not fit.
    """
    u, v = np.atleast_1d(np.asarray(u, dtype=np.float64)), np.atleast_1d(np.asarray(v, dtype=np.float64))
    vis = np.atleast_2d(np.asarray(vis, dtype=np.complex128))
    errors = np.full(vis.shape, np.nan) if sigma is None else np.atleast_2d(np.asarray(sigma, dtype=np.float64))
    if u.ndim != 1 or u.shape != v.shape or vis.shape[1:] != u.shape or errors.shape != vis.shape:
        raise UsageError(
            f"u {u.shape}, v {v.shape}, vis {vis.shape} and sigma {errors.shape} do not fit together",
            expected="u and v of shape (visibility,), vis and sigma (visibility,) or (image, visibility)",
            advice="bring the arrays to these shapes",
        )
    x, y = np.broadcast_to(np.asarray(center, dtype=np.float64), (len(vis), 2)).T
    along = "image", "visibility"
    return xr.Dataset(
        {
            "visibility": (along, vis, {"units": units, "long_name": "visibility"}),
            "sigma": (along, errors, {"units": units, "long_name": "standard error of the visibility"}),
            "u": ("visibility", u, {"units": "1 / arcsec", "long_name": "spatial frequency along x"}),
            "v": ("visibility", v, {"units": "1 / arcsec", "long_name": "spatial frequency along y"}),
            "label": ("visibility", np.array(label if label is not None else [""] * u.size, dtype=np.str_)),
            "center_x": ("image", x.copy(), {"units": "arcsec", "long_name": "phase centre, x of the STIX frame"}),
            "center_y": ("image", y.copy(), {"units": "arcsec", "long_name": "phase centre, y of the STIX frame"}),
        }
    )


def visibilities(
    pixels: xr.Dataset,
    time_range: Any,
    energy_range: Any,
    background: xr.Dataset | None = None,
    *,
    location: ArrayLike = (0.0, 0.0),
    center: ArrayLike | None = None,
    subcollimators: ArrayLike | None = None,
    rows: SumCase | str = "top+bottom",
    elut: ElutMode | None = "power_law",
    systematic: float = 0.05,
    convention: Convention = GROUND_SOFTWARE,
) -> xr.Dataset:
    """Calibrated visibilities of STIX for every time range with every energy range.

    The defaults are the choices of the ground software; ``elut="stixpy", convention=STIXPY`` makes those of stixpy.

    Parameters
    ----------
    pixels, background
        Datasets of the product `sci_pixels`, or `sci_pixel_sums` whose sets are the four columns; all of the
        background is used.
    time_range
        One or many: TimeRange, "A/B", or pair of times.
    energy_range
        One or many pairs in keV. Images are ordered with the time slowest.
    location
        (x, y) of the source in the STIX frame, arcsec, for the grid transmission; one pair or one per image.
    center
        Phase centre, in the same frame; the location when not given.
    subcollimators
        Detector indices; by default the 24 of resolutions 10 to 3.
    rows
        Rows of pixels to sum: "top", "bottom", "top+bottom", "all", "small". Sums made on board are taken as they are.
    elut
        Correction from actual to nominal energies: "power_law" (ground software), "linear", "stixpy" (linear, but for a
        single channel the product of what two edges would need), or None.
    systematic
        Relative error added in quadrature.
    convention
        Choice of bins, model of the grids, amplitudes and subtraction of the background.

    Returns
    -------
    Dataset as of `from_arrays`, with the column rates, the flux, the counts and times behind each image.

    Raises
    ------
    ImagingError
        If an interval has no data, missing data, or a changing instrument state (attenuator, masks), or the grid model
        does not know a sub-collimator.
    """
    pixels = with_energy_shift(pixels)
    times, energies = time_ranges(time_range), energy_ranges(energy_range)
    case = readout_of(pixels, sum_case(rows)).case
    indices = subcollimator_indices() if subcollimators is None else np.asarray(subcollimators, dtype=np.intp)
    subtracted = background if convention.subtract == "counts" else None
    counts = interval_counts(
        pixels, times, energies, indices, case, background=subtracted, elut=elut, bins=convention.bins
    )
    rates, errors = _column_rates(counts, case)
    places = np.broadcast_to(np.asarray(location, dtype=np.float64), (len(counts.raw), 2))
    limits = np.stack(
        [
            pixels["energy_low"].to_numpy()[counts.energy_bins[:, 0]],
            pixels["energy_high"].to_numpy()[counts.energy_bins[:, 1] - 1],
        ],
        axis=1,
    )
    response = grid_response(convention.grids, places, limits, indices)
    open_part = 4.0 * response.transmission[..., None] if convention.amplitude == "shadow" else 1.0
    rates, errors = rates / open_part, errors / open_part
    if background is not None and convention.subtract != "counts":
        other = interval_counts(
            background, [_whole(background)], energies, indices, case, elut=elut, bins=convention.bins
        )
        shaded = 1.0 if convention.subtract == "stixpy" else open_part
        rates, errors, counts = _less_rates(rates, errors, counts, other, case, shaded)
    vis, sigma = calibrate(
        rates, errors, response.slits, indices, case,
        systematic=systematic, amplitude=convention.amplitude, contrast=response.contrast,
    )  # fmt: skip
    instrument = detectors()
    u, v = instrument.u[indices], instrument.v[indices]
    middle = np.broadcast_to(np.asarray(places if center is None else center, dtype=np.float64), places.shape)
    vis = shift_phase_center(vis, u, v, middle[:, 0], middle[:, 1])
    result = from_arrays(u, v, vis, sigma, center=middle, label=[instrument.label[i] for i in indices])
    result = result.assign_coords(detector=("visibility", indices.astype(np.uint8)))
    seen = response.transmission if convention.amplitude == "modulation" else np.full(response.transmission.shape, 0.25)
    result = result.assign(_observed(pixels, counts, rates, errors, seen, places))
    names = "request_id", "bin_shift", "energy_shift_kev"
    result.attrs = {
        "rows": case.lower().replace("_", "+"),
        "elut": elut or "none",
        "systematic": systematic,
        **asdict(convention),
        "background_subtracted": int(background is not None),
        **{name: pixels.attrs[name] for name in names if name in pixels.attrs},
    }
    return result


def _whole(pixels: xr.Dataset) -> TimeRange:
    """From the middle of the first to that of the last time bin: what all of them touch, and no other."""
    times = pixels["time"].to_numpy()
    return TimeRange(times[0], times[-1] + np.timedelta64(1, "ns"))


def _column_rates(counts: IntervalCounts, case: SumCase) -> tuple[FloatArray, FloatArray]:
    """Rates of the columns per cm² and keV, and their errors, (image, detector, 4)."""
    scale = 1.0 / (counts.live_time * counts.energy_width[:, None] * case.column_area_cm2)[..., None]
    return counts.net * scale, np.sqrt(counts.variance) * scale


def _less_rates(
    rates: FloatArray,
    errors: FloatArray,
    counts: IntervalCounts,
    background: IntervalCounts,
    case: SumCase,
    shaded: FloatArray | float,
) -> tuple[FloatArray, FloatArray, IntervalCounts]:
    """Rates less those of the background, which has one interval for all; `shaded` is what its rates are divided by."""
    repeat = len(rates) // len(background.raw)
    taken, taken_error = (np.tile(values, (repeat, 1, 1)) / shaded for values in _column_rates(background, case))
    ratio = counts.live_time.mean(axis=1) / np.tile(background.live_time.mean(axis=1), repeat)
    estimate = np.tile(background.raw, repeat) * ratio
    return rates - taken, np.hypot(errors, taken_error), replace(counts, background=estimate)


def calibrate(
    rates: ArrayLike,
    errors: ArrayLike,
    transmission: ArrayLike,
    subcollimators: ArrayLike,
    rows: SumCase | str = "top+bottom",
    *,
    systematic: float = 0.05,
    amplitude: AmplitudeRule = "modulation",
    contrast: ArrayLike = 1.0,
) -> tuple[ComplexArray, FloatArray]:
    """Column rates to calibrated visibilities with the phase centre on the STIX axis.

    Parameters
    ----------
    rates, errors
        Rates of the columns A to D per cm² and keV, and their errors, shape (..., visibility, 4).
    transmission
        Of the grid pairs, broadcast to (..., visibility).
    subcollimators
        Detector indices, shape (visibility,).
    amplitude
        "modulation" as the grids modulate; else as ideal grids do, and the transmission does not count.
    contrast
        Modulation left by slats that are not opaque, broadcast as `transmission`.

    Returns
    -------
    Visibilities and the standard errors of their amplitudes, shape (..., visibility). The factor is that of the ground
    software, ``π³ / (8 √2 sin²(π √T))``, but for the small pixels, where it is 8 % too high for their half width.
    """
    rates, variances = np.asarray(rates, dtype=np.float64), np.asarray(errors, dtype=np.float64) ** 2
    raw = (rates[..., 2] - rates[..., 0]) + 1j * (rates[..., 3] - rates[..., 1])
    variance_re, variance_im = variances[..., 2] + variances[..., 0], variances[..., 3] + variances[..., 1]
    squared = np.abs(raw) ** 2
    even = squared == 0
    along = np.where(even, 0.5, raw.real**2 / np.where(even, 1.0, squared))
    sigma = np.sqrt(along * variance_re + (1.0 - along) * variance_im)
    case = sum_case(rows)
    if amplitude == "modulation":
        factor = 0.25 / (modulation_amplitude(transmission, case.harmonic) * np.asarray(contrast))
    else:
        factor = 0.25 / modulation_amplitude(0.25)
    turn = np.exp(1j * np.deg2rad(phase_correction(subcollimators) + case.phase_offset_deg))
    vis = raw * factor * turn
    return vis, np.sqrt((sigma * factor) ** 2 + (systematic * np.abs(vis)) ** 2)


def phase_correction(subcollimators: ArrayLike) -> FloatArray:
    """Calibrated phase of the grids plus its ad-hoc part, degrees, for the given detector indices."""
    indices = np.asarray(subcollimators, dtype=np.intp)
    return np.asarray(detectors().grid_phase_deg[indices] + detectors().adhoc_phase_deg[indices])


def recenter(data: xr.Dataset, center: ArrayLike) -> xr.Dataset:
    """Visibilities with the phase centre moved to `center`, (x, y) in arcsec, one pair or one per image."""
    x, y = np.broadcast_to(np.asarray(center, dtype=np.float64), (data.sizes["image"], 2)).T
    shift_x, shift_y = x - data["center_x"].to_numpy(), y - data["center_y"].to_numpy()
    vis = shift_phase_center(
        data["visibility"].to_numpy(), data["u"].to_numpy(), data["v"].to_numpy(), shift_x, shift_y
    )
    moved = data.assign_coords(visibility=(("image", "visibility"), vis, data["visibility"].attrs))
    return moved.assign(
        center_x=("image", x.copy(), data["center_x"].attrs), center_y=("image", y.copy(), data["center_y"].attrs)
    )


def stack(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join sets of visibilities of the same sub-collimators, from different files for instance, along the images.

    Raises
    ------
    ImagingError
        If the sets have different spatial frequencies, or one of them has what another has not.
    """
    first = parts[0]
    for part in parts[1:]:
        if missing := first.variables.keys() ^ part.variables.keys():
            raise ImagingError(
                f"some of the sets of visibilities have {', '.join(sorted(map(str, missing)))}, others not",
                expected="the same variables in all of them",
                advice="make them in the same way, or drop what not all have",
            )
        if not (np.array_equal(part["u"], first["u"]) and np.array_equal(part["v"], first["v"])):
            raise ImagingError(
                "the sets of visibilities have different spatial frequencies",
                expected="the same sub-collimators in the same order",
                advice="make them with the same `subcollimators`",
            )
    variables = {name: _joined(name, variable, parts) for name, variable in first.variables.items()}
    coords = {name: variables.pop(name) for name in first.coords}
    return xr.Dataset(variables, coords, _common([part.attrs for part in parts]))


def _joined(name: Hashable, variable: xr.Variable, parts: Sequence[xr.Dataset]) -> xr.Variable:
    if "image" not in variable.dims:
        return variable
    along = variable.dims.index("image")
    values = np.concatenate([part.variables[name].values for part in parts], axis=along)
    return xr.Variable(variable.dims, values, variable.attrs)


def _common(attrs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Attributes on which all agree that have them."""
    found = {name: value for one in attrs for name, value in one.items()}
    return {name: value for name, value in found.items() if all(one.get(name, value) == value for one in attrs)}


def _observed(
    pixels: xr.Dataset,
    counts: IntervalCounts,
    rates: FloatArray,
    errors: FloatArray,
    transmission: FloatArray,
    places: NDArray[np.float64],
) -> dict[str, Any]:
    """What was measured in each interval; `transmission` is what the rates still have of it."""
    first, stop = counts.time_bins.T
    first_energy, stop_energy = counts.energy_bins.T
    start = pixels["time_start"].to_numpy()
    duration = np.rint(pixels["timedel"].to_numpy() * 1e9).astype("timedelta64[ns]")
    flux = rates.sum(axis=-1) / (4.0 * transmission)
    by_image = {
        "time_start": (start[first], "start of the first time bin, UTC", ""),
        "time_stop": (start[stop - 1] + duration[stop - 1], "end of the last time bin, UTC", ""),
        "energy_low": (pixels["energy_low"].to_numpy()[first_energy], "lower edge of the energies", "keV"),
        "energy_high": (pixels["energy_high"].to_numpy()[stop_energy - 1], "upper edge of the energies", "keV"),
        "counts": (counts.raw, "counts in the selection", "ct"),
        "background_counts": (counts.background, "background in the selection", "ct"),
        "net_counts": (counts.raw - counts.background, "counts above the background", "ct"),
        "live_time": (counts.live_time.mean(axis=1), "live time, mean of the detectors", "s"),
        "exposure": (counts.exposure, "duration of the time bins", "s"),
        "total_flux": (flux.mean(axis=1), "flux above the grids, mean of the sub-collimators", UNIT),
        "location_x": (places[:, 0].copy(), "location assumed for the transmission, x of the STIX frame", "arcsec"),
        "location_y": (places[:, 1].copy(), "location assumed for the transmission, y of the STIX frame", "arcsec"),
        "rcr": (counts.rcr, "rate control regime", "1"),
    }
    columns = "image", "visibility", "column"
    return {name: ("image", values, _attrs(text, units)) for name, (values, text, units) in by_image.items()} | {
        "rate": (columns, rates, _attrs("rate of the columns A to D", UNIT)),
        "rate_sigma": (columns, errors, _attrs("standard error of the column rates", UNIT)),
        "flux": (columns[:2], flux, _attrs("flux above the grids", UNIT)),
        "transmission": (columns[:2], transmission, _attrs("mean transmission of the grid pair in the rates", "1")),
    }


def _attrs(long_name: str, units: str) -> dict[str, str]:
    return {"long_name": long_name} | ({"units": units} if units else {})
