from __future__ import annotations

from pathlib import Path

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
