from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from example_archive import DAYS, add, day_of
from example_cubes import make_dataset

from stixflow.archive import Archive, open_archive
from stixflow.cubes.model import PRODUCTS


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return open_archive(tmp_path / "archive", create=True)


def test_an_archive_of_every_product_at_a_moment(archive: Archive) -> None:
    """Each row tells the call that opens it, and what is opened holds the moment or a gap around it."""
    moments = {}
    for number, name in enumerate(PRODUCTS):
        cube = make_dataset(name)
        if "request_id" in cube.attrs:
            cube.attrs["request_id"] += number
        made = add(archive, [cube], DAYS[1])
        moments[name] = made.start + (made.stop - made.start) // 2
    for name, moment in moments.items():
        found = archive.at(moment)
        row = found[found["what"] == name].iloc[0]
        assert row["start"] <= moment < row["stop"]
        opened = eval(row["opened_by"], {"archive": archive})
        assert opened.attrs["product"] == name
        assert row["detail"].startswith(f"{opened.sizes['time']} bins")


def test_moments_of_flares_and_images(archive: Archive) -> None:
    day = add(archive, [day_of(DAYS[1])], DAYS[1])
    flare = {"flare_id": "f", "start": "2022-11-09T01", "peak": "2022-11-09T02", "stop": "2022-11-09T03"}
    archive.catalog.replace_flares(day.id, [flare | {"peak_counts": 12, "goes_class": "C1"}])
    image = {"image_id": "i", "method": "bp", "energy_low": 4, "energy_high": 10, "digest": "d"}
    span = {"start": "2022-11-09T02", "stop": "2022-11-09T02:10"}
    archive.catalog.replace_images({"f": [image | span | {"path": "images/i.fits"}]}, run_id="R")
    found = archive.at("2022-11-09T02:00:00")
    assert found["what"].tolist() == ["ql_lightcurve", "flare", "image"]
    assert found["detail"].tolist()[1:] == ["class C1, peak 12 counts", "bp, 4-10 keV, flare f"]
    assert archive.at("2022-11-09T02:10")["what"].tolist() == ["ql_lightcurve", "flare"]
    assert archive.at("2022-11-09T03:00")["what"].tolist() == ["ql_lightcurve"]


def test_what_covers_a_moment(archive: Archive) -> None:
    add(archive, [day_of(DAYS[1])], DAYS[1])
    add(archive, [make_dataset("sci_pixels")], DAYS[1])
    day = archive.catalog.current("ql_lightcurve", "2022-11-09")
    assert day is not None
    row = {"flare_id": "f", "start": "2022-11-09T00:50", "peak": "2022-11-09T00:50:30", "stop": "2022-11-09T00:51"}
    archive.catalog.replace_flares(day.id, [row | {"peak_counts": 12}])
    found = archive.at("2022-11-09T00:50:20")
    assert found["what"].tolist() == ["ql_lightcurve", "sci_pixels", "flare"]
    assert found["name"].tolist() == ["2022-11-09", "2211090305-54678", "f"]
    assert (found["start"] <= pd.Timestamp("2022-11-09T00:50:20")).all()
    assert archive.at("2022-11-09T00:51")["what"].tolist() == ["ql_lightcurve"]
    assert archive.at("2022-11-10T12:00").empty
