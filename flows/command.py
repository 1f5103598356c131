"""What ``python -m flows`` and ``stixflow serve`` are told, and what they do with it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows import deployments, serve
from flows.environment import prepare
from stixflow.errors import StixflowError, UsageError
from stixflow.settings import Settings, load_settings

_ABOUT = """\
Runs a mission unattended: deliveries are taken in, cubes, flares and images kept up to date, the archive looked after.

  python -m flows serve --archive /srv/stixflow/archive --inbox /srv/stixflow/inbox
      everything on this host, offline: a Prefect server (unless PREFECT_API_URL names one), and every flow on schedule
  python -m flows deploy --pool stix --archive ... --inbox ...
      the same deployments on a work pool, for `prefect worker start --pool stix` on any host
  python -m flows list
      what runs when, with which parameters
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    children: dict[str, Callable[..., None]] = {"_runner": serve.be_runner, "_server": serve.be_server}
    if given[:1] and given[0] in children:
        children[given[0]](*given[1:])
        return 0
    try:
        options = _parser().parse_args(given)
        return int(options.run(options))
    except StixflowError as error:
        sys.stderr.write(f"flows: {error}\n")
        return error.exit_code


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Add the options of `serve`."""
    _add_site(parser)
    parser.add_argument(
        "--port", type=int, default=4200, help="of the Prefect server (default: %(default)s, or a free one)"
    )
    parser.add_argument(
        "--poll-seconds", type=float, default=5.0, help="how often due runs are looked for (default: %(default)s)"
    )
    parser.set_defaults(run=run_serve)


def run_serve(options: argparse.Namespace) -> int:
    """Serve the flows that the options name until told to stop."""
    site = site_of(options)
    wanted = deployments.chosen(site, options.only)
    for one in wanted:
        deployments.parse_schedule(deployments.schedule_of(one, site))  # before anything is started

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    return serve.serve(site, wanted, port=options.port, poll_seconds=options.poll_seconds, say=say)


def site_of(options: argparse.Namespace) -> deployments.Site:
    """Join options, environment and settings file to what the flows are told, with whole paths."""
    settings = load_settings(
        archive=options.archive, catalog=options.catalog, inbox=options.inbox, workers=options.workers,
        cluster=options.cluster, scheduler=options.scheduler, settle_seconds=options.settle_seconds,
    )  # fmt: skip
    named = dict(_named_schedule(text) for text in options.schedule)
    return deployments.Site(
        archive=_whole(settings.archive),
        catalog=settings.catalog,
        inbox=settings.inbox and _whole(settings.inbox),
        settle_seconds=settings.settle_seconds,
        previews=options.previews and _whole(options.previews),
        exports=options.exports and _whole(options.exports),
        engine=_engine(settings, serial=options.serial),
        science=_science(settings),
        schedules={**settings.schedules, **named},
        name=options.name,
    )


def _engine(settings: Settings, *, serial: bool) -> dict[str, Any]:
    place = settings.cluster if not settings.cluster.endswith(".toml") else _whole(settings.cluster)
    return {
        "serial": serial or settings.serial,
        "workers": settings.workers or None,
        "cluster": place,
        "scheduler": settings.scheduler,
        "memory_limit": settings.memory_limit,
    }


def _science(settings: Settings) -> dict[str, Any]:
    return {"detector": settings.detector, "clock_kernels": [_whole(path) for path in settings.clock_kernels]}


def _whole(place: str) -> str:
    return place if "://" in place else str(Path(place).resolve())


def _named_schedule(text: str) -> tuple[str, str]:
    name, equals, when = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} names no schedule", expected="FLOW=SCHEDULE, as ingest=1m", advice="correct it")
    deployments.parse_schedule(when)
    return name.strip(), when.strip()


def _deploy(options: argparse.Namespace) -> int:
    site = site_of(options)
    wanted = deployments.chosen(site, options.only)
    prepare(site.archive)
    from flows.pool import deploy

    made = deploy(site, wanted, options.pool, create=options.create_pool)
    _emit(options, {"pool": options.pool, "deployments": made}, "\n".join(made))
    return 0


def _list(options: argparse.Namespace) -> int:
    found = deployments.rows(site_of(options))
    lines = [f"{one['deployment']:22s} {one['schedule']:14s} {one['collision']:10s} {one['about']}" for one in found]
    _emit(options, {"deployments": found}, "\n".join(lines))
    return 0


def _emit(options: argparse.Namespace, payload: dict[str, Any], text: str) -> None:
    sys.stdout.write((json.dumps(payload, indent=2) if options.json else text) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_serve(commands.add_parser("serve", help="run everything on this host until told to stop"))
    deploying = commands.add_parser("deploy", help="make the deployments on a work pool")
    deploying.add_argument("--pool", required=True, help="the work pool whose workers shall run the flows")
    deploying.add_argument("--create-pool", action="store_true", help="make it, of type process, where there is none")
    deploying.set_defaults(run=_deploy)
    listing = commands.add_parser("list", help="show the deployments and their parameters")
    listing.set_defaults(run=_list)
    for one in (deploying, listing):
        _add_site(one)
        one.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser


def _add_site(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--archive", help="root of the archive; default STIXFLOW_ARCHIVE, stixflow.toml, or ./stixflow-archive"
    )
    parser.add_argument("--catalog", metavar="URL", help="SQLAlchemy URL of its catalog; default SQLite in the root")
    parser.add_argument("--inbox", help="folder or s3:// prefix to take deliveries from; default the setting inbox")
    parser.add_argument("--settle-seconds", type=float, help="a file is whole when it did not change for so long")
    parser.add_argument(
        "--only", action="append", default=[], metavar="FLOW", help="this flow only; may be given again"
    )
    parser.add_argument(
        "--schedule", action="append", default=[], metavar="FLOW=WHEN",
        help="in place of its own: an interval as ingest=1m, cron in UTC as 'daily=30 4 * * *', or images=off",
    )  # fmt: skip
    parser.add_argument(
        "--name", default=deployments.NAME, help="of the deployments, as daily/NAME (default: %(default)s)"
    )
    parser.add_argument("--previews", metavar="FOLDER", help="let the daily run write previews of new flares there")
    parser.add_argument("--exports", metavar="FOLDER", help="let the daily run write level-1 files there")
    parser.add_argument("--workers", type=int, help="worker processes of a run; default as the cluster profile says")
    parser.add_argument("--cluster", metavar="PROFILE", help="where workers run; see `stixflow cluster --help`")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler to use, as tcp://host:8786")
    parser.add_argument(
        "--serial", action="store_true", help="compute in the process of each flow run, without a cluster"
    )
