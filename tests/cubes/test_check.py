from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from example_cubes import make_dataset

from stixflow.cubes.check import check_dataset, find_problems
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import SchemaError


@pytest.mark.parametrize("product", list(PRODUCTS))
@pytest.mark.parametrize("n_time", [1, 5])
def test_a_dataset_of_the_model_passes(product: str, n_time: int) -> None:
    check_dataset(make_dataset(product, n_time=n_time))


def _set(name: str, index: int, value: object) -> Callable[[xr.Dataset], xr.Dataset]:
    def change(dataset: xr.Dataset) -> xr.Dataset:
        values = dataset[name].values.copy()
        values[index] = value
        return dataset.assign({name: dataset[name].copy(data=values)})

    return change


def _attr(name: str, value: object) -> Callable[[xr.Dataset], xr.Dataset]:
    return lambda dataset: dataset.assign_attrs({name: value})


def _variable_attr(name: str, **attrs: str) -> Callable[[xr.Dataset], xr.Dataset]:
    return lambda dataset: dataset.assign({name: dataset[name].assign_attrs(attrs)})


EARLY = np.datetime64("2022-11-09T00:49:50", "ns")
FAULTS: dict[str, tuple[Callable[[xr.Dataset], xr.Dataset], str]] = {
    "unknown product": (_attr("product", "ql_soup"), "product is 'ql_soup'"),
    "no level": (lambda d: d.drop_attrs().assign_attrs({"product": "sci_pixels"}), "the attribute level is missing"),
    "no request": (
        lambda d: d.drop_attrs(deep=False).assign_attrs(product="sci_pixels", level="L1", data_model_version=1),
        "the attribute request_id is missing",
    ),
    "other model": (_attr("data_model_version", 99), "data_model_version is 99"),
    "array attribute": (_attr("extra", np.arange(3)), "the attribute extra holds a ndarray"),
    "NaN attribute": (_attr("extra", float("nan")), "the attribute extra holds a float"),
    "variable missing": (lambda d: d.drop_vars("triggers"), "the variable triggers is missing"),
    "variable too many": (lambda d: d.assign(more=("time", d["rcr"].values)), "the variable more is not in the model"),
    "dimension order": (lambda d: d.transpose("energy", ...), "counts has the dimensions ('energy', 'time'"),
    "type": (lambda d: d.assign(counts=d["counts"].astype("float64")), "counts is float64, not uint32 or uint64"),
    "units": (_variable_attr("scet", units="s"), "scet has the units 's'"),
    "long name": (_variable_attr("rcr", long_name="soup"), "rcr has the long_name 'soup'"),
    "fixed size": (lambda d: d.isel(detector=slice(8)), "detector has 8 values, not 32"),
    "no time": (lambda d: d.isel(time=slice(0)), "time is empty"),
    "NaT": (_set("time_start", 2, np.datetime64("NaT")), "time_start holds NaT"),
    "time repeated": (lambda d: d.isel(time=[0, 1, 1, 2]), "time does not increase at 1 of 3 steps"),
    "time backwards": (lambda d: d.isel(time=[0, 2, 1]), "time does not increase"),
    "no duration": (_set("timedel", 1, 0.0), "timedel holds values that are not positive durations"),
    "NaN duration": (_set("timedel", 1, np.nan), "timedel holds values that are not positive durations"),
    "centre outside": (_set("time_start", 0, EARLY), "time lies outside its bin"),
    "overlap": (
        lambda d: d.assign(
            timedel=d["timedel"] * 3, time_start=d["time_start"] - np.timedelta64(4, "s").astype("m8[ns]")
        ),
        "start before the centre of the bin before them",
    ),
    "energies": (lambda d: d.isel(energy=[0, 2, 1]), "energy_low does not increase"),
    "energy NaN": (_set("energy_high", 1, np.nan), "energy_high holds NaN"),
    "energy upside down": (_set("energy_high", 1, 1.0), "energy_high is not above energy_low"),
    "channels": (_set("channel_stop", 1, 1), "channel_stop is not after channel_start"),
    "detectors": (lambda d: d.isel(detector=slice(None, None, -1)), "detector is not 0, 1, ... 31"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_every_fault_is_named(fault: str) -> None:
    change, expected = FAULTS[fault]
    problems = find_problems(change(make_dataset("sci_pixels", n_time=4)))
    assert [problem for problem in problems if expected in problem], problems


def test_all_problems_come_at_once() -> None:
    broken = make_dataset("ql_lightcurve").drop_vars(["triggers", "rcr"])
    broken["counts"] = broken["counts"].astype("int16")
    with pytest.raises(SchemaError) as caught:
        check_dataset(broken)
    for problem in ("triggers is missing", "rcr is missing", "counts is int16"):
        assert problem in str(caught.value)
    assert len(caught.value.problems) == 3  # type: ignore[attr-defined]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_rounding_of_the_clock_is_no_fault() -> None:
    """Bins that touch on board may overlap by microseconds in UTC."""
    dataset = make_dataset("ql_lightcurve")
    early = dataset["time_start"].values.copy()
    early[3] -= np.timedelta64(20, "us")
    check_dataset(dataset.assign_coords(time_start=("time", early)))
