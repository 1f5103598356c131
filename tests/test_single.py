"""`stixflow image`: one official file, one source, its maps, without any archive."""

from __future__ import annotations

import csv
import json
import re
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from stixflow import cli
from stixflow.archive import open_archive

FLARE = "2211090720"
PIXELS = "solo_L1_stix-sci-xray-cpd_20221109T071623-20221109T073054_V01_2211091049-54681.fits"
SPAN = "2022-11-09T07:20:24/2022-11-09T07:21:04"


@pytest.fixture
def flares(shared: Path) -> Path:
    return shared / "data" / "flares_202211"


def background(flares: Path) -> Path:
    return next((flares / "pixel_data").glob("*_2211098157-*.fits"))


def ephemeris(flares: Path) -> Path:
    return flares / "ephemeris" / "solo_L2_stix-aux-ephemeris_20221109_V01.fits"


def image(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any], str]:
    code = cli.main(["image", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def test_the_position_of_a_real_flare(flares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the forward fit of the ground software, whose own sigma is 0.5 arcsec, as ours is 1.0."""
    code, told, _ = image(
        capsys,
        flares / "pixel_data" / PIXELS,
        *("--background", background(flares), "--ephemeris", ephemeris(flares)),
        *("--time-range", SPAN, "--energy-range", "4-16", "--method", "clean", "--output", tmp_path),
    )
    assert code == 0
    assert set(told["location"]) >= {"stix_arcsec", "hpc_arcsec", "sigma_arcsec", "sidelobe_ratio"}
    with (flares / "flare_locations.csv").open() as stream:
        row = next(row for row in csv.DictReader(stream) if row["flare ID"] == FLARE)
    found = np.array(told["location"]["hpc_arcsec"])
    fitted = np.array([float(row["X flare loc"]), float(row["Y flare loc"])])
    assert np.hypot(*(found - fitted)) < 2.0
    assert all(0 < sigma < 5 for sigma in told["location"]["sigma_arcsec"])
    assert 0 < told["location"]["sidelobe_ratio"] < 0.9
    assert told["pointing"] in ("sas", "attitude")
    (path,) = told["maps"]
    assert Path(path).is_file()
    assert Path(path).parent == tmp_path


def test_the_map_opens_with_the_right_observer(
    flares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sunpy.map

    _, told, _ = image(
        capsys,
        flares / "pixel_data" / PIXELS,
        *("--background", background(flares), "--ephemeris", ephemeris(flares)),
        *("--time-range", SPAN, "--energy-range", "4-16", "--method", "clean", "--method", "bp"),
        *("--size", "101", "--pixel", "3", "--output", tmp_path / "new" / "folder"),
    )
    assert len(told["maps"]) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = [sunpy.map.Map(path) for path in told["maps"]]
    for one in maps:
        assert one.data.shape == (101, 101)
        assert one.coordinate_frame.name == "helioprojective"
        assert one.observer_coordinate.radius.to_value("AU") == pytest.approx(0.5967, abs=1e-4)
        assert one.observer_coordinate.lon.to_value("deg") == pytest.approx(-23.18, abs=0.01)
        assert one.date.isot.startswith("2022-11-09T07:19:31")
        assert one.meta["flnm_sci"] == PIXELS
        row, column = np.unravel_index(np.argmax(one.data), one.data.shape)
        peak = one.wcs.pixel_to_world(float(column), float(row))
        found = told["location"]["hpc_arcsec"]
        assert np.hypot(peak.Tx.to_value("arcsec") - found[0], peak.Ty.to_value("arcsec") - found[1]) < 15


def test_without_ephemeris_the_place_on_the_sun_is_unknown(
    flares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = flares / "pixel_data" / PIXELS
    options = ("--time-range", SPAN, "--energy-range", "4-16", "--output", tmp_path)
    code, told, err = image(capsys, source, *options)
    assert code == 0
    assert told["location"]["hpc_arcsec"] is None
    assert told["pointing"] is None
    assert any("ephemeris" in warning or "pointing" in warning for warning in told["warnings"])
    assert all(f"stixflow: {warning}\n" in err for warning in told["warnings"])
    _, known, _ = image(capsys, source, *options, "--ephemeris", ephemeris(flares))
    assert np.allclose(told["location"]["stix_arcsec"], known["location"]["stix_arcsec"], atol=0.5)


def test_as_text(flares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--time-range", SPAN, "--energy-range", "4-16", "--output", str(tmp_path), "--method", "bp"]
    assert cli.main(["image", str(flares / "pixel_data" / PIXELS), *options]) == 0
    told = capsys.readouterr().out
    assert "stix_arcsec" in told
    assert str(tmp_path) in told


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("light curve", "is ql_lightcurve"),
        ("spectrogram", "is sci_spectrogram"),
        ("ephemeris", "ephemeris"),
        ("text", "notes.txt"),
        ("nothing", "nowhere.fits"),
        ("background is a light curve", "is ql_lightcurve"),
        ("ephemeris is pixels", ""),
    ],
)
def test_a_wrong_file_is_named(
    flares: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, message: str
) -> None:
    light = next((shared / "data/l1").glob("*ql-lightcurve*"))
    (tmp_path / "notes.txt").write_text("no FITS")
    good = flares / "pixel_data" / PIXELS
    arguments: dict[str, list[str | Path]] = {
        "light curve": [light],
        "spectrogram": [next((shared / "data/l1").glob("*xray-spec_*"))],
        "ephemeris": [ephemeris(flares)],
        "text": [tmp_path / "notes.txt"],
        "nothing": [tmp_path / "nowhere.fits"],
        "background is a light curve": [good, "--background", light],
        "ephemeris is pixels": [good, "--ephemeris", good],
    }
    options = ("--time-range", SPAN, "--energy-range", "4-16", "--output", tmp_path / "out")
    code, told, err = image(capsys, *arguments[wrong], *options)
    assert code == 1
    assert message in told["error"]
    assert "Expected: " in told["error"]
    assert "Do: " in told["error"]
    assert err.startswith("stixflow: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("span", "energies"),
    [
        ("2022-11-09T12:00:00/2022-11-09T12:01:00", "4-16"),
        (SPAN, "100-120"),
    ],
)
def test_a_selection_without_data(
    flares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], span: str, energies: str
) -> None:
    options = ("--time-range", span, "--energy-range", energies, "--output", tmp_path / "out")
    code, told, _ = image(capsys, flares / "pixel_data" / PIXELS, *options)
    assert code in (1, 2)
    assert told["exit_code"] == code
    assert "Expected: " in told["error"]
    assert not (tmp_path / "out").exists()


def test_a_flare_becomes_a_series_of_maps(flares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told, _ = image(
        capsys,
        flares / "pixel_data" / PIXELS,
        *("--background", background(flares), "--ephemeris", ephemeris(flares), "--output", tmp_path, "--size", "65"),
        *("--time-range", "2022-11-09T07:19:00/2022-11-09T07:24:00", "--counts-per-image", "3000"),
        *("--energy-range", "4-8", "--energy-range", "8-16", "--method", "bp", "--method", "mem_ge"),
    )
    assert code == 0
    assert {(one["method"], *one["energy_keV"]) for one in told["images"]} == {
        (method, *band) for method in ("bp", "mem_ge") for band in ((4.0, 8.0), (8.0, 16.0))
    }
    assert told["maps"] == [one["path"] for one in told["images"]]
    assert len(set(told["maps"])) == len(told["maps"]) == len(list(tmp_path.iterdir()))
    for one in told["images"]:
        assert one["counts"] >= 3000
        brightest = np.array(one["sources"][0]["hpc"])
        assert np.hypot(*(brightest - told["location"]["hpc_arcsec"])) < 20
    spans = sorted({one["time_range"] for one in told["images"] if one["energy_keV"] == [4.0, 8.0]})
    assert len(spans) >= 3
    assert all(a.split("/")[1] <= b.split("/")[0] for a, b in pairwise(spans))


def test_the_background_of_the_best_score_is_taken(
    flares: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = next((shared / "data/l1").glob("*cpd_20240308T193915*"))
    options = ("--time-range", SPAN, "--energy-range", "4-10", "--output", tmp_path, "--size", "33")
    source = flares / "pixel_data" / PIXELS
    _, told, _ = image(capsys, source, "--background", far, "--background", background(flares), *options)
    assert told["background"]["name"] == background(flares).name
    assert told["background"]["reason"].startswith("score ")
    code, told, err = image(capsys, source, "--background", far, "--background", far, *options)
    assert code == 0
    assert told["background"] == {"name": None, "reason": told["background"]["reason"]}
    assert "no background" in told["background"]["reason"]
    assert "no background" in err


def test_a_flare_of_an_archive(processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from example_delivery import POSITION

    flare = open_archive(processed).flares().iloc[0]["flare_id"]
    place = ("--archive", processed, "--flare", flare, "--output", tmp_path, "--size", "33")
    code, told, _ = image(capsys, *place)
    assert code == 0
    assert told["flare_id"] == flare
    assert np.hypot(*(np.array(told["location"]["hpc_arcsec"]) - POSITION)) < 2
    assert [one["energy_keV"] for one in told["images"]] == [[4.0, 10.0], [16.0, 28.0]]
    assert told["background"]["reason"].startswith("score")
    bands = ("--energy-range", "4-8", "--energy-range", "8-12")
    code, cubes, _ = image(capsys, *place, *bands, "--cadence", "120", "--cube")
    assert code == 0
    assert fits.getdata(cubes["cubes"][0]).shape == (len(cubes["images"]) // 2, 2, 33, 33)
    _, uneven, _ = image(capsys, *place, *bands, "--counts-per-image", "100000", "--cube")
    shapes = [fits.getdata(path).shape for path in uneven["cubes"]]
    assert len(shapes) == 2
    assert sum(times for times, *_ in shapes) == len(uneven["images"])
    assert {shape[1:] for shape in shapes} == {(1, 33, 33)}
    code, views, _ = image(capsys, *place, "--energy-range", "4-10", "--earth")
    assert code == 0
    (view,) = views["earth_views"]
    assert fits.getheader(view)["FLARE_ID"] == flare
    assert fits.getheader(view)["HGLN_OBS"] == 0.0
    code, series, _ = image(capsys, *place, "--energy-range", "4-10", "--cadence", "60", "--uncertainty", "3", "--cube")
    assert code == 0
    assert len(series["images"]) > 2
    with fits.open(series["maps"][0]) as file:
        assert [hdu.name for hdu in file[1:]][:1] == ["UNCERTAINTY"]
    assert fits.getdata(series["cubes"][0]).shape == (len(series["images"]), 1, 33, 33)
    with fits.open(series["maps"][0]) as file:
        assert file[0].header["FLARE_ID"] == flare
        assert any(told["background"]["reason"] in line for line in file[0].header["HISTORY"])
    code, told, _ = image(capsys, "--archive", processed, "--flare", "2001010000")
    assert code == 1
    assert "no flare" in told["error"]


def test_the_text_says_what_was_taken_and_left_out(
    processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flare = str(open_archive(processed).flares().iloc[0]["flare_id"])
    bands = ("--energy-range", "4-10", "--energy-range", "50-76")
    place = ["image", "--archive", str(processed), "--flare", flare, "--output", str(tmp_path), "--size", "17"]
    assert cli.main([*place, *bands, "--cadence", "120"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (quiet,) = (line for line in lines if "background:" in line)
    assert "(score 0." in quiet
    maps = [line for line in lines if line.startswith(str(tmp_path))]
    assert all(re.search(r"fits  \d+ of \d+ counts, visibilities \d+\.\d sigma$", line) for line in maps)
    assert any(line.startswith("left out: ") and "50-76 keV: the data do not cover" in line for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.fits", "--flare", "2206160100"],
        ["--flare", "2206160100", "--background", "b.fits"],
        ["a.fits", "--time-range", SPAN],
        ["a.fits", "--time-range", SPAN, "--energy-range", "4-10", "--cadence", "5", "--snr", "3"],
        ["a.fits", "--time-range", SPAN, "--energy-range", "4-10", "--method", "magic"],
        ["a.fits", "--time-range", SPAN, "--energy-range", "4-10", "--cadence", "0"],
    ],
)
def test_options_that_do_not_go_together(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, told, _ = image(capsys, *arguments)
    assert code == 2
    assert "Expected: " in told["error"]
