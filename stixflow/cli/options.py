"""What commands share of their options: parsers, the archive, the engine, numbers and spans."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from stixflow.stages import Science

Command = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others, so that they are told in the same way."""

    def error(self, message: str) -> NoReturn:
        from stixflow.errors import UsageError

        usage = " ".join(self.format_usage().split()).removeprefix("usage: ").removesuffix(" ...")
        raise UsageError(message, expected=usage, advice=f"see `{self.prog} --help`")


def command(commands: Any, name: str, run: Command, summary: str, more: str = "") -> argparse.ArgumentParser:
    """Add a subcommand and return its parser."""
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


def add_archive(parser: argparse.ArgumentParser) -> None:
    """Add where the archive and its catalog are."""
    parser.add_argument(
        "--archive", help="root of the archive; default STIXFLOW_ARCHIVE, stixflow.toml, or ./stixflow-archive"
    )
    parser.add_argument(
        "--catalog",
        metavar="URL",
        help="SQLAlchemy URL of its catalog; default STIXFLOW_CATALOG, or SQLite in the root",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add what computes."""
    parser.add_argument("--serial", action="store_true", help="no Prefect and no cluster: everything in this process")
    parser.add_argument("--workers", type=whole, help="worker processes; default as the cluster profile says")
    parser.add_argument(
        "--cluster",
        metavar="PROFILE",
        help="where workers run: local, address, slurm, kubernetes, or the path of a profile (.toml); default the "
        "setting cluster, or local: one process a core; see `stixflow cluster --help`",
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler to use, as tcp://host:8786")
    parser.add_argument("--memory-limit", metavar="SIZE", help="memory of one worker, as 2GB")
    parser.add_argument("--dask-report", metavar="HTML", help="write where the time went in Dask; needs bokeh")


def engine_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what computes, as the options or the settings say: plain values, the arguments of `open_engine`."""
    from stixflow.settings import load_settings

    settings = load_settings(
        serial=getattr(options, "serial", None) or None,
        **{name: getattr(options, name, None) for name in ("workers", "cluster", "scheduler", "memory_limit")},
    )
    return {
        "serial": settings.serial,
        "workers": settings.workers or None,
        "cluster": settings.cluster,
        "scheduler": settings.scheduler,
        "memory_limit": settings.memory_limit,
        "report": getattr(options, "dask_report", None),
    }


def add_clock(parser: argparse.ArgumentParser, *, redates: bool = True) -> None:
    """Add what dates the cubes."""
    parser.add_argument(
        "--clock-kernel",
        action="extend",
        nargs="+",
        metavar="KERNEL",
        help="SPICE clock kernel (.tsc) and leap seconds (.tls), or their folder; default the setting clock_kernels, "
        "or the table that comes along",
    )
    if redates:
        parser.add_argument("--redate", action="store_true", help="make cubes anew that another clock dated")


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """Add how stores are laid out and jobs are batched."""
    parser.add_argument(
        "--tuning",
        metavar="PROFILE",
        help="layouts of stores and sizes of batches that `stixflow bench` has measured (.toml); default the setting "
        "tuning, or none",
    )


def add_method(parser: argparse.ArgumentParser) -> None:
    """Add how flares are found."""
    parser.add_argument(
        "--method",
        choices=("snip", "poisson"),
        help="snip: as the mission's own list (default); poisson: likelihood on all bands, finds fainter flares",
    )


def method_of(options: argparse.Namespace) -> str:
    """Return the detector that the option, the setting `detector` or the default names."""
    from stixflow.settings import load_settings

    return load_settings(detector=getattr(options, "method", None)).detector


def add_methods(parser: argparse.ArgumentParser) -> None:
    """Add how flares are imaged."""
    parser.add_argument(
        "--methods",
        metavar="METHOD,...",
        help="how flares are imaged: of bp, clean, em, mem_ge, forward_fit; default the setting methods, or "
        "bp,clean,em,forward_fit; maps made with others are made anew",
    )


def science_of(options: argparse.Namespace) -> Science:
    """Return what changes what is found, as the options or the settings say, with whole paths."""
    from pathlib import Path

    from stixflow.settings import load_settings
    from stixflow.stages import Science

    settings = load_settings(
        detector=getattr(options, "method", None),
        methods=getattr(options, "methods", None),
        clock_kernels=getattr(options, "clock_kernel", None),
        tuning=getattr(options, "tuning", None),
    )
    return Science(
        detector=settings.detector,
        methods=settings.methods,
        clock_kernels=tuple(str(Path(path).resolve()) for path in settings.clock_kernels),
        redate=getattr(options, "redate", False),
        tuning=None if settings.tuning is None else str(Path(settings.tuning).resolve()),
    )


def add_paths(parser: argparse.ArgumentParser) -> None:
    """Add the input files."""
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="telemetry, level-1 FITS or ephemeris files, or folders of them"
    )


def add_pixel_source(parser: argparse.ArgumentParser, *, time_range: str) -> None:
    """Add a pixel file with what goes with it, or in its place a flare of an archive."""
    parser.add_argument("pixels", metavar="PIXELS.fits", nargs="?", help="official level-1 pixel data (xray-cpd)")
    parser.add_argument("--flare", metavar="ID", help="flare of an archive (see `stixflow flares`), in place of a file")
    add_archive(parser)
    parser.add_argument(
        "--background",
        metavar="FITS",
        action="append",
        help="quiet level-1 pixel file to subtract; of several the one with the best score is taken",
    )
    parser.add_argument("--ephemeris", metavar="FITS", help="L2 ancillary file of the day (pointing, roll, distance)")
    parser.add_argument("--time-range", metavar="A/B", help=time_range)


def check_pixel_source(options: argparse.Namespace, *, file_only: Sequence[str], needed: Sequence[str]) -> None:
    """Check that there is one place that the data come from, and what goes with it.

    Parameters
    ----------
    file_only
        Options that a flare of an archive has no use for.
    needed
        Options without which a pixel file says too little.
    """
    from stixflow.errors import UsageError

    problem = ""
    if bool(options.pixels) == bool(options.flare):
        problem = "give either a pixel file or --flare"
    elif options.flare and any(getattr(options, name) for name in file_only):
        problem = f"{_flags(file_only)} go with a pixel file: a flare has its own"
    elif options.pixels and not all(getattr(options, name) for name in needed):
        problem = f"a pixel file needs {_flags(needed)}"
    if problem:
        raise UsageError(
            problem,
            expected="PIXELS.fits with its options, or --flare ID",
            advice=f"see `stixflow {options.command} --help`",
        )


def _flags(names: Sequence[str]) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)


def add_container(parser: argparse.ArgumentParser) -> None:
    """Add where and as what telemetry is written."""
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--container", choices=("xml", "binary"), default="xml", help="default: %(default)s")


def whole(text: str) -> int:
    """Read a number of things: 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def natural(text: str) -> int:
    """Read a number that is not negative."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def positive(text: str) -> float:
    """Read a number above zero."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def energy_range(text: str) -> tuple[float, float]:
    """Read ``LOW-HIGH`` in keV."""
    from stixflow.errors import UsageError

    low, dash, high = text.partition("-")
    try:
        energies = float(low), float(high)
    except ValueError:
        energies = (0.0, 0.0)
    if not dash or not energies[0] < energies[1]:
        raise UsageError(f"{text!r} is no energy range", expected="LOW-HIGH in keV, as 4-10", advice="correct it")
    return energies


def archive_place(options: argparse.Namespace) -> dict[str, Any]:
    """Return `root` and `catalog` of the archive that the options, the environment or the settings file name."""
    from stixflow.settings import load_settings

    settings = load_settings(archive=options.archive, catalog=options.catalog)
    return {"root": settings.archive, "catalog": settings.catalog}


def open_named(options: argparse.Namespace) -> Any:
    """Open the archive that the options name, at the release that they name."""
    import stixflow

    return stixflow.open_archive(**archive_place(options), release=getattr(options, "release", None))


def month(text: str) -> tuple[str, str]:
    """Read ``YYYY-MM`` as its first day and that of the next month."""
    import re

    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        raise argparse.ArgumentTypeError(f"{text} is no month, as 2024-09")
    year, number = (int(part) for part in text.split("-"))
    return f"{text}-01", f"{year + number // 12}-{number % 12 + 1:02}-01"


def add_span(parser: argparse.ArgumentParser, *, since: str) -> None:
    """Add a span of time; `since` says from when on where none is given."""
    parser.add_argument("--start", help=f"first time, UTC (default: {since})")
    parser.add_argument("--stop", help="time after the last one, UTC")


def span(options: argparse.Namespace) -> tuple[str, str]:
    """Return the span of time that the options name, or one that holds everything."""
    if named := getattr(options, "month", None):
        return named  # type: ignore[no-any-return]
    return options.start or "2020-01-01", options.stop or "2100-01-01"
