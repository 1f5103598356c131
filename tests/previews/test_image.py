"""Where pixels, limb and grid are on the sky."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.patches import Circle

from stixflow.ephemeris import R_SUN_M
from stixflow.errors import InputFileError, UsageError
from stixflow.previews import Mark, SkyImage, figure_png, image_figure
from stixflow.previews.image import unit_text

ANGLE = np.deg2rad(93.7)
HEADER = {
    "CTYPE1": "HPLN-TAN",
    "CTYPE2": "HPLT-TAN",
    "CUNIT1": "arcsec",
    "CUNIT2": "arcsec",
    "CRPIX1": 33.0,
    "CRPIX2": 20.5,
    "CRVAL1": 412.5,
    "CRVAL2": -230.25,
    "CDELT1": 2.0,
    "CDELT2": 2.0,
    "PC1_1": np.cos(ANGLE),
    "PC1_2": -np.sin(ANGLE),
    "PC2_1": np.sin(ANGLE),
    "PC2_2": np.cos(ANGLE),
    "DSUN_OBS": 7.3e10,
    "HGLN_OBS": 61.0,
    "HGLT_OBS": -5.5,
    "RSUN_REF": R_SUN_M,
    "DATE-OBS": "2022-11-09T00:50:00",
    "ENERGY_L": 4,
    "ENERGY_H": 10,
    "BUNIT": "ct",
}


def test_pixels_lie_where_the_header_says() -> None:
    from astropy.wcs import WCS

    image = SkyImage.of_header(np.zeros((40, 65)), HEADER)
    columns, rows = np.array([0.0, 64.0, 12.5]), np.array([0.0, 39.0, 30.25])
    x, y = image.sky(columns, rows)
    plain = {key: value for key, value in HEADER.items() if key != "DATE-OBS"}
    degrees = WCS(plain).all_pix2world(columns, rows, 0)
    expected = [np.where(value > 180, value - 360, value) * 3600 for value in degrees]
    np.testing.assert_allclose([x, y], expected, rtol=0, atol=0.01)
    assert image.title == "4–10 keV  2022-11-09 00:50:00"
    known = HEADER | {"DATE-BEG": "2022-11-09T00:50:00.000", "DATE-END": "2022-11-09T00:51:30.000"}
    assert SkyImage.of_header(np.zeros((40, 65)), known).title == "4–10 keV  2022-11-09 00:50:00 +90 s"


def test_a_rotation_angle_means_the_same_as_its_matrix() -> None:
    angle = {key: value for key, value in HEADER.items() if not key.startswith("PC")} | {"CROTA2": np.rad2deg(ANGLE)}
    by_angle, by_matrix = (SkyImage.of_header(np.zeros((2, 2)), header) for header in (angle, HEADER))
    np.testing.assert_allclose(by_angle.matrix, by_matrix.matrix)


def test_a_map_gives_its_own_place() -> None:
    from sunpy.map import Map

    data = np.zeros((40, 65))
    data[10, 50] = 1.0
    sky_map = Map(data, dict(HEADER))
    image = SkyImage.of_map(sky_map)
    world = sky_map.wcs.pixel_to_world(50, 10)
    np.testing.assert_allclose(image.peak_xy(), [world.Tx.to_value("arcsec"), world.Ty.to_value("arcsec")], atol=0.01)
    assert image.observer.rsun_arcsec == pytest.approx(sky_map.rsun_obs.to_value("arcsec"), rel=1e-6)


@pytest.mark.parametrize("name", ["DSUN_OBS", "CRPIX1", "HGLT_OBS"])
def test_an_image_without_a_place_is_refused(name: str) -> None:
    header = {key: value for key, value in HEADER.items() if key != name}
    with pytest.raises(InputFileError, match=name):
        SkyImage.of_header(np.zeros((2, 2)), header)


def test_figure_shows_the_source_its_contour_and_the_marks(image: SkyImage) -> None:
    x, y = image.peak_xy()
    figure = image_figure(image, marks=[Mark(x, y), Mark(x + 5, y, "truth", "where it was")], field_of_view=60)
    axes = figure.axes[0]
    assert axes.get_xlim() == pytest.approx((x - 30, x + 30))
    assert axes.get_ylim() == pytest.approx((y - 30, y + 30))
    contour = next(artist for artist in axes.collections if hasattr(artist, "levels"))
    assert contour.levels.tolist() == pytest.approx([image.data.max() / 2])
    vertices = contour.get_paths()[0].vertices
    assert np.ptp(vertices[:, 0]) == pytest.approx(2 * 3 * 2 * np.sqrt(np.log(2)), rel=0.1)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["found", "where it was"]


def test_the_array_is_drawn_where_the_contour_is(image: SkyImage) -> None:
    axes = image_figure(image).axes[0]
    drawn = axes.images[0]
    on_screen = drawn.get_transform().transform([[38.0, 35.0]])
    np.testing.assert_allclose(axes.transData.inverted().transform(on_screen)[0], image.peak_xy(), atol=1e-6)


def test_panels_stand_side_by_side(image: SkyImage) -> None:
    figure = image_figure([image, image], title="two", theme="dark")
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.images] == ["clean", "clean"]
    png = figure_png(figure)
    assert png.startswith(b"\x89PNG")
    assert png == figure_png(image_figure([image, image], title="two", theme="dark"))


def test_the_whole_disk_has_no_contours(image: SkyImage) -> None:
    wide = replace(image, matrix=((100.0, 0.0), (0.0, 100.0)))
    assert not any(hasattr(artist, "levels") for artist in image_figure(wide).axes[0].collections)


def test_noise_is_told_and_has_no_contour(image: SkyImage) -> None:
    header = HEADER | {"VIS_SNR": 1.3}
    assert SkyImage.of_header(image.data, header).is_noise
    assert not image.is_noise  # not known
    axes = image_figure([replace(image, visibility_snr=1.3)]).axes[0]
    assert not [artist for artist in axes.collections if hasattr(artist, "levels")]
    assert any(text.get_text().startswith("noise: visibilities 1.3") for text in axes.texts)
    axes = image_figure([replace(image, visibility_snr=2.5)]).axes[0]
    assert [artist for artist in axes.collections if hasattr(artist, "levels")]


def test_an_empty_image_has_no_contour(image: SkyImage) -> None:
    empty = SkyImage(np.zeros((5, 5)), (2, 2), (0, 0), ((1, 0), (0, 1)), image.observer)
    figure = image_figure(empty)
    assert not any(hasattr(artist, "levels") for artist in figure.axes[0].collections)
    figure_png(figure)


def test_no_image_no_figure() -> None:
    with pytest.raises(UsageError, match="no image"):
        image_figure([])


def test_the_beam_is_drawn_where_there_is_one(image: SkyImage) -> None:
    def circles(one: SkyImage) -> list[float]:
        return [patch.get_width() for patch in image_figure(one).axes[0].patches if isinstance(patch, Circle)]

    assert circles(replace(image, beam=20.0)) == [2 * image.observer.rsun_arcsec, 20.0]
    assert circles(image) == [2 * image.observer.rsun_arcsec]
    assert SkyImage.of_header(np.zeros((2, 2)), HEADER | {"CLN_BEAM": 14.0}).beam == 14.0


def test_the_grid_is_named_as_on_the_sun(image: SkyImage) -> None:
    texts = {text.get_text() for text in image_figure(image, field_of_view=900).axes[0].texts}
    assert {"S10", "S20"} <= texts
    assert all(re.fullmatch(r"[NSEW]\d{1,3}", text) for text in texts)


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("ct / (s cm2 keV arcsec2)", "counts s⁻¹ cm⁻² keV⁻¹ arcsec⁻²"),
        ("ct / (s cm2 keV)", "counts s⁻¹ cm⁻² keV⁻¹"),
        ("ct / s", "counts s⁻¹"),
        ("ct", "counts"),
        ("photons cm!u-2!n / asec!u-2", "photons cm!u-2!n / asec!u-2"),
    ],
)
def test_units_read_as_people_write_them(unit: str, text: str) -> None:
    assert unit_text(unit) == text
