"""Commands that answer a question of science: flares and images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stixflow.cli.options import (
    add_archive,
    add_method,
    add_pixel_source,
    add_span,
    check_pixel_source,
    command,
    energy_range,
    method_of,
    month,
    natural,
    open_named,
    positive,
    span,
    whole,
)
from stixflow.cli.output import emit, emit_frame
from stixflow.cli.processing import process_here

_FLARE_COLUMNS = (
    "flare_id",
    "start",
    "peak",
    "stop",
    "peak_counts",
    "goes_class",
    "goes_measured_class",
    "x_hpc",
    "y_hpc",
)
_LIST_ENDINGS = (".fits", ".csv", ".vot", ".txt")


def _flares(options: argparse.Namespace) -> int:
    _check_flares_options(options)
    failed: Sequence[Mapping[str, str]] = ()
    if options.files:
        table = _flares_of_files(options)
    else:
        archive = open_named(options)
        failed = process_here(options, ("flares",))["failed"] if options.detect else ()
        table = archive.flares(*span(options))
        _check_found_by(options, table)
    for note in failed:
        sys.stderr.write(f"stixflow: {note['item']}: {note['error']}\n")
    _tell_flares(options, _with_xrs(options, table))
    return 1 if failed else 0


def _tell_flares(options: argparse.Namespace, table: Any) -> None:
    """Write the list where it was asked for, else print it; with --json both."""
    if options.output:
        from stixflow.flares import write_list

        path = write_list(table, options.output, layout=options.layout)
        if not options.json:
            sys.stdout.write(f"{len(table)} flares written to {path}\n")
            return
    emit_frame(options, "flares", table, _FLARE_COLUMNS)


def _check_flares_options(options: argparse.Namespace) -> None:
    from stixflow.errors import UsageError

    problem = ""
    if options.files and (options.archive or options.catalog or options.detect):
        problem = "--archive, --catalog and --detect do not go with files"
    elif options.month and (options.start or options.stop):
        problem = "--month does not go with --start and --stop"
    elif options.output and Path(options.output).suffix not in _LIST_ENDINGS:
        problem = f"{options.output} does not end with {', '.join(_LIST_ENDINGS)}"
    if problem:
        raise UsageError(problem, expected="FILE..., or --archive", advice="see `stixflow flares --help`")


def _check_found_by(options: argparse.Namespace, table: Any) -> None:
    """Refuse to give the flares that another method found for those of the method that was asked for."""
    from stixflow.errors import UsageError

    found_by = sorted(set(table["method"].dropna())) if "method" in table else []
    if options.method and found_by and found_by != [options.method]:
        raise UsageError(
            f"the flares of this archive were found by {' and '.join(found_by)}",
            expected=f"--method {found_by[0]}, or none",
            advice=f"add --detect to search its light curves by {options.method}",
        )


def _flares_of_files(options: argparse.Namespace) -> Any:
    from stixflow.flares import detect_files
    from stixflow.time import to_utc

    table = detect_files([Path(path) for path in options.files], method_of(options))
    start, stop = (to_utc(text) for text in span(options))
    chosen = table[(table["peak"] >= start) & (table["peak"] < stop)]
    return chosen.reset_index(drop=True)


def _with_xrs(options: argparse.Namespace, table: Any) -> Any:
    """Add what GOES measured, where XRS files are given."""
    if not options.xrs or not len(table):
        return table
    import xarray as xr

    from stixflow.flares import measure_goes, read_xrs

    days = [read_xrs(path) for path in options.xrs]
    return measure_goes(table, xr.concat(days, "time").sortby("time") if len(days) > 1 else days[0])


def _image(options: argparse.Namespace) -> int:
    from stixflow.single import MapsWanted, demand_of, image_archived, image_file
    from stixflow.time import TimeRange

    check_pixel_source(options, file_only=("background", "ephemeris"), needed=("time_range", "energy_range"))
    time_range = TimeRange.parse(options.time_range) if options.time_range else None
    wanted = MapsWanted(
        tuple(energy_range(text) for text in options.energy_range or ()),
        tuple(options.method or ["clean"]),
        options.size,
        options.pixel,
        demand_of(options.counts_per_image, options.snr, options.cadence),
        options.uncertainty,
        Path(options.output),
        options.cube,
        options.earth,
    )
    if options.flare:
        payload = image_archived(open_named(options), options.flare, wanted, time_range=time_range)
    else:
        payload = image_file(
            Path(options.pixels),
            wanted,
            time_range=TimeRange.parse(options.time_range),
            backgrounds=[Path(path) for path in options.background or ()],
            ephemeris=options.ephemeris and Path(options.ephemeris),
        )
    for warning in payload["warnings"]:
        sys.stderr.write(f"stixflow: {warning}\n")
    emit(options, payload, _image_text)
    return 0


def _image_text(payload: Mapping[str, Any]) -> str:
    location, background = payload["location"], payload["background"]
    lines = [f"{name:>16}: {_rounded(value)}" for name, value in location.items()]
    lines.append(f"{'background':>16}: {background['name'] or 'none'} ({background['reason'] or 'none given'})")
    lines += [
        f"{image['path']}  {image['net_counts']:.0f} of {image['counts']:.0f} counts, "
        f"visibilities {image['visibility_snr']:.1f} sigma"
        for image in payload["images"]
    ]
    lines += [*payload["cubes"], *payload["earth_views"]]
    lines += [
        f"left out: {one['time_range']} {one['energy_keV'][0]:g}-{one['energy_keV'][1]:g} keV: {one['reason']}"
        for one in payload["left_out"]
    ]
    return "\n".join(lines)


def _rounded(value: Any) -> str:
    """Write positions to a tenth of an arcsec, other numbers to three digits."""
    if isinstance(value, list):
        return ", ".join(f"{part:.1f}" for part in value)
    if isinstance(value, float):
        return f"{value:.3g}"
    return {None: "unknown", True: "yes", False: "no"}.get(value, str(value))


def add_flares(commands: Any) -> None:
    parser = command(
        commands,
        "flares",
        _flares,
        "list the flares of an archive, or find those in light-curve files",
        "Times are UTC at the spacecraft; peak counts are those of 4-10 keV in 4 s. Files are official quick-look\n"
        "light curves or telemetry, searched as one curve without any archive; an archive is searched again only with\n"
        "--detect.\n\n"
        "Examples:\n  stixflow flares solo_L1_stix-ql-lightcurve_20210606_V01.fits --method poisson --json\n"
        "  stixflow flares --archive archive --month 2024-09 --output september.fits --layout official",
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="light curves to search, in place of an archive")
    add_span(parser, since="the first flare")
    parser.add_argument("--detect", action="store_true", help="detect again first, on days whose light curve is new")
    add_method(parser)
    parser.add_argument("--month", type=month, metavar="YYYY-MM", help="only flares that peak in this month")
    parser.add_argument("--output", metavar="FILE", help="write the list to FILE.fits, .csv, .vot or .txt (HESSI text)")
    parser.add_argument(
        "--layout",
        choices=("stixflow", "official"),
        default="stixflow",
        help="columns of that file: all, or those of the official list under its names (default: %(default)s)",
    )
    parser.add_argument(
        "--xrs", metavar="FILE", action="append", help="GOES XRS file: adds the measured class; may be repeated"
    )
    add_archive(parser)
    parser.set_defaults(serial=True, workers=None, paths=[])


def add_image(commands: Any) -> None:
    parser = command(
        commands,
        "image",
        _image,
        "make images from an official level-1 pixel file, or of a flare of an archive",
        "The source is located on the full disk first (6-10 keV); the maps are centred there. Without --ephemeris the\n"
        "roll and pointing of the spacecraft are unknown: positions stay in the STIX frame and hpc_arcsec is null.\n"
        "With --counts-per-image, --snr or --cadence the time range becomes a series of maps; intervals never reach\n"
        "across a motion of the attenuator or a gap.\n\n"
        "Examples:\n  stixflow image solo_L1_stix-sci-xray-cpd_....fits --background bkg.fits --ephemeris eph.fits \\\n"
        "      --time-range 2022-11-09T09:58:20/2022-11-09T09:59:20 --energy-range 4-16 --method clean\n"
        "  stixflow image --archive archive --flare 2206150100 --energy-range 4-10 --energy-range 16-28 \\\n"
        "      --counts-per-image 10000 --method mem_ge",
    )
    add_pixel_source(parser, time_range="UTC; whole bins that cover it are used")
    parser.add_argument(
        "--energy-range",
        metavar="LOW-HIGH",
        action="append",
        help="keV, as 4-16; may be repeated (--flare: 4-10, 16-28)",
    )
    parser.add_argument(
        "--method",
        metavar="NAME",
        action="append",
        help="bp, clean, mem_ge, em, forward_fit; may be repeated (default: clean)",
    )
    parser.add_argument("--counts-per-image", type=positive, metavar="N", help="cut the time range by counts")
    parser.add_argument("--snr", type=positive, help="cut it by net counts over their error")
    parser.add_argument("--cadence", type=positive, metavar="S", help="cut it into intervals of so many seconds")
    parser.add_argument(
        "--uncertainty", type=natural, default=0, metavar="N", help="maps of noise for the uncertainty of each map"
    )
    parser.add_argument(
        "--cube",
        action="store_true",
        help="also cubes: one of each method where every time has every energy, else one for each energy range",
    )
    parser.add_argument(
        "--earth", action="store_true", help="also every map as the Earth sees it, to lie over images of AIA or HMI"
    )
    parser.add_argument("--size", type=whole, default=129, help="pixels a side (default: %(default)s)")
    parser.add_argument("--pixel", type=positive, default=2.0, help="pixel size in arcsec (default: %(default)s)")
    parser.add_argument("--output", default=".", help="folder for the FITS maps (default: here)")
