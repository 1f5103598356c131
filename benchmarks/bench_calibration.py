"""How good the energy calibration is: run 1300 beside two public methods, pulls of simulated runs, CPU time.

Differences of run 1300 are in ADC channels of 1024 (slope: per keV), as the reference results are. Of the pulls of gain
and offset, over all pixels and several draws of photons, gains and offsets, mean and standard deviation are given.

    python benchmarks/bench_calibration.py [--quick] [--json] [--shared ../shared]
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from stixflow.calibration import calibrate
from stixflow.simulate.calibration import simulate_calibration

_SHAPE = (32, 12)
_LARGE = np.arange(12) < 8
_METHODS = {
    "ECC post-fit": ("cal_run1300_eccpostfit_from_elut20210625", "slope_adu1024_per_keV", "offset_adu1024"),
    "peak fit": ("cal_run1300_sdc_peaks_gain_offset", "slope_axis_corrected", "offset_axis_corrected"),
    "peak fit, stretched axis": ("cal_run1300_sdc_peaks_gain_offset", "slope_adu1024_per_keV", "offset_adu1024"),
}
_DRAWS = 6

Row = tuple[str, str, float, float, float]
_Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one draw: that it works, not how well")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    arguments = parser.parse_args()
    rows = [*_agreement(arguments.shared / "oracle/calibration"), *_pulls(1 if arguments.quick else _DRAWS)]
    if arguments.json:
        told = [dict(zip(("what", "of", "median", "spread", "worst"), row, strict=True)) for row in rows]
        sys.stdout.write(json.dumps(told) + "\n")
        return
    sys.stdout.write(f"{'':46}{'of':14}{'median':>10}{'spread':>10}{'worst':>10}\n")
    for what, of, *values in rows:
        sys.stdout.write(f"{what:46}{of:14}" + "".join(f"{value:10.4f}" for value in values) + "\n")


def _agreement(folder: Path) -> Iterator[Row]:
    run = _run_1300(folder)
    calibrate(run)
    started = time.process_time()
    found = calibrate(run)
    yield ("run 1300, CPU ms", "384 pixels", (time.process_time() - started) * 1000, 0.0, 0.0)
    ours = 0.25 / found["gain"].values, found["offset"].values / 4
    maps = {name: _map(folder, *columns) for name, columns in _METHODS.items()}
    for pixels, chosen in (("large pixels", _LARGE), ("small pixels", ~_LARGE)):
        for name, other in maps.items():
            yield from _compare(f"run 1300, {name}", pixels, ours, other, chosen)
        yield from _compare("run 1300, the two methods", pixels, maps["peak fit"], maps["ECC post-fit"], chosen)
        width = found["line_fwhm"].values[:, chosen]
        for line, at in (("31 keV", 0), ("81 keV", 2)):
            yield (f"run 1300, FWHM at {line}, keV", pixels, *_spread(width[..., at]), float(width[..., at].max()))
        chi2 = found["reduced_chi2"].values[:, chosen]
        yield ("run 1300, reduced chi2", pixels, *_spread(chi2), float(chi2.max()))


def _run_1300(folder: Path) -> xr.Dataset:
    counts = pd.read_csv(folder / "cal_run1300_spectra.csv").to_numpy()[:200, 1:].reshape(-1, *_SHAPE)
    empty = simulate_calibration(0.1, 900.0, counts=0.0, subspectra=((250, 200, 1),), start_scet=679_000_000 << 16)
    return empty.assign(counts=(empty["counts"].dims, counts.astype(np.uint32)))


def _map(folder: Path, name: str, slope: str, offset: str) -> _Pair:
    table = pd.read_csv(folder / f"{name}.csv")
    return table[slope].to_numpy().reshape(_SHAPE), table[offset].to_numpy().reshape(_SHAPE)


def _compare(what: str, of: str, one: _Pair, other: _Pair, chosen: NDArray[np.bool_]) -> Iterator[Row]:
    for name, mine, theirs in zip(("slope", "offset"), one, other, strict=True):
        difference = (mine - theirs)[:, chosen]
        yield (f"{what}: {name}", of, *_spread(difference), float(np.abs(difference).max()))


def _spread(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median, and standard deviation as the median deviation has it."""
    middle = float(np.median(values))
    return middle, float(1.4826 * np.median(np.abs(values - middle)))


def _pulls(draws: int) -> Iterator[Row]:
    """Mean, standard deviation and largest of the pulls, and the median of the errors."""
    for hours in (24, 12, 4):
        found = [_draw(seed, hours) for seed in range(draws)]
        for pixels, chosen in (("large pixels", _LARGE), ("small pixels", ~_LARGE)):
            for name in ("gain", "offset"):
                pull = np.concatenate([one[name][:, chosen].reshape(-1) for one in found])
                known = pull[np.isfinite(pull)]
                kind = f"simulated {hours} h, pull of the {name}"
                yield (kind, pixels, float(known.mean()), float(known.std()), float(np.abs(known).max()))
            lost = np.mean([np.isnan(one["gain"][:, chosen]).mean() for one in found])
            error = np.nanmedian([one["error"][:, chosen] for one in found])
            yield (f"simulated {hours} h, relative error of the gain", pixels, float(error), 0.0, 0.0)
            yield (f"simulated {hours} h, share not calibrated", pixels, float(lost), 0.0, 0.0)


def _draw(seed: int, hours: int) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(seed + 100)
    gain, offset = 1 / rng.uniform(8.9, 9.6, _SHAPE), rng.uniform(860.0, 960.0, _SHAPE)
    # As in run 1300: 24 000 counts at 31 keV in a large pixel in a day, 1750 in a small one.
    counts = np.where(_LARGE, 24000.0, 1750.0) * hours / 24
    found = calibrate(simulate_calibration(gain, offset, counts=counts, seed=seed))
    return {
        "gain": ((found["gain"] - gain) / found["gain_error"]).values,
        "offset": ((found["offset"] - offset) / found["offset_error"]).values,
        "error": (found["gain_error"] / found["gain"]).values,
    }


if __name__ == "__main__":
    main()
