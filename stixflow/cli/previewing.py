"""The command that writes the preview of a flare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stixflow.cli.options import add_archive, command, energy_range, open_named, whole
from stixflow.cli.output import emit


def _preview(options: argparse.Namespace) -> int:
    from stixflow.stages.previews import PreviewWanted, format_previews, write_file_previews, write_previews
    from stixflow.time import TimeRange

    _check(options)
    bands = {"energy_ranges": tuple(map(energy_range, options.energy_range))} if options.energy_range else {}
    wanted = PreviewWanted(
        methods=("bp", "clean", options.regularised, "forward_fit"),
        shape=options.shape,
        frames=options.frames,
        movie=options.movie,
        has_pdf=options.pdf,
        **bands,
    )
    if options.flare:
        payload = write_previews(open_named(options), options.flare, Path(options.output), wanted)
    else:
        payload = write_file_previews(
            Path(options.pixels),
            Path(options.output),
            wanted,
            ephemeris=Path(options.ephemeris),
            backgrounds=[Path(path) for path in options.background or ()],
            time_range=TimeRange.parse(options.time_range) if options.time_range else None,
        )
    emit(options, payload, format_previews)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Check that there is one place that the data come from, and what goes with it."""
    from stixflow.errors import UsageError

    problem = ""
    if bool(options.pixels) == bool(options.flare):
        problem = "give either a pixel file or --flare"
    elif options.flare and (options.background or options.ephemeris or options.time_range):
        problem = "--background, --ephemeris and --time-range go with a pixel file: a flare has its own"
    elif options.pixels and not options.ephemeris:
        problem = "a pixel file needs --ephemeris: without a pointing there is no place on the Sun to draw"
    if problem:
        raise UsageError(problem, expected="PIXELS.fits with its options, or --flare ID", advice="see `preview --help`")


def add_preview(commands: Any) -> None:
    """Add `preview`."""
    parser = command(
        commands,
        "preview",
        _preview,
        "write the preview of a flare: panels, maps, animation, scripts that make them again",
        "For each energy range a figure (light curve, full disk, four methods), another of the visibilities that each\n"
        "map predicts, the maps as FITS, a Python script and an IDL script; for the first one an animation and an\n"
        "overlay over the flare. Of a flare of an archive the files that the scripts read are written beside them.\n\n"
        "Examples:\n  stixflow preview --archive A --flare 2206160100 --output preview\n"
        "  stixflow preview solo_L1_stix-sci-xray-cpd_....fits --background bkg.fits --ephemeris eph.fits \\\n"
        "      --time-range 2022-11-11T11:20/2022-11-11T11:50 --movie mp4 --output preview",
    )
    parser.add_argument("pixels", metavar="PIXELS.fits", nargs="?", help="official level-1 pixel data (xray-cpd)")
    parser.add_argument("--flare", metavar="ID", help="flare of an archive (see `stixflow flares`), in place of a file")
    parser.add_argument("--output", required=True, help="folder for the files")
    parser.add_argument(
        "--energy-range", metavar="LOW-HIGH", action="append", help="keV; may be repeated (default: 4-10, 16-28)"
    )
    parser.add_argument(
        "--regularised", choices=("mem_ge", "em"), default="mem_ge", help="method of the fifth panel (default: mem_ge)"
    )
    parser.add_argument(
        "--shape",
        choices=("circle", "ellipse", "multi", "loop"),
        help="source of the forward fit; multi is two circles (default: ellipse below 16 keV, else multi)",
    )
    parser.add_argument("--frames", type=whole, default=12, help="at most so many maps in the animation (default: 12)")
    parser.add_argument(
        "--movie", choices=("gif", "mp4"), default="gif", help="kind of the animation; mp4 needs stixflow[movie]"
    )
    parser.add_argument("--pdf", action="store_true", help="also all figures as the pages of one PDF")
    parser.add_argument(
        "--background",
        metavar="FITS",
        action="append",
        help="quiet level-1 pixel file to subtract; of several the one with the best score is taken",
    )
    parser.add_argument("--ephemeris", metavar="FITS", help="L2 ancillary file of the day (pointing, roll, distance)")
    parser.add_argument("--time-range", metavar="A/B", help="UTC; the peak in it is imaged (default: all of the file)")
    add_archive(parser)
