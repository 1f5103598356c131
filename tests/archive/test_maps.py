from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from stixflow.archive import Archive, open_archive
from stixflow.errors import NotFound, StoreError

HEADER = {
    "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CDELT1": 2.0, "CDELT2": 2.0,
    "CRPIX1": 2.5, "CRPIX2": 2.5, "CRVAL1": 100.0, "CRVAL2": 50.0, "RSUN_REF": 695700000.0,
    "DATE-OBS": "2022-11-09T01:00:00", "HGLN_OBS": 0.0, "HGLT_OBS": 0.0, "DSUN_OBS": 1.0e11,
}  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return open_archive(tmp_path / "archive", create=True)


def test_a_map_with_its_uncertainty(archive: Archive) -> None:
    path = Path(archive.url("images/a.fits"))
    path.parent.mkdir()
    row = {"image_id": "a", "method": "bp", "energy_low": 4, "energy_high": 10, "digest": "d", "path": "images/a.fits"}
    archive.catalog.replace_images({"f": [row | {"start": "2022-11-09", "stop": "2022-11-10"}]}, run_id="R")
    with pytest.raises(StoreError, match="lost or damaged"):
        archive.map("a")
    primary = fits.PrimaryHDU(np.arange(16.0).reshape(4, 4), fits.Header(HEADER))
    sigma = fits.ImageHDU(np.full((4, 4), 0.5), fits.Header(HEADER), name="UNCERTAINTY")
    sources = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=[1.0])], name="SOURCES")
    fits.HDUList([primary, sigma, sources]).writeto(path)
    made = archive.map("a")
    assert made.data[3, 3] == 15.0
    assert made.uncertainty.array.tolist() == sigma.data.tolist()
    assert made.scale.axis1.value == 2.0
    fits.HDUList([primary, sources]).writeto(path, overwrite=True)
    assert archive.map("a").uncertainty is None
    path.write_bytes(path.read_bytes()[:2890])
    with pytest.raises(StoreError, match="lost or damaged"):
        archive.map("a")
    fits.PrimaryHDU().writeto(path, overwrite=True)
    with pytest.raises(StoreError, match="holds no image"):
        archive.map("a")
    with pytest.raises(NotFound):
        archive.map("b")
