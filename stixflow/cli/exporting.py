"""The command that writes official files from an archive."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stixflow.cli.options import add_archive, archive_place, command, natural
from stixflow.cli.output import emit


def _export(options: argparse.Namespace) -> int:
    from stixflow.stages.exporting import export_files, format_export

    payload = export_files(
        output=Path(options.output),
        product=options.product,
        start=options.start,
        stop=options.stop,
        request_id=options.request,
        version=options.version,
        gzip=options.gzip,
        **archive_place(options),
    )
    emit(options, payload, format_export)
    return 0


def add_export(commands: Any) -> None:
    """Add `export`."""
    parser = command(
        commands,
        "export",
        _export,
        "write official level-1 FITS files of what an archive holds",
        "One file a day of quick-look products, one file for each request and box of science products.\n\n"
        "Examples:\n  stixflow export --archive A --product ql_lightcurve --start 2021-06-06 --stop 2021-06-08 \\\n"
        "      --output files\n  stixflow export --archive A --request 2211090305 --output files",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--product", help="as ql_lightcurve, sci_pixels, sci_spectrogram")
    what.add_argument("--request", type=natural, metavar="ID", help="every answer to a science data request")
    parser.add_argument("--start", help="first time, UTC (default: all there is)")
    parser.add_argument("--stop", help="time after the last one, UTC")
    parser.add_argument("--output", required=True, help="folder for the files")
    parser.add_argument("--version", default="V02", help="what the files call their version (default: %(default)s)")
    parser.add_argument("--gzip", action="store_true", help="write .fits.gz")
    add_archive(parser)
