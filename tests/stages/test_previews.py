"""`stixflow preview` on an archive that was made from telemetry."""

from __future__ import annotations

import json
import runpy
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from example_delivery import POSITION
from PIL import Image

import stixflow
from stixflow import cli


def run(capsys: pytest.CaptureFixture[str], archive: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    code = cli.main(["preview", "--archive", str(archive), "--json", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out)


def flare_of(archive: Path) -> str:
    with closing(stixflow.open_archive(archive)) as opened:
        return str(opened.flares().iloc[0]["flare_id"])


def test_the_preview_of_a_flare(
    processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--energy-range", "4-10", "--energy-range", "80-84", "--frames", "4", "--regularised", "em")
    out = tmp_path / "out"
    code, told = run(capsys, processed, "--flare", flare_of(processed), "--output", out, *options)
    assert code == 0
    (made,) = told["previews"]
    assert np.hypot(*(np.array(made["hpc_arcsec"]) - POSITION)) < 2
    assert list(told["left_out"]) == ["80-84keV"]
    animation = told["animation"]
    assert 2 <= len(animation["maps"]) <= 4
    with Image.open(out / animation["movie"]) as gif:
        assert getattr(gif, "n_frames", 1) == len(animation["maps"])
    headers = [fits.getheader(out / name) for name in made["maps"]]
    assert [header["ALG_USED"] for header in headers] == ["BP", "CLEAN", "EM", "FORWARD_FIT"]
    assert headers[3]["FIT_KIND"] == "ellipse"
    assert headers[1]["FLNM_SCI"] == told["inputs"][0]
    assert headers[1]["FLNM_BKG"] == told["background"]["name"] == told["inputs"][1]
    assert any(told["background"]["reason"] in line for line in headers[1]["HISTORY"])
    times = [fits.getheader(out / name)["DATE-BEG"] for name in animation["maps"]]
    assert times == sorted(times)
    with Image.open(out / made["panels"]) as panels:
        assert panels.size[0] > 1200
    named = [
        *told["inputs"],
        *animation["maps"],
        *(animation[name] for name in ("movie", "overlay", "series", "script")),
        *made["maps"],
    ]
    assert {path.name for path in out.iterdir()} == {
        *named, *(made[name] for name in ("panels", "visibilities", "python", "idl"))
    }  # fmt: skip
    for name in told["inputs"][:2]:
        assert name in (out / made["idl"]).read_text()
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(out / made["python"]), run_name="__main__")
    said = capsys.readouterr().out.splitlines()[1]
    again = [float(number) for number in said.split("(")[-1].rstrip(")").split(", ")]
    assert again == pytest.approx(made["hpc_arcsec"], abs=1e-6)
    assert fits.getheader("map_em.fits")["ALG_USED"] == "EM"


def test_the_preview_of_official_files(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = shared.resolve() / "data/flares_202211", tmp_path / "out"
    paths = [next((folder / "pixel_data").glob(f"*_{request}-*.fits")) for request in ("2211091049", "2211098157")]
    places = folder / "ephemeris/solo_L2_stix-aux-ephemeris_20221109_V01.fits"
    code = cli.main(
        ["preview", str(paths[0]), "--background", str(paths[1]), "--ephemeris", str(places), "--output", str(out),
         "--time-range", "2022-11-09T07:18/2022-11-09T07:26", "--energy-range", "4-10", "--frames", "3",
         "--shape", "circle", "--pdf", "--json"]
    )  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    (made,) = told["previews"]
    assert told["background"] == {"name": paths[1].name, "reason": "given"}
    assert fits.getheader(out / made["maps"][3])["FIT_KIND"] == "circle"
    assert (out / made["panels"]).stat().st_size > 100_000
    assert (out / told["pdf"]).read_bytes().count(b"/Type /Page ") == 4
    script = (out / made["python"]).read_text()
    assert repr(str(paths[0])) in script
    assert len(told["animation"]["maps"]) == 3
    code = cli.main(
        ["preview", str(paths[0]), "--background", str(paths[1]), "--ephemeris", str(places), "--output", str(out),
         "--energy-range", "4-10", "--energy-range", "16-28", "--json"]
    )  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert "noise alone" in told["left_out"]["16-28keV"]
    noise = [one for one in told["animation"]["left_out"] if one["reason"].startswith("noise")]
    assert len(told["animation"]["maps"]) + len(noise) > 6
    assert noise[0]["time_range"] < told["previews"][0]["time_range"]


@pytest.mark.parametrize(
    "arguments",
    [["--output", "out"], ["a.fits", "--flare", "1"], ["--flare", "1", "--ephemeris", "e.fits"], ["a.fits"]],
)
def test_data_come_from_one_place(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["preview", "--output", str(tmp_path / "out"), "--json", *arguments]) == 2
    assert "preview --help" in json.loads(capsys.readouterr().out)["error"]
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_shown(processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, processed, "--flare", "2001010000", "--output", tmp_path / "out")
    assert code == 1
    assert "no flare" in told["error"]
    faint = ("--flare", flare_of(processed), "--output", tmp_path / "out", "--energy-range", "80-84")
    code, told = run(capsys, processed, *faint)
    assert code == 1
    assert "no window" in told["error"]
    assert not (tmp_path / "out").exists()
