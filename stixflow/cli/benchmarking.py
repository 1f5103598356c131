"""The command that measures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stixflow.cli.options import command
from stixflow.cli.output import emit

_PARTS = ("decode", "layout", "queries", "fanout", "imaging", "end-to-end")


def _bench(options: argparse.Namespace) -> int:
    if options.what == "compare":
        return _compare(options)
    from stixflow.bench import document, format_document

    names = _PARTS if options.what == "all" else (options.what,)
    tunings: list[Any] = []
    found = document(f"stixflow bench {options.what}", {name: partial(_part, name, options, tunings) for name in names})
    if options.output:
        Path(options.output).write_text(json.dumps(found, indent=1) + "\n")
    if options.profile:
        _write_profile(options, tunings, found)
    emit(options, found, format_document)
    return 0


def _part(name: str, options: argparse.Namespace, tunings: list[Any]) -> Sequence[dict[str, Any]]:
    from stixflow import bench

    simple: dict[str, Callable[..., Any]] = {
        "decode": bench.measure_decode,
        "queries": bench.measure_queries,
        "imaging": bench.measure_imaging,
        "end-to-end": bench.measure_end_to_end,
    }
    if name in simple:
        return list(simple[name](quick=options.quick))
    if name == "fanout":
        rows = bench.measure_fanout(quick=options.quick)
        tunings.append(bench.derive(rows))
        return rows
    rows = bench.sweep_layouts(options.product, storage=options.storage, archive=options.archive, quick=options.quick)
    tunings.append(bench.choose(rows, options.product))
    return bench.plain(rows)


def _write_profile(options: argparse.Namespace, tunings: Sequence[Any], found: dict[str, Any]) -> None:
    """Add what was derived to the profile, keeping what others have measured."""
    from stixflow.bench import merge_tunings
    from stixflow.errors import UsageError
    from stixflow.tuning import UNTUNED, format_tuning, read_tuning

    if not tunings:
        raise UsageError(
            f"{options.what} derives no settings", expected="layout, fanout or all", advice="leave --profile out"
        )
    path = Path(options.profile)
    before = read_tuning(path) if path.is_file() else UNTUNED
    here = found["machine"]
    measured = {
        "command": found["command"],
        "date": found["created"],
        "code": found["code_version"],
        "machine": f"{here['cores']} cores of {here['model']}, load {found['load']['start']} to {found['load']['end']}",
        "storage": options.storage,
    }
    path.write_text(format_tuning(merge_tunings(before, tunings), measured))


def _compare(options: argparse.Namespace) -> int:
    from stixflow.bench import compare, format_comparison, read_document
    from stixflow.errors import UsageError

    if len(options.files) != 2:
        raise UsageError("compare takes two files", expected="BEFORE AFTER", advice="name both")
    before, after = (read_document(path) for path in options.files)
    emit(options, compare(before, after), format_comparison)
    return 0


def add_bench(commands: Any) -> None:
    parser = command(
        commands,
        "bench",
        _bench,
        "measure this machine, and derive layouts and sizes of batches from it",
        "decode      packets to numbers\n"
        "layout      chunks, shards and packing of a product against what is asked of it\n"
        "queries     what analysts ask of an archive: time, requests, bytes\n"
        "fanout      what sending work to workers costs\n"
        "imaging     images a second by every method\n"
        "end-to-end  a simulated day, telemetry to images\n"
        "compare     two files of --output: what is faster, slower, or noise\n\n"
        "Examples:\n"
        "  stixflow bench all --quick\n"
        "  stixflow bench layout --product sci_pixels --archive archive --profile measured.toml\n"
        "  stixflow bench fanout --profile measured.toml\n"
        "  stixflow process delivery/ --tuning measured.toml\n"
        "  stixflow bench compare before.json after.json",
    )
    parser.add_argument("what", choices=(*_PARTS, "all", "compare"), help="what to measure")
    parser.add_argument("files", nargs="*", metavar="FILE", help="of compare: before and after")
    parser.add_argument("--quick", action="store_true", help="small and few: that it works, not how fast")
    parser.add_argument("--output", metavar="FILE", help="write what was found as JSON")
    parser.add_argument("--profile", metavar="FILE", help="write derived settings to a tuning profile (.toml)")
    parser.add_argument("--product", default="sci_pixels", help="of layout (default: %(default)s)")
    parser.add_argument(
        "--storage",
        choices=("local", "bucket"),
        default="local",
        help="of layout: where stores are (default: %(default)s)",
    )
    parser.add_argument("--archive", help="of layout: take the largest stores of an archive in place of simulated ones")
