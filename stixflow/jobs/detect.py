"""One day's light curve to its flares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stixflow.cubes.store import open_store


@dataclass(frozen=True, slots=True)
class DetectJob:
    """One day whose light curve is to be searched."""

    day: str
    partition_id: int
    url: str
    distance_au: float | None
    method: str = "snip"


@dataclass(frozen=True, slots=True)
class Detected:
    """The flares of one day, as rows of plain values."""

    partition_id: int
    flares: tuple[Mapping[str, Any], ...]


def detect(job: DetectJob) -> Detected:
    """Find the flares of one day's light curve."""
    from stixflow import flares

    table = flares.detect(open_store(job.url).load(), job.method, distance_au=job.distance_au)
    return Detected(job.partition_id, tuple({str(k): v for k, v in row.items()} for row in table.to_dict("records")))
