"""How far the images are from those of the other programs: one table from the reference results.

The maps of the ground software (run under GDL), of xrayvision, the certified optima of MEM_GE and the best known fits
lie in the folder of shared data. Differences of maps are the largest one over the peak; those of fits are the relative
difference of chi2, where a negative one is a better fit than the reference; places are in arcsec. Positions
of real flares are compared by `bench_real_flares.py`.

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
from stixflow.imaging.elut_correction import edge_factors, spectral_index
from stixflow.imaging.em import em
from stixflow.imaging.forward_fit import fit_image, forward_fit
from stixflow.imaging.location import refine_peak
from stixflow.imaging.mem_ge import mem_ge
from stixflow.imaging.visibilities import calibrate, phase_correction
from stixflow.instrument import detectors, grid_transmission, subcollimators
from stixflow.instrument.transmission import wedge_transmission

Row = tuple[str, str, str, float]
_PIXEL_PHASE = 46.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    arguments = parser.parse_args()
    folder = arguments.shared / "oracle" / "imaging"
    rows = [
        row
        for part in (
            grids_and_energies,
            counts_to_visibilities,
            full_disk,
            peer_maps,
            stixpy_em,
            optima,
            ground_software,
            best_fits,
        )
        for row in part(folder)
    ]
    if arguments.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    sys.stdout.write(f"{'data':30} {'what':22} {'reference':18} {'difference':>10}\n")
    for data, what, reference, difference in rows:
        sys.stdout.write(f"{data:30} {what:22} {reference:18} {difference:10.1e}\n")


def grids_and_energies(folder: Path) -> Iterator[Row]:
    """Transmission of grids, slats that are not opaque, spectral index and energy correction of the ground software."""
    made = np.load(folder / "idl_misc.npz")
    pairs = detectors().resolution > 0
    theirs = np.stack([made[f"subc_transmission_{i}"] for i in range(5)])[:, pairs]
    found = grid_transmission(*made["locations"].T)[:, pairs]
    yield "five locations", "grid transmission", "ground software", _difference(found, theirs)
    for pitch, slit, thickness, name in ((0.909824, 0.4811, 0.4413, "pitch0.909_slit0.48_thick0.44"),
                                         (0.07805, 0.0457, 0.3538, "pitch0.078_slit0.0457_thick0.354")):  # fmt: skip
        wedge = wedge_transmission(pitch, slit, thickness, made["L_mm"])
        yield f"grid of pitch {pitch:.3f} mm", "wedge transmission", "ground software", _difference(
            wedge, made[f"grid_transmission_{name}"]
        )  # fmt: skip
    low, high = made["elo"], made["ehi"]
    index, peak = spectral_index(made["spectrum"][None], low, high)
    yield "spectrum", "spectral index", "ground software", _difference(index[0], made["spectral_index"])
    shift = 0.06 * np.sin(0.7 * np.arange(32)[:, None] + 0.31 * np.arange(12))
    for case in range(4):
        limits = zip((low, high), made[f"elut_case{case}_range"], strict=True)
        first, last = (int(np.argmin(np.abs(edges - value))) for edges, value in limits)
        edges = low[:, None, None] + shift, high[:, None, None] + shift
        at_first, at_last = edge_factors((first, last + 1), low, high, *edges, index, peak)
        counts = 100.0 * (at_first + (at_last + last - first - 1 if last > first else 0.0))
        yield f"energies, case {case}", "corrected counts", "ground software", _difference(
            counts[0], made[f"elut_case{case}_counts_12x32"]
        )  # fmt: skip


def full_disk(folder: Path) -> Iterator[Row]:
    """Full-disk map for the location, and its peak."""
    made = np.load(folder / "flare_location_synth.npz")
    grid = Grid(int(made["n"]), float(made["pixel_arcsec"]))
    image = back_project(made["vis"], made["u"], made["v"], grid)[0]
    yield "flare_location_synth", "full-disk bp", "reference", _difference(image[::8, ::8], made["bp_every_8th"])
    iy, ix = np.unravel_index(image.argmax(), image.shape)
    apart = np.hypot(grid.x[ix] - made["peak_xy_arcsec"][0], grid.y[iy] - made["peak_xy_arcsec"][1])
    yield "flare_location_synth", "brightest pixel, arcsec", "reference", float(apart)
    x, y, _ = refine_peak(made["vis"], made["u"], made["v"], made["peak_xy_arcsec"])
    yield (
        "flare_location_synth",
        "refined, arcsec",
        "truth",
        float(np.hypot(x - made["true_location"][0], y - made["true_location"][1])),
    )


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


def stixpy_em(folder: Path) -> Iterator[Row]:
    """EM of stixpy, by the rule and with one update more: it looks whether to stop after the next one."""
    made, truth = np.load(folder / "stixpy_synth_cpd.npz"), np.load(folder / "synth_cpd_truth.npz")
    k, (x, y) = subcollimators(), truth["location"]
    u, v, ideal = detectors().u[k], detectors().v[k], np.full(k.size, 0.25)
    phase = phase_correction(k) + _PIXEL_PHASE - 360.0 * (u * x + v * y)
    for energies in ("6-10", "18-28"):
        key = f"e{energies}_top+bot_noshadow"
        rates = (made[f"{key}_sci_rate"] - made[f"{key}_bkg_rate"])[k]
        stop = int(em(rates, ideal, phase, u, v, Grid(65, 2.0)).iterations[0])
        for name, rule in (("em", EM()), ("em, one update more", EM(0.0, stop + 1))):
            maps = em(rates, ideal, phase, u, v, Grid(65, 2.0), rule)
            yield (
                f"stixpy_synth_cpd {energies} keV",
                name,
                "stixpy",
                _difference(maps.image[0], made[f"{key}_em_65x2"]),
            )


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
