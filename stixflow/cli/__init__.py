"""The command line: one subcommand for each thing a person does.

Nothing heavy is imported here: each command imports what it runs, so that ``stixflow --help`` answers at once.
Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from stixflow.cli import (
    benchmarking,
    calibrating,
    care,
    clusters,
    exporting,
    previewing,
    processing,
    raw,
    reprocessing,
    science,
    serving,
)
from stixflow.cli.options import Parser

__all__ = ["command_names", "main"]

_DESCRIPTION = """\
stixflow turns the telemetry of STIX, the hard X-ray imaging spectrometer on Solar Orbiter,
into cubes, flares, images and spectra.

First steps:
  stixflow demo                            simulate a day, process it, compare with the truth
  stixflow process DIR --archive ARCHIVE   telemetry to cubes, flares and images
  stixflow status --archive ARCHIVE        what the archive holds
"""
_COMMANDS = (
    processing.add_demo,
    processing.add_process,
    processing.add_ingest,
    reprocessing.add_reprocess,
    serving.add_serve,
    science.add_flares,
    science.add_image,
    previewing.add_preview,
    calibrating.add_calibrate,
    care.add_status,
    care.add_verify,
    care.add_rollback,
    care.add_catalog,
    care.add_release,
    care.add_gc,
    clusters.add_cluster,
    exporting.add_export,
    processing.add_simulate,
    processing.add_replay,
    raw.add_packets,
    benchmarking.add_bench,
)
"""What adds each command, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    from stixflow.errors import StixflowError, UsageError

    given = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in given
    if not given:
        _parser().print_help()
        return UsageError.exit_code
    try:
        options = _parser().parse_args(given)
        return int(options.run(options))
    except StixflowError as error:
        return _fail(str(error), error.exit_code, as_json=as_json)
    except OSError as error:
        return _fail(f"{error}", 1, as_json=as_json)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, as_json=as_json)
    except Exception as error:
        # A fault of the program: its traceback is for whoever mends it, but a caller of --json still gets an object.
        if as_json:
            _fail(f"internal error: {type(error).__name__}: {error}", 1, as_json=True)
        raise


def _fail(message: str, code: int, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"error": message, "exit_code": code}) + "\n")
    sys.stderr.write(f"stixflow: {message}\n")
    return code


def command_names() -> list[str]:
    """Name every subcommand."""
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return list(commands.choices)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="stixflow", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(commands)
    return parser


def _version() -> str:
    from stixflow import __version__

    return f"stixflow {__version__}"
