from __future__ import annotations

from io import BytesIO

import numpy as np
from astropy.io import fits

from stixflow.fits.hdus import image_hdu
from stixflow.imaging.map_tables import Column, table_hdu


def test_a_table_is_that_of_astropy() -> None:
    lines = [np.arange(4, dtype=np.float32), np.empty(0, np.float32), np.arange(7, dtype=np.float32)]
    columns = [
        Column("NUMBER", np.arange(3, dtype=np.int32)),
        Column("PEAK", np.array([1.5, np.nan, -2.0]), "keV"),
        Column("PLACE", np.arange(6.0).reshape(3, 2), "arcsec"),
        Column("CUT", np.array([True, False, True])),
        Column("TIME", np.array(["2022-11-09", "now", ""])),
        Column("LINE", lines, "arcsec"),
    ]
    outlines = np.empty(3, dtype=object)
    outlines[:] = lines
    theirs = fits.BinTableHDU.from_columns(
        [
            fits.Column("NUMBER", "J", array=np.arange(3)), fits.Column("PEAK", "D", "keV", array=columns[1].values),
            fits.Column("PLACE", "2D", "arcsec", array=columns[2].values),
            fits.Column("CUT", "L", array=columns[3].values), fits.Column("TIME", "10A", array=columns[4].values),
            fits.Column("LINE", "PE()", "arcsec", array=outlines),
        ],
        name="SOURCES",
    )  # fmt: skip
    reference = BytesIO()
    fits.HDUList([fits.PrimaryHDU(np.zeros((1, 1), np.float32)), theirs]).writeto(reference, checksum=True)
    empty = image_hdu(np.zeros((1, 1), np.float32), {}, is_primary=True, last=False)
    ours = BytesIO(empty + table_hdu("SOURCES", columns))
    with fits.open(ours, checksum=True) as file, fits.open(BytesIO(reference.getvalue())) as other:
        difference = fits.FITSDiff(file, other, ignore_keywords=["CHECKSUM", "DATASUM"])
        assert difference.identical, difference.report()
