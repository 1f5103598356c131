"""Images from visibilities with any of the methods: one door for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.imaging.back_projection import BackProjection, back_project
from stixflow.imaging.clean import Clean, clean, natural_beam
from stixflow.imaging.em import EM, em
from stixflow.imaging.fit_parameters import PARAMETERS
from stixflow.imaging.forward import modulation_amplitude, sum_case
from stixflow.imaging.forward_fit import Fits, ForwardFit, fit_image, forward_fit
from stixflow.imaging.grid_models import grid_response
from stixflow.imaging.grids import FloatArray, Grid
from stixflow.imaging.mem_ge import MemGE, mem_ge
from stixflow.imaging.model_choice import ChosenFit, fit_chosen
from stixflow.imaging.visibilities import phase_correction, recenter

Method = BackProjection | Clean | EM | MemGE | ForwardFit | ChosenFit

_METHODS: dict[str, type[Method]] = {
    "bp": BackProjection, "clean": Clean, "em": EM, "mem_ge": MemGE, "forward_fit": ChosenFit,
}  # fmt: skip
_NAMES: dict[type[Method], str] = {kind: name for name, kind in _METHODS.items()} | {ForwardFit: "forward_fit"}
METHODS = tuple(_METHODS)
"""Names of the methods."""
_CARRIED = (
    "time_start", "time_stop", "energy_low", "energy_high", "counts", "background_counts", "net_counts", "live_time",
    "exposure", "total_flux", "location_x", "location_y", "rcr", "center_x", "center_y",
)  # fmt: skip
_MAPS = "image", "y", "x"
_NEEDED_FOR_EM = "rate", "transmission", "detector"
_CHUNK_BYTES = 256 << 20
_MAPS_KEPT = 4
"""Maps of an image that are in memory at once, at most (CLEAN: image, components, residual)."""


def reconstruct(data: xr.Dataset, grid: Grid, method: str | Method = "clean") -> xr.Dataset:
    """Images of a stack of visibilities.

    Images do not depend on the stack that they are part of: to bound memory, or to share the work, call this on the
    parts that `chunks` gives.

    Parameters
    ----------
    data
        From `visibilities` or `from_arrays`; "em" needs the rates that only the former has.
    grid
        Pixels of the maps. With a centre, the visibilities are shifted to it; without, each map is centred on the phase
        centre of its visibilities.
    method
        "clean", "bp", "mem_ge", "em" or "forward_fit" with its usual parameters, or `Clean(...)`,
        `BackProjection(...)`, `MemGE(...)`, `EM(...)`, `ForwardFit(...)` of given sources, or `ChosenFit(...)`, which
        chooses them for every image and is what "forward_fit" stands for.

    Returns
    -------
    Dataset with `image` (image, y, x), whose coordinates x and y are arcsec from the middle of each map, and the
    position of that middle in the STIX frame as `center_x`, `center_y` (image). Maps are per arcsec², but for
    back-projections, which have the unit of the visibilities. Beside it what the method knows of its result: its
    iterations, whether it converged, its misfit; fits have `fit` and `fit_error` (image, source, parameter). Attributes
    name the method and its parameters.

    Raises
    ------
    UsageError
        If there is no such method, or the data lack what it needs.
    ImagingError
        If the data are not usable; the message says why.
    """
    parameters = find_method(method)
    if grid.center is not None:
        data = recenter(data, grid.center)
    variables, attrs = _RUNS[type(parameters)](data, grid, parameters)
    carried = {name: data.variables[name] for name in _CARRIED if name in data.variables}
    offsets = {
        name: (name, values, {"units": "arcsec", "long_name": f"{name} from the middle of the map, STIX frame"})
        for name, values in (("x", grid.offset_x), ("y", grid.offset_y))
    }
    given = {"method": _NAMES[type(parameters)], **_plain(asdict(parameters))}
    pixel = {"pixel_y_arcsec": grid.pixel[0], "pixel_x_arcsec": grid.pixel[1]}
    return xr.Dataset(carried | variables, coords=offsets, attrs=data.attrs | given | attrs | pixel)


def chunks(data: xr.Dataset, grid: Grid, *, budget_bytes: int = _CHUNK_BYTES) -> Iterator[xr.Dataset]:
    """Cut a stack so that the maps of a part fit in `budget_bytes`: the items for a cluster, or for a loop.

    The images of the parts, joined along `image`, are those of the whole.
    """
    per_image = grid.shape[0] * grid.shape[1] * 8 * _MAPS_KEPT
    step = max(budget_bytes // per_image, 1)
    for start in range(0, data.sizes["image"], step):
        yield data.isel(image=slice(start, start + step))


def find_method(method: str | Method) -> Method:
    """Return the parameters of a method given by name, or those given.

    Raises
    ------
    UsageError
        If there is no such method.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, str) and method in _METHODS:
        return _METHODS[method]()
    raise UsageError(
        f"no imaging method {method!r}",
        expected=f"one of {', '.join(map(repr, _METHODS))}, or {', '.join(kind.__name__ for kind in _NAMES)}(...)",
        advice="choose one of them",
    )


def arrays(data: xr.Dataset) -> tuple[Any, Any, Any, Any]:
    """Visibilities, errors, u and v of a set as arrays."""
    vis, sigma, u, v = (data.variables[name].to_numpy() for name in ("visibility", "sigma", "u", "v"))
    return vis, sigma, u, v


def column_phase(data: xr.Dataset) -> FloatArray:
    """Phase (image, visibility), degrees, added on the way from the columns to the visibilities of a set."""
    x, y = (data[name].to_numpy()[:, None] for name in ("center_x", "center_y"))
    shift = 360.0 * (x * data["u"].to_numpy() + y * data["v"].to_numpy())
    own = (
        phase_correction(data["detector"].to_numpy()) + sum_case(data.attrs.get("rows", "top+bottom")).phase_offset_deg
    )
    return np.asarray(own - shift)


def column_response(data: xr.Dataset) -> tuple[FloatArray, FloatArray]:
    """Part of the flux in the rates of a set, and amplitude of their first harmonic, each (image, visibility).

    Those that the visibilities of the set were made with: of its `grids` and `amplitude`.
    """
    transmission = data["transmission"].to_numpy()
    if data.attrs.get("amplitude", "modulation") != "modulation":
        ideal = np.full(transmission.shape, 0.25)
        return ideal, modulation_amplitude(ideal)
    harmonic = sum_case(data.attrs.get("rows", "top+bottom")).harmonic
    if data.attrs.get("grids", "measured") != "wedge":
        return transmission, modulation_amplitude(transmission, harmonic)
    places, energies = (
        np.stack([data[name].to_numpy() for name in names], axis=1)
        for names in (("location_x", "location_y"), ("energy_low", "energy_high"))
    )
    response = grid_response("wedge", places, energies, data["detector"].to_numpy().astype(np.intp))
    return response.transmission, modulation_amplitude(response.slits, harmonic) * response.contrast


Result = tuple[dict[str, Any], dict[str, Any]]


def _back_projected(data: xr.Dataset, grid: Grid, parameters: BackProjection) -> Result:
    vis, _, u, v = arrays(data)
    text = "back-projection (not per arcsec²)"
    return {"image": (_MAPS, back_project(vis, u, v, grid, parameters), _attrs(text, _unit(data)))}, {}


def _cleaned(data: xr.Dataset, grid: Grid, parameters: Clean) -> Result:
    vis, _, u, v = arrays(data)
    maps, unit = clean(vis, u, v, grid, parameters), _unit(data)
    residual = maps.residual
    return {
        "image": (_MAPS, maps.image, _attrs("brightness", _per_area(unit))),
        "components": (_MAPS, maps.components, _attrs("flux of the CLEAN components", unit)),
        "residual": (_MAPS, residual, _attrs("residual of the dirty map", unit)),
        "iterations": ("image", maps.iterations, _attrs("components subtracted")),
        "component_flux": ("image", maps.components.sum(axis=(1, 2)), _attrs("flux of the components", unit)),
        "residual_rms": ("image", np.sqrt((residual**2).mean(axis=(1, 2))), _attrs("rms of the residual", unit)),
        "residual_max": ("image", residual.max(axis=(1, 2)), _attrs("peak of the residual", unit)),
    }, {"beam_fwhm": parameters.beam_fwhm or natural_beam(u, v, parameters.weighting)}


def _maximised(data: xr.Dataset, grid: Grid, parameters: EM) -> Result:
    missing = [name for name in _NEEDED_FOR_EM if name not in data.variables]
    if missing:
        raise UsageError(
            f"no {', '.join(missing)} in the data",
            expected="the rates of the columns, which expectation maximisation starts from",
            advice="make the data with `visibilities`, or choose another method",
        )
    rates, u, v = (data[name].to_numpy() for name in ("rate", "u", "v"))
    transmission, modulation = column_response(data)
    maps = em(rates, transmission, column_phase(data), u, v, grid, parameters, modulation=modulation)
    unit = data["rate"].attrs.get("units", "")
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.nansum(((rates - maps.rates) / data["rate_sigma"].to_numpy()) ** 2, axis=(1, 2))
    return {
        "image": (_MAPS, maps.image, _attrs("brightness", _per_area(unit))),
        "iterations": ("image", maps.iterations, _attrs("updates")),
        "converged": ("image", maps.converged, _attrs("the stop rule was met")),
        "cstat": ("image", maps.cstat, _attrs("C-statistic of the rates, per column", unit)),
        "chi2": ("image", deviation, _attrs("squared deviations of the rates over their errors", "1")),
        "flux": ("image", _flux(maps.image, grid), _attrs("flux of the map", unit)),
    }, {}


def _most_entropy(data: xr.Dataset, grid: Grid, parameters: MemGE) -> Result:
    vis, sigma, u, v = arrays(data)
    flux = data["total_flux"].to_numpy() if parameters.flux in ("auto", "counts") and "total_flux" in data else None
    maps, unit = mem_ge(vis, sigma, u, v, grid, parameters, flux=flux), _unit(data)
    return {
        "image": (_MAPS, maps.image, _attrs("brightness", _per_area(unit))),
        "iterations": ("image", maps.iterations, _attrs("Newton steps")),
        "converged": ("image", maps.converged, _attrs("the duality gap is within the tolerance")),
        "duality_gap": ("image", maps.duality_gap, _attrs("most that the objective is above the least possible", "1")),
        "objective": ("image", maps.objective, _attrs("misfit and weighted relative entropy", "1")),
        "chi2": ("image", maps.chi2, _attrs("squared deviations of the visibilities over their errors", "1")),
        "flux": ("image", maps.flux, _attrs("flux of the map, given to the method", unit)),
        "regularisation": ("image", maps.regularisation, _attrs("weight of the entropy, lambda")),
    }, {}


def _fitted(data: xr.Dataset, grid: Grid, parameters: ForwardFit) -> Result:
    vis, sigma, u, v = arrays(data)
    fits = forward_fit(vis, sigma, u, v, parameters)
    groups = [(np.arange(len(vis)), fits)]
    return _fit_variables(data, grid, groups, len(fits.kinds)), {"degrees_of_freedom": fits.degrees_of_freedom}


def _fitted_by_choice(data: xr.Dataset, grid: Grid, parameters: ChosenFit) -> Result:
    n_sources = max(len(model.sources) for model in parameters.models())
    return _fit_variables(data, grid, list(fit_chosen(data, parameters)), n_sources), {}


def _fit_variables(
    data: xr.Dataset, grid: Grid, groups: Sequence[tuple[NDArray[np.intp], Fits]], n_sources: int
) -> dict[str, Any]:
    """Fits of models to some of the images each, as variables of all images."""
    n, unit = data.sizes["image"], _unit(data)
    values, errors = np.full((2, n, n_sources, len(PARAMETERS)), np.nan)
    maps, kinds = np.empty((n, *grid.shape)), np.full((n, n_sources), "", dtype="U7")
    models, freedom = np.empty(n, dtype="U47"), np.empty(n, np.int64)
    flux, chi2, bic, log_evidence = np.empty((4, n))
    converged, at_bound, agreeing = np.empty(n, np.bool_), np.empty(n, np.bool_), np.empty(n, np.int64)
    for images, fits in groups:
        own = len(fits.kinds)
        values[images, :own], errors[images, :own] = fits.values, fits.errors
        maps[images], flux[images] = fit_image(fits, grid), fits.values[:, :, 0].sum(axis=1)
        kinds[images, :own], models[images], freedom[images] = fits.kinds, "+".join(fits.kinds), fits.degrees_of_freedom
        chi2[images], bic[images], log_evidence[images] = fits.chi2, fits.bic, fits.log_evidence
        converged[images], at_bound[images] = fits.converged, fits.at_bound
        agreeing[images] = fits.agreeing_starts
    by_source = "image", "source", "parameter"
    text = "flux in the unit of the visibilities, arcsec from the middle of the map, degrees from +x to +y"
    return {
        "image": (_MAPS, maps, _attrs("brightness of the fitted sources", _per_area(unit))),
        "fit": (by_source, values, {"long_name": f"parameters of the sources: {text}"}),
        "fit_error": (by_source, errors, {"long_name": f"standard errors of the parameters: {text}"}),
        "parameter": ("parameter", np.array(PARAMETERS)),
        "kind": (("image", "source"), kinds, _attrs("kind of the source; empty for none")),
        "model": ("image", models, _attrs("kinds of the sources")),
        "freedom": ("image", freedom, _attrs("degrees of freedom")),
        "chi2": ("image", chi2, _attrs("squared deviations of the visibilities over their errors", "1")),
        "reduced_chi2": ("image", chi2 / freedom, _attrs("chi2 per degree of freedom", "1")),
        "bic": ("image", bic, _attrs("Bayesian information criterion; the smaller, the better the model", "1")),
        "log_evidence": ("image", log_evidence, _attrs("log of the evidence, for flat priors", "1")),
        "converged": ("image", converged, _attrs("the fit ended in a minimum")),
        "at_bound": ("image", at_bound, _attrs("a parameter lies at a bound")),
        "agreeing_starts": ("image", agreeing, _attrs("fits that found this minimum")),
        "flux": ("image", flux, _attrs("flux of all sources", unit)),
    }


_RUNS: dict[type[Method], Callable[..., Result]] = {
    BackProjection: _back_projected, Clean: _cleaned, EM: _maximised, MemGE: _most_entropy, ForwardFit: _fitted,
    ChosenFit: _fitted_by_choice,
}  # fmt: skip


def _flux(images: Any, grid: Grid) -> FloatArray:
    return np.asarray(images.sum(axis=(1, 2), dtype=np.float64) * grid.pixel_area)


def _unit(data: xr.Dataset) -> str:
    return str(data["visibility"].attrs.get("units", ""))


def _per_area(unit: str) -> str:
    return f"{unit} / arcsec2" if not unit.endswith(")") else f"{unit[:-1]} arcsec2)"


def _attrs(long_name: str, units: str = "") -> dict[str, str]:
    return {"long_name": long_name} | ({"units": units} if units else {})


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as attributes that any file format takes."""
    return {name: _plain_value(value) for name, value in parameters.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, tuple) and value and all(isinstance(one, tuple) and isinstance(one[0], str) for one in value):
        return ", ".join("+".join(one) for one in value)
    return "none" if value is None else str(value) if isinstance(value, tuple) else value
