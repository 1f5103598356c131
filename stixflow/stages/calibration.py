"""Energy calibrations of the runs of an archive: made once of each run, kept below the root, their trend and drift."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from stixflow.archive import Archive, Partition
from stixflow.calibration import calibrate, reasons, summarise, trend_of, write_calibration, write_csv
from stixflow.calibration.table import DRIFT_LIMIT_KEV
from stixflow.cubes.files import open_files
from stixflow.errors import StixflowError, UsageError
from stixflow.fits import read_level1
from stixflow.stages.exporting import ephemeris_of, origin_of
from stixflow.stages.run import Run

if TYPE_CHECKING:
    import pandas as pd

SHORTEST_HOURS = 4.0
"""Shorter runs are left alone: large pixels need some hours for an error of the scale of 0.1 per cent."""
FOLDER = "calibration"
"""Below the root: ``calibration/{key}/``, with the official product, a table, a figure and a summary of each run."""
_STAGE = "energy calibration"
_METHOD = "1"
_SUMMARY, _FIGURE = "summary.json", "calibration.png"


def calibrate_runs(
    run: Run, *, shortest_hours: float = SHORTEST_HOURS, limit_kev: float = DRIFT_LIMIT_KEV, figures: bool = True
) -> None:
    """Calibrate every run that is new or was built again since it was calibrated; the catalog remembers which.

    Parameters
    ----------
    shortest_hours
        Shorter runs are left alone.
    limit_kev
        Drift beyond which pixels are listed.
    figures
        Also draw each calibration.
    """
    catalog = run.archive.catalog
    made = catalog.done(_STAGE)
    found = _runs(run.archive)
    long = [item for item in found if (item.stop - item.start) / np.timedelta64(1, "h") >= shortest_hours]
    wanted = {item.key: f"{item.run_id} {_METHOD} {limit_kev:g}" for item in long}
    due = [item for item in long if made.get(item.key) != wanted[item.key]]
    for done, item in enumerate(due, start=1):
        _calibrate_one(run, item, limit_kev, figures)
        catalog.mark_done(_STAGE, {item.key: wanted[item.key]}, run_id=run.run_id)
        run.progress("calibration", done, len(due))
    if short := len(found) - len(long):
        run.skip("calibration", f"{short} {'run' if short == 1 else 'runs'}", f"shorter than {shortest_hours:g} h")


def _runs(archive: Archive) -> list[Partition]:
    return sorted(archive.catalog.partitions("cal_spectrum"), key=lambda item: str(item.start))


def _calibrate_one(run: Run, item: Partition, limit_kev: float, figures: bool) -> None:
    archive, key = run.archive, item.key
    spectra = archive.calibration(key).load()
    try:
        found = calibrate(spectra)
        summary = {"key": key} | summarise(found, limit_kev=limit_kev)
    except StixflowError as error:
        run.fail("calibration", key, str(error))
        return
    run.counts["calibrations"] += 1
    run.counts["calibrated pixels"] += summary["calibrated"]
    if not summary["calibrated"]:
        run.skip("calibration", key, f"no pixel can be calibrated: {_commonest(found)}")
    files = _files(archive, item, found) | {_SUMMARY: json.dumps(_plain(summary), indent=1).encode()}
    if figures:
        files[_FIGURE] = draw_calibration(found, spectra, limit_kev)
    folder = open_files(archive.url(f"{FOLDER}/{key}"))
    folder.write(files)
    for old in set(folder.list()) - set(files):
        folder.unlink(old)


def _plain(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary as JSON has it, without NaN."""
    return {name: None if value != value else value for name, value in summary.items()}


def _commonest(calibration: xr.Dataset) -> str:
    counted = reasons(calibration)["reason"].value_counts()
    return f"{counted.index[0]} ({_pixels(counted.iloc[0])})"


def _files(archive: Archive, item: Partition, calibration: xr.Dataset) -> dict[str, bytes]:
    """Return the official product and the table of a run by name."""
    with tempfile.TemporaryDirectory() as place:
        fits = write_calibration(
            place,
            calibration,
            ephemeris=ephemeris_of(archive, item),
            provenance=origin_of(archive, item),
        )
        table = write_csv(Path(place) / "pixels.csv", calibration)
        return {path.name: path.read_bytes() for path in (fits, table)}


def draw_calibration(calibration: xr.Dataset, spectra: xr.Dataset, limit_kev: float = DRIFT_LIMIT_KEV) -> bytes:
    """Return the figure of a calibration as PNG."""
    from stixflow.calibration.figure import calibration_figure
    from stixflow.previews import figure_png

    return figure_png(calibration_figure(calibration, spectra, limit_kev=limit_kev))


def read_summaries(archive: Archive) -> list[dict[str, Any]]:
    """Return what is known of every run that was calibrated, in order of time."""
    calibrated = archive.catalog.done(_STAGE)
    keys = [f"{FOLDER}/{item.key}/{_SUMMARY}" for item in _runs(archive) if item.key in calibrated]
    files = open_files(archive.root)
    there = files.present(keys)
    found = [_known(json.loads(content)) for _, content in files.get_many([key for key in keys if key in there])]
    return sorted(found, key=lambda one: str(one["start"]))


def _known(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: float("nan") if value is None else value for name, value in summary.items()}


def calibration_trend(archive: Archive) -> pd.DataFrame:
    """Return how gain, offset, resolution and drift changed over the mission, one row for each run calibrated.

    Columns as `stixflow.calibration.summarise`, with the ``key`` of the run.
    """
    return trend_of(read_summaries(archive))


def drift_rows(archive: Archive) -> list[tuple[str, str, Any]]:
    """Return lines about drift: the newest calibration, and all whose pixels are beyond the limit."""
    found = read_summaries(archive)
    if not found:
        return [("calibrated", "runs", 0)]
    newest = found[-1]
    rows: list[tuple[str, str, Any]] = [
        ("calibrated", "runs", len(found)),
        ("calibrated", newest["key"], _newest_text(newest)),
    ]
    return rows + [
        ("drift beyond the limit", one["key"], _pixels_text(one["beyond"])) for one in found if one["beyond"]
    ]


def _pixels(number: int) -> str:
    return f"{number} pixel" if number == 1 else f"{number} pixels"


def _newest_text(summary: Mapping[str, Any]) -> str:
    return _pixels(summary["calibrated"]) + (f", {_drift_text(summary)}" if summary["calibrated"] else "")


def _drift_text(summary: Mapping[str, Any]) -> str:
    return (
        f"drift from table {summary['table']}: median {summary['drift_median']:+.3f} keV, "
        f"worst {summary['drift_worst']:+.3f} keV, {_pixels(len(summary['beyond']))} beyond the limit"
    )


def _pixels_text(pixels: Sequence[Sequence[int]], most: int = 8) -> str:
    """Name pixels by detector, from 1 as in the names of the subcollimators, and pixel, from 0."""
    named = ", ".join(f"detector {detector + 1} pixel {pixel}" for detector, pixel in pixels[:most])
    return named + (f" and {len(pixels) - most} more" if len(pixels) > most else "")


def open_run_spectra(place: str, archive: Archive | None, *, number: int | None = None) -> xr.Dataset:
    """Return the spectra of a run: of an official file, or by its key in an archive.

    Raises
    ------
    UsageError
        If the file is of another product.
    NotFound
        If the archive does not have the run.
    """
    if archive is not None:
        return archive.calibration(place).load()
    found = read_level1(place, run=number)
    if found.attrs.get("product") != "cal_spectrum":
        raise UsageError(
            f"{Path(place).name} holds {found.attrs.get('product')}",
            expected="calibration spectra, solo_L1_stix-cal-energy_*.fits, or the key of a run",
            advice="see `archive.calibrations()` for the runs of an archive",
        )
    return found


def format_calibration(payload: Mapping[str, Any]) -> str:
    """Format what `stixflow calibrate` found, for people."""
    one = payload["summary"]
    lines = [
        f"{one['start'][:19]}  {one['hours']:.1f} h, {one['calibrated']} of 384 pixels calibrated "
        f"({payload['cpu_ms']:.0f} ms of CPU)",
    ]
    if one["calibrated"]:
        lines += [
            f"  gain        {one['gain']:.5f} keV per ADC channel (+- {one['gain_error']:.5f})",
            f"  offset      {one['offset']:.2f} ADC channels (+- {one['offset_error']:.2f})",
            f"  resolution  {one['fwhm_31']:.2f} keV at 31 keV, {one['fwhm_81']:.2f} keV at 81 keV (FWHM)",
            f"  chi2        {one['reduced_chi2']:.2f} over degrees of freedom, median",
            f"  {_drift_text(one)}",
        ]
    if one["beyond"]:
        lines.append(f"  beyond the limit: {_pixels_text(one['beyond'])}")
    lines += [f"  {_pixels(number)}: {reason}" for reason, number in payload["reasons"].items()]
    return "\n".join(lines + [f"wrote {path}" for path in payload["files"]])


def format_trend(payload: Mapping[str, Any]) -> str:
    """Format the trend of an archive as a table."""
    rows = payload["trend"]
    if not rows:
        return "no run has been calibrated; the flow `calibration` does it"
    lines = ["start (UTC)           hours pixels  gain keV  offset  FWHM31 FWHM81  drift keV  beyond  table"]
    for one in rows:
        when = f"{one['start'][:19]}  {one['hours']:6.1f} {one['calibrated']:6d}"
        scale = f"{one['gain']:8.5f} {one['offset']:7.2f}"
        width = f"{one['fwhm_31']:6.2f} {one['fwhm_81']:6.2f}"
        lines.append(f"{when}  {scale}  {width}  {one['drift_median']:+9.3f}  {one['beyond']:6d}  {one['table']}")
    return "\n".join(lines)


__all__ = [
    "SHORTEST_HOURS",
    "calibrate_runs",
    "calibration_trend",
    "draw_calibration",
    "drift_rows",
    "format_calibration",
    "format_trend",
    "open_run_spectra",
    "read_summaries",
]
