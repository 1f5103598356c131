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
    with Image.open(out / animation["gif"]) as gif:
        assert getattr(gif, "n_frames", 1) == len(animation["maps"])
    times = [fits.getheader(out / name)["DATE-BEG"] for name in animation["maps"]]
    assert times == sorted(times)
    with Image.open(out / made["panels"]) as panels:
        assert panels.size[0] > 1200
    named = [*told["inputs"], *animation["maps"], *(animation[name] for name in ("gif", "overlay", "script"))]
    assert {path.name for path in out.iterdir()} == {*named, made["panels"], made["python"], made["idl"]}
    for name in told["inputs"][:2]:
        assert name in (out / made["idl"]).read_text()
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(out / made["python"]), run_name="__main__")
    said = capsys.readouterr().out.splitlines()[1]
    again = [float(number) for number in said.split("(")[-1].rstrip(")").split(", ")]
    assert again == pytest.approx(made["hpc_arcsec"], abs=1e-6)
    assert fits.getheader("map_em.fits")["ALG_USED"] == "EM"


def test_what_cannot_be_shown(processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, processed, "--flare", "2001010000", "--output", tmp_path / "out")
    assert code == 1
    assert "no flare" in told["error"]
    faint = ("--flare", flare_of(processed), "--output", tmp_path / "out", "--energy-range", "80-84")
    code, told = run(capsys, processed, *faint)
    assert code == 1
    assert "no window" in told["error"]
    assert not (tmp_path / "out").exists()
