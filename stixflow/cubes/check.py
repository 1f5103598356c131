"""Does a Dataset follow the data model? Every problem is collected, then raised once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.model import DATA_MODEL_VERSION, GLOBAL_ATTRS, PRODUCTS, Product, Variable
from stixflow.errors import SchemaError

_REQUEST_ATTRS = ("request_id", "seq_control", "ssid", "box", "boxes")
"""Attributes that a Dataset of a request carries beside `GLOBAL_ATTRS`."""

_OVERLAP_S = 1e-3
_OVERLAP_PART = 1e-5
"""Bins may overlap by this much: the onboard clock ticks at another rate than UTC and both are rounded."""


def check_dataset(dataset: xr.Dataset) -> None:
    """Refuse a Dataset that does not follow the data model of its product.

    Raises
    ------
    SchemaError
        With every problem found, also listed in its attribute `problems`.
    """
    problems = find_problems(dataset)
    if problems:
        error = SchemaError(
            f"a {dataset.attrs.get('product', 'nameless')} Dataset has {len(problems)} problem(s): "
            + "; ".join(problems),
            expected=f"the data model, version {DATA_MODEL_VERSION}",
            advice="correct what built it; stixflow.cubes.model says what belongs in it",
        )
        error.problems = problems  # type: ignore[attr-defined]
        raise error


def find_problems(dataset: xr.Dataset) -> list[str]:
    """List what is wrong with a Dataset, one sentence a problem; an empty list means it follows the model."""
    product = PRODUCTS.get(str(dataset.attrs.get("product")))
    if product is None:
        return [f"product is {dataset.attrs.get('product')!r}, not one of {', '.join(PRODUCTS)}"]
    structure = [problem for check in _STRUCTURE for problem in check(dataset, product)]
    return structure or [problem for check in _VALUES for problem in check(dataset, product)]


def _attributes(dataset: xr.Dataset, product: Product) -> Iterator[str]:
    wanted = GLOBAL_ATTRS + (_REQUEST_ATTRS if product.partition == "request" else ())
    for name in wanted:
        if name not in dataset.attrs:
            yield f"the attribute {name} is missing"
    version = dataset.attrs.get("data_model_version", DATA_MODEL_VERSION)
    if version != DATA_MODEL_VERSION:
        yield f"data_model_version is {version!r}, not {DATA_MODEL_VERSION}"
    for name, value in dataset.attrs.items():
        if not _is_json(value):
            yield f"the attribute {name} holds a {type(value).__name__}, which JSON cannot"


def _is_json(value: object) -> bool:
    """Tell whether a value comes back equal from a JSON document, NumPy scalars taken as plain numbers."""
    try:
        json.dumps(value.item() if isinstance(value, np.generic) else value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _presence(dataset: xr.Dataset, product: Product) -> Iterator[str]:
    found = {str(name) for name in dataset.variables}
    for name in product.variables.keys() - found:
        yield f"the variable {name} is missing"
    for name in sorted(found - product.variables.keys()):
        yield f"the variable {name} is not in the model"


def _variables(dataset: xr.Dataset, product: Product) -> Iterator[str]:
    for name, wanted in product.variables.items():
        if name in dataset.variables:
            yield from _variable(name, dataset[name], wanted)


def _variable(name: str, found: xr.DataArray, wanted: Variable) -> Iterator[str]:
    if found.dims != wanted.dims:
        yield f"{name} has the dimensions {found.dims}, not {wanted.dims}"
    if str(found.dtype) not in wanted.dtypes:
        yield f"{name} is {found.dtype}, not {' or '.join(wanted.dtypes)}"
    for label in ("units", "long_name"):
        if found.attrs.get(label, getattr(wanted, label)) != getattr(wanted, label):
            yield f"{name} has the {label} {found.attrs[label]!r}, not {getattr(wanted, label)!r}"


def _sizes(dataset: xr.Dataset, product: Product) -> Iterator[str]:
    for name, size in product.fixed_sizes.items():
        if dataset.sizes.get(name, size) != size:
            yield f"{name} has {dataset.sizes[name]} values, not {size}"
    for dim, size in dataset.sizes.items():
        if size == 0:
            yield f"{dim} is empty"


def _times(dataset: xr.Dataset, product: Product) -> Iterator[str]:
    for name, variable in product.variables.items():
        if variable.dtypes == ("datetime64[ns]",) and np.isnat(dataset[name].values).any():
            yield f"{name} holds NaT"
            return
    yield from _rising("time", dataset["time"].values)
    if "timedel" in product.variables:
        yield from _intervals(dataset)


def _rising(name: str, values: NDArray[Any]) -> Iterator[str]:
    wrong = np.flatnonzero(~(values[1:] > values[:-1]))
    if wrong.size:
        first = int(wrong[0])
        yield (
            f"{name} does not increase at {wrong.size} of {len(values) - 1} steps, "
            f"first from {values[first]} to {values[first + 1]} (index {first})"
        )


def _intervals(dataset: xr.Dataset) -> Iterator[str]:
    start, timedel = dataset["time_start"].values, dataset["timedel"].values
    if not (np.isfinite(timedel) & (timedel > 0)).all():
        yield "timedel holds values that are not positive durations"
        return
    inside = (dataset["time"].values - start).astype(np.int64) * 1e-9
    slack = _OVERLAP_S + _OVERLAP_PART * timedel
    if ((inside < -slack) | (inside > timedel + slack)).any():
        yield "time lies outside its bin"
    early = np.flatnonzero(start[1:] < dataset["time"].values[:-1])
    if early.size:
        first = int(early[0])
        yield (
            f"{early.size} bin(s) start before the centre of the bin before them, first at {start[first + 1]} (index "
            f"{first + 1})"
        )


def _energies(dataset: xr.Dataset, product: Product) -> Iterator[str]:
    if "energy_low" not in product.variables:
        return
    for name in ("energy", "energy_low", "energy_high"):
        if np.isnan(dataset[name].values).any():
            yield f"{name} holds NaN"
    yield from _rising("energy_low", dataset["energy_low"].values)
    if not (dataset["energy_low"].values < dataset["energy_high"].values).all():
        yield "energy_high is not above energy_low"
    if not (dataset["channel_start"].values < dataset["channel_stop"].values).all():
        yield "channel_stop is not after channel_start"


def _indices(dataset: xr.Dataset, product: Product) -> Iterator[str]:
    for name in ("detector", "pixel"):
        if name in product.variables and (dataset[name].values != np.arange(dataset.sizes[name])).any():
            yield f"{name} is not 0, 1, ... {dataset.sizes[name] - 1}"


_Check = Callable[[xr.Dataset, Product], Iterator[str]]
_STRUCTURE: tuple[_Check, ...] = (_attributes, _presence, _variables, _sizes)
_VALUES: tuple[_Check, ...] = (_times, _energies, _indices)
