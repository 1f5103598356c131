"""A small delivery: one flare after midnight, its requests, a quiet background, the ephemeris, in 0.9 s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stixflow.archive import Archive, open_archive
from stixflow.compute import Serial
from stixflow.simulate import FlareModel, Scenario, Source, Truth, demo_scenario, simulate
from stixflow.stages import STAGES, run_stages
from stixflow.telemetry import Packets, read_packets
from stixflow.time import TimeRange, to_utc

DAYS = ("2022-06-15", "2022-06-16")
PEAK = to_utc("2022-06-16T01:00:00")
POSITION = (300.0, -200.0)


def small_scenario(seed: int = 7) -> Scenario:
    """Ten hours around midnight with one C8 flare after it."""
    flare = FlareModel(PEAK, 8e-6, (Source(*POSITION, 14.0),), rise_s=60.0, decay_s=120.0)
    span = TimeRange(to_utc("2022-06-15T22:00:00"), to_utc("2022-06-16T08:00:00"))
    return replace(demo_scenario(seed=seed), span=span, flares=(flare,), name="small")


def deliver(folder: Path) -> Truth:
    """Write the delivery: `telemetry/` with four XML files, `ephemeris/` with two days."""
    return simulate(small_scenario(), folder, container="xml")


def process(root: Path, *paths: Path, stages: Sequence[str] = STAGES) -> dict[str, Any]:
    """Run stages in this process and return the report; its books always balance."""
    report = run_stages(stages, paths, root=str(root), pool=Serial(), command="test")
    assert_balanced(report["balance"])
    return report


def assert_balanced(books: Mapping[str, int]) -> None:
    assert books["packets_in"] == books["used"] + books["duplicates"] + books["rejected"], books


def telemetry(delivery: Path) -> Packets:
    """Every packet of a delivery, in the order of its files."""
    return read_packets(delivery / "telemetry")


def write(path: Path, packets: Packets) -> Path:
    """Write packets back to back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packets.to_bytes())
    return path


def pick(packets: Packets, rows: Any) -> Packets:
    """Choose packets by mask or index."""
    return packets.select(np.asarray(rows))


def published(root: Path) -> dict[str, tuple[str, int, int]]:
    """What readers see: content digest, time bins and counts of each partition."""
    archive = open_archive(root)
    found = {f"{p.product} {p.key}": (p.digest, p.n_time, p.counts_sum) for p in archive.catalog.partitions()}
    archive.close()
    return found


def flare_rows(archive: Archive) -> list[tuple[str, np.datetime64, float]]:
    """What readers see of the flares: id, peak, counts."""
    return [(row["flare_id"], row["peak"], row["peak_counts"]) for row in archive.catalog.flares()]
