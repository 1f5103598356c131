"""The command that calibrates the energies of the pixels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stixflow.cli.options import add_archive, command, natural, open_named, positive
from stixflow.cli.output import emit


def _calibrate(options: argparse.Namespace) -> int:
    from stixflow.errors import UsageError

    if options.trend:
        return _trend(options)
    if not options.run_or_file:
        raise UsageError("no run was named", expected="the key of a run, or a file", advice="or ask for --trend")
    return _one(options)


def _trend(options: argparse.Namespace) -> int:
    from stixflow.stages.calibration import calibration_trend, format_trend

    table = calibration_trend(open_named(options))
    emit(options, {"trend": table.to_dict("records")}, format_trend)
    return 0


def _one(options: argparse.Namespace) -> int:
    import time

    from stixflow.calibration import calibrate, reasons, summarise
    from stixflow.stages.calibration import format_calibration, open_run_spectra

    place = str(options.run_or_file)
    archive = None if Path(place).is_file() or place.endswith((".fits", ".fits.gz")) else open_named(options)
    spectra = open_run_spectra(place, archive, number=options.number)
    started = time.process_time()
    found = calibrate(spectra)
    cpu_ms = (time.process_time() - started) * 1000
    listed = reasons(found)
    payload = {
        "run": place,
        "summary": summarise(found, limit_kev=options.limit),
        "cpu_ms": round(cpu_ms, 1),
        "reasons": {str(reason): int(number) for reason, number in listed["reason"].value_counts().items()},
        "flagged": listed.to_dict("records"),
        "files": [str(path) for path in _written(options, found, spectra)],
    }
    emit(options, payload, format_calibration)
    return 0


def _written(options: argparse.Namespace, found: Any, spectra: Any) -> list[Path]:
    from stixflow.calibration import elut_of, write_calibration, write_csv, write_elut
    from stixflow.stages.calibration import draw_calibration

    files = []
    if options.output:
        files.append(write_calibration(options.output, found))
    if options.csv:
        files.append(write_csv(options.csv, found))
    if options.elut:
        files.append(write_elut(options.elut, elut_of(found)))
    if options.plot:
        path = Path(options.plot)
        path.write_bytes(draw_calibration(found, spectra, options.limit))
        files.append(path)
    return files


def add_calibrate(commands: Any) -> None:
    """Add `calibrate`."""
    parser = command(
        commands,
        "calibrate",
        _calibrate,
        "find gain and offset of every pixel from the 133Ba lines of a calibration run",
        "The lines at 31, 35 and 81 keV of each pixel are fitted together, all pixels at once. Told are gain (keV per\n"
        "ADC channel of 4096), offset, resolution, how far the edges of the channels have drifted from the energy\n"
        "table (ELUT) that was on board, and which pixels could not be calibrated and why.\n\n"
        "Examples:\n  stixflow calibrate solo_L1_stix-cal-energy_20250303_V02.fits --plot calibration.png\n"
        "  stixflow calibrate 794271634-86400 --archive A --output CAL.fits --csv pixels.csv\n"
        "  stixflow calibrate --trend --archive A        what the flow `calibration` found over the mission\n\n"
        "The FITS file is the official CAL product with one table more; see docs/calibration.md for the method.",
    )
    parser.add_argument(
        "run_or_file",
        nargs="?",
        metavar="RUN|FILE",
        help="key of a run of the archive (as START-SECONDS on the onboard clock), or official spectra",
    )
    parser.add_argument("--number", type=natural, metavar="N", help="which run of a file of several, from 0")
    parser.add_argument("--trend", action="store_true", help="list the runs of the archive that were calibrated")
    parser.add_argument("--output", metavar="FITS", help="write the CAL product: a file, or a folder that gets one")
    parser.add_argument("--csv", metavar="CSV", help="write a table with a row for each pixel")
    parser.add_argument(
        "--elut", metavar="CSV", help="write the energy table (ELUT) that the run asks for, rounded as on board"
    )
    parser.add_argument("--plot", metavar="PNG", help="draw maps of the pixels, sum spectrum and drift")
    parser.add_argument(
        "--limit", type=positive, default=0.5, metavar="KEV", help="drift beyond which pixels are named (%(default)s)"
    )
    add_archive(parser)
