"""Commands that look after an archive: what it holds, whether it is sound, which run of it is shown."""

from __future__ import annotations

import argparse
from typing import Any

from stixflow.cli.options import add_archive, archive_place, command, open_named
from stixflow.cli.output import emit


def _status(options: argparse.Namespace) -> int:
    from stixflow.stages import archive_status, format_status

    emit(options, archive_status(**archive_place(options)), format_status)
    return 0


def _verify(options: argparse.Namespace) -> int:
    defects = [str(defect) for defect in open_named(options).verify()]
    emit(options, {"defects": defects}, lambda p: "\n".join(p["defects"]) or "no defects")
    return 1 if defects else 0


def _rollback(options: argparse.Namespace) -> int:
    from stixflow.stages import rollback

    payload = rollback(product=options.product, key=options.key, **archive_place(options))
    emit(options, payload, lambda p: f"{p['product']} {p['key']} is now run {p['run_id']}")
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
        "A damaged store is healed by removing its folder: the next `stixflow process` builds it again from the\n"
        "packets that the archive keeps.",
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
    parser.add_argument("product", help="as ql_lightcurve, sci_pixels, sci_spectrogram, ephemeris")
    parser.add_argument("key", help="a day as 2021-06-06, or a request as 2211090305-54678")
    add_archive(parser)
