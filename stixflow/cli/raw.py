"""Commands for the analyst of the raw stream: packets and telecommands as they are in the files."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stixflow.cli.options import command, natural, whole


def _packets(options: argparse.Namespace) -> int:
    from stixflow.telemetry.inspect import Inspection

    inspection = Inspection(
        [Path(path) for path in options.paths], types=options.type or (), index=options.index, limit=options.limit
    )
    if options.json:
        _write(_json(inspection.packets()))
    else:
        _write(f"{line}\n" for line in inspection.lines())
    for entry in inspection.rejected:
        sys.stderr.write(f"stixflow: {entry.file} at byte {entry.offset}: {entry.reason}\n")
    return 0


def _write(pieces: Iterable[str]) -> None:
    """Write until all is written, or until whoever reads, as ``head``, has enough."""
    try:
        for piece in pieces:
            sys.stdout.write(piece)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json(packets: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Write one JSON object piece by piece, so that long files need no memory; nothing before the first packet came."""
    opening = '{"packets": ['
    for packet in packets:
        yield opening + json.dumps(packet, allow_nan=False)
        opening = ", "
    yield "]}\n" if opening == ", " else '{"packets": []}\n'


def add_packets(commands: Any) -> None:
    parser = command(
        commands,
        "packets",
        _packets,
        "list the packets of telemetry files, and print them parameter by parameter",
        "Without options: a list. With --type or --index also the first packet chosen, as a tree of database\n"
        "identifier, raw number, engineering value and name in packet order; with --limit N, the first N of them.\n"
        'With --json: {"packets": [{"header": {...}, "parameters": [[name, raw, engineering, [children...]], ...]}]}.\n'
        "A telecommand report (PktTcReport.xml) is listed command by command; with other files beside it, also the\n"
        "packets that answer its science requests.",
    )
    parser.add_argument("paths", nargs="+", metavar="FILE", help="telemetry files, or folders of them")
    parser.add_argument(
        "--type", action="append", metavar="TYPE", help="as 21,6,30 or 3,25 or sci_pixels; may be repeated"
    )
    parser.add_argument("--index", type=natural, metavar="N", help="only packet N of the list")
    parser.add_argument("--limit", type=whole, metavar="N", help="at most N packets")
