from __future__ import annotations

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.time import Time
from example_archive import DAYS, add, day_of
from example_cubes import make_dataset
from hypothesis import given
from hypothesis import strategies as st

from stixflow.archive import Archive, open_archive, to_table
from stixflow.archive.filters import select_flares, select_requests
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import NotFound, StoreError, UsageError
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
    assert archive.flares(has_images=True)["flare_id"].tolist() == ["f"]
    assert archive.flares(has_images=False).empty
    assert archive.flares(goes_class="C1").empty  # its flux is not known


def test_requests_of_an_archive_tell_energies_and_attenuator(archive: Archive) -> None:
    attrs = {"channel_start": 1, "channel_stop": 12, "rcr_max": 1, "duration_s": 40.0}
    add(archive, [make_dataset("sci_pixels")], DAYS[1], attrs=attrs)
    (row,) = archive.requests().to_dict("records")
    assert (row["energy_low"], row["energy_high"], row["duration_s"]) == (4.0, 15.0, 40.0)
    assert len(archive.requests(energy_range=(4, 10), attenuator=True)) == 1
    assert archive.requests(energy_range=(4, 25)).empty


def test_tables_of_astropy() -> None:
    frame = FLARES.assign(
        peak=np.array(["2022-01-01T00:00:00.123456789", "NaT", "2022-01-03", "2022-01-04"], "datetime64[ns]"),
        x_hpc=[1.0, None, 3.0, 4.0],
        sources=[[{"x": 1}], None, [], []],
        counts_0=[1, 2, 3, 4],
    )
    table = to_table(frame)
    assert isinstance(table["peak"], Time)
    assert table["peak"].mask.tolist() == [False, True, False, False]
    assert str(table["peak"][0].utc.isot).startswith("2022-01-01T00:00:00.123")
    assert table["duration_s"].unit == u.s
    assert table["x_hpc"].unit == u.arcsec
    assert np.isnan(table["x_hpc"][1])
    assert table["distance_au"].unit == u.au
    assert table["upper_energy_keV"].to(u.eV)[0].value == 10_000
    assert table["counts_0"].unit == u.ct
    assert table["sources"].tolist() == ['[{"x": 1}]', "", "[]", "[]"]
    assert "sum over" in table["counts_0"].info.description
    assert len(to_table(FLARES.iloc[:0])) == 0


HEADER = {
    "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CDELT1": 2.0, "CDELT2": 2.0,
    "CRPIX1": 2.5, "CRPIX2": 2.5, "CRVAL1": 100.0, "CRVAL2": 50.0, "RSUN_REF": 695700000.0,
    "DATE-OBS": "2022-11-09T01:00:00", "HGLN_OBS": 0.0, "HGLT_OBS": 0.0, "DSUN_OBS": 1.0e11,
}  # fmt: skip


def test_a_map_with_its_uncertainty(archive: Archive) -> None:
    path = Path(archive.url("images/a.fits"))
    path.parent.mkdir()
    row = {"image_id": "a", "method": "bp", "energy_low": 4, "energy_high": 10, "digest": "d", "path": "images/a.fits"}
    archive.catalog.replace_images({"f": [row | {"start": "2022-11-09", "stop": "2022-11-10"}]}, run_id="R")
    with pytest.raises(StoreError, match="lost or damaged"):
        archive.map("a")
    primary = fits.PrimaryHDU(np.arange(16.0).reshape(4, 4), fits.Header(HEADER))
    sigma = fits.ImageHDU(np.full((4, 4), 0.5), fits.Header(HEADER), name="UNCERTAINTY")
    sources = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=[1.0])], name="SOURCES")
    fits.HDUList([primary, sigma, sources]).writeto(path)
    made = archive.map("a")
    assert made.data[3, 3] == 15.0
    assert made.uncertainty.array.tolist() == sigma.data.tolist()
    assert made.scale.axis1.value == 2.0
    fits.HDUList([primary, sources]).writeto(path, overwrite=True)
    assert archive.map("a").uncertainty is None
    path.write_bytes(path.read_bytes()[:2890])
    with pytest.raises(StoreError, match="lost or damaged"):
        archive.map("a")
    fits.PrimaryHDU().writeto(path, overwrite=True)
    with pytest.raises(StoreError, match="holds no image"):
        archive.map("a")
    with pytest.raises(NotFound):
        archive.map("b")
