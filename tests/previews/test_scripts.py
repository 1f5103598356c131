"""The scripts make the same maps, and have every input filled in."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from stixflow.errors import UsageError
from stixflow.imaging import write_map
from stixflow.previews import Preview, ScriptFiles, animation_script, idl_script, python_script, read_images
from stixflow.previews.scripts import _double


@pytest.fixture
def files(real_paths: dict[str, Path]) -> ScriptFiles:
    return ScriptFiles(**{name: str(path) for name, path in real_paths.items()})


def run(script: Path, folder: Path) -> str:
    folder.mkdir()
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def test_the_python_script_makes_the_same_maps(real_preview: Preview, files: ScriptFiles, tmp_path: Path) -> None:
    script = tmp_path / "again.py"
    script.write_text(python_script(real_preview, files))
    said = run(script, tmp_path / "out")
    assert str(real_preview.source.hpc) in said
    for stack, image in zip(real_preview.source.images, real_preview.images, strict=True):
        with fits.open(tmp_path / "out" / f"map_{stack.attrs['method']}.fits") as file:
            # Another process may sum in another order: equal to the rounding of the file's float32.
            np.testing.assert_allclose(file[0].data, image.data, rtol=1e-6, atol=1e-7 * np.abs(image.data).max())
            assert file[0].header["FLNM_SCI"].endswith(Path(files.pixels).name[-20:])
    assert (tmp_path / "out" / "maps.png").stat().st_size > 10_000


def test_the_idl_script_has_every_input(real_preview: Preview) -> None:
    short = ScriptFiles("/data/signal.fits", "/data/place.fits", "quiet.fits")
    text = idl_script(real_preview, short)
    place, point = real_preview.source.observer, real_preview.source.pointing
    assert place is not None
    assert point is not None
    values = dict(re.findall(r"^(\w+)=(-?[\d.]+(?:d[-+]?\d*)|'[^']*')", text, re.MULTILINE))
    numbers = {
        "B0": place.hglt_deg, "L0": place.hgln_deg, "RSUN": place.rsun_arcsec, "dsun": place.distance_m,
        "roll_angle": point.roll, "elow": 4.0, "ehigh": 10.0, "bp_elow": 6.0, "bp_ehigh": 10.0,
    }  # fmt: skip
    assert {name: float(values[name].rstrip("d").replace("d", "e")) for name in numbers} == pytest.approx(
        numbers, rel=1e-11
    )
    assert values["sig_filename"] == "'signal.fits'"
    assert values["bkg_filename"] == "'quiet.fits'"
    assert values["start_utc"] == "'2022-11-09T07:20:24.000'"
    assert values["end_utc"] == "'2022-11-09T07:21:04.000'"
    assert values["vis_fwdfit_source_type"] == "'ellipse'"
    assert "source_type='multi'" in idl_script(real_preview, short, source_type="multi")
    assert "source_type='ellipse'" in idl_script(real_preview, short, source_type="loop")
    assert {"sun_center_x", "sun_center_y", "bp_fname", "full_disk_bp_fname", "em_fname", "clean_fname"} <= set(values)
    assert "x_offset_arcsec=-sun_center_x\ny_offset_arcsec=-sun_center_y\n" in text
    call = text[text.index("stx_image_reconstruct, ") :]
    given = [name.strip(" $\n") for name in call.removesuffix("\nend\n").split(",")[1:]]
    known = set(re.findall(r"^(\w+)=", text, re.MULTILINE))
    assert len(given) == 21
    assert {name.split()[0] for name in given} <= known


def test_idl_needs_a_background(real_preview: Preview, files: ScriptFiles) -> None:
    with pytest.raises(UsageError, match="lacks an input"):
        idl_script(real_preview, replace(files, background=""))


@pytest.mark.parametrize(("value", "text"), [(4.0, "4d"), (-0.25, "-0.25d"), (1e-7, "1d-07"), (4.85e13, "4.85d+13")])
def test_numbers_of_idl(value: float, text: str) -> None:
    assert _double(value) == text


def test_the_animation_script_runs(real_preview: Preview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = real_preview.source
    for index, stack in enumerate(source.images[:2]):
        write_map(tmp_path / f"m{index}.fits", stack, pointing=source.pointing, observer=source.observer)
    script = tmp_path / "animation.py"
    script.write_text(animation_script(["m0.fits", "m1.fits"], output="moves.gif"))
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    runpy.run_path(str(script), run_name="__main__")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["moves.gif", "overlay.png"]
    read = read_images([tmp_path / "m1.fits"])[0]
    assert read.peak_xy() == pytest.approx(real_preview.images[1].peak_xy(), abs=1e-6)
    assert read.title.startswith("CLEAN  4–10 keV")
