"""How far the images are from those of the other programs: one table from the reference results.

The maps of the ground software (run under GDL), of xrayvision, the certified optima of MEM_GE and the best known fits
lie in the folder of shared data. Differences of maps are the largest one over the peak; those of fits are the relative
difference of chi2, where a negative one is a better fit than the reference.

    python benchmarks/agreement.py [--json] [--shared ../shared]
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stixflow.fits import read_level1
from stixflow.imaging import EM, STIXPY, BackProjection, Clean, ForwardFit, Grid, MemGE, visibilities
from stixflow.imaging.back_projection import back_project, point_spread, shift_phase_center
from stixflow.imaging.clean import clean
from stixflow.imaging.em import em
from stixflow.imaging.forward_fit import fit_image, forward_fit
from stixflow.imaging.mem_ge import mem_ge
from stixflow.imaging.visibilities import calibrate, phase_correction
from stixflow.instrument import detectors, grid_transmission

Row = tuple[str, str, str, float]
_PIXEL_PHASE = 46.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    arguments = parser.parse_args()
    folder = arguments.shared / "oracle" / "imaging"
    rows = [
        row for part in (counts_to_visibilities, peer_maps, optima, ground_software, best_fits) for row in part(folder)
    ]
    if arguments.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    sys.stdout.write(f"{'data':30} {'what':22} {'reference':18} {'difference':>10}\n")
    for data, what, reference, difference in rows:
        sys.stdout.write(f"{data:30} {what:22} {reference:18} {difference:10.1e}\n")


def counts_to_visibilities(folder: Path) -> Iterator[Row]:
    """Visibilities of the ground software from rates, of stixpy from a whole file with a background."""
    for path in sorted(folder.glob("idl_*_*.npz")):
        reference, made = np.load(path), np.load(folder / path.name.replace("idl_", "sim_"))
        k, center = reference["isc"].astype(int) - 1, made["center"]
        vis, _ = calibrate(made["rates"][k], made["rates_err"][k], grid_transmission(*center)[k], k)
        vis = shift_phase_center(vis[None], detectors().u[k], detectors().v[k], *center)[0]
        yield (
            path.stem,
            "visibilities",
            "ground software",
            _difference(vis, reference["vis_re"] + 1j * reference["vis_im"]),
        )
    peer = np.load(folder / "stixpy_synth_cpd.npz")
    pixels = read_level1(next(folder.glob("synth_solo_L1*.fits")))
    background = read_level1(next((folder.parents[1] / "data/l1").glob("*cpd_20240308T193915*.fits")))
    k, bands = peer["isc"].astype(int) - 1, [(6, 10), (4, 15), (18, 28), (9, 10), (10, 11), (28, 50)]
    when, place = tuple(map(str, peer["request"])), peer["location"]
    theirs: dict[str, Any] = {"elut": "stixpy", "convention": STIXPY}
    for rows, name in (("top+bottom", "top+bot"), ("all", "all"), ("small", "small")):
        for options, reference in ((theirs, "stixpy, its choices"), ({}, "stixpy, our choices")):
            found = visibilities(
                pixels, when, bands, background, location=place, rows=rows, subcollimators=k, **options
            )["visibility"].to_numpy()  # fmt: skip
            wanted = [peer[f"e{low}-{high}_{name}_shadow_cal_vis"] for low, high in bands]
            coarse = detectors().resolution[k] > 2
            for band in (0, 5):
                label = f"visibilities {bands[band][0]}-{bands[band][1]} keV"
                yield (
                    f"stixpy_synth_cpd {rows}",
                    label,
                    reference,
                    _difference(found[band][coarse], wanted[band][coarse]),
                )


def peer_maps(folder: Path) -> Iterator[Row]:
    """Back-projection, point spread and CLEAN of xrayvision; its MEM_GE stops early."""
    for path in sorted([*folder.glob("xrv_*.npz"), *folder.glob("real_*x2.npz"), *folder.glob("rhessi_*.npz")]):
        made = np.load(path)
        parameters = json.loads(str(made["params"]))
        grid, rule = Grid(parameters["n"], float(parameters["pixel_arcsec"])), parameters["clean"]
        vis, u, v = made["vis"], made["u"], made["v"]
        half = grid.shape[0] // 2
        for weighting in ("natural", "uniform"):
            dirty = back_project(vis, u, v, grid, BackProjection(weighting))[0]
            yield path.stem, f"bp {weighting}", "xrayvision", _difference(dirty, made[f"bp_{weighting}"])
            spread = point_spread(u, v, grid, weighting)[half:-half, half:-half]
            yield path.stem, f"psf {weighting}", "xrayvision", _difference(spread, made[f"psf_{weighting}"])
            cleaned = clean(vis, u, v, grid, Clean(rule["gain"], rule["niter"], rule["beam_fwhm"], weighting)).image[0]
            yield path.stem, f"clean {weighting}", "xrayvision", _difference(cleaned, made[f"clean_{weighting}"])
        if "mem_dimless" not in made:
            continue
        entropy = MemGE(fraction=float(made["percent_lambda"]), merge=True)
        stops_early = mem_ge(
            vis, made["sigamp"], u, v, Grid(parameters["mem_n"], 2.0), entropy, flux=made["mem_total_flux"]
        )
        yield path.stem, "mem_ge, merged", "xrayvision", _difference(stops_early.image[0], made["mem_dimless"])


def optima(folder: Path) -> Iterator[Row]:
    """Certified optima of MEM_GE."""
    best = np.load(folder / "exact_mem_optimum.npz")
    for key in sorted(name for name in best if name.endswith("|image")):
        name, kind, _ = key.split("|")
        path = folder / f"{name}.npz"
        if not path.exists():
            continue
        made = np.load(path)
        parameters = MemGE("rhessi" if "rhessi" in name else "stix", merge=kind == "merged", tolerance=1e-9)
        found = mem_ge(made["vis"], made["sigamp"], made["u"], made["v"], Grid(65, 2.0), parameters)
        yield name, f"mem_ge, {kind}", "certified optimum", _difference(found.image[0], best[key])


def ground_software(folder: Path) -> Iterator[Row]:
    """EM, and fits with their maps, of the ground software."""
    for path in sorted(folder.glob("idl_*_*.npz")):
        reference, made = np.load(path), np.load(folder / path.name.replace("idl_", "sim_"))
        k, (x, y) = reference["isc"].astype(int) - 1, made["center"]
        u, v = made["u"][k], made["v"][k]
        phase = phase_correction(k) + _PIXEL_PHASE - 360.0 * (u * x + v * y)
        maps = em(made["rates"][k], reference["subc_transmission"][k], phase, u, v, Grid(65, 2.0), EM())
        yield path.stem, "em", "ground software", _difference(maps.image[0], reference["em_65x65_2"])
        vis, sigma = reference["vis_re"] + 1j * reference["vis_im"], reference["sigamp"]
        for name in sorted(name.removeprefix("redchisq_") for name in reference if name.startswith("redchisq_")):
            kinds: Any = tuple(name.split("-"))
            fits = forward_fit(vis, sigma, reference["u"], reference["v"], ForwardFit(kinds))
            freedom = fits.degrees_of_freedom - (kinds == ("loop",))  # 8 parameters of a loop are counted there
            theirs = reference[f"redchisq_{name}"][0] * freedom
            yield path.stem, f"chi2 {name}", "ground software", float(fits.chi2[0] / theirs - 1)
            yield (
                path.stem,
                f"map {name}",
                "ground software",
                _difference(fit_image(fits, Grid(65, 2.0))[0], reference[f"map_{name}"]),
            )


def best_fits(folder: Path) -> Iterator[Row]:
    """Best known minima of forward fits."""
    for key, best in json.loads((folder / "best_fits.json").read_text())["fits"].items():
        name, model = key.split("|")
        path = folder / f"sim_{name}.npz"
        if not path.exists():
            continue
        made = np.load(path)
        k = made["isc24"] - 1
        kinds: Any = tuple(model.split("+"))
        fits = forward_fit(made["vis_obs"][k], made["sigamp"][k], made["u"][k], made["v"][k], ForwardFit(kinds))
        freedom = fits.degrees_of_freedom - (kinds == ("loop",))
        yield f"sim_{name}", f"chi2 {model}", "best known", float(fits.chi2[0] / (best["redchi2"] * freedom) - 1)


def _difference(found: Any, wanted: Any) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


if __name__ == "__main__":
    main()
