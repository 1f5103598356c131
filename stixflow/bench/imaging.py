"""Images a second with every method, in a stack of simulated flares."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from stixflow.bench.measuring import Row, measure
from stixflow.imaging import (
    BackProjection,
    Clean,
    ForwardFit,
    Gaussian,
    Grid,
    MemGE,
    from_arrays,
    reconstruct,
    source_visibilities,
)
from stixflow.imaging.reconstruction import Method
from stixflow.instrument import detectors, subcollimators

METHODS: dict[str, Method] = {"bp": BackProjection(), "clean": Clean(), "mem_ge": MemGE(), "forward_fit": ForwardFit()}


def measure_imaging(*, quick: bool = False) -> list[Row]:
    """Time a stack of two-source flares on a grid of 65 x 65, one row a method."""
    n, grid = (8, Grid(33, 4.0)) if quick else (64, Grid(65, 2.0))
    data = flare_stack(n)
    rows: list[Row] = []
    for name, method in METHODS.items():
        row = measure(partial(reconstruct, data, grid, method), repetitions=2 if quick else 5)
        rows.append({"what": name, "images": n, "shape": grid.shape, "ms": 1e3 * row["cpu"]["min"] / n, **row})
    return rows


def flare_stack(n: int, *, seed: int = 20221109) -> xr.Dataset:
    """Return a stack of visibilities of two-source flares with noise, the same for the same seed."""
    random, k = np.random.default_rng(seed), subcollimators()
    u, v = detectors().u[k], detectors().v[k]
    places = random.uniform(-25, 25, (min(n, 64), 4))
    vis = np.stack(
        [source_visibilities([Gaussian(6.0, a, b, 14.0), Gaussian(3.0, c, d, 10.0)], u, v) for a, b, c, d in places]
    )
    noise = random.standard_normal((2, n, k.size)) * 0.3
    return from_arrays(u, v, np.resize(vis, (n, k.size)) + noise[0] + 1j * noise[1], np.full((n, k.size), 0.3))
