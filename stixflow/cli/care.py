"""Commands that look after an archive: what it holds, whether it is sound, which run of it is shown."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from stixflow.cli.options import add_archive, add_span, archive_place, command, open_named
from stixflow.cli.output import emit, progress
from stixflow.cli.reprocessing import add_switching


def _status(options: argparse.Namespace) -> int:
    from stixflow.stages import archive_status, format_status

    emit(options, archive_status(**archive_place(options)), format_status)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from stixflow.stages.care import check, format_check

    found = check(remove_damaged=options.remove_damaged, progress=progress(options), **archive_place(options))
    emit(options, found, format_check)
    return 1 if found["defects"] else 0


def _rollback(options: argparse.Namespace) -> int:
    from stixflow.stages import rollback

    payload = rollback(product=options.product, key=options.key, **archive_place(options))
    emit(options, payload, lambda p: f"{p['product']} {p['key']} is now run {p['run_id']}")
    return 0


def _release_create(options: argparse.Namespace) -> int:
    from stixflow.stages.care import make_release

    made = make_release(name=options.name, note=options.note, **archive_place(options))
    emit(options, made, lambda p: f"release {p['name']}: {p['partitions']} partitions, {p['flares']} flares")
    return 0


def _release_list(options: argparse.Namespace) -> int:
    from stixflow.stages.care import format_releases, releases

    emit(options, releases(**archive_place(options)), format_releases)
    return 0


def _release_show(options: argparse.Namespace) -> int:
    from stixflow.stages.care import format_release, show_release

    emit(options, show_release(name=options.name, **archive_place(options)), format_release)
    return 0


def _release_compare(options: argparse.Namespace) -> int:
    from stixflow.stages.care import compare, format_comparison

    emit(options, compare(before=options.before, after=options.after, **archive_place(options)), format_comparison)
    return 0


def _gc(options: argparse.Namespace) -> int:
    from stixflow.stages.care import collect_garbage, format_garbage

    told = collect_garbage(grace_days=options.grace_days, dry_run=options.dry_run, **archive_place(options))
    emit(options, told, format_garbage)
    return 0


def _catalog(options: argparse.Namespace) -> int:
    from stixflow.archive.formats import write_table
    from stixflow.archive.listing import list_table

    frame = list_table(open_named(options), options.table, options.start, options.stop)
    kind = "json" if options.json else options.format
    output = options.output and Path(options.output)
    sys.stdout.write(write_table(frame, kind, output) + "\n")
    return 0


def add_status(commands: Any) -> None:
    parser = command(commands, "status", _status, "show what the archive holds: products, spans, sizes, last runs")
    add_archive(parser)


def add_verify(commands: Any) -> None:
    parser = command(
        commands,
        "verify",
        _verify,
        "re-hash every published store and report every defect; exits 1 if there is one",
        "A damaged store is healed by --remove-damaged and the next `stixflow process`, which builds it again from\n"
        "the packets that the archive keeps.",
    )
    parser.add_argument(
        "--remove-damaged", action="store_true", help="remove damaged stores whose packets are all kept"
    )
    add_archive(parser)


def add_rollback(commands: Any) -> None:
    parser = command(
        commands,
        "rollback",
        _rollback,
        "make the run before the current one of a partition current again",
        "It stays so until more packets of that partition come.",
    )
    parser.add_argument("product", metavar="PRODUCT", help="as ql_lightcurve, sci_pixels, sci_spectrogram, ephemeris")
    parser.add_argument("key", metavar="KEY", help="a day as 2021-06-06, or a request as 2211090305-54678")
    add_archive(parser)


def add_release(commands: Any) -> None:
    """Add `release` with what can be done to releases."""
    parser = commands.add_parser(
        "release",
        help="give names to what is published, compare them, and say which of them readers see",
        description="Give names to what is published, so that analysts can pin it:\n"
        "stixflow.open_archive(root, release=NAME), compare them partition by partition, and switch readers to one\n"
        "that `stixflow reprocess` has built. A release is open while it is built, validated when every gate is\n"
        "passed, and final from then on: final ones never change.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = command(actions, "create", _release_create, "name what is published now")
    create.add_argument("name", metavar="NAME", help="as 2026.1; a name is given once")
    create.add_argument("--note", default="", help="what it is for")
    listed = command(actions, "list", _release_list, "list the releases")
    show = command(actions, "show", _release_show, "show what a release holds")
    show.add_argument("name", metavar="NAME", help="as 2026.1")
    compare = command(actions, "compare", _release_compare, "compare two releases partition by partition")
    compare.add_argument("before", metavar="BEFORE", help="a release, or `current`")
    compare.add_argument("after", metavar="AFTER", help="a release, or `current`")
    for action in (create, listed, show, compare):
        add_archive(action)
    add_switching(actions)


def add_gc(commands: Any) -> None:
    """Add `gc`."""
    parser = command(
        commands,
        "gc",
        _gc,
        "remove what nothing points to, after a grace time",
        "What is found for the first time is marked; what was marked longer than the grace time ago is removed.\n"
        "Published runs, the runs they replaced, releases, packets and quarantine are kept. Nothing is removed while\n"
        "a run goes on.",
    )
    parser.add_argument(
        "--grace-days", type=float, default=7.0, help="how long a marked store is kept (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell")
    add_archive(parser)


def add_catalog(commands: Any) -> None:
    """Add `catalog`."""
    parser = command(
        commands,
        "catalog",
        _catalog,
        "list or export a table of the catalog",
        "files: the input files with their books; packets: how many are kept, by day or request; products: every\n"
        "partition, the catalog of the whole mission.\n\n"
        "Example:\n  stixflow catalog flares --start 2022-01-01 --stop 2023-01-01 --format fits --output flares.fits",
    )
    tables = ("files", "packets", "products", "flares", "images", "requests", "quarantine", "runs")
    parser.add_argument("table", choices=tables)
    add_span(parser, since="all there is")
    formats = ("table", "csv", "json", "fits", "parquet")
    parser.add_argument("--format", choices=formats, default="table", help="default: %(default)s")
    parser.add_argument("--output", metavar="FILE", help="where to write it; needed for fits and parquet")
    parser.add_argument("--release", help="a release in place of what is published now")
    add_archive(parser)
