"""Figures as files."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from stixflow.previews import SkyImage, image_figure, lightcurve_figure, write_pdf


def test_figures_become_pages(image: SkyImage, lightcurve: xr.Dataset, tmp_path: Path) -> None:
    files = [
        write_pdf(tmp_path / f"{name}.pdf", [lightcurve_figure(lightcurve), image_figure(image)], title="a flare")
        for name in "ab"
    ]
    first, again = (path.read_bytes() for path in files)
    assert first.startswith(b"%PDF-")
    assert first.count(b"/Type /Page ") == 2
    assert b"(a flare)" in first
    assert first == again
