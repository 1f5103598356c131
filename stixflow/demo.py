"""`stixflow demo`: a simulated day through the whole chain, and the truth beside the result."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import stixflow
from stixflow.errors import UsageError
from stixflow.time import iso

if TYPE_CHECKING:
    import pandas as pd

    from stixflow.archive import Archive
    from stixflow.previews import Mark, Picture
    from stixflow.simulate import FlareModel
    from stixflow.stages.run import Progress

DAY = date(2022, 6, 15)
_MATCH = np.timedelta64(120, "s")
_MARKER = ".stixflow-demo"


def run_demo(
    output: Path,
    *,
    seed: int = 1,
    workers: int | None = None,
    serial: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Simulate a day, process it, and compare what was found with what was simulated.

    Parameters
    ----------
    output
        Folder for telemetry, archive and report; an earlier demo there is replaced.
    serial
        Without Prefect and cluster, in this process.

    Returns
    -------
    Plain values, ready for JSON: `flares` (truth, found, position error), `balance`, `seconds`, `archive`, `report`,
    and whether all went well as `passed`.

    Raises
    ------
    UsageError
        If the folder holds something that no demo made.
    """
    started = time.perf_counter()
    _clear(output)
    truth, simulated = _timed(lambda: _simulate(output / "delivery", seed))
    models = dict(zip((flare["flare_id"] for flare in truth["flares"]), truth["models"], strict=True))
    root = str(output.resolve() / "archive")
    report, processed = _timed(lambda: _process(output / "delivery", root, workers, serial, progress))
    archive = stixflow.open_archive(root)
    flares, images = archive.flares(), archive.images()
    compared = [_compare(told, models[told["flare_id"]], flares, images) for told in truth["flares"]]
    result: dict[str, Any] = {"flares": compared}
    page, drawn = _timed(lambda: _write_report(output / "report.html", archive, result["flares"], report))
    result |= {
        "balance": report["balance"],
        "seconds": {
            "simulate": simulated,
            **report["seconds"],
            "start and stop of the engine": max(processed - sum(report["seconds"].values()), 0.0),
            "report": drawn,
            "total": time.perf_counter() - started,
        },
        "archive": root,
        "report": str(page),
        "maps": [archive.url(path) for path in archive.images()["path"]],
        "failed": report["failed"],
    }
    result["passed"] = _passed(result)
    return result


def _clear(output: Path) -> None:
    """Make room for a demo, but never by removing what a demo did not make."""
    if output.exists() and any(output.iterdir()):
        if not (output / _MARKER).exists():
            raise UsageError(
                f"{output} holds files that no demo made", expected="a new folder", advice="give another --output"
            )
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / _MARKER).touch()


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    value = call()
    return value, time.perf_counter() - started


def _simulate(folder: Path, seed: int) -> dict[str, Any]:
    from stixflow.simulate import demo_scenario, simulate

    truth = simulate(demo_scenario(DAY, seed), folder, container="xml")
    return {**json.loads(truth.path.read_text()), "models": truth.scenario.flares}


def _process(
    folder: Path, root: str, workers: int | None, serial: bool, progress: Progress | None
) -> Mapping[str, Any]:
    paths = [folder / "telemetry", folder / "ephemeris"]
    if not serial:
        from flows.process import run_process

        return run_process([str(path.resolve()) for path in paths], archive=root, workers=workers, progress=progress)
    from stixflow.compute import Serial
    from stixflow.stages import STAGES, run_stages

    with nullcontext(Serial()) as pool:
        return run_stages(STAGES, paths, root=root, pool=pool, command="demo", progress=progress)


def _compare(truth: Mapping[str, Any], model: FlareModel, flares: pd.DataFrame, images: pd.DataFrame) -> dict[str, Any]:
    told = {
        "flare_id": truth["flare_id"],
        "peak": truth["peak"],
        "peak_counts": round(truth["peak_counts"]),
        "goes_class": truth["goes_class"],
        "position_hpc": truth["position_hpc"],
        "flux_4_10": None,
        "sources": len(truth["sources"]["thermal"]),
    }
    peak = np.datetime64(truth["peak"])
    apart = np.abs(flares["peak"].to_numpy() - peak) if len(flares) else np.array([], "timedelta64[ns]")
    if not len(apart) or apart.min() > _MATCH:
        return {"truth": told, "found": None, "position_error_arcsec": None}
    row = flares.iloc[int(apart.argmin())]
    mine = images[(images["flare_id"] == row["flare_id"]) & (images["energy_low"] == 4)]
    found = {
        "flare_id": row["flare_id"],
        "peak": iso(row["peak"].to_datetime64()),
        "peak_counts": int(row["peak_counts"] - row["bkg_median_0"]),
        "goes_class": row["goes_class"],
        "position_hpc": _pair(row, "x_hpc", "y_hpc"),
        "position_sigma": _pair(row, "sigma_x_hpc", "sigma_y_hpc"),
        "ambiguous": bool(row.get("is_ambiguous")),
        "flux_4_10": float(mine["total_flux"].iloc[0]) if len(mine) else None,
    }
    if len(mine):
        told["flux_4_10"] = _mean_flux(truth, model, mine.iloc[0])
    error = None
    if found["position_hpc"]:
        error = float(np.hypot(*np.subtract(found["position_hpc"], truth["position_hpc"])))
    return {"truth": told, "found": found, "position_error_arcsec": error}


def _mean_flux(truth: Mapping[str, Any], model: FlareModel, image: pd.Series) -> float:
    """Return the true flux above the grids in 4-10 keV over the interval of an image, counts / (s cm2 keV)."""
    start, stop = image["start"].to_datetime64(), image["stop"].to_datetime64()
    seconds = (np.linspace(0.0, 1.0, 201) * ((stop - start) / np.timedelta64(1, "s"))) + (
        (start - model.peak) / np.timedelta64(1, "s")
    )
    profiles = {"thermal": model.thermal_profile(seconds), "non_thermal": model.non_thermal_profile(seconds)}
    return sum(float(truth["flux"][kind]["4-10"]) * float(profile.mean()) for kind, profile in profiles.items())


def _pair(row: pd.Series, *names: str) -> list[float] | None:
    found = [row.get(name) for name in names]
    return [float(value) for value in found if value is not None and np.isfinite(value)] or None


def _passed(result: Mapping[str, Any]) -> bool:
    books = result["balance"]
    balanced = books["packets_in"] == books["used"] + books["duplicates"] + books["rejected"]
    return bool(balanced and not result["failed"] and all(flare["found"] for flare in result["flares"]))


# -------------------------------------------------------------------------------------------------------- output


def _write_report(path: Path, archive: Archive, compared: list[dict[str, Any]], report: Mapping[str, Any]) -> Path:
    from stixflow.previews import write_report

    flares = archive.flares()
    return write_report(
        path,
        title="stixflow demo",
        subtitle=f"A simulated day of STIX, {DAY}: what was put in, and what came out",
        facts={
            "flares simulated": len(compared),
            "flares found": sum(flare["found"] is not None for flare in compared),
            "packets": report["balance"]["packets_in"],
            "maps": report["counts"].get("images", 0),
        },
        lightcurve=archive.lightcurves(DAY, DAY + timedelta(days=1)),
        flares=flares,
        pictures=_pictures(archive, compared),
        comparison=compared,
        balance=report["balance"],
        seconds=report["seconds"],
        places={"archive": archive.root, "maps": str(Path(archive.root) / "images")},
    )


def _pictures(archive: Archive, compared: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """Every flare by CLEAN in all bands; the brightest by every method, one picture for each band."""
    from stixflow.previews import Picture, SkyImage

    found = [flare for flare in compared if flare["found"] is not None]
    brightest = max(found, key=lambda flare: flare["truth"]["peak_counts"], default=None)
    pictures = []
    for flare in found:
        images = archive.images(flare["found"]["flare_id"]).sort_values(["energy_low", "method"])
        marks = [_mark(flare["truth"], "truth"), _mark(flare["found"], "found")]
        name = f"Flare {flare['found']['flare_id']}, {flare['found']['goes_class']}"
        parts = [(name, images[images["method"] == "clean"])]
        if flare is brightest:
            parts = [(f"{name}, from {low:g} keV", band) for low, band in images.groupby("energy_low")]
        pictures += [
            Picture([SkyImage.of_map(archive.map(one)) for one in part["image_id"]], marks, caption)
            for caption, part in parts
            if len(part)
        ]
    return pictures


def _mark(flare: Mapping[str, Any], kind: Literal["truth", "found"]) -> Mark:
    from stixflow.previews import Mark

    x, y = flare["position_hpc"]
    return Mark(x=x, y=y, kind=kind)


def format_result(result: Mapping[str, Any]) -> str:
    """Write the comparison, the books, the seconds and the places as text."""
    head = (
        f"{'flare':>10}  {'peak':>19}  {'counts':>15}  {'GOES':>9}  {'position, arcsec':>31}  {'error':>6}"
        f"  {'flux 4-10':>15}"
    )
    lines = ["truth / found", head, *(_line(flare) for flare in result["flares"]), ""]
    books = result["balance"]
    lines += [
        f"packets  {books['packets_in']} in = {books['used']} used + {books['duplicates']} duplicates"
        f" + {books['rejected']} rejected",
        "seconds  " + ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items()),
        f"archive  {result['archive']}",
        f"maps     {len(result['maps'])} FITS files below {result['archive']}/images",
        f"report   {result['report']}",
    ]
    lines += [f"FAILED   {note['stage']}: {note['item']}: {note['error']}" for note in result["failed"]]
    return "\n".join(lines)


def _line(flare: Mapping[str, Any]) -> str:
    truth, found, error = flare["truth"], flare["found"], flare["position_error_arcsec"]
    if found is None:
        return f"{truth['flare_id']:>10}  {truth['peak'][:19]:>19}  NOT FOUND"
    return "  ".join(
        [
            f"{truth['flare_id']:>10}",
            f"{truth['peak'][:19]:>19}",
            f"{truth['peak_counts']:>7}/{found['peak_counts']:>7}",
            f"{truth['goes_class']:>4}/{found['goes_class']:>4}",
            f"{_place(truth['position_hpc']):>15}/{_place(found['position_hpc']):>15}",
            f"{error:6.1f}" if error is not None else "     -",
            f"{truth['flux_4_10']:7.1f}/{found['flux_4_10']:7.1f}" if found["flux_4_10"] is not None else "not imaged",
        ]
    )


def _place(position: list[float] | None) -> str:
    return f"{position[0]:7.1f} {position[1]:7.1f}" if position else "unknown"
