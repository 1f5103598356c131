"""Arrays to a Dataset of the data model: dimensions, units and names come from the model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.model import DATA_MODEL_VERSION, PRODUCTS


def assemble(
    product: str, arrays: Mapping[str, NDArray[np.generic]], *, level: str, attrs: Mapping[str, object]
) -> xr.Dataset:
    """Name the arrays of a product as the data model does."""
    variables = {
        name: xr.Variable(variable.dims, arrays[name], {"units": variable.units, "long_name": variable.long_name})
        for name, variable in PRODUCTS[product].variables.items()
    }
    head = {"product": product, "level": level, "data_model_version": DATA_MODEL_VERSION}
    return xr.Dataset(variables, attrs={**head, **attrs})
