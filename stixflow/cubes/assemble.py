"""Arrays to a Dataset of the data model: dimensions, units and names come from the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from stixflow.cubes.model import DATA_MODEL_VERSION, PRODUCTS, Variable


def assemble(
    product: str, arrays: Mapping[str, ArrayLike], *, level: str = "L1", attrs: Mapping[str, object] | None = None
) -> xr.Dataset:
    """Name the arrays of a product as the data model does.

    Parameters
    ----------
    arrays
        One for each variable of the model, others are ignored; of another type than the model's they are cast to the
        first type the model allows.

    Raises
    ------
    KeyError
        If an array is missing.
    """
    model = PRODUCTS[product].variables
    variables = {name: _make_variable(spec, arrays[name]) for name, spec in model.items()}
    dims = {dim for spec in model.values() for dim in spec.dims}
    head = {"product": product, "level": level, "data_model_version": DATA_MODEL_VERSION}
    return xr.Dataset(
        {name: variable for name, variable in variables.items() if name not in dims},
        {name: variable for name, variable in variables.items() if name in dims},
        {**head, **(attrs or {})},
    )


def energy_arrays(start: ArrayLike, stop: ArrayLike, edges: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Variables of the energy axis, each (energy,): the centre is the label, of the overflow bin its lower edge.

    Parameters
    ----------
    start, stop
        First channel of each energy bin, and the one after its last.
    edges
        (33,) edges of the science channels in keV.
    """
    first, after = np.asarray(start), np.asarray(stop)
    low, high = edges[first], edges[after]
    return {
        "energy": np.where(np.isinf(high), low, (low + high) / 2),
        "energy_low": low,
        "energy_high": high,
        "channel_start": first.astype(np.uint8),
        "channel_stop": after.astype(np.uint8),
    }


def _make_variable(spec: Variable, values: ArrayLike) -> xr.Variable:
    """Give an array the type, dimensions, units and name of a variable of the model."""
    array = np.asarray(values)
    if array.dtype.name not in spec.dtypes:
        array = array.astype(spec.dtypes[0])
    attrs: dict[str, Any] = {"units": spec.units, "long_name": spec.long_name}
    return xr.Variable(spec.dims, array, attrs)


__all__ = ["assemble", "energy_arrays"]
