"""Datasets of any product that follow the data model, small and full of odd values."""

from __future__ import annotations

import numpy as np
import xarray as xr

from stixflow.cubes.model import DATA_MODEL_VERSION, PRODUCTS

START = np.datetime64("2022-11-09T00:50:00.123456789", "ns")
_COORDS = {"time_start", "timedel", "scet", "energy_low", "energy_high", "channel_start", "channel_stop"}


def make_dataset(
    product: str,
    *,
    n_time: int = 12,
    n_energy: int = 5,
    seed: int = 0,
    start: np.datetime64 = START,
    step_s: float = 4.0,
    counts_dtype: str = "uint32",
    **attrs: object,
) -> xr.Dataset:
    model = PRODUCTS[product]
    rng = np.random.default_rng(seed)
    sizes = {"time": n_time, "energy": n_energy, "adc": 6, "pixel": 4, **model.fixed_sizes}
    n_energy = sizes["energy"]
    step = np.timedelta64(round(step_s * 1e9), "ns")
    begin = start + np.arange(n_time) * step
    low = np.arange(n_energy) + 4.0
    known = {
        "time": begin + step // 2 if "timedel" in model.variables else begin,
        "time_start": begin,
        "timedel": np.full(n_time, step_s),
        "scet": (np.arange(n_time) << 18) + (seed << 40),
        "energy": low + 0.5,
        "energy_low": low,
        "energy_high": np.append(low[1:], np.inf),
        "channel_start": np.arange(n_energy, dtype=np.uint8),
        "channel_stop": np.arange(1, n_energy + 1, dtype=np.uint8),
        "detector": np.arange(32, dtype=np.uint8),
        "pixel": np.arange(sizes["pixel"], dtype=np.uint8),
    }
    variables = {}
    for name, variable in model.variables.items():
        shape = tuple(sizes[dim] for dim in variable.dims)
        dtype = counts_dtype if counts_dtype in variable.dtypes else variable.dtypes[0]
        values = known[name] if name in known else rng.poisson(0.5, shape).astype(dtype)
        if name == "counts":
            values.flat[-1] = np.iinfo(dtype).max
        labels = {"units": variable.units, "long_name": variable.long_name}
        variables[name] = (variable.dims, values, {key: text for key, text in labels.items() if text})
    made = xr.Dataset(variables, attrs=_attrs(product) | attrs)
    return made.set_coords(_COORDS & set(made.data_vars))


def _attrs(product: str) -> dict[str, object]:
    common = {"product": product, "level": "L1", "data_model_version": DATA_MODEL_VERSION, "code_version": "test"}
    request = {"request_id": 2211090305, "seq_control": 54678, "ssid": 21, "box": 0, "boxes": 1}
    return common | (request if PRODUCTS[product].partition == "request" else {})
