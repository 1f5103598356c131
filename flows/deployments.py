"""The deployments of a mission: which flow runs when, with what, and what happens if the last run still goes on.

This is the one place that says so: `python -m flows serve` runs them on this host, `python -m flows deploy` hands them
to a work pool of Prefect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from stixflow.errors import UsageError

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

NAME = "mission"
"""Name of every deployment unless it is told otherwise, so that the daily run is called ``daily/mission``."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_OFF = ("off", "none", "")


@dataclass(frozen=True, slots=True)
class Deployment:
    """One flow and when it runs."""

    flow: str
    schedule: str
    """An interval as ``5m``, five fields of cron in UTC, or ``off``."""
    collision: Literal["CANCEL_NEW", "ENQUEUE"]
    """What becomes of a run that is due while the last one of the same deployment goes on."""
    uses: tuple[str, ...]
    """Settings of the site that are parameters of the flow."""
    about: str


@dataclass(frozen=True, slots=True)
class Site:
    """Where a mission is processed: everything that the flows of one installation share."""

    archive: str
    catalog: str | None = None
    inbox: str | None = None
    settle_seconds: float = 10.0
    previews: str | None = None
    exports: str | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    science: Mapping[str, Any] = field(default_factory=dict)
    schedules: Mapping[str, str] = field(default_factory=dict)
    name: str = NAME


DEPLOYMENTS = (
    Deployment(
        "ingest", "5m", "CANCEL_NEW", ("inbox", "settle_seconds", "science"),
        "take what is new in the inbox, each file once, and publish what it belongs to",
    ),
    Deployment(
        "daily", "30 4 * * *", "ENQUEUE", ("previews", "exports", "engine", "science"),
        "bring cubes, flares and images up to date; previews and level-1 files if folders for them are set",
    ),
    Deployment("images", "30 16 * * *", "ENQUEUE", ("engine", "science"), "image every flare that lacks some"),
    Deployment(
        "calibration", "0 6 * * 1", "ENQUEUE", ("science",), "calibrate the pixels by new runs; say what has drifted"
    ),
    Deployment(
        "maintenance", "0 2 * * *", "CANCEL_NEW", (),
        "re-hash a share of the stores, collect garbage, forget old flow runs",
    ),
    Deployment(
        "reprocess", "off", "CANCEL_NEW", ("engine", "science"),
        "build the mission again into a release; started by hand, with the name of the release",
    ),
)  # fmt: skip
"""Every deployment, in the order in which they are listed."""


def chosen(site: Site, only: Iterable[str] = ()) -> list[Deployment]:
    """Return the deployments of a site: all of those it can have, or the ones named.

    Raises
    ------
    UsageError
        If there is no deployment of a name, or what it needs is not set.
    """
    wanted = [_known(name).flow for name in only]
    if "ingest" in wanted and site.inbox is None:
        raise UsageError("the flow ingest has no inbox", expected="a folder or s3:// prefix", advice="give --inbox")
    return [one for one in DEPLOYMENTS if (one.flow in wanted or not wanted) and (one.flow != "ingest" or site.inbox)]


def parameters(one: Deployment, site: Site) -> dict[str, Any]:
    """Return the parameters of a deployment as plain JSON values."""
    given = {name: getattr(site, name) for name in ("archive", "catalog", *one.uses)}
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in given.items()}
    return {name: value for name, value in plain.items() if value is not None and value != {}}


def check_schedules(site: Site) -> None:
    """Refuse schedules of flows that there are not, or that cannot be read, before anything is started."""
    for name, text in site.schedules.items():
        _known(name)
        parse_schedule(text)


def _known(name: str) -> Deployment:
    known = {one.flow: one for one in DEPLOYMENTS}
    if name not in known:
        raise UsageError(f"there is no flow {name!r}", expected=", ".join(known), advice="correct the name")
    return known[name]


def schedule_of(one: Deployment, site: Site) -> str:
    """Return when a deployment runs at a site."""
    return site.schedules.get(one.flow, one.schedule).strip()


def parse_schedule(text: str) -> dict[str, Any]:
    """Read an interval as ``90s``, ``5m``, ``2h`` or ``1d``, five fields of cron in UTC, or ``off``.

    Raises
    ------
    UsageError
        If it is none of them.
    """
    if text.lower() in _OFF:
        return {}
    if found := re.fullmatch(r"(\d+)\s*([smhd])", text):
        return {"interval": timedelta(seconds=max(int(found[1]), 1) * _UNITS[found[2]])}
    if len(text.split()) == 5:
        return {"cron": text}
    raise UsageError(
        f"{text!r} is no schedule", expected="an interval as 5m, or cron as `30 4 * * *`, or off", advice="correct it"
    )


def build(one: Deployment, site: Site, **more: Any) -> RunnerDeployment:
    """Return a deployment as Prefect takes it; `more` goes to it as it is.

    The flow is found by its module, so that it does not matter in which folder it runs.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Cron, Interval
    from prefect.types.entrypoint import EntrypointType

    from flows import mission

    timing = parse_schedule(schedule_of(one, site))
    schedule = (
        Cron(timing["cron"], timezone="UTC") if "cron" in timing
        else Interval(timing["interval"]) if timing else None
    )  # fmt: skip
    made: RunnerDeployment = getattr(mission, one.flow).to_deployment(
        name=site.name,
        schedule=schedule,
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy(one.collision), grace_period_seconds=60
        ),
        parameters=parameters(one, site),
        description=f"{one.about[0].upper()}{one.about[1:]}.",
        tags=["stixflow", site.name],
        version=_version(),
        entrypoint_type=EntrypointType.MODULE_PATH,
        **more,
    )
    return made


def _version() -> str:
    from stixflow.provenance import code_version

    return code_version()


def rows(site: Site) -> list[dict[str, Any]]:
    """Return every deployment of a site as plain values."""
    return [
        {
            "deployment": f"{one.flow}/{site.name}",
            "schedule": schedule_of(one, site),
            "collision": one.collision,
            "about": one.about,
            "parameters": parameters(one, site),
        }
        for one in DEPLOYMENTS
    ]
