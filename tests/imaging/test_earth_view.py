"""Maps as the Earth sees them, against sunpy's way there."""

from __future__ import annotations

import numpy as np
import pytest
import sunpy.map
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from sunpy.coordinates import Helioprojective, get_earth

from stixflow.ephemeris import Observer, Pointing, hpc_to_stix
from stixflow.errors import NotFound
from stixflow.imaging import Clean, Gaussian, Grid, from_arrays, map_header, reconstruct, source_visibilities
from stixflow.imaging.attitude import with_attitude
from stixflow.imaging.earth_view import earth_view
from stixflow.instrument import detectors, subcollimators

POINTING = Pointing(16.4, 82.7, -33.0, "sas", 0.2)
NEAR, FAR = Observer(8.9e10, -24.2, 7.9, 1612.0), Observer(8.9e10, 155.0, 7.9, 1612.0)
PLACES = (420.0, -610.0), (470.0, -583.0)


def _images(observer: Observer = NEAR) -> xr.Dataset:
    u_, v_ = detectors().u[subcollimators()], detectors().v[subcollimators()]
    sources = [hpc_to_stix(place, POINTING) for place in PLACES]
    center = (sources[0] + sources[1]) / 2 + (7.0, -11.0)
    model = [Gaussian(flux, *(place - center), 8.0) for flux, place in zip((6.0, 4.0), sources, strict=True)]
    at = np.array(["2022-11-09T00:50:00", "2022-11-09T00:51:00"], dtype="datetime64[ns]")
    data = from_arrays(u_, v_, source_visibilities(model, u_, v_), center=center)
    data = data.assign(time_start=("image", at[:1]), time_stop=("image", at[1:]))
    return with_attitude(reconstruct(data, Grid(129, 2.0), Clean(beam_fwhm=12.0)), [POINTING], [observer])


def test_the_sources_are_where_sunpy_sees_them_from_the_earth() -> None:
    data, header = earth_view(_images())
    seen = sunpy.map.Map(data, header)
    assert seen.observer_coordinate.separation_3d(get_earth(seen.date)).to_value("km") < 40_000
    ours = sunpy.map.Map(_images()["image"].to_numpy()[0], map_header(_images()))
    earth = Helioprojective(observer=get_earth("2022-11-09T00:50:30"), obstime="2022-11-09T00:50:30")
    for x, y in PLACES:
        there = SkyCoord(x * u.arcsec, y * u.arcsec, frame=ours.coordinate_frame).transform_to(earth)
        column, row = (
            (value - header[f"CRVAL{axis}"]) / header[f"CDELT{axis}"] + header[f"CRPIX{axis}"] - 1
            for value, axis in ((there.Tx.to_value("arcsec"), 1), (there.Ty.to_value("arcsec"), 2))
        )
        around = data[round(row) - 6 : round(row) + 7, round(column) - 6 : round(column) + 7]
        highest = np.unravel_index(int(np.nanargmax(around)), around.shape)
        assert np.hypot(highest[0] - 6 - row % 1, highest[1] - 6 - column % 1) < 2.5


@pytest.mark.filterwarnings("ignore:.datfix. made the change")
def test_the_view_is_that_of_sunpy() -> None:
    """Pixel by pixel, where both have values."""
    data, header = earth_view(_images())
    theirs = sunpy.map.Map(_images()["image"].to_numpy()[0], map_header(_images()))
    target = fits.PrimaryHDU(data, header).header
    target["DATE-OBS"] = target["DATE-AVG"] = "2022-11-09T00:50:30"
    other = theirs.reproject_to(target, algorithm="interpolation").data
    both = np.isfinite(data) & np.isfinite(other)
    assert both.mean() > 0.5
    assert np.abs(data - other)[both].max() < 0.05 * np.nanmax(data)


def test_the_view_is_dated_by_the_earth_and_north_is_up() -> None:
    _, header = earth_view(_images())
    assert (header["DATE_STX"], header["DATE-BEG"]) == ("2022-11-09T00:50:00.000", "2022-11-09T00:53:17.461")
    assert (header["HGLN_OBS"], header["PC1_1"], header["PC2_2"]) == (0.0, 1.0, 1.0)
    assert header["CLN_BEAM"] == pytest.approx(12.0 * 8.9e10 / 1.482e11, rel=0.01)
    assert header["CDELT1"] == pytest.approx(2.0 * 8.9e10 / 1.482e11, rel=0.01)
    assert not {"PC1_2", "STX_ROLL", "OBS_VR", "HEEX_OBS"} & set(header)


def test_what_the_earth_does_not_see_is_refused() -> None:
    with pytest.raises(NotFound, match="sees nothing"):
        earth_view(_images(FAR))
    bare = _images().drop_vars("pointing_source")
    with pytest.raises(NotFound, match="no place on the Sun"):
        earth_view(bare)
