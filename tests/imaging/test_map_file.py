from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from stixflow.errors import ImagingError
from stixflow.imaging import (
    Clean,
    ForwardFit,
    Gaussian,
    Grid,
    MapFile,
    MemGE,
    from_arrays,
    reconstruct,
    source_visibilities,
)
from stixflow.instrument import detectors, subcollimators

U, V = detectors().u[subcollimators()], detectors().v[subcollimators()]
GRID = Grid((17, 21), (6.0, 5.0))


def _data(n: int) -> xr.Dataset:
    noise = np.random.default_rng(1).standard_normal((2, n, U.size)) * 0.2
    vis = source_visibilities([Gaussian(8.0, 6.0, -4.0, 14.0)], U, V) + noise[0] + 1j * noise[1]
    return from_arrays(U, V, vis, np.full(vis.shape, 0.2))


@pytest.mark.parametrize("method", [Clean(niter=20), MemGE(), ForwardFit()], ids=lambda one: type(one).__name__)
def test_the_file_holds_the_maps_of_the_whole_stack(tmp_path: Path, method: Any) -> None:
    data, per_part = _data(7), 3 * 17 * 21 * 8 * 4
    maps = MapFile.create(tmp_path / "maps.npy", data, GRID, method)
    parts = list(maps.parts(data, budget_bytes=per_part))
    assert [(start, part.sizes["image"]) for start, part in parts] == [(0, 3), (3, 3), (6, 1)]
    maps = pickle.loads(pickle.dumps(maps))
    found = maps.open([maps.fill(part) for part in reversed(parts)])
    one_by_one = [reconstruct(part, GRID, method) for _, part in parts]
    whole = xr.concat(one_by_one, "image", data_vars="minimal", coords="minimal", compat="override")
    np.testing.assert_array_equal(found["image"], whole["image"].astype(np.float32))
    assert found["image"].attrs["units"] == whole["image"].attrs["units"]
    for name, one in whole.variables.items():
        if name not in ("image", "components", "residual"):
            np.testing.assert_array_equal(found[name], one)
    np.testing.assert_array_equal(np.load(tmp_path / "maps.npy"), found["image"])


def test_what_travels_is_small(tmp_path: Path) -> None:
    data = _data(64)
    maps = MapFile.create(tmp_path / "maps.npy", data, Grid(65, 2.0), "clean")
    ((start, part),) = maps.parts(data)
    assert len(pickle.dumps(maps.fill((start, part)))) < 64 * 100 + 20_000


def test_missing_maps_are_not_zero(tmp_path: Path) -> None:
    data = _data(5)
    maps = MapFile.create(tmp_path / "maps.npy", data, GRID, "bp")
    first, second, third = maps.parts(data, budget_bytes=2 * 17 * 21 * 8 * 4)
    filled = [maps.fill(first), maps.fill(third)]
    with pytest.raises(ImagingError, match="from number 2 on"):
        maps.open(filled)
    maps.open([*filled, maps.fill(second)])
