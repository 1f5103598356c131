"""The command that writes the preview of a flare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stixflow.cli.options import add_pixel_source, check_pixel_source, command, energy_range, open_named, whole
from stixflow.cli.output import emit


def _preview(options: argparse.Namespace) -> int:
    from stixflow.stages.previews import PreviewWanted, format_previews, write_file_previews, write_previews
    from stixflow.time import TimeRange

    check_pixel_source(options, file_only=("background", "ephemeris", "time_range"), needed=("ephemeris",))
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
    add_pixel_source(parser, time_range="UTC; the peak in it is imaged (default: all of the file)")
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
