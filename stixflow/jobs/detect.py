"""One day's light curve to its flares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import xarray as xr

from stixflow.cubes.store import open_store
from stixflow.time import TimeRange


@dataclass(frozen=True, slots=True)
class DetectJob:
    """One day whose light curve is to be searched.

    `context` are the light curves of the days before and after it, `monitors` the background detector of all of them.
    """

    day: str
    partition_id: int
    url: str
    distance_au: float | None
    method: str
    context: tuple[str, ...] = ()
    monitors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Detected:
    """The flares of one day, as rows of plain values."""

    partition_id: int
    flares: tuple[Mapping[str, Any], ...]


def detect(job: DetectJob) -> Detected:
    """Find the flares that peak on one day; those that begin or end on the days around it are found whole."""
    from stixflow import flares

    own = TimeRange.of_day(date.fromisoformat(job.day))
    reach = flares.CONTEXT[job.method]
    around = TimeRange(own.start - reach, own.stop + reach)
    table = flares.detect(
        _read((job.url, *job.context), around),
        job.method,
        distance_au=job.distance_au,
        background_detector=_read(job.monitors, around) if job.monitors else None,
        span=own,
    )
    return Detected(job.partition_id, tuple({str(k): v for k, v in row.items()} for row in table.to_dict("records")))


def _read(urls: Sequence[str], span: TimeRange) -> xr.Dataset:
    """Read the bins of days that lie in a span, joined."""
    from stixflow import flares

    days = [open_store(url).load() for url in urls]
    return flares.join_days([day.isel(time=np.flatnonzero(span.covers(day["time_start"].to_numpy()))) for day in days])
