"""A release that is built is shown to readers, taken back, or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stixflow.archive import open_archive, switch
from stixflow.archive.releases import drop_release, switch_back
from stixflow.archive.turns import take_turn
from stixflow.compute import Serial
from stixflow.stages.cubes import NOTHING_INSIDE
from stixflow.stages.run import Run


def switch_release(root: str, name: str, *, catalog: str | None = None) -> dict[str, Any]:
    """Show a validated release to readers in one transaction; see `archive.switch`."""
    present = open_archive(root, catalog=catalog)
    with take_turn(present.catalog, release=name):
        pinned = open_archive(root, name, catalog=catalog)
        inside = nothing_inside(Run(pinned, Serial(), ""))
        told = asdict(switch(present.catalog, name, nothing_inside=inside))
    return told


def return_release(root: str, name: str, *, catalog: str | None = None) -> dict[str, Any]:
    """Take the switch to a release back in one transaction; see `archive.switch_back`."""
    return asdict(switch_back(open_archive(root, catalog=catalog).catalog, name))


def forget_release(root: str, name: str, *, force: bool = False, catalog: str | None = None) -> dict[str, Any]:
    """Drop a release; see `archive.drop_release`."""
    present = open_archive(root, catalog=catalog)
    with take_turn(present.catalog, release=name):
        return {"name": name, **drop_release(present.catalog, name, force=force)}


def format_switched(payload: Mapping[str, Any]) -> str:
    """Write what a switch did as text."""
    return (
        f"readers see {payload['release']}: {payload['moved']} partitions changed, {payload['added']} added, "
        f"{payload['removed']} removed, {payload['kept']} as they were; {payload['flares']} flares, "
        f"{payload['images']} images\nwhat they saw before is the release {payload['before']}"
    )


def nothing_inside(run: Run) -> list[tuple[str, str]]:
    """Return the partitions whose packets turned out to hold no bin of them."""
    there = {(item.product, item.key) for item in run.archive.catalog.partitions()}
    marked = (label.partition(" ")[::2] for label in run.archive.catalog.done(NOTHING_INSIDE))
    return [(product, key) for product, key in marked if (product, key) not in there]
