"""A flare at midnight is one flare of the archive, in whatever order its days arrive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from example_delivery import DAYS, process, small_scenario

from stixflow.archive import open_archive
from stixflow.simulate import FlareModel, Source, simulate
from stixflow.time import to_utc

MIDNIGHT = to_utc("2022-06-16T00:00:00")
SEARCH = ("ingest", "cubes", "flares")


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    flare = FlareModel(
        MIDNIGHT + np.timedelta64(9, "s"), 8e-6, (Source(300.0, -200.0, 14.0),), rise_s=60.0, decay_s=120.0
    )
    folder = tmp_path_factory.mktemp("midnight")
    simulate(replace(small_scenario(), flares=(flare,), name="midnight"), folder, container="xml")
    return folder / "telemetry"


def test_one_flare_with_both_sides(telemetry: Path, tmp_path: Path) -> None:
    process(tmp_path / "archive", telemetry, stages=SEARCH)
    (flare,) = open_archive(tmp_path / "archive").flares().to_dict("records")
    assert flare["day"] == DAYS[1]
    assert flare["start"] < MIDNIGHT < flare["peak"]
    assert not flare["is_boundary"]
    assert not flare["has_gap"]


def test_a_day_is_searched_again_when_its_neighbour_comes(telemetry: Path, tmp_path: Path) -> None:
    files = sorted(telemetry.iterdir())
    root = tmp_path / "archive"
    for file in reversed(files):
        process(root, file, stages=SEARCH)
    late = open_archive(root).flares()
    process(tmp_path / "whole", telemetry, stages=SEARCH)
    whole = open_archive(tmp_path / "whole").flares()
    assert len(late) == len(whole) == 1
    for name in ("flare_id", "day", "start", "peak", "stop", "significance"):
        assert late[name][0] == whole[name][0], name
    again = process(root, telemetry, stages=SEARCH)
    assert again["counts"].get("days_searched", 0) == 0
