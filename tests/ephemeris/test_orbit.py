"""The built-in orbit against kernels, ancillary files and headers; the axes of the Sun against sunpy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from stixflow.ephemeris import distance_au, position, read_ancillary
from stixflow.ephemeris.constants import AU_M
from stixflow.ephemeris.orbit import (
    accuracy,
    carrington_of_earth,
    earth,
    heeq_axes,
    orbit,
    solar_pole,
    tdb_seconds,
    times_of,
)
from stixflow.errors import NotFound, UsageError

_LAUNCH, _END = np.datetime64("2020-02-11", "ns"), np.datetime64("2030-11-18", "ns")
_DAYS = np.arange(_LAUNCH, _END, np.timedelta64(1, "D"))

# DATE-AVG, DSUN_OBS (m), HGLN_OBS, HGLT_OBS (deg) of public files, flown positions.
_FLOWN = [
    ("2020-05-01T11:59:57.830", 109863782261.89, 0.73, -2.22),
    ("2020-05-06T11:59:59.610", 105034173444.28, 3.72, -1.34),
    ("2020-06-07T21:44:39.234", 78579812563.7858, 46.47650848819654, 5.917045024276779),
    ("2022-02-08T21:58:24.450", 117768834640.9921, -18.5237373409699, -2.657799167431088),
    ("2022-08-30T05:07:31.731", 114432542341.0459, 147.5191254712639, -2.825299381340666),
    ("2022-11-09T00:49:03.412", 88778876554.01488, -23.4184857174571, 7.956228731167904),
    ("2023-03-19T20:57:39.593", 78285309062.56554, -19.35518076544966, -6.351195931681342),
    ("2024-03-08T20:05:55.232", 86964659343.56685, -18.88640222481659, -5.427219888931131),
    ("2024-09-16T00:23:35.291", 64444718597.26352, -173.78407550859785, -7.6384002688482955),
]
_AFTER_2025 = ("2025-03-03T11:05:11.992", 88634969408.59665, -14.077223673581237, -8.385064989368411)


@pytest.mark.parametrize("flown", [*_FLOWN, _AFTER_2025], ids=lambda row: row[0][:10])
def test_orbit_is_as_good_as_it_says(flown):
    time, distance, longitude, latitude = flown
    place = position(time)
    assert abs(place.distance_m - distance) / AU_M < place.accuracy_au
    assert abs(place.hgln_deg - longitude) < place.accuracy_deg
    assert abs(place.hglt_deg - latitude) < place.accuracy_deg


def test_accuracy_is_within_what_everything_else_relies_on():
    assert accuracy("2024-12-31") == (0.0003, 0.05)
    assert accuracy(["2024-12-31", "2025-03-01"]) == (0.01, 1.0)


def test_orbit_follows_the_ancillary_files(shared):
    for name in ("flares_202211/ephemeris/solo_L2_stix-aux-ephemeris_20221110_V01.fits",
                 "flare_20200607/solo_L2_stix-aux-ephemeris_20200607_V01.fits"):  # fmt: skip
        data = read_ancillary(shared / "data" / name).isel(time=slice(None, None, 100))
        place = position(data["time"].values)
        assert_allclose(place.distance_m, data["distance"], rtol=3e-5)
        assert_allclose(place.hgln_deg, data["hgln"], atol=0.02)
        assert_allclose(place.hglt_deg, data["hglt"], atol=0.002)
        assert_allclose(place.rsun_arcsec, data["rsun"], rtol=1e-4)


def test_orbit_has_no_steps_and_stays_in_the_planned_distances():
    minutes = _DAYS[:-1, None] + np.array([0, 720, 1439]) * np.timedelta64(60, "s")
    distance = distance_au(minutes)
    assert (np.abs(np.diff(distance.ravel())) < 0.03).all()
    assert 0.27 < distance.min() < 0.31
    assert 1.0 < distance.max() < 1.03
    pieces = orbit(_DAYS)
    assert np.linalg.norm(np.diff(pieces, axis=0), axis=1).max() < 0.045


def test_shapes_follow_the_times():
    assert distance_au("2022-01-01").shape == ()
    assert orbit(["2022-01-01", "2022-01-02"]).shape == (2, 3)
    assert heeq_axes(_DAYS[:6].reshape(2, 3)).shape == (2, 3, 3, 3)
    one = position("2021-06-06T12:00:00").observer
    assert one.distance_m == pytest.approx(0.9516 * AU_M, rel=2e-3)


@pytest.mark.parametrize("time", ["2020-02-09", "2030-11-20"])
def test_orbit_ends(time):
    with pytest.raises(NotFound, match="2030-11-18"):
        position(time)


@pytest.mark.parametrize("time", ["yesterday", np.array(["NaT"], "datetime64[ns]"), float("nan")])
def test_what_is_no_time(time):
    with pytest.raises(UsageError):
        times_of(time)


def test_axes_are_orthonormal_and_the_earth_lies_on_the_meridian():
    axes = heeq_axes(_DAYS[::100])
    assert_allclose(axes @ np.swapaxes(axes, -1, -2), np.broadcast_to(np.eye(3), axes.shape), atol=1e-12)
    seen = np.einsum("tij,tj->ti", axes, earth(_DAYS[::100]))
    assert_allclose(seen[:, 1], 0.0, atol=1e-12)
    assert (seen[:, 0] > 0.97).all()
    assert_allclose(np.rad2deg(np.arcsin(seen[:, 2])), 0.0, atol=7.5)


def test_axes_agree_with_sunpy():
    from astropy.time import Time
    from sunpy.coordinates import sun

    times = np.array(["2020-03-01", "2021-06-06T06:00", "2022-12-24", "2023-07-16T18:00"], dtype="datetime64[ns]")
    theirs = Time(times)
    assert_allclose((sun.L0(theirs).deg - carrington_of_earth(times) + 180) % 360 - 180, 0.0, atol=0.01)
    ours = earth(times)
    assert_allclose(
        sun.B0(theirs).deg, np.rad2deg(np.arcsin(ours @ solar_pole() / np.linalg.norm(ours, axis=1))), atol=0.01
    )
    assert_allclose(sun.earth_distance(theirs).au, np.linalg.norm(ours, axis=1), atol=2e-4)


def test_tdb():
    assert tdb_seconds(times_of("2020-01-01T00:00:00")) == pytest.approx(631152000.0 - 43200 + 69.184)
