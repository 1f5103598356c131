"""Maps and fits a second with every method, beside xrayvision and stixpy in the same run.

All get the same data (24 sub-collimators of STIX with ideal grids, two sources and noise), pixels, gain, beam and most
iterations; the maps are compared in the same run. CPU time of the process, one BLAS thread; ours as a stack and one by
one. The peers have no stack; their messages are switched off. Peers that are not installed leave their column out.

"clean" follows the stop rule with gain 0.1; "clean-200" has a gain so small that all iterations run. "em" is compared
after as many updates as the peer makes. "mem_ge" is certified by its duality gap; the peer (minutes: only with
`--peer-mem`) stops early, so that the difference is mostly its own. mem_ge takes the flux that the counts tell, "mem_ge
nnls" the estimate of the peer, whose time counts. Fits are multi-start; they have no peer in Python.

Then, without a peer: intervals a second from counts to visibilities, and one location.

    python benchmarks/bench_imaging.py [--quick] [--sizes 65 129 257] [--no-peer] [--peer-mem] [--json]
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import contextlib
import io
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stixflow.fits import read_level1
from stixflow.imaging import (
    EM,
    BackProjection,
    Clean,
    ForwardFit,
    Gaussian,
    Grid,
    Loop,
    MemGE,
    expected_column_rates,
    from_arrays,
    locate,
    reconstruct,
    source_visibilities,
    visibilities,
)
from stixflow.imaging.em import em
from stixflow.imaging.mem_ge import signal_to_noise
from stixflow.imaging.reconstruction import Method, column_phase
from stixflow.imaging.visibilities import calibrate, phase_correction
from stixflow.instrument import detectors, subcollimators
from stixflow.time import TimeRange

PIXELS = {65: 2.0, 129: 2.0, 257: 1.0}
STACK = {65: 256, 129: 128, 257: 32}
BEAM = 16.0
METHODS = {
    "bp": BackProjection(),
    "bp float32": BackProjection(precision="float32"),
    "clean": Clean(beam_fwhm=BEAM),
    "clean-200": Clean(beam_fwhm=BEAM, gain=0.02),
    "em": EM(),
    "em float32": EM(precision="float32"),
    "mem_ge": MemGE(),
    "mem_ge float32": MemGE(precision="float32"),
    "mem_ge nnls": MemGE(flux="nnls"),
    "mem_ge nnls float32": MemGE(flux="nnls", precision="float32"),
}
FITS: dict[str, tuple[ForwardFit, list[Gaussian | Loop]]] = {
    "circle": (ForwardFit(("circle",)), [Gaussian(10.0, 12.0, -8.0, 15.0)]),
    "ellipse": (ForwardFit(("ellipse",)), [Gaussian(8.0, -6.0, 9.0, 40.0, 15.0, 35.0)]),
    "two circles": (
        ForwardFit(("circle", "circle")),
        [Gaussian(6.0, -18.0, -12.0, 10.0), Gaussian(4.0, 16.0, 15.0, 13.0)],
    ),
    "loop": (ForwardFit(("loop",)), [Loop(12.0, 3.0, 5.0, 50.0, 25.0, 70.0, 90.0)]),
}
IDEAL = 0.25
"""Transmission of ideal grids, the only one that the peer's EM knows."""


def main() -> None:
    arguments = _arguments()
    rows = []
    for size in arguments.sizes:
        data = _visibilities(16 if arguments.quick else STACK[size])
        rows += [measure(name, size, data, arguments) for name in METHODS]
    other = measure_fits(16 if arguments.quick else 64) | ({} if arguments.quick else measure_counts(arguments.shared))
    if arguments.json:
        sys.stdout.write(json.dumps({"imaging": rows, "other": other}) + "\n")
        return
    sys.stdout.write(
        f"{'method':21} {'size':>5} {'iter':>5} {'stack ms':>9} {'single ms':>10} {'peer ms':>9} {'stack x':>8} "
        f"{'single x':>9} {'difference':>10}\n"
    )
    for row in rows:
        peer = f"{row['peer_ms']:9.2f} {row['stack_ratio']:8.0f} {row['single_ratio']:9.0f}" if row["peer_ms"] else ""
        difference = f"{row['difference']:10.1e}" if row["peer_ms"] else ""
        sys.stdout.write(
            f"{row['method']:21} {row['size']:5d} {row['iterations']:5.0f} {row['stack_ms']:9.4f} "
            f"{row['single_ms']:10.4f} {peer:28} {difference}\n"
        )
    for name, value in other.items():
        sys.stdout.write(f"{name:42} {value:10.1f}\n")


def measure_fits(n: int) -> dict[str, float]:
    """Fits a second, all starts included, of a stack with 5 % noise."""
    u, v = detectors().u[subcollimators()], detectors().v[subcollimators()]
    random = np.random.default_rng(20221109)
    result = {}
    for name, (parameters, sources) in FITS.items():
        noise = random.standard_normal((2, n, u.size)) * 0.3
        vis = source_visibilities(sources, u, v) + noise[0] + 1j * noise[1]
        data = from_arrays(u, v, vis, np.full(vis.shape, 0.3))
        seconds = _best(lambda data=data, parameters=parameters: reconstruct(data, Grid(1, 1.0), parameters), 2)
        result[f"fits a second, {name}, {parameters.n_starts} starts"] = n / seconds
    return result


def measure_counts(shared: Path) -> dict[str, float]:
    """Intervals a second from counts to visibilities (5000 time ranges in 4 bands), and ms of one location."""
    files = sorted((shared / "oracle" / "imaging").glob("synth_solo_L1*.fits"))
    if not files:
        return {}
    pixels = read_level1(files[0]).load()
    start, step = pixels["time_start"].to_numpy()[0], np.timedelta64(8, "s")
    random = np.random.default_rng(1)
    first = random.integers(0, 18, 5000)
    last = first + random.integers(1, 3, 5000)
    ranges = [TimeRange(start + a * step, start + b * step) for a, b in zip(first, last, strict=True)]
    bands = [(4, 10), (6, 10), (10, 15), (16, 28)]
    result = {}
    for elut in (None, "linear", "power_law"):
        seconds = _best(lambda elut=elut: visibilities(pixels, ranges, bands, elut=elut), 3)
        result[f"intervals a second, elut {elut}"] = len(ranges) * len(bands) / seconds
    seconds = _best(lambda: locate(pixels, ranges[0], rsun_arcsec=1600.0, center=(0.0, 0.0)), 3)
    return result | {"location, ms": seconds * 1e3}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[65, 129, 257], choices=sorted(PIXELS))
    parser.add_argument("--quick", action="store_true", help="one size, small stacks, no pixel files")
    parser.add_argument("--peer-mem", action="store_true", help="the peer's MEM_GE too: 5 to 35 s a map")
    parser.add_argument("--no-peer", dest="peer", action="store_false")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes = arguments.sizes[:1]
    return arguments


def _visibilities(n: int) -> xr.Dataset:
    """A stack of two-source flares seen through ideal grids, rates with 3 % noise; fixed seed."""
    random, k = np.random.default_rng(20221109), subcollimators()
    u, v = detectors().u[k], detectors().v[k]
    ideal, rates = np.full(k.size, IDEAL), []
    for _ in range(n):
        x, y = random.uniform(-25, 25, (2, 2))
        sources = [Gaussian(6.0, x[0], y[0], 14.0, 9.0, 30.0), Gaussian(3.0, x[1], y[1], 10.0)]
        rates.append(expected_column_rates(9.0, source_visibilities(sources, u, v), ideal, phase_correction(k)))
    errors = np.full((n, k.size, 4), 0.03 * IDEAL * 9.0)
    measured = np.stack(rates) + errors * random.standard_normal(errors.shape)
    vis, sigma = calibrate(measured, errors, ideal, k)
    data = from_arrays(u, v, vis, sigma).assign_coords(detector=("visibility", k))
    columns = "image", "visibility", "column"
    return data.assign(
        rate=(columns, measured),
        rate_sigma=(columns, errors),
        transmission=(columns[:2], np.tile(ideal, (n, 1))),
        total_flux=("image", measured.sum(axis=(1, 2)) / (4 * IDEAL * k.size)),
    )


def measure(name: str, size: int, data: xr.Dataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time one method at one size, and the difference of the first map from the peer's."""
    grid, method, n = Grid(size, PIXELS[size]), METHODS[name], data.sizes["image"]
    images = reconstruct(data, grid, method)
    singles = [data.isel(image=[i]) for i in range(2 if arguments.quick else 8)]
    repeats = 2 if arguments.quick else 3
    stack = _best(lambda: reconstruct(data, grid, method), repeats) / n
    single = _best(lambda: [reconstruct(one, grid, method) for one in singles], repeats) / len(singles)
    row: dict[str, Any] = {
        "method": name,
        "size": size,
        "iterations": float(images["iterations"].mean()) if "iterations" in images else 0.0,
        "stack": n,
        "stack_ms": stack * 1e3,
        "single_ms": single * 1e3,
        "peer_ms": None,
        "difference": float("nan"),
    }
    run = _peer(singles[0], size, method) if arguments.peer and _has_peer(name, arguments) else None
    if run is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # the peer prints to standard output
            maps: list[Any] = []
            is_slow = isinstance(method, MemGE) or (size > 100 and isinstance(method, Clean))
            seconds = _best(lambda: maps.append(run()), 1 if is_slow else 3)
        theirs, ours = maps[0], _comparable(singles[0], images, grid, method)
        row["difference"] = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        row |= {"peer_ms": seconds * 1e3, "stack_ratio": seconds / stack, "single_ratio": seconds / single}
    return row


def _has_peer(name: str, arguments: argparse.Namespace) -> bool:
    return not name.startswith("mem_ge") or (arguments.peer_mem and name == "mem_ge nnls")


def _comparable(one: xr.Dataset, images: xr.Dataset, grid: Grid, method: Method) -> Any:
    if not isinstance(method, EM):
        return images["image"].to_numpy()[0]
    updates = int(images["iterations"][0]) + 1  # the peer updates once more before it looks whether to stop
    rates, transmission, u, v = (one[name].to_numpy() for name in ("rate", "transmission", "u", "v"))
    same = EM(0.0, updates, method.precision)
    return em(rates, transmission, column_phase(one), u, v, grid, same).image[0]


def _peer(data: xr.Dataset, size: int, method: Method) -> Callable[[], np.ndarray[Any, Any]] | None:
    """The peer's function for the same task, or None where it is not installed."""
    try:
        return _peer_em(data, size) if isinstance(method, EM) else _peer_of_visibilities(data, size, method)
    except ImportError:
        return None


def _peer_of_visibilities(data: xr.Dataset, size: int, method: Method) -> Callable[[], np.ndarray[Any, Any]]:
    import astropy.units as apu
    from xrayvision.clean import vis_clean
    from xrayvision.imaging import vis_to_image
    from xrayvision.mem import mem
    from xrayvision.visibility import Visibilities

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    vis, sigma, u, v = (data[name].to_numpy().ravel() for name in ("visibility", "sigma", "u", "v"))
    theirs = Visibilities(vis * apu.ct, u / apu.arcsec, v / apu.arcsec, amplitude_uncertainty=sigma * apu.ct)
    shape, pixel = (size, size) * apu.pix, (PIXELS[size],) * 2 * apu.arcsec / apu.pix
    if isinstance(method, BackProjection):
        return lambda: np.asarray(vis_to_image(theirs, shape=shape, pixel_size=pixel).value)
    if isinstance(method, MemGE):
        snr = float(signal_to_noise(vis, sigma)[0])
        fraction = 2.0 / (snr**2 + 90.0) * apu.dimensionless_unscaled
        return lambda: np.asarray(mem(theirs, shape=shape, pixel_size=pixel, percent_lambda=fraction, map=False).value)
    assert isinstance(method, Clean)
    options = {"clean_beam_width": BEAM * apu.arcsec, "niter": method.niter, "gain": method.gain, "map": False}
    return lambda: np.asarray(vis_clean(theirs, shape=shape, pixel_size=pixel, **options)[0])


def _peer_em(data: xr.Dataset, size: int) -> Callable[[], np.ndarray[Any, Any]]:
    import astropy.units as apu
    from astropy.time import Time
    from stixpy.coordinates.frames import STIXImaging
    from stixpy.imaging.em import em as peer_em
    from xrayvision.visibility import Visibilities, VisMeta

    logging.disable(logging.WARNING)
    k = data["detector"].to_numpy().astype(int)
    times = Time(["2022-11-09T00:00:00", "2022-11-09T00:01:00"])
    meta = VisMeta({"isc": k + 1, "time_range": times})
    vis, u, v = (data[name].to_numpy().ravel() for name in ("visibility", "u", "v"))
    theirs = Visibilities(vis * apu.ct, u / apu.arcsec, v / apu.arcsec, meta=meta)
    rates = np.zeros((32, 4))
    rates[k] = data["rate"].to_numpy()[0]
    center = STIXImaging(0 * apu.arcsec, 0 * apu.arcsec, obstime=times[0])
    options = {"shape": (size, size) * apu.pix, "pixel_size": (PIXELS[size],) * 2 * apu.arcsec / apu.pix}
    return lambda: np.asarray(peer_em(rates * apu.ct, theirs, flare_location=center, idx=[0], **options).value)


def _best(run: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
