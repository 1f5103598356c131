"""The place of the spacecraft in the frames of headers, against official files and sunpy."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from stixflow.ephemeris import Observer, observer_keywords
from stixflow.ephemeris.keywords import radial_velocity


@pytest.fixture(scope="module")
def official(shared: Path) -> list[fits.Header]:
    """Headers of level-1 files of 2020 and 2022."""
    folder = shared / "data"
    paths = [
        *sorted((folder / "flares_202211/pixel_data").glob("*.fits"))[::20],
        *(folder / "flare_20200607").glob("*L1*"),
    ]
    return [fits.getheader(path) for path in paths]


def test_velocity_is_that_of_official_files(official: list[fits.Header]) -> None:
    """Their OBS_VR is another number (always positive); their vectors give the radial velocity."""
    for header in official:
        place = np.array([header[f"HCI{axis}_OBS"] for axis in "XYZ"])
        velocity = np.array([header[f"HCI{axis}_VOB"] for axis in "XYZ"])
        observer = Observer(header["DSUN_OBS"], header["HGLN_OBS"], header["HGLT_OBS"], header["RSUN_ARC"])
        found = observer_keywords(observer, header["DATE-AVG"])["OBS_VR"][0]
        assert found == pytest.approx(place @ velocity / np.linalg.norm(place), abs=15.0)
        assert abs(found - header["OBS_VR"]) > 1000.0


def test_off_the_orbit_no_velocity_is_claimed() -> None:
    assert radial_velocity(Observer(1.2e11, 0.0, 0.0, 0.0), "2022-11-09") is None
    assert radial_velocity(Observer(1.2e11, 0.0, 0.0, 0.0), "2032-11-09") is None
    assert "OBS_VR" not in observer_keywords(Observer(1.2e11, 0.0, 0.0, 0.0), "2022-11-09T00:00:00")
