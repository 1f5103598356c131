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
    found = jobs.detect(jobs.DetectJob(day.key, day.id, archive.url(day.path), 0.62, "poisson"))
    assert found.partition_id == day.id
    (flare,) = found.flares
    assert abs(np.datetime64(flare["peak"], "ns") - PEAK) <= np.timedelta64(12, "s")
    assert flare["goes_class"] == "C8"


def test_a_quiet_day_has_no_flare_and_a_day_without_distance_no_class(processed: Path) -> None:
    archive = open_archive(processed)
    quiet, flaring = (archive.catalog.current("ql_lightcurve", day) for day in DAYS)
    assert quiet is not None
    assert flaring is not None
    assert jobs.detect(jobs.DetectJob(quiet.key, quiet.id, archive.url(quiet.path), 0.62, "poisson")).flares == ()
    (flare,) = jobs.detect(jobs.DetectJob(flaring.key, flaring.id, archive.url(flaring.path), None, "poisson")).flares
    assert not flare.get("goes_class")


def test_a_day_beside_others_has_only_flares_that_peak_on_it(processed: Path) -> None:
    archive = open_archive(processed)
    days = [archive.catalog.current("ql_lightcurve", day) for day in DAYS]
    urls = {day.key: archive.url(day.path) for day in days if day is not None}
    found = {
        key: jobs.detect(
            jobs.DetectJob(
                key, 1, url, 0.62, "poisson", context=tuple(other for other in urls.values() if other != url)
            )
        ).flares
        for key, url in urls.items()
    }
    assert [len(flares) for flares in found.values()] == [0, 1]
    (flare,) = found[DAYS[1]]
    assert flare["flare_id"] == archive.flares()["flare_id"].iloc[0]


def test_the_operational_detector_may_be_chosen(processed: Path) -> None:
    archive = open_archive(processed)
    day = archive.catalog.current("ql_lightcurve", DAYS[1])
    assert day is not None
    (flare,) = jobs.detect(jobs.DetectJob(day.key, day.id, archive.url(day.path), 0.62, "snip")).flares
    assert flare["method"] == "snip"
    assert flare["goes_class"] == "C8"
