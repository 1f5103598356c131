"""The place of the spacecraft in the frames of headers, against official files and sunpy."""

from datetime import datetime
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import HeliocentricMeanEcliptic, SkyCoord
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from sunpy.coordinates import frames

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


@settings(max_examples=25, deadline=None)
@given(
    st.datetimes(datetime(2020, 2, 15), datetime(2030, 1, 1)),
    st.floats(4e10, 1.6e11),
    st.floats(-180.0, 180.0),
    st.floats(-35.0, 35.0),
)
@pytest.mark.filterwarnings("ignore:.*dubious year")
def test_frames_are_those_of_sunpy(moment: datetime, distance: float, longitude: float, latitude: float) -> None:
    """Time scales that differ by 2 ms are worth 60 m; sunpy finds the axes of HCI by a vector of 1 m beside the Sun."""
    found = observer_keywords(Observer(distance, longitude, latitude, 0.0), moment.isoformat())
    stonyhurst = frames.HeliographicStonyhurst(obstime=moment)
    place = SkyCoord(longitude * u.deg, latitude * u.deg, distance * u.m, frame=stonyhurst)
    carrington = place.transform_to(frames.HeliographicCarrington(obstime=moment, observer="self"))
    assert (found["CRLN_OBS"][0] - carrington.lon.deg + 180) % 360 - 180 == pytest.approx(0.0, abs=1e-6)
    assert found["CRLT_OBS"][0] == pytest.approx(carrington.lat.deg, abs=1e-9)
    systems = {
        "HEE": (frames.HeliocentricEarthEcliptic(obstime=moment), 100.0),
        "HCI": (frames.HeliocentricInertial(obstime=moment), 1e-6 * distance),
        "HAE": (HeliocentricMeanEcliptic(obstime=moment, equinox="J2000"), 100.0),
        "HEQ": (stonyhurst, 1.0),
        "GSE": (frames.GeocentricSolarEcliptic(obstime=moment), 100.0),
    }
    for name, (system, error_m) in systems.items():
        expected = place.transform_to(system).cartesian.xyz.to_value(u.m)
        np.testing.assert_allclose([found[f"{name}{axis}_OBS"][0] for axis in "XYZ"], expected, rtol=0, atol=error_m)


def test_the_inertial_frame_is_the_ecliptic_one_turned_at_the_node() -> None:
    """Node and inclination of the equator of the Sun at J2000 that its pole gives; Carrington's are 75.76 and 7.25."""
    for day in ("2020-06-07", "2022-11-09", "2026-01-01"):
        cards = observer_keywords(Observer(1.2e11, 33.0, -5.0, 0.0), day)
        hae, hci = (np.array([cards[f"{name}{axis}_OBS"][0] for axis in "XYZ"]) for name in ("HAE", "HCI"))
        node, tilt = np.deg2rad([75.7656, 7.2500])
        x, y = np.cos(node) * hae[0] + np.sin(node) * hae[1], np.cos(node) * hae[1] - np.sin(node) * hae[0]
        turned = [x, np.cos(tilt) * y + np.sin(tilt) * hae[2], np.cos(tilt) * hae[2] - np.sin(tilt) * y]
        np.testing.assert_allclose(hci, turned, rtol=0, atol=1.2e11 * 1e-4)


def test_off_the_orbit_no_velocity_is_claimed() -> None:
    assert radial_velocity(Observer(1.2e11, 0.0, 0.0, 0.0), "2022-11-09") is None
    assert radial_velocity(Observer(1.2e11, 0.0, 0.0, 0.0), "2032-11-09") is None
    assert "OBS_VR" not in observer_keywords(Observer(1.2e11, 0.0, 0.0, 0.0), "2022-11-09T00:00:00")
