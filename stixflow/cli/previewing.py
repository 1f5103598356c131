"""The command that writes the preview of a flare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stixflow.cli.options import add_archive, command, energy_range, open_named, whole
from stixflow.cli.output import emit


def _preview(options: argparse.Namespace) -> int:
    from stixflow.stages.previews import format_previews, write_previews

    bands = {"energy_ranges": tuple(map(energy_range, options.energy_range))} if options.energy_range else {}
    payload = write_previews(
        open_named(options),
        options.flare,
        Path(options.output),
        methods=("bp", "clean", options.regularised, "forward_fit"),
        frames=options.frames,
        **bands,
    )
    emit(options, payload, format_previews)
    return 0


def add_preview(commands: Any) -> None:
    """Add `preview`."""
    parser = command(
        commands,
        "preview",
        _preview,
        "write the preview of a flare: panels, animation, scripts that make them again",
        "For each energy range a figure (light curve, full disk, four methods), a Python script and an IDL script,\n"
        "with the files that they read beside them; for the first one an animation and an overlay over the flare.\n\n"
        "Example:\n  stixflow preview --archive A --flare 2206160100 --output preview",
    )
    parser.add_argument("--flare", metavar="ID", required=True, help="see `stixflow flares`")
    parser.add_argument("--output", required=True, help="folder for the files")
    parser.add_argument(
        "--energy-range", metavar="LOW-HIGH", action="append", help="keV; may be repeated (default: 4-10, 16-28)"
    )
    parser.add_argument(
        "--regularised", choices=("mem_ge", "em"), default="mem_ge", help="method of the fifth panel (default: mem_ge)"
    )
    parser.add_argument("--frames", type=whole, default=12, help="at most so many maps in the animation (default: 12)")
    add_archive(parser)
