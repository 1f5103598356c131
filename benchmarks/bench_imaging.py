"""Back-projection and CLEAN maps a second, beside xrayvision in the same run.

Both get the same visibilities (24 of STIX, two sources and noise), pixels, gain, beam and most iterations; the maps are
compared in the same run. CPU time of the process, one BLAS thread, float64; ours as a stack and one by one. The peer
has no stack; its messages are switched off. "clean" follows the stop rule with gain 0.1; "clean-200" has a gain so
small that all iterations run. Then, without a peer: intervals a second from counts to visibilities, and one location.

    python benchmarks/bench_imaging.py [--sizes 65 129 257] [--no-peer] [--json] [--shared ../shared]
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
    BackProjection,
    Clean,
    Gaussian,
    Grid,
    from_arrays,
    locate,
    reconstruct,
    source_visibilities,
    visibilities,
)
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
}


def main() -> None:
    arguments = _arguments()
    rows = []
    for size in arguments.sizes:
        data = _visibilities(STACK[size])
        rows += [measure(name, size, data, with_peer=arguments.peer) for name in METHODS]
    if arguments.json:
        sys.stdout.write(json.dumps({"imaging": rows, "counts": measure_counts(arguments.shared)}) + "\n")
        return
    sys.stdout.write(
        f"{'method':11} {'size':>5} {'iter':>5} {'stack ms':>9} {'single ms':>10} {'peer ms':>9} {'stack x':>8} "
        f"{'single x':>9} {'difference':>10}\n"
    )
    for row in rows:
        peer = f"{row['peer_ms']:9.2f} {row['stack_ratio']:8.0f} {row['single_ratio']:9.0f}" if row["peer_ms"] else ""
        sys.stdout.write(
            f"{row['method']:11} {row['size']:5d} {row['iterations']:5.0f} {row['stack_ms']:9.4f} "
            f"{row['single_ms']:10.4f} {peer:28} {row['difference']:10.1e}\n"
        )

    for name, value in measure_counts(arguments.shared).items():
        sys.stdout.write(f"{name:42} {value:10.1f}\n")


def measure_counts(shared: Path) -> dict[str, float]:
    """Intervals a second from counts to visibilities (5000 time ranges in 4 bands), and milliseconds of one location."""
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
    parser.add_argument("--no-peer", dest="peer", action="store_false")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    return parser.parse_args()


def _visibilities(n: int) -> xr.Dataset:
    """A stack of two-source flares with 3 % noise; fixed seed."""
    random = np.random.default_rng(20221109)
    u, v = detectors().u[subcollimators()], detectors().v[subcollimators()]
    stack = []
    for _ in range(n):
        x, y = random.uniform(-25, 25, (2, 2))
        sources = [Gaussian(6.0, x[0], y[0], 14.0, 9.0, 30.0), Gaussian(3.0, x[1], y[1], 10.0)]
        noise = random.standard_normal((2, 24)) * 0.03 * 9.0
        stack.append(source_visibilities(sources, u, v) + noise[0] + 1j * noise[1])
    return from_arrays(u, v, stack)


def measure(name: str, size: int, data: xr.Dataset, *, with_peer: bool) -> dict[str, Any]:
    """Time one method at one size; the peer's map of the first set must be ours."""
    grid, method, n = Grid(size, PIXELS[size]), METHODS[name], data.sizes["image"]
    images = reconstruct(data, grid, method)
    singles = [data.isel(image=[i]) for i in range(8)]
    stack = _best(lambda: reconstruct(data, grid, method), 3) / n
    single = _best(lambda: [reconstruct(one, grid, method) for one in singles], 3) / len(singles)
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
    if with_peer:  # the peer prints to standard output
        with contextlib.redirect_stdout(io.StringIO()):
            run = _peer(singles[0], size, method)
            ours, theirs = images["image"].to_numpy()[0], run()
            row["difference"] = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
            seconds = _best(run, 1 if size > 100 and isinstance(method, Clean) else 5)
        row |= {"peer_ms": seconds * 1e3, "stack_ratio": seconds / stack, "single_ratio": seconds / single}
    return row


def _peer(data: xr.Dataset, size: int, method: BackProjection | Clean) -> Callable[[], np.ndarray[Any, Any]]:
    import astropy.units as apu
    from xrayvision.clean import vis_clean
    from xrayvision.imaging import vis_to_image
    from xrayvision.visibility import Visibilities

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    vis, u, v = (data[name].to_numpy().ravel() for name in ("visibility", "u", "v"))
    theirs = Visibilities(vis * apu.ct, u / apu.arcsec, v / apu.arcsec)
    shape, pixel = (size, size) * apu.pix, (PIXELS[size],) * 2 * apu.arcsec / apu.pix
    if isinstance(method, BackProjection):
        return lambda: np.asarray(vis_to_image(theirs, shape=shape, pixel_size=pixel).value)
    options = {"clean_beam_width": BEAM * apu.arcsec, "niter": method.niter, "gain": method.gain, "map": False}
    return lambda: np.asarray(vis_clean(theirs, shape=shape, pixel_size=pixel, **options)[0])


def _best(run: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
