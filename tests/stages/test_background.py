"""The background detector decides with the light curve, whenever it arrives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_delivery import DAYS

from stixflow.archive import open_archive
from stixflow.compute import Serial
from stixflow.simulate import packetise
from stixflow.stages import Science, run_stages
from stixflow.telemetry import encode


def search(root: Path, *paths: Path, detector: str) -> Mapping[str, Any]:
    report = run_stages(
        ("ingest", "cubes", "flares"),
        paths,
        root=str(root),
        pool=Serial(),
        command="test",
        science=Science(detector=detector),
    )
    assert not report["failed"]
    return report["counts"]


@pytest.fixture
def monitor(archive_copy: Path, tmp_path: Path) -> Path:
    """Return packets of a background detector that sees in all bands what the light curve sees in the lowest."""
    curve = open_archive(archive_copy).lightcurves(DAYS[0], "2022-06-17").load()
    made = curve.drop_vars(["rcr", "detector_mask", "pixel_mask"])
    made["counts"] = made["counts"].copy(data=np.repeat(made["counts"].to_numpy()[:, :1], made.sizes["energy"], axis=1))
    made.attrs |= {"product": "ql_background", "ssid": 31}
    path = tmp_path / "background.bin"
    path.write_bytes(encode(packetise(made)[0]))
    return path


def test_days_are_searched_again_when_the_background_comes(archive_copy: Path, monitor: Path) -> None:
    assert search(archive_copy, detector="poisson")["days_searched"] == len(DAYS)
    (flare,) = open_archive(archive_copy).flares().to_dict("records")
    assert flare["method"] == "poisson"
    assert search(archive_copy, monitor, detector="poisson")["days_searched"] == len(DAYS)
    assert open_archive(archive_copy).flares().empty
    assert "days_searched" not in search(archive_copy, detector="poisson")


def test_the_operational_detector_does_not_use_it(archive_copy: Path, monitor: Path) -> None:
    before = open_archive(archive_copy).flares()
    assert "days_searched" not in search(archive_copy, monitor, detector="snip")
    np.testing.assert_array_equal(open_archive(archive_copy).flares()["peak"], before["peak"])
