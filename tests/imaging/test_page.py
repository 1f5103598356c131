"""The page on imaging runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sunpy.map

PAGE = Path(__file__).resolve().parents[2] / "docs/imaging.md"


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    namespace: dict[str, Any] = {}
    for code in blocks:
        exec(compile(code, str(PAGE), "exec"), namespace)
    assert namespace["choice"].candidates[namespace["choice"].best[0]].sources == ("circle", "circle")
    fit = namespace["fitted"]["fit"].sel(image=0, parameter=["x", "y"])
    np.testing.assert_allclose(fit, [(-18, -12), (16, 15)], atol=1.0)
    assert namespace["entropy"]["converged"].all()
    assert float(namespace["significance"].max()) > 10
    assert np.load("maps.npy").shape == namespace["images"]["image"].shape


def test_the_examples_from_an_archive_run(processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import stixflow
    from stixflow.imaging import Grid

    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    namespace: dict[str, Any] = {"archive": stixflow.open_archive(processed), "np": np, "Grid": Grid}
    for code in blocks:
        exec(compile(code, str(PAGE), "exec"), namespace)
    assert namespace["pixels"].sizes["time"] > namespace["background"].sizes["time"]
    dirty, clean = namespace["series"].source.images
    assert dirty.sizes["image"] == clean.sizes["image"] > 5
    peak = namespace["sources"][0].hpc
    seen = sunpy.map.Map(tmp_path / "map.fits")
    assert np.hypot(peak[0] - 300, peak[1] + 200) < 3
    assert seen.instrument == "STIX"
    assert {path.suffix for path in tmp_path.iterdir()} == {".fits", ".png", ".gif"}
