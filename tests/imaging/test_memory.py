"""Memory: a stack is worked through in parts, so that only the maps themselves grow with it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import xarray as xr

from stixflow.imaging import (
    EM,
    BackProjection,
    Clean,
    ForwardFit,
    Gaussian,
    Grid,
    MemGE,
    chunks,
    expected_column_rates,
    from_arrays,
    reconstruct,
    source_visibilities,
)
from stixflow.imaging.visibilities import phase_correction
from stixflow.instrument import detectors, subcollimators

K = subcollimators()
U, V = detectors().u[K], detectors().v[K]
GRID = Grid(33, 4.0)
METHODS = [BackProjection(), Clean(), EM(max_iterations=20), MemGE(), MemGE(flux="nnls"), ForwardFit()]
BUDGET = 1 << 20


def _data(n: int) -> xr.Dataset:
    noise = np.random.default_rng(5).standard_normal((2, n, U.size)) * 0.3
    clean = source_visibilities([Gaussian(8.0, 6.0, -4.0, 14.0)], U, V)
    vis = clean + noise[0] + 1j * noise[1]
    ideal = np.full(U.size, 0.25)
    rates = np.stack([expected_column_rates(8.0, one, ideal, phase_correction(K)) for one in vis])
    columns = "image", "visibility", "column"
    return from_arrays(U, V, vis, np.full(vis.shape, 0.3)).assign_coords(detector=("visibility", K)).assign(
        rate=(columns, rates), rate_sigma=(columns, np.full(rates.shape, 0.05)),
        transmission=(columns[:2], np.tile(ideal, (n, 1))), total_flux=("image", np.full(n, 8.0)),
    )  # fmt: skip


def _peak(data: xr.Dataset, method: Any) -> int:
    """Most bytes held at once while a stack is made in parts that are let go."""
    tracemalloc.start()
    try:
        for part in chunks(data, GRID, budget_bytes=BUDGET):
            reconstruct(part, GRID, method)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", METHODS, ids=lambda one: f"{type(one).__name__} {getattr(one, 'flux', '')}")
def test_memory_does_not_grow_with_the_stack(method: Any) -> None:
    data = _data(240)
    reconstruct(data.isel(image=slice(0, 60)), GRID, method)  # imports and tables
    short, long = _peak(data.isel(image=slice(0, 60)), method), _peak(data, method)
    assert long < 1.5 * short
    assert long < 5 * BUDGET
