"""Commands that take telemetry into an archive, and those that simulate it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stixflow.cli.options import (
    add_archive,
    add_clock,
    add_container,
    add_engine,
    add_method,
    add_methods,
    add_paths,
    add_tuning,
    archive_place,
    command,
    engine_of,
    natural,
    positive,
    science_of,
)
from stixflow.cli.output import emit, progress


def _demo(options: argparse.Namespace) -> int:
    from stixflow.demo import format_result, run_demo

    result = run_demo(
        Path(options.output),
        seed=options.seed,
        workers=options.workers,
        serial=options.serial,
        progress=progress(options),
    )
    emit(options, result, format_result)
    return 0 if result["passed"] else 1


def _simulate(options: argparse.Namespace) -> int:
    from stixflow.simulate import demo_scenario, random_scenario, simulate
    from stixflow.time import to_utc

    day = to_utc(options.day).astype("datetime64[D]").item()
    if options.flares is None:
        scenario = demo_scenario(day, options.seed)
    else:
        scenario = random_scenario(day, options.seed, options.flares)
    truth = simulate(scenario, Path(options.output), container=options.container)
    payload = json.loads(Path(truth.path).read_text())
    emit(
        options,
        payload | {"truth": str(truth.path)},
        lambda p: f"{len(p['flares'])} flares written to {options.output}; the truth is in {p['truth']}",
    )
    return 0


def _replay(options: argparse.Namespace) -> int:
    from stixflow.simulate import replay

    written = replay([Path(p) for p in options.paths], Path(options.output), container=options.container)
    emit(options, {"files": [str(path) for path in written]}, lambda p: "\n".join(p["files"]))
    return 0


def _ingest(options: argparse.Namespace) -> int:
    return _run_stages(options, ("ingest", "cubes"))


def _process(options: argparse.Namespace) -> int:
    engine = engine_of(options)
    if engine["serial"]:
        return _run_stages(options, ("ingest", "cubes", "flares", "images"))
    from flows.process import run_process

    place = archive_place(options)
    report = run_process(
        [str(Path(p).resolve()) for p in options.paths],
        archive=place["root"],
        catalog=place["catalog"],
        engine=engine,
        progress=progress(options),
        science=science_of(options),
    )
    return _finish(options, report)


def _run_stages(options: argparse.Namespace, stages: Sequence[str]) -> int:
    return _finish(options, process_here(options, stages))


def process_here(options: argparse.Namespace, stages: Sequence[str]) -> Mapping[str, Any]:
    """Run stages without Prefect and return the report of the run."""
    from stixflow import compute
    from stixflow.stages import run_stages

    with compute.open_engine(**engine_of(options)) as pool:
        return run_stages(
            stages,
            [Path(p) for p in options.paths],
            **archive_place(options),
            pool=pool,
            progress=progress(options),
            command=" ".join(["stixflow", options.command]),
            science=science_of(options),
        )


def _finish(options: argparse.Namespace, report: Mapping[str, Any]) -> int:
    from stixflow.stages import format_report

    emit(options, report, format_report)
    return 1 if report["failed"] else 0


def add_demo(commands: Any) -> None:
    parser = command(
        commands,
        "demo",
        _demo,
        "simulate a day with flares, process it and compare with the truth",
        "Writes telemetry, an archive, FITS maps and an HTML report below the output folder; exits 1 if a flare is\n"
        "missed or the books do not balance.",
    )
    parser.add_argument("--output", default="stixflow-demo", help="folder to write to (default: %(default)s)")
    parser.add_argument(
        "--seed", type=natural, default=1, help="the same seed gives the same day (default: %(default)s)"
    )
    add_engine(parser)


def add_process(commands: Any) -> None:
    parser = command(
        commands,
        "process",
        _process,
        "take telemetry and official files all the way: cubes, flares, images, FITS",
        "Runs the Prefect flow on a local Dask cluster, or with --serial the same work in this process. Files that\n"
        "the archive already knows are skipped; partitions whose input did not change are not built again.\n\n"
        "Example:\n  stixflow process delivery/ --archive archive",
    )
    add_paths(parser)
    add_archive(parser)
    add_engine(parser)
    add_method(parser)
    add_methods(parser)
    add_clock(parser)
    add_tuning(parser)


def add_ingest(commands: Any) -> None:
    parser = command(
        commands,
        "ingest",
        _ingest,
        "read telemetry, official level-1 files and ephemeris into cubes of the archive",
        "Telemetry may be SOC XML (PktTmRaw), back-to-back binary, hexadecimal text or level-binary FITS; official\n"
        "files are FITS of level 1 and L1A, .fits or .fits.gz; ephemeris is the official L2 or ANC ancillary FITS.\n"
        "What a file is, is told by its content. Packets in = used + duplicates + rejected, each of these with its\n"
        "reason; bins of official files have books of their own. A day or request that has packets is made of these;\n"
        "official files make all others, the last version first.\n\n"
        "Examples:\n  stixflow ingest delivery/ --archive A\n"
        "  stixflow ingest solo_L1_stix-sci-xray-cpd_*.fits solo_L2_stix-aux-ephemeris_*.fits --archive A",
    )
    add_paths(parser)
    add_archive(parser)
    add_engine(parser)
    add_clock(parser)
    add_tuning(parser)


def add_simulate(commands: Any) -> None:
    parser = command(
        commands,
        "simulate",
        _simulate,
        "write the telemetry of a simulated day, with its truth",
        "Light curves of the whole day, pixel data and spectrograms around each flare, a quiet background request and\n"
        "the ephemeris, through the forward model of the instrument with Poisson noise, live time and compression.",
    )
    parser.add_argument("--day", default="2022-06-15", help="UTC day (default: %(default)s)")
    parser.add_argument(
        "--seed", type=natural, default=1, help="the same seed gives the same bytes (default: %(default)s)"
    )
    parser.add_argument("--flares", type=positive, help="random flares a day (default: the six of the demo)")
    add_container(parser)


def add_replay(commands: Any) -> None:
    parser = command(
        commands,
        "replay",
        _replay,
        "turn official level-1 FITS back into telemetry",
        "Light curves, pixel data and spectrograms; real flares can then travel the whole chain.",
    )
    parser.add_argument("paths", nargs="+", metavar="FITS", help="official level-1 files")
    add_container(parser)
