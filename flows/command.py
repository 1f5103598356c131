"""What ``python -m flows`` and ``stixflow serve`` are told, and what they do with it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows import deployments, serve
from flows.environment import prepare
from flows.passwords import refuse_password, without_password
from stixflow.cli.options import Parser, command, engine_of, science_of
from stixflow.cli.output import emit
from stixflow.cli.serving import add_serve, add_site
from stixflow.errors import StixflowError, UsageError
from stixflow.settings import PREFIX, load_settings

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


def run_serve(options: argparse.Namespace) -> int:
    """Serve the flows that the options name until told to stop."""
    site = site_of(options)
    wanted = deployments.chosen(site, options.only)
    _hand_down_password()

    def say(what: str, text: str) -> None:
        if not options.quiet:
            sys.stdout.write((json.dumps({what: text}) if options.json else f"{what:9s} {text}") + "\n")
            sys.stdout.flush()

    return serve.serve(site, wanted, port=options.port, poll_seconds=options.poll_seconds, say=say)


def _hand_down_password() -> None:
    """Let the processes of flow runs know the catalog with its password, also where a settings file names it."""
    catalog = load_settings().catalog
    if catalog is not None and without_password(catalog) != catalog:
        os.environ[f"{PREFIX}CATALOG"] = catalog


def site_of(options: argparse.Namespace) -> deployments.Site:
    """Join options, environment and settings file to what the flows are told, with whole paths."""
    refuse_password(getattr(options, "catalog", None), "--catalog")
    named = ("archive", "catalog", "inbox", "settle_seconds")
    settings = load_settings(**{name: getattr(options, name, None) for name in named})
    site = deployments.Site(
        archive=_whole(settings.archive),
        catalog=settings.catalog and without_password(settings.catalog),
        inbox=settings.inbox and _whole(settings.inbox),
        settle_seconds=settings.settle_seconds,
        previews=options.previews and _whole(options.previews),
        exports=options.exports and _whole(options.exports),
        engine=_engine(options),
        science=science_of(options).model_dump(mode="json", exclude={"redate"}),
        schedules={**settings.schedules, **dict(_named_schedule(text) for text in options.schedule)},
        name=options.name,
    )
    deployments.check_schedules(site)
    return site


def _engine(options: argparse.Namespace) -> dict[str, Any]:
    told = engine_of(options)
    del told["report"]  # of one run; flows run again and again
    return told | ({"cluster": _whole(told["cluster"])} if told["cluster"].endswith(".toml") else {})


def _whole(place: str) -> str:
    return place if "://" in place else str(Path(place).resolve())


def _named_schedule(text: str) -> tuple[str, str]:
    name, equals, when = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} names no schedule", expected="FLOW=SCHEDULE, as ingest=1m", advice="correct it")
    return name.strip(), when.strip()


def _deploy(options: argparse.Namespace) -> int:
    site = site_of(options)
    wanted = deployments.chosen(site, options.only)
    prepare(site.archive)
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise UsageError(
            "no Prefect server is named, on which the deployments shall be",
            expected="its address in PREFECT_API_URL",
            advice="export PREFECT_API_URL=http://HOST:4200/api; `serve` needs none",
        )
    from flows.pool import deploy

    made = deploy(site, wanted, options.pool, create=options.create_pool)
    emit(options, {"pool": options.pool, "deployments": made}, lambda told: "\n".join(told["deployments"]))
    return 0


def _list(options: argparse.Namespace) -> int:
    emit(options, {"deployments": deployments.rows(site_of(options))}, _format_list)
    return 0


def _format_list(payload: Mapping[str, Any]) -> str:
    return "\n".join(f"{one['deployment']:22s} {one['schedule']:14s} {one['about']}" for one in payload["deployments"])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m flows", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_serve(commands)
    deploying = command(
        commands,
        "deploy",
        _deploy,
        "make the deployments on a work pool",
        "Workers need this package installed, and see archive and inbox under the same names.\n\n"
        "Example:\n  PREFECT_API_URL=http://prefect:4200/api python -m flows deploy --pool stix --create-pool\n"
        "  PREFECT_API_URL=http://prefect:4200/api prefect worker start --pool stix --type process",
    )
    deploying.add_argument("--pool", required=True, help="the work pool whose workers shall run the flows")
    deploying.add_argument("--create-pool", action="store_true", help="make it, of type process, where there is none")
    listing = command(commands, "list", _list, "show what runs when; with --json also the parameters")
    add_site(deploying)
    add_site(listing)
    return parser
