"""The command that runs a mission unattended, and what it shares with `python -m flows`."""

from __future__ import annotations

import argparse
from typing import Any

from stixflow.cli.options import add_archive, command, positive, whole


def _serve(options: argparse.Namespace) -> int:
    from flows.command import run_serve

    return run_serve(options)


def add_serve(commands: Any) -> None:
    """Add `serve`."""
    parser = command(
        commands,
        "serve",
        _serve,
        "run a mission unattended on this host: take deliveries in, keep everything up to date",
        "Starts a Prefect server on this host (unless PREFECT_API_URL names one) and every flow on its schedule,\n"
        "until it is told to stop; needs no network. `python -m flows list` shows what runs when, `python -m flows\n"
        "deploy` hands the same to a work pool.\n\n"
        "Example:\n  stixflow serve --archive /srv/stixflow/archive --inbox /srv/stixflow/inbox",
    )
    add_site(parser)
    parser.add_argument(
        "--port", type=whole, default=4200, help="of the Prefect server; a free one if taken (default: %(default)s)"
    )
    parser.add_argument(
        "--poll-seconds", type=positive, default=5.0, help="how often due runs are looked for (default: %(default)s)"
    )


def add_site(parser: argparse.ArgumentParser) -> None:
    """Add where a mission is processed, when, and by what."""
    add_archive(parser)
    parser.add_argument("--inbox", help="folder or s3:// prefix to take deliveries from; default the setting inbox")
    parser.add_argument(
        "--settle-seconds", type=positive, help="a file of the inbox is whole when unchanged for so long; default 10"
    )
    parser.add_argument("--only", action="append", default=[], metavar="FLOW", help="this flow only; may be repeated")
    parser.add_argument(
        "--schedule",
        action="append",
        default=[],
        metavar="FLOW=WHEN",
        help="in place of its own: an interval as ingest=1m, cron in UTC as 'daily=30 4 * * *', or images=off",
    )
    parser.add_argument("--name", default="mission", help="of the deployments, as daily/NAME (default: %(default)s)")
    parser.add_argument("--previews", metavar="FOLDER", help="let the daily run write previews of new flares there")
    parser.add_argument("--exports", metavar="FOLDER", help="let the daily run write level-1 files there")
    parser.add_argument("--serial", action="store_true", help="compute in the process of each flow run, no cluster")
    parser.add_argument("--workers", type=whole, help="worker processes of a run; default as the cluster profile says")
    parser.add_argument("--cluster", metavar="PROFILE", help="where workers run; see `stixflow cluster --help`")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler to use, as tcp://host:8786")
    parser.add_argument("--memory-limit", metavar="SIZE", help="memory of one worker, as 2GB")
