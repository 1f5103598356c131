"""Pointing, observer, delay to the Earth."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose

from stixflow.ephemeris import (
    apparent_radius,
    average_pointing,
    earth_delay,
    observer,
    observer_of,
    pointing,
    read_ancillary,
    stix_to_hpc,
)
from stixflow.errors import NotFound
from stixflow.time import TimeRange, to_utc

START = np.datetime64("2024-03-10T00:00:00", "ns")


@pytest.fixture
def steady() -> xr.Dataset:
    """An hour of a spacecraft that does not move: aspect solution (30, 60), attitude (26.1, 58.2), roll 90."""
    n = 57
    one = np.ones(n)
    values = {
        "roll": 90.0 * one,
        "pitch": 0.0 * one,
        "yaw": 0.0 * one,
        "sas_y": -30.0 * one,
        "sas_z": -52.0 * one,
        "sas_ok": one.astype(bool),
        "distance": 9e10 * one,
        "hgln": 10.0 * one,
        "hglt": -3.0 * one,
        "rsun": 1594.0 * one,
    }
    time = START + np.arange(n) * np.timedelta64(64, "s")
    return xr.Dataset({name: ("time", value) for name, value in values.items()}, {"time": time})


def _range(start_s: float, stop_s: float) -> TimeRange:
    first, second = (START + np.timedelta64(round(second * 1000), "ms") for second in (start_s, stop_s))
    return TimeRange(first, second)


def test_aspect_solution_with_its_offsets(steady):
    found = pointing(steady, _range(600, 1200))
    assert (found.x, found.y, found.roll, found.source, found.warnings) == (30.0, 60.0, 90.0, "sas", ())
    assert found.sigma == 0.0


def test_samples_hold_for_half_a_minute_before_their_stamp(steady):
    steady["sas_y"][10:] = -20.0
    assert pointing(steady, _range(10 * 64 - 32, 10 * 64 - 31)).x == 40.0
    assert pointing(steady, _range(9 * 64 - 32, 9 * 64 - 31)).x == 30.0


def test_between_samples_the_middle_is_interpolated(steady):
    steady["sas_y"][:] = np.arange(57.0)
    found = pointing(steady, _range(10 * 64 - 1, 10 * 64 + 1))
    assert found.x == pytest.approx(60.0 + 10.5)
    assert np.isnan(found.sigma)


@pytest.mark.parametrize(
    ("spoil", "remark"),
    [
        (lambda data: data["sas_ok"].__setitem__(slice(None), False), "no aspect solution"),
        (lambda data: data["sas_y"].__setitem__(slice(None), 250.0), "from the attitude"),
    ],
)
def test_attitude_where_the_aspect_solution_fails(steady, spoil, remark):
    spoil(steady)
    found = pointing(steady, _range(600, 1200))
    assert (found.x, found.y, found.source) == (26.1, 58.2, "attitude")
    assert remark in found.warnings[0]


def test_attitude_turns_with_the_roll(steady):
    steady["sas_ok"][:] = False
    steady["pitch"][:], steady["yaw"][:] = 0.1, 0.2
    found = pointing(steady, _range(600, 1200))
    assert_allclose([found.x, found.y], [26.1 + 360.0, 58.2 + 720.0])


def test_an_old_aspect_solution_is_not_carried_over(steady):
    steady["sas_ok"][5:] = False
    assert pointing(steady, _range(3000, 3060)).source == "attitude"


def test_unsteady_pointing_is_said(steady):
    steady["sas_y"][:] += 10.0 * (np.arange(57) % 2)
    found = pointing(steady, _range(0, 3000))
    assert found.sigma == pytest.approx(5.0, rel=0.01)
    assert "5.0 arcsec" in found.warnings[0]


def test_roll_around_half_a_turn(steady):
    steady["roll"][:] = np.where(np.arange(57) % 2, 179.9, -179.9)
    assert abs(pointing(steady, _range(600, 600 + 128)).roll) == pytest.approx(180.0, abs=0.11)


@pytest.mark.parametrize(
    "ask",
    [lambda data: pointing(data, _range(7200, 7300)), lambda data: observer(data, START - np.timedelta64(1, "D"))],
)
def test_times_not_covered(steady, ask):
    with pytest.raises(NotFound, match="cover"):
        ask(steady)


def test_observer_across_the_far_side(steady):
    steady["hgln"][:] = np.where(np.arange(57) < 10, 179.0, -179.0)
    found = observer(steady, START + np.timedelta64(9 * 64, "s"))
    assert abs(found.hgln_deg) == pytest.approx(180.0, abs=1e-9)
    assert found.distance_m == 9e10


def test_average_pointing_says_so():
    assert average_pointing(3.0).roll == 3.0
    assert "average" in average_pointing().warnings[0]


def _flares(shared):
    folder = shared / "data/flares_202211"
    sky = pd.read_csv(folder / "flare_locations.csv", index_col="flare ID")
    stix = pd.read_csv(folder / "flare_locations_stix_frame.csv", index_col="flare ID")
    times = pd.read_csv(folder / "flarelist_with_paths.csv", index_col="flare_id")["peak_UTC"]
    return sky.join(stix).join(times.str.replace(" ", "T"))


def _days(shared):
    folder = shared / "data/flares_202211/ephemeris"
    return {path.name.split("_")[3]: read_ancillary(path) for path in sorted(folder.glob("*.fits"))}


def test_positions_of_real_flares_reach_the_sky_as_in_the_ground_software(shared):
    flares, days = _flares(shared), _days(shared)
    assert len(flares) >= 60
    around, apart, delay = np.timedelta64(20, "s"), [], []
    for flare_id, flare in flares.iterrows():
        peak, ephemeris = to_utc(flare["peak_UTC"]), days[f"20{flare_id}"[:8]]
        found = pointing(ephemeris, TimeRange(peak - around, peak + around))
        sky = stix_to_hpc(flare[["STIX MAX X BP COORD", "STIX MAX Y BP COORD"]].to_numpy(float), found)
        apart.append(np.hypot(*(sky - flare[["MAX X COORD BP", "MAX Y COORD BP"]].to_numpy(float))))
        delay.append(earth_delay(peak, observer(ephemeris, peak).distance_m) - flare["time shift"])
    # The lists keep 4 decimals. Without the shift of the stamps the median is 0.15 and the largest 1.4 arcsec.
    assert np.median(apart) < 1e-4
    assert np.max(apart) < 5e-4
    assert np.max(np.abs(delay)) < 0.2


def test_radius_follows_the_distance(shared):
    ephemeris = _days(shared)["20221109"]
    assert_allclose(apparent_radius(ephemeris["distance"].values), ephemeris["rsun"].values, atol=0.05)


def test_delay_against_a_header():
    # EAR_TDEL and DSUN_OBS of solo_L2_stix-aux-ephemeris_20221109_V01.fits
    assert earth_delay("2022-11-09T00:00:58.163", 89618908751.3) == pytest.approx(195.349, abs=0.2)


def test_observer_of_a_level_1_file():
    place = {"dsun_m": 9e10, "hgln_deg": 46.5, "hglt_deg": 5.9, "rsun_arcsec": 1594.0}
    found = observer_of(xr.Dataset(attrs=place))
    assert (found.distance_m, found.hgln_deg, found.hglt_deg, found.rsun_arcsec) == (9e10, 46.5, 5.9, 1594.0)
    with pytest.raises(NotFound, match="hglt_deg, rsun_arcsec"):
        observer_of(xr.Dataset(attrs={"dsun_m": 9e10, "hgln_deg": 46.5}))
