from __future__ import annotations

from pathlib import Path

import numpy as np
from example_delivery import DAYS, PEAK

from stixflow import jobs
from stixflow.archive import open_archive


def test_the_simulated_flare_is_found(processed: Path) -> None:
    archive = open_archive(processed)
    day = archive.catalog.current("ql_lightcurve", DAYS[1])
    assert day is not None
    found = jobs.detect(jobs.DetectJob(day.key, day.id, archive.url(day.path), 0.62))
    assert found.partition_id == day.id
    (flare,) = found.flares
    assert abs(np.datetime64(flare["peak"], "ns") - PEAK) <= np.timedelta64(12, "s")
    assert flare["goes_class"] == "C8"


def test_a_quiet_day_has_no_flare_and_a_day_without_distance_no_class(processed: Path) -> None:
    archive = open_archive(processed)
    quiet, flaring = (archive.catalog.current("ql_lightcurve", day) for day in DAYS)
    assert quiet is not None
    assert flaring is not None
    assert jobs.detect(jobs.DetectJob(quiet.key, quiet.id, archive.url(quiet.path), 0.62)).flares == ()
    (flare,) = jobs.detect(jobs.DetectJob(flaring.key, flaring.id, archive.url(flaring.path), None)).flares
    assert not flare.get("goes_class")
