from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from example_archive import DAYS, add, day_of
from example_cubes import make_dataset
from hypothesis import given
from hypothesis import strategies as st

from stixflow.archive import Archive, open_archive
from stixflow.archive.filters import select_flares, select_requests
from stixflow.errors import UsageError
from stixflow.flares import goes_class

FLARES = pd.DataFrame(
    {
        "flare_id": ["a", "b", "c", "d"],
        "peak_counts": [100.0, 2000.0, 30.0, 5e4],
        "goes_flux": [4e-7, 1.0e-6, None, 2.3e-5],
        "duration_s": [60.0, 600.0, 10.0, 3600.0],
        "distance_au": [0.3, 0.5, 0.95, None],
        "rcr_max": [0, 1, 0, 2],
        "is_on_disk": [True, False, None, None],
        "upper_energy_keV": [10.0, 25.0, 10.0, 84.0],
    }
)
REQUESTS = pd.DataFrame(
    {
        "request_id": [1, 2, 3],
        "energy_low": [4.0, 4.0, None],
        "energy_high": [10.0, 84.0, None],
        "duration_s": [60.0, 600.0, None],
        "rcr_max": [0, 1, None],
        "complete": [True, False, True],
    }
)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "abcd"),
        ({"goes_class": "C1"}, "bd"),
        ({"goes_class": ("B4", "C1")}, "a"),
        ({"goes_class": (None, "M")}, "ab"),
        ({"peak_counts": (100, 5e4)}, "ab"),
        ({"peak_counts": (None, 101)}, "ac"),
        ({"duration_s": (600, None)}, "bd"),
        ({"distance_au": (0.3, 0.95)}, "ab"),
        ({"attenuator": True}, "bd"),
        ({"attenuator": False}, "ac"),
        ({"on_disk": True}, "a"),
        ({"on_disk": False}, "b"),
        ({"upper_energy_keV": (25, None)}, "bd"),
        ({"goes_class": "C1", "attenuator": True, "distance_au": (None, 1)}, "b"),
    ],
)
def test_flares(asked: dict[str, Any], expected: str) -> None:
    assert "".join(select_flares(FLARES, **asked)["flare_id"]) == expected
    assert len(select_flares(FLARES[["flare_id"]], **asked)) == (0 if asked else 4)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [1, 2, 3]),
        ({"energy_range": (5, 9)}, [1, 2]),
        ({"energy_range": (4, 25)}, [2]),
        ({"duration_s": (None, 600)}, [1]),
        ({"attenuator": True}, [2]),
        ({"complete": True}, [1, 3]),
    ],
)
def test_requests(asked: dict[str, Any], expected: list[int]) -> None:
    assert select_requests(REQUESTS, **asked)["request_id"].tolist() == expected


def test_what_is_no_filter() -> None:
    with pytest.raises(UsageError, match=r"no filter goes_clas\. Expected: goes_class, peak_counts"):
        select_flares(FLARES, goes_clas="C1")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["", "Z3", "Cx", "5", "C4,2"])
def test_what_is_no_class(name: str) -> None:
    with pytest.raises(UsageError, match="no GOES class"):
        select_flares(FLARES, goes_class=name)


@given(st.floats(1e-7, 9.9e-4))
def test_a_class_holds_its_own_fluxes(flux: float) -> None:
    """What `goes_class` writes is what a filter reads, to the digits that are written."""
    name = goes_class(flux, decimals=1)
    flares = pd.DataFrame({"flare_id": ["below", "of it"], "goes_flux": [0.9 * flux, flux]})
    assert select_flares(flares, goes_class=name)["flare_id"].tolist() == ["of it"]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return open_archive(tmp_path / "archive", create=True)


def test_flares_of_an_archive(archive: Archive) -> None:
    day = add(archive, [day_of(DAYS[1])], DAYS[1])
    flare = {"flare_id": "f", "start": "2022-11-09T01", "peak": "2022-11-09T02", "stop": "2022-11-09T03"}
    archive.catalog.replace_flares(day.id, [flare | {"peak_counts": 12}])
    image = {
        "image_id": "i",
        "method": "bp",
        "energy_low": 4,
        "energy_high": 10,
        "digest": "d",
        "path": "images/i.fits",
    }
    archive.catalog.replace_images({"f": [image | {"start": "2022-11-09T02", "stop": "2022-11-09T03"}]}, run_id="R")
    assert archive.flares(has_images=True, peak_counts=(12, None))["flare_id"].tolist() == ["f"]
    assert archive.flares(has_images=False).empty
    assert archive.flares(goes_class="C1").empty  # its flux is not known


def test_requests_of_an_archive_tell_energies_and_attenuator(archive: Archive) -> None:
    attrs = {"channel_start": 1, "channel_stop": 12, "rcr_max": 1, "duration_s": 40.0}
    add(archive, [make_dataset("sci_pixels")], DAYS[1], attrs=attrs)
    (row,) = archive.requests().to_dict("records")
    assert (row["energy_low"], row["energy_high"], row["duration_s"]) == (4.0, 15.0, 40.0)
    assert len(archive.requests(energy_range=(4, 10), attenuator=True)) == 1
    assert archive.requests(energy_range=(4, 25)).empty
