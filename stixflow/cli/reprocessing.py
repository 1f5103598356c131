"""The command that builds the mission again, and those that show a release to readers or take it back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stixflow.cli.options import (
    add_archive,
    add_clock,
    add_engine,
    add_method,
    add_methods,
    archive_place,
    command,
    engine_of,
    science_of,
)
from stixflow.cli.output import emit, progress


def _reprocess(options: argparse.Namespace) -> int:
    from stixflow import compute
    from stixflow.stages.estimate import format_plan
    from stixflow.stages.reprocess import format_reprocess, plan_reprocess, run_reprocess

    asked, engine = _asked(options), engine_of(options)
    common = {"science": science_of(options), **archive_place(options)}
    if options.dry_run:
        workers = 1 if engine["serial"] else engine["workers"] or 0
        emit(options, plan_reprocess(asked=asked, workers=workers, **common), format_plan)
        return 0
    with compute.open_engine(**engine) as pool:
        report = run_reprocess(asked=asked, pool=pool, switches=options.switch, progress=progress(options), **common)
    if options.report:
        from stixflow.stages.validate import markdown

        Path(options.report).write_text(markdown(report["validation"]), encoding="utf-8")
    emit(options, report, format_reprocess)
    return 0 if report["validation"]["passed"] else 1


def _asked(options: argparse.Namespace) -> Any:
    from stixflow.stages.reprocess import Reprocessing
    from stixflow.stages.validate import Gates

    allowed = {name: getattr(options, name) for name in _GATES if getattr(options, name) is not None}
    return Reprocessing(
        options.release,
        start=options.start,
        stop=options.stop,
        products=tuple(options.products or ()),
        against=options.against,
        gates=Gates(**allowed),
        accept=options.accept or "",
        note=options.note,
        restart=options.restart,
        rebuild_all=options.rebuild_all,
    )


_GATES = {
    "lost_flares": "share of the flares that may be lost (default 0)",
    "shift_arcsec": "how far 95 of 100 images may move (default 5)",
    "flux_change": "by how much the flux of 95 of 100 images may change, as a share (default 0.2)",
    "counts_change": "by how much the counts of a product may change in sum, as a share (default 0.01)",
}


def _switch(options: argparse.Namespace) -> int:
    from stixflow.stages.reprocess import format_switched, switch_release

    emit(options, switch_release(name=options.name, **archive_place(options)), format_switched)
    return 0


def _return(options: argparse.Namespace) -> int:
    from stixflow.stages.reprocess import format_switched, return_release

    emit(options, return_release(name=options.name, **archive_place(options)), format_switched)
    return 0


def _drop(options: argparse.Namespace) -> int:
    from stixflow.stages.reprocess import forget_release

    told = forget_release(name=options.name, force=options.force, **archive_place(options))
    emit(options, told, lambda p: f"release {p['name']} dropped; `stixflow gc` removes what only it pointed to")
    return 0


def add_reprocess(commands: Any) -> None:
    """Add `reprocess`."""
    parser = command(
        commands,
        "reprocess",
        _reprocess,
        "build the mission, or a part of it, again into a release beside what readers see",
        "Every partition of the span is built again by the present code and clock, from the packets and files that\n"
        "the archive keeps, with its flares and images, into a release that readers do not see. Daily runs may go on:\n"
        "what they publish meanwhile is taken in. The release is then validated against what readers see. Give\n"
        "--switch, or later `stixflow release switch NAME`, to show it: all of it in one transaction.\n\n"
        "The same command goes on after a crash or an interrupt and builds nothing twice. It exits 1 where the\n"
        "release is not validated; the report is printed, and kept in the archive as releases/NAME.md and .json.\n\n"
        "Examples:\n  stixflow reprocess --release 2026.2 --dry-run\n"
        "  stixflow reprocess --release 2026.2 --switch\n"
        "  stixflow reprocess --release 2026.3 --start 2022-01-01 --stop 2022-07-01 --products sci_pixels images\n"
        "  stixflow reprocess --release 2026.3 --accept 'the new detector finds fainter flares' --switch",
    )
    parser.add_argument("--release", required=True, metavar="NAME", help="as 2026.2: a new one, or one that is open")
    parser.add_argument("--start", help="first day, UTC (default: the first there is)")
    parser.add_argument("--stop", help="day after the last one, UTC")
    parser.add_argument(
        "--products", nargs="+", metavar="NAME", help="as ql_lightcurve sci_pixels flares images (default: all)"
    )
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done and what it takes; do nothing")
    parser.add_argument("--switch", action="store_true", help="show it to readers when every gate is passed")
    parser.add_argument("--against", default="current", metavar="NAME", help="what it is validated against: a release")
    parser.add_argument("--accept", metavar="REASON", help="why differences beyond the gates are wanted; kept with it")
    parser.add_argument("--note", default="", help="what the release is for")
    parser.add_argument("--report", metavar="FILE", help="write the validation as Markdown here too")
    parser.add_argument(
        "--rebuild-all", action="store_true", help="build also what readers see already as this code would make it"
    )
    parser.add_argument(
        "--restart", action="store_true", help="go on with another code, clock or detector than it was begun with"
    )
    for name, text in _GATES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="X", help=f"gate: {text}")
    add_archive(parser)
    add_engine(parser)
    add_method(parser)
    add_methods(parser)
    add_clock(parser, redates=False)


def add_switching(actions: Any) -> None:
    """Add to `release` what changes what readers see."""
    switch = command(
        actions,
        "switch",
        _switch,
        "show a validated release to readers, all of it in one transaction",
        "Readers see the release before or the new one, never a part of each. Days that were published since the\n"
        "release was built stay; where it lacks packets that readers see already, it is refused: run the same\n"
        "`stixflow reprocess` again, which builds only these.\n\n"
        "What readers saw before becomes a release of its own, NAME-before.",
    )
    back = command(
        actions,
        "rollback",
        _return,
        "take the switch to a release back, in one transaction",
        "Readers see again what they saw before, and what was published since with newer packets. Nothing is removed:\n"
        "the release can be switched to again.",
    )
    drop = command(
        actions,
        "drop",
        _drop,
        "forget a release, as one whose reprocess was given up",
        "What only it pointed to becomes garbage, which `stixflow gc` removes. A final release is kept unless --force\n"
        "is given: analysts may have pinned it.",
    )
    drop.add_argument("--force", action="store_true", help="drop a final release too")
    for action in (switch, back, drop):
        action.add_argument("name", metavar="NAME", help="as 2026.2")
        add_archive(action)
