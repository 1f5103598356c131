"""The command line: one subcommand for each thing a person does.

Nothing heavy is imported here: each command imports what it runs, so that ``stixflow --help`` answers at once.
Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

Command = Callable[[argparse.Namespace], int]

_DESCRIPTION = """\
stixflow turns the telemetry of STIX, the hard X-ray imaging spectrometer on Solar Orbiter,
into cubes, flares, images and spectra.

First steps:
  stixflow demo                            simulate a day, process it, compare with the truth
  stixflow process DIR --archive ARCHIVE   telemetry to cubes, flares and images
  stixflow status --archive ARCHIVE        what the archive holds
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    from stixflow.errors import StixflowError

    given = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in given
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


# --------------------------------------------------------------------------------------------------- commands


def _demo(options: argparse.Namespace) -> int:
    from stixflow.demo import format_result, run_demo

    result = run_demo(
        Path(options.output),
        seed=options.seed,
        workers=options.workers,
        serial=options.serial,
        progress=_progress(options),
    )
    _emit(options, result, format_result)
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
    _emit(
        options,
        payload | {"truth": str(truth.path)},
        lambda p: f"{len(p['flares'])} flares written to {options.output}; the truth is in {p['truth']}",
    )
    return 0


def _replay(options: argparse.Namespace) -> int:
    from stixflow.simulate import replay

    written = replay([Path(p) for p in options.paths], Path(options.output), container=options.container)
    _emit(options, {"files": [str(path) for path in written]}, lambda p: "\n".join(p["files"]))
    return 0


def _ingest(options: argparse.Namespace) -> int:
    return _run_stages(options, ("ingest", "cubes"))


def _process(options: argparse.Namespace) -> int:
    if options.serial:
        return _run_stages(options, ("ingest", "cubes", "flares", "images"))
    from flows.process import run_process

    report = run_process(
        [str(Path(p).resolve()) for p in options.paths],
        archive=str(_archive_root(options)),
        workers=options.workers,
        progress=_progress(options),
    )
    return _finish(options, report)


def _run_stages(options: argparse.Namespace, stages: Sequence[str]) -> int:
    return _finish(options, _process_here(options, stages))


def _process_here(options: argparse.Namespace, stages: Sequence[str]) -> Mapping[str, Any]:
    """Run stages without Prefect and return the report of the run."""
    from stixflow import compute
    from stixflow.stages import run_stages

    with nullcontext(compute.Serial()) if options.serial else compute.open_cluster(options.workers) as pool:
        return run_stages(
            stages,
            [Path(p) for p in options.paths],
            root=str(_archive_root(options)),
            pool=pool,
            progress=_progress(options),
            command=" ".join(["stixflow", options.command]),
        )


def _finish(options: argparse.Namespace, report: Mapping[str, Any]) -> int:
    from stixflow.stages import format_report

    _emit(options, report, format_report)
    return 1 if report["failed"] else 0


def _flares(options: argparse.Namespace) -> int:
    archive = _open(options)
    failed = _process_here(options, ("flares",))["failed"] if options.detect else []
    for note in failed:
        sys.stderr.write(f"stixflow: {note['item']}: {note['error']}\n")
    _emit_frame(options, "flares", archive.flares(*_span(options)), _FLARE_COLUMNS)
    return 1 if failed else 0


def _image(options: argparse.Namespace) -> int:
    from stixflow.single import image_file
    from stixflow.time import TimeRange

    payload = image_file(
        Path(options.pixels),
        time_range=TimeRange.parse(options.time_range),
        energy_range=_energy_range(options.energy_range),
        background=options.background and Path(options.background),
        ephemeris=options.ephemeris and Path(options.ephemeris),
        methods=options.method or ["clean"],
        size=options.size,
        pixel=options.pixel,
        output=Path(options.output),
    )
    for warning in payload["warnings"]:
        sys.stderr.write(f"stixflow: {warning}\n")
    _emit(options, payload, _image_text)
    return 0


def _image_text(payload: Mapping[str, Any]) -> str:
    location = payload["location"]
    lines = [f"{name:>16}: {location[name]}" for name in location]
    return "\n".join([*lines, *payload["maps"]])


def _status(options: argparse.Namespace) -> int:
    from stixflow.stages import archive_status, format_status

    _emit(options, archive_status(str(_archive_root(options))), format_status)
    return 0


def _verify(options: argparse.Namespace) -> int:
    defects = [str(defect) for defect in _open(options).verify()]
    _emit(options, {"defects": defects}, lambda p: "\n".join(p["defects"]) or "no defects")
    return 1 if defects else 0


def _rollback(options: argparse.Namespace) -> int:
    from stixflow.stages import rollback

    payload = rollback(str(_archive_root(options)), options.product, options.key)
    _emit(options, payload, lambda p: f"{p['product']} {p['key']} is now run {p['run_id']}")
    return 0


# ------------------------------------------------------------------------------------------------------ output

_FLARE_COLUMNS = ("flare_id", "start", "peak", "stop", "peak_counts", "goes_class", "x_hpc", "y_hpc")


def _emit(options: argparse.Namespace, payload: Mapping[str, Any], text: Callable[[Any], str]) -> None:
    shown = json.dumps(_plain(payload), indent=2, default=str, allow_nan=False) if options.json else text(payload)
    sys.stdout.write(shown + "\n")


def _plain(value: Any) -> Any:
    """Make a value fit for JSON, which has no NaN."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _emit_frame(options: argparse.Namespace, name: str, frame: Any, columns: Sequence[str]) -> None:
    if options.json:
        payload = {name: json.loads(frame.to_json(orient="records", date_format="iso", date_unit="ms"))}
        _emit(options, payload, str)
        return
    shown = [column for column in columns if column in frame.columns]
    sys.stdout.write((frame[shown].to_string(index=False) if len(frame) else f"no {name}") + "\n")


def _progress(options: argparse.Namespace) -> Callable[[str, int, int], None]:
    """Show progress on the error stream: one line that moves on a terminal, one line a stage elsewhere."""
    moves = sys.stderr.isatty()

    def show(stage: str, done: int, total: int) -> None:
        if options.quiet or not (moves or done == total):
            return
        end = "\n" if done == total or not moves else ""
        sys.stderr.write(f"{chr(13) if moves else ''}{stage:>10}  {done} of {total}{end}")
        sys.stderr.flush()

    return show


# ----------------------------------------------------------------------------------------------------- options


def _archive_root(options: argparse.Namespace) -> str:
    from stixflow.settings import load_settings

    return load_settings(archive=options.archive).archive


def _open(options: argparse.Namespace) -> Any:
    import stixflow

    return stixflow.open_archive(_archive_root(options))


def _span(options: argparse.Namespace) -> tuple[str, str]:
    return options.start or "2020-01-01", options.stop or "2100-01-01"


def _energy_range(text: str) -> tuple[float, float]:
    from stixflow.errors import UsageError

    low, dash, high = text.partition("-")
    try:
        energies = float(low), float(high)
    except ValueError:
        energies = (0.0, 0.0)
    if not dash or not energies[0] < energies[1]:
        raise UsageError(f"{text!r} is no energy range", expected="LOW-HIGH in keV, as 4-10", advice="correct it")
    return energies


def command_names() -> list[str]:
    """Name every subcommand."""
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return list(commands.choices)


def _whole(text: str) -> int:
    """Read a number of things: 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others, so that they are told in the same way."""

    def error(self, message: str) -> NoReturn:
        from stixflow.errors import UsageError

        raise UsageError(message, expected=" ".join(self.format_usage().split()), advice=f"see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="stixflow", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (
        _add_demo,
        _add_process,
        _add_ingest,
        _add_flares,
        _add_image,
        _add_status,
        _add_verify,
        _add_rollback,
        _add_simulate,
        _add_replay,
    ):
        add(commands)
    return parser


def _version() -> str:
    from stixflow import __version__

    return f"stixflow {__version__}"


def _command(commands: Any, name: str, run: Command, summary: str, more: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{more}".rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)
    return parser


def _add_archive(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--archive", help="root of the archive; default STIXFLOW_ARCHIVE, stixflow.toml, or ./stixflow-archive"
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--serial", action="store_true", help="no Prefect and no cluster: everything in this process")
    parser.add_argument("--workers", type=_whole, help="worker processes; default one a core")


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="telemetry or ephemeris files, or folders of them")


def _add_demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        _demo,
        "simulate a day with flares, process it and compare with the truth",
        "Writes telemetry, an archive, FITS maps and an HTML report below the output folder; exits 1 if a flare is\n"
        "missed or the books do not balance.",
    )
    parser.add_argument("--output", default="stixflow-demo", help="folder to write to (default: %(default)s)")
    parser.add_argument(
        "--seed", type=_natural, default=1, help="the same seed gives the same day (default: %(default)s)"
    )
    _add_engine(parser)


def _add_process(commands: Any) -> None:
    parser = _command(
        commands,
        "process",
        _process,
        "take telemetry all the way: cubes, flares, images, FITS",
        "Runs the Prefect flow on a local Dask cluster, or with --serial the same work in this process. Files that\n"
        "the archive already knows are skipped; partitions whose input did not change are not built again.\n\n"
        "Example:\n  stixflow process delivery/ --archive archive",
    )
    _add_paths(parser)
    _add_archive(parser)
    _add_engine(parser)


def _add_ingest(commands: Any) -> None:
    parser = _command(
        commands,
        "ingest",
        _ingest,
        "read telemetry and ephemeris files into cubes of the archive",
        "Telemetry may be SOC XML (PktTmRaw), back-to-back binary, hexadecimal text or level-binary FITS; ephemeris\n"
        "is the official L2 ancillary FITS. Packets in = used + duplicates + rejected, each of these with its reason.",
    )
    _add_paths(parser)
    _add_archive(parser)
    _add_engine(parser)


def _add_flares(commands: Any) -> None:
    parser = _command(
        commands,
        "flares",
        _flares,
        "list the flares of the archive",
        "Times are UTC at the spacecraft; peak counts are those of 4-10 keV in 4 s.",
    )
    parser.add_argument("--start", help="first time, UTC (default: the first flare)")
    parser.add_argument("--stop", help="time after the last one, UTC")
    parser.add_argument("--detect", action="store_true", help="detect again first, on days whose light curve is new")
    _add_archive(parser)
    parser.set_defaults(serial=True, workers=None, paths=[])


def _add_image(commands: Any) -> None:
    parser = _command(
        commands,
        "image",
        _image,
        "make images from an official level-1 pixel file, without any archive",
        "The source is located on the full disk first (6-10 keV); the maps are centred there. Without --ephemeris the\n"
        "roll and pointing of the spacecraft are unknown: positions stay in the STIX frame and hpc_arcsec is null.\n\n"
        "Example:\n  stixflow image solo_L1_stix-sci-xray-cpd_....fits --background bkg.fits --ephemeris eph.fits \\\n"
        "      --time-range 2022-11-09T09:58:20/2022-11-09T09:59:20 --energy-range 4-16 --method clean",
    )
    parser.add_argument("pixels", metavar="PIXELS.fits", help="official level-1 pixel data (xray-cpd)")
    parser.add_argument("--background", metavar="FITS", help="quiet level-1 pixel file to subtract")
    parser.add_argument("--ephemeris", metavar="FITS", help="L2 ancillary file of the day (pointing, roll, distance)")
    parser.add_argument("--time-range", required=True, metavar="A/B", help="UTC; whole bins that cover it are used")
    parser.add_argument("--energy-range", required=True, metavar="LOW-HIGH", help="keV, as 4-16")
    parser.add_argument("--method", action="append", choices=("bp", "clean"), help="may be repeated (default: clean)")
    parser.add_argument("--size", type=_whole, default=129, help="pixels a side (default: %(default)s)")
    parser.add_argument("--pixel", type=_positive, default=2.0, help="pixel size in arcsec (default: %(default)s)")
    parser.add_argument("--output", default=".", help="folder for the FITS maps (default: here)")


def _add_status(commands: Any) -> None:
    parser = _command(commands, "status", _status, "show what the archive holds: products, spans, sizes, last runs")
    _add_archive(parser)


def _add_verify(commands: Any) -> None:
    parser = _command(
        commands,
        "verify",
        _verify,
        "re-hash every published store and report every defect; exits 1 if there is one",
        "A damaged store is healed by removing its folder: the next `stixflow process` builds it again from the\n"
        "packets that the archive keeps.",
    )
    _add_archive(parser)


def _add_rollback(commands: Any) -> None:
    parser = _command(
        commands,
        "rollback",
        _rollback,
        "make the run before the current one of a partition current again",
        "It stays so until more packets of that partition come.",
    )
    parser.add_argument("product", help="as ql_lightcurve, sci_pixels, sci_spectrogram, ephemeris")
    parser.add_argument("key", help="a day as 2021-06-06, or a request as 2211090305-54678")
    _add_archive(parser)


def _add_container(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--container", choices=("xml", "binary"), default="xml", help="default: %(default)s")


def _add_simulate(commands: Any) -> None:
    parser = _command(
        commands,
        "simulate",
        _simulate,
        "write the telemetry of a simulated day, with its truth",
        "Light curves of the whole day, pixel data and spectrograms around each flare, a quiet background request and\n"
        "the ephemeris, through the forward model of the instrument with Poisson noise, live time and compression.",
    )
    parser.add_argument("--day", default="2022-06-15", help="UTC day (default: %(default)s)")
    parser.add_argument(
        "--seed", type=_natural, default=1, help="the same seed gives the same bytes (default: %(default)s)"
    )
    parser.add_argument("--flares", type=_positive, help="random flares a day (default: the six of the demo)")
    _add_container(parser)


def _add_replay(commands: Any) -> None:
    parser = _command(
        commands,
        "replay",
        _replay,
        "turn official level-1 FITS back into telemetry",
        "Light curves, pixel data and spectrograms; real flares can then travel the whole chain.",
    )
    parser.add_argument("paths", nargs="+", metavar="FITS", help="official level-1 files")
    _add_container(parser)


if __name__ == "__main__":
    sys.exit(main())
