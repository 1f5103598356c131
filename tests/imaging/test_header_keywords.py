"""Which keywords of other software's maps are written, and that the page says so of all others."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
from astropy.io import fits

from stixflow.ephemeris import read_ancillary
from stixflow.fits import read_level1
from stixflow.imaging import image_source, map_header, write_map
from stixflow.time import TimeRange

PAGE = Path(__file__).parents[2] / "docs" / "imaging.md"
STRUCTURE = {"SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "EXTEND", "PCOUNT", "GCOUNT", "COMMENT", ""}
GROUND_SOFTWARE = {
    "TELESCOP", "INSTRUME", "OBSRVTRY", "FLNM_SCI", "FLNM_BKG", "LEVEL", "TIMESYS", "DATE_CRE", "ORIGIN", "CREATOR",
    "OBS_TYPE", "DATE-OBS", "DATE-BEG", "DATE-AVG", "DATE-END", "MJDREF", "DATEREF", "ALG_USED", "ENERGY_L", "ENERGY_H",
    "STX_X", "STX_Y", "TARGET", "SPICE_MK", "RSUN_REF", "RSUN_OBS", "RSUN_ARC", "HGLT_OBS", "HGLN_OBS", "CRLT_OBS",
    "CRLN_OBS", "DSUN_OBS", "OBS_VR", "EAR_TDEL", "SUN_TIME", "DATE_EAR", "DATE_SUN", "CNTS_TOT", "CNTS_BKG", "XC",
    "YC", "PC1_1", "PC1_2", "PC2_1", "PC2_2",
    *(f"{name}{axis}_OBS" for name in ("HEE", "HCI", "HAE", "HEQ", "GSE") for axis in "XYZ"),
    *(f"{name}{axis}" for name in ("CRPIX", "CRVAL", "CDELT", "CTYPE", "CUNIT", "CROTA", "CROTACN") for axis in (1, 2)),
}  # fmt: skip


@pytest.fixture(scope="module")
def written(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Keywords of real maps of every method, as the commands write them."""
    folder = shared / "data/flares_202211"
    pixels, background = (
        read_level1(next((folder / "pixel_data").glob(f"*_{request}-*.fits")))
        for request in ("2211091049", "2211098157")
    )
    ephemeris = read_ancillary(folder / "ephemeris/solo_L2_stix-aux-ephemeris_20221109_V01.fits")
    source = image_source(
        pixels, [(TimeRange.parse("2022-11-09T07:20:00/2022-11-09T07:21:00"), (4.0, 10.0))],
        background=background, ephemeris=ephemeris, methods=("bp", "clean", "em"), size=17, pixel=4.0,
    )  # fmt: skip
    extra = {"FLNM_SCI": "a.fits", "FLNM_BKG": "b.fits", "FLNM_EPH": "c.fits"}
    path = tmp_path_factory.mktemp("maps") / "map.fits"
    return {str(key) for stack in source.images for key in fits.getheader(write_map(path, stack, extra=extra))}


def _told() -> set[str]:
    """Keywords that the page says are not written."""
    rows = PAGE.read_text("utf-8").split("| not written |")[1].split("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}


def test_keywords_of_the_ground_software_are_written_or_told_of(written: set[str]) -> None:
    assert GROUND_SOFTWARE - written - _told() == set()


def test_keywords_of_the_old_previews_are_written_or_told_of(shared: Path, written: set[str]) -> None:
    theirs: set[str] = set()
    for path in (shared / "data/images").rglob("*.fits"):
        with fits.open(path) as file:
            theirs |= {str(key) for hdu in file for key in hdu.header}
    assert len(theirs) > 40
    assert theirs - STRUCTURE - written - _told() == set()


def test_what_is_written_is_not_told_of_as_missing(written: set[str]) -> None:
    assert _told() & written == set()


def test_the_keywords_say_what_is_known(shared: Path, make_pixels: Callable[..., xr.Dataset]) -> None:
    place = shared / "data/flares_202211/ephemeris/solo_L2_stix-aux-ephemeris_20221109_V01.fits"
    ephemeris = read_ancillary(place)
    assert ephemeris.attrs["spice_mk"] == fits.getheader(place)["SPICE_MK"]
    noise = make_pixels(background=3.0)
    span = TimeRange(noise["time_start"].values[0], noise["time_start"].values[-1])
    (stack,) = image_source(noise, [(span, (6.0, 10.0))], ephemeris=ephemeris, methods=("bp",), size=9).images
    assert map_header(stack)["SPICE_MK"] == ephemeris.attrs["spice_mk"]
    assert map_header(stack)["VIS_SNR"] < 0.2
