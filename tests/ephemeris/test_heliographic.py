"""Places on the Sun against the operational list, sunpy, and each other."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from stixflow.ephemeris import (
    R_SUN_M,
    Observer,
    Position,
    apparent_radius,
    heliographic_to_hpc,
    hpc_to_heliographic,
    place_on_sun,
)
from stixflow.ephemeris.constants import AU_M

_LON, _LAT = st.floats(-180, 180), st.floats(-80, 80)
_OBSERVER = st.builds(
    lambda au, lon, lat: Observer(au * AU_M, lon, lat, 0.0), st.floats(0.28, 1.02), _LON, st.floats(-35, 35)
)
_TIME = "2022-11-09T00:50:20"


def _wrapped(degrees):
    return (np.asarray(degrees) + 180.0) % 360.0 - 180.0


def test_operational_list(shared):
    """All 8598 rows of the list: its frames come from sunpy, its spacecraft from the positions it gives."""
    listed = pd.read_csv(shared / "data/flarelists/STIX_flarelist_w_locations_20210214_20230901_version1.csv")
    listed = listed[listed["hpc_x_solo"].notna()]
    spacecraft = Position(
        listed["solo_position_AU_distance"].to_numpy() * AU_M,
        listed["solo_position_lon"].to_numpy(),
        listed["solo_position_lat"].to_numpy(),
        "orbit", 0.0, 0.0,
    )  # fmt: skip
    times = listed["peak_UTC"].to_numpy().astype("datetime64[ns]")
    found = place_on_sun(listed[["hpc_x_solo", "hpc_y_solo"]].to_numpy(), spacecraft, times)
    assert len(listed) > 8000
    assert 1000 < (~found.on_disk).sum() < 2000
    assert_allclose(_wrapped(found.hgs_lon_deg - listed["hgs_lon"]), 0.0, atol=1e-6)
    assert_allclose(found.hgs_lat_deg, listed["hgs_lat"], atol=1e-6)
    assert_allclose(_wrapped(found.hgc_lon_deg - listed["hgc_lon"]), 0.0, atol=0.012)
    assert_allclose(found.hgc_lat_deg, listed["hgc_lat"], atol=1e-6)
    assert np.array_equal(found.visible_from_earth, listed["visible_from_earth"])
    seen = listed["hpc_x_earth"].notna().to_numpy()
    apart = np.hypot(found.hpc_earth_x - listed["hpc_x_earth"], found.hpc_earth_y - listed["hpc_y_earth"])[seen]
    assert apart.max() < 0.12


def test_sunpy():
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from sunpy.coordinates import HeliographicStonyhurst, Helioprojective

    observer = Observer(0.5932 * AU_M, -23.4, 7.95, 0.0)
    at = SkyCoord(-23.4 * u.deg, 7.95 * u.deg, 0.5932 * u.au, frame=HeliographicStonyhurst(obstime=_TIME))
    hpc = np.array([[300.0, -400.0], [-1200.0, 700.0], [0.0, 0.0]])
    theirs = SkyCoord(hpc[:, 0] * u.arcsec, hpc[:, 1] * u.arcsec, frame=Helioprojective(observer=at, obstime=_TIME))
    stonyhurst = theirs.transform_to(HeliographicStonyhurst(obstime=_TIME))
    ours = place_on_sun(hpc, observer, _TIME)
    assert_allclose(ours.hgs_lon_deg, stonyhurst.lon.deg, atol=1e-3)
    assert_allclose(ours.hgs_lat_deg, stonyhurst.lat.deg, atol=1e-3)


def test_the_grid_is_that_of_the_sun():
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from sunpy.coordinates import HeliographicStonyhurst, Helioprojective

    observer = Observer(7.3e10, 61.0, -5.5, 1970.0)
    at = HeliographicStonyhurst(61 * u.deg, -5.5 * u.deg, 7.3e10 * u.m, obstime=_TIME)
    longitude, latitude = np.array([61.0, 30.0, 100.0, 61.0]), np.array([-5.5, 40.0, -60.0, 80.0])
    frame = HeliographicStonyhurst(obstime=_TIME)
    surface = SkyCoord(longitude * u.deg, latitude * u.deg, R_SUN_M * u.m, frame=frame)
    seen = surface.transform_to(Helioprojective(observer=at, obstime=_TIME))
    ours = heliographic_to_hpc(longitude, latitude, observer, hide=True)
    assert_allclose(ours.T, [seen.Tx.to_value("arcsec"), seen.Ty.to_value("arcsec")], atol=0.05)
    assert_allclose(hpc_to_heliographic(ours, observer).T, [longitude, latitude], atol=1e-9)


def test_the_far_side_is_hidden_and_the_grid_ends_at_the_limb():
    observer = Observer(7.3e10, 61.0, -5.5, float(apparent_radius(7.3e10)))
    longitude, latitude = np.meshgrid(np.arange(-180, 180, 1.0), np.arange(-90, 91, 1.0))
    seen = heliographic_to_hpc(longitude, latitude, observer, hide=True)
    assert np.isnan(seen[90, 61]).all()
    assert np.isfinite(seen[90, 241]).all()
    radius = np.hypot(*np.moveaxis(seen, -1, 0))
    assert 0.99 * observer.rsun_arcsec < np.nanmax(radius) <= observer.rsun_arcsec * (1 + 1e-4)
    assert np.isfinite(heliographic_to_hpc(61.0 + 180, 0.0, observer)).all()


def _light_time(center_s, angle_deg):
    """From a point of the photosphere whose vertical is `angle_deg` off the direction of the observer."""
    radius, angle = R_SUN_M / 299_792_458.0, np.deg2rad(angle_deg)
    return np.sqrt(center_s**2 - (radius * np.sin(angle)) ** 2) - radius * np.cos(angle)


def test_light_times_of_a_known_example():
    """2023-07-16: light times and angles that the data centre gives for a flare."""
    earth_s, delay, between = 507.23, 33.095, 961.135
    spacecraft_s = earth_s - delay
    assert _light_time(earth_s, 10.85) == pytest.approx(504.947, abs=0.01)
    assert _light_time(spacecraft_s, 148.62) == pytest.approx(476.112, abs=0.01)
    cosine = (earth_s**2 + spacecraft_s**2 - between**2) / (2 * earth_s * spacecraft_s)
    observer = Observer(spacecraft_s * 299_792_458.0, float(np.rad2deg(np.arccos(cosine))), 0.0, 0.0)
    found = place_on_sun([200.0, -300.0], observer, "2023-07-16T12:00")
    assert found.delay_of_center_s == pytest.approx(delay, abs=0.05)
    assert found.light_time_between_s == pytest.approx(between, abs=1.5)
    assert found.light_time_s == pytest.approx(_light_time(spacecraft_s, found.angle_deg), abs=1e-6)
    assert found.light_time_earth_s == pytest.approx(_light_time(earth_s, found.angle_earth_deg), abs=0.05)


@settings(deadline=None)
@given(_LON, _LAT, _OBSERVER)
def test_there_and_back(lon, lat, observer):
    found = place_on_sun(heliographic_to_hpc(lon, lat, observer), observer, _TIME)
    if found.angle_deg < 89.0:
        toward = heliographic_to_hpc(found.hgs_lon_deg, found.hgs_lat_deg, observer)
        assert_allclose(toward, heliographic_to_hpc(lon, lat, observer), atol=1e-3)


@settings(deadline=None)
@given(st.floats(-1000, 1000), st.floats(-1000, 1000), _OBSERVER)
def test_what_the_spacecraft_sees_faces_it(x, y, observer):
    found = place_on_sun([x, y], observer, _TIME)
    on_disk = np.hypot(x, y) < 0.999 * np.rad2deg(np.arcsin(R_SUN_M / observer.distance_m)) * 3600
    assert found.on_disk or not on_disk
    if found.on_disk:
        assert found.angle_deg <= 90.0 + 1e-6
        assert found.visible_from_earth == (found.angle_earth_deg <= 90.0)
        shortest = (observer.distance_m - R_SUN_M) / 299_792_458.0
        assert shortest - 1e-6 <= found.light_time_s <= observer.distance_m / 299_792_458.0
    sides = sorted([found.light_time_earth_s, found.light_time_s, found.light_time_between_s])
    assert sides[2] <= sides[0] + sides[1] + 1e-6
    assert found.delay_s == pytest.approx(found.light_time_earth_s - found.light_time_s)


def test_angles_of_simple_places():
    here = Observer(0.5 * AU_M, 0.0, 0.0, 0.0)
    center = place_on_sun([0.0, 0.0], here, _TIME)
    assert center.angle_deg == pytest.approx(0.0, abs=1e-5)
    assert center.angle_between_deg == pytest.approx(center.angle_earth_deg, abs=1e-4)
    behind = place_on_sun([0.0, 0.0], Observer(0.5 * AU_M, 180.0, 0.0, 0.0), _TIME)
    assert not behind.visible_from_earth
    assert behind.angle_earth_deg > 170.0
    limb = place_on_sun([5000.0, 0.0], here, _TIME)
    assert not limb.on_disk
    assert limb.visible_from_earth
    assert limb.hpc_earth_x > 1000.0
