"""Commands that answer a question of science: flares and images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stixflow.cli.options import add_archive, command, energy_range, open_named, positive, span, whole
from stixflow.cli.output import emit, emit_frame
from stixflow.cli.processing import process_here

_FLARE_COLUMNS = ("flare_id", "start", "peak", "stop", "peak_counts", "goes_class", "x_hpc", "y_hpc")


def _flares(options: argparse.Namespace) -> int:
    archive = open_named(options)
    failed = process_here(options, ("flares",))["failed"] if options.detect else []
    for note in failed:
        sys.stderr.write(f"stixflow: {note['item']}: {note['error']}\n")
    emit_frame(options, "flares", archive.flares(*span(options)), _FLARE_COLUMNS)
    return 1 if failed else 0


def _image(options: argparse.Namespace) -> int:
    from stixflow.single import image_file
    from stixflow.time import TimeRange

    payload = image_file(
        Path(options.pixels),
        time_range=TimeRange.parse(options.time_range),
        energy_range=energy_range(options.energy_range),
        background=options.background and Path(options.background),
        ephemeris=options.ephemeris and Path(options.ephemeris),
        methods=options.method or ["clean"],
        size=options.size,
        pixel=options.pixel,
        output=Path(options.output),
    )
    for warning in payload["warnings"]:
        sys.stderr.write(f"stixflow: {warning}\n")
    emit(options, payload, _image_text)
    return 0


def _image_text(payload: Mapping[str, Any]) -> str:
    location = payload["location"]
    lines = [f"{name:>16}: {location[name]}" for name in location]
    return "\n".join([*lines, *payload["maps"]])


def add_flares(commands: Any) -> None:
    parser = command(
        commands,
        "flares",
        _flares,
        "list the flares of the archive",
        "Times are UTC at the spacecraft; peak counts are those of 4-10 keV in 4 s.",
    )
    parser.add_argument("--start", help="first time, UTC (default: the first flare)")
    parser.add_argument("--stop", help="time after the last one, UTC")
    parser.add_argument("--detect", action="store_true", help="detect again first, on days whose light curve is new")
    add_archive(parser)
    parser.set_defaults(serial=True, workers=None, paths=[])


def add_image(commands: Any) -> None:
    parser = command(
        commands,
        "image",
        _image,
        "make images from an official level-1 pixel file, without any archive",
        "The source is located on the full disk first (6-10 keV); the maps are centred there. Without --ephemeris the\n"
        "roll and pointing of the spacecraft are unknown: positions stay in the STIX frame and hpc_arcsec is null.\n\n"
        "Example:\n  stixflow image solo_L1_stix-sci-xray-cpd_....fits --background bkg.fits --ephemeris eph.fits \\\n"
        "      --time-range 2022-11-09T09:58:20/2022-11-09T09:59:20 --energy-range 4-16 --method clean",
    )
    parser.add_argument("pixels", metavar="PIXELS.fits", help="official level-1 pixel data (xray-cpd)")
    parser.add_argument("--background", metavar="FITS", help="quiet level-1 pixel file to subtract")
    parser.add_argument("--ephemeris", metavar="FITS", help="L2 ancillary file of the day (pointing, roll, distance)")
    parser.add_argument("--time-range", required=True, metavar="A/B", help="UTC; whole bins that cover it are used")
    parser.add_argument("--energy-range", required=True, metavar="LOW-HIGH", help="keV, as 4-16")
    parser.add_argument("--method", action="append", choices=("bp", "clean"), help="may be repeated (default: clean)")
    parser.add_argument("--size", type=whole, default=129, help="pixels a side (default: %(default)s)")
    parser.add_argument("--pixel", type=positive, default=2.0, help="pixel size in arcsec (default: %(default)s)")
    parser.add_argument("--output", default=".", help="folder for the FITS maps (default: here)")
