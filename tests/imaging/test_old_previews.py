from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
import sunpy.map
import xarray as xr
from astropy.io import fits
from sunpy.map.maputils import all_coordinates_from_map

from stixflow.errors import InputFileError, MissingFile, UsageError
from stixflow.imaging.old_previews import read_old_preview

FEBRUARY, NOVEMBER = "data/images/20220215", "data/images/20211101"
FILES = {
    f"{FEBRUARY}/*_bp.fits": ("BP", (1223, 563), "2022-02-15T18:11:49.918"),
    f"{FEBRUARY}/*_fwfit.fits": ("FORWARD_FIT", (1219, 568), "2022-02-15T18:11:49.918"),
    f"{NOVEMBER}/*_full_disk_bp_map.fits": ("BP", (768, -620), "2021-11-01T01:36:54.146"),
    f"{NOVEMBER}/*_1938_bp_map.fits": ("BP", (765, -623), "2021-11-01T01:36:54.146"),
    f"{NOVEMBER}/*_clean_map.fits": ("CLEAN", (763, -623), "2021-11-01T01:36:54.146"),
    f"{NOVEMBER}/*_em_map.fits": ("EM", (764, -625), "2021-11-01T01:36:54.146"),
    f"{NOVEMBER}/*_vis_fwdfit_map.fits": ("FORWARD_FIT", (767, -622), "2021-11-01T01:36:54.146"),
}


def _file(shared: Path, pattern: str) -> Path:
    (found,) = shared.glob(pattern)
    return found


def _peak(seen: sunpy.map.GenericMap) -> tuple[float, float]:
    iy, ix = np.unravel_index(int(np.nanargmax(seen.data)), seen.data.shape)
    world = seen.pixel_to_world(ix * u.pix, iy * u.pix)
    return world.Tx.to_value("arcsec"), world.Ty.to_value("arcsec")


@pytest.mark.parametrize("pattern", FILES)
def test_every_preview_opens_with_its_peak_where_it_was_published(shared: Path, pattern: str) -> None:
    algorithm, peak, start = FILES[pattern]
    data, header = read_old_preview(_file(shared, pattern))
    seen = sunpy.map.Map(data, header)
    assert _peak(seen) == pytest.approx(peak, abs=1.5)
    assert header["ALG_USED"] == algorithm
    assert header["DATE-OBS"] == start
    assert header["ENERGY_H"] == 10.0
    assert seen.observatory == "Solar Orbiter"
    assert {"CROTA1", "CROTA2", "L0"}.isdisjoint(header)


@pytest.mark.parametrize(
    ("pattern", "place", "radius"),
    [(f"{FEBRUARY}/*_bp.fits", (-17.24, -3.12), 1324.2), (f"{NOVEMBER}/*_full_disk*.fits", (-1.74, 2.11), 1160.9)],
)
def test_limb_and_observer_are_those_of_the_spacecraft(
    shared: Path, pattern: str, place: tuple[float, float], radius: float
) -> None:
    seen = sunpy.map.Map(*read_old_preview(_file(shared, pattern)))
    observer = seen.observer_coordinate
    assert (observer.lon.wrap_at(180 * u.deg).deg, observer.lat.deg) == pytest.approx(place, abs=0.02)
    assert seen.rsun_obs.to_value("arcsec") == pytest.approx(radius, abs=1.0)
    coordinates = all_coordinates_from_map(seen)
    distance = np.hypot(coordinates.Tx.to_value("arcsec"), coordinates.Ty.to_value("arcsec"))
    assert (distance < radius).sum() * np.prod(u.Quantity(seen.scale).to_value("arcsec / pix")) == pytest.approx(
        np.pi * radius**2, rel=5e-3
    )
    assert distance[distance.shape[0] // 2, distance.shape[1] // 2] < 2.0 * seen.scale[0].value


def test_an_ephemeris_gives_the_place_of_the_spacecraft(shared: Path) -> None:
    times = np.array(["2022-02-15T18:10", "2022-02-15T18:15"], dtype="datetime64[ns]")
    ephemeris = xr.Dataset(
        {name: ("time", np.full(2, value)) for name, value in
         {"hgln": -17.2, "hglt": -3.1, "distance": 1.08e11, "rsun": 1328.0}.items()},
        {"time": times},
    )  # fmt: skip
    _, header = read_old_preview(_file(shared, f"{FEBRUARY}/*_fwfit.fits"), ephemeris=ephemeris)
    assert (header["HGLN_OBS"], header["DSUN_OBS"]) == pytest.approx((-17.2, 1.08e11))
    assert "observer: ephemeris" in list(header["HISTORY"])
    assert header["DATE-AVG"] == "2022-02-15T18:12:19.918"


def _made(path: Path, **changes: object) -> Path:
    header = fits.Header(
        {"CTYPE1": "solar_x", "CUNIT1": "arcsecs", "CRPIX1": 2.0, "CRPIX2": 1.0, "CDELT1": 4.0, "CDELT2": 2.0,
         "CROTA2": 30.0, "ORIGIN": "STIX EM 4-10 keV: ", "DATE-OBS": "15-Feb-2022 18:12:19.918"}
    )  # fmt: skip
    header.update({name.replace("__", "-"): value for name, value in changes.items()})
    fits.PrimaryHDU(np.arange(6.0).reshape(2, 3), header).writeto(path)
    return path


def test_without_any_place_no_observer_is_claimed(tmp_path: Path) -> None:
    data, header = read_old_preview(_made(tmp_path / "map.fits"))
    assert data.shape == (2, 3)
    assert {"HGLN_OBS", "DSUN_OBS"}.isdisjoint(header)
    assert header["DATE-OBS"] == "2022-02-15T18:12:19.918"
    assert (header["PC1_2"], header["PC2_1"]) == pytest.approx((-0.25, 1.0))


def test_files_that_are_no_such_preview_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no file"):
        read_old_preview(tmp_path / "none.fits")
    (tmp_path / "text.fits").write_text("no map")
    with pytest.raises(InputFileError, match="not FITS"):
        read_old_preview(tmp_path / "text.fits")
    for number, changes in enumerate(({"ORIGIN": "AIA"}, {"CTYPE1": "HPLN-TAN"})):
        with pytest.raises(InputFileError, match="no preview map"):
            read_old_preview(_made(tmp_path / f"{number}.fits", **changes))
    with pytest.raises(InputFileError, match="no date"):
        read_old_preview(_made(tmp_path / "undated.fits", DATE__OBS="yesterday"))
    with pytest.raises(UsageError, match="no image number 1"):
        read_old_preview(_made(tmp_path / "one.fits"), part=1)
