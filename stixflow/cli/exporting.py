"""The command that writes official files from an archive."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stixflow.cli.options import add_archive, add_span, archive_place, command, natural
from stixflow.cli.output import emit

_PRODUCTS = (
    *("ql_lightcurve", "ql_background", "ql_spectra", "ql_variance", "ql_flareflag", "cal_spectrum", "aspect"),
    *("tm_status", "hk_mini", "hk_maxi", "sci_pixels", "sci_pixel_sums", "sci_visibilities", "sci_spectrogram"),
)
"""As `stixflow.fits.EXPORTED`, which takes half a second to import."""


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
        "One file a day of quick-look products, housekeeping, status and aspect, one for each calibration run, one\n"
        "for each request and box of science products: the structure of official V02 files, with checksums,\n"
        "history and provenance. `stixflow ingest` takes them back.\n\n"
        "Examples:\n  stixflow export --archive A --product ql_lightcurve --start 2021-06-06 --stop 2021-06-08 \\\n"
        "      --output files\n  stixflow export --archive A --request 2211090305 --output files --gzip\n\n"
        "See docs/fits.md for what a file cannot hold, and how ours differ from the official ones.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--product", help=f"one of {', '.join(_PRODUCTS)}")
    what.add_argument("--request", type=natural, metavar="ID", help="every answer to a science data request")
    add_span(parser, since="all there is")
    parser.add_argument("--output", required=True, help="folder for the files")
    parser.add_argument("--version", default="V02", help="what the files call their version (default: %(default)s)")
    parser.add_argument("--gzip", action="store_true", help="write .fits.gz")
    add_archive(parser)
