"""Tables and headers read from their bytes are those that astropy reads, of every real file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from stixflow.errors import InputFileError
from stixflow.fits._reading import open_stix
from stixflow.fits._table import read_table
from stixflow.fits.headers import read_hdus

_DATA = Path(__file__).resolve().parents[3] / "shared/data"
_FOLDERS = ("l1", "spectrograms", "lightcurves", "calibration", "flarelists", "flare_20200607", "telemetry", "rhessi")
_FILES = [p.relative_to(_DATA).as_posix() for folder in _FOLDERS for p in sorted((_DATA / folder).glob("*.fits*"))]
_KEYS = ("HISTORY", "COMMENT", "CONTINUE", "")


@pytest.mark.parametrize("name", _FILES)
def test_every_column_and_card_is_that_of_astropy(shared: Path, name: str) -> None:
    path = shared / "data" / name
    content, found = read_hdus(path)
    with warnings.catch_warnings(), fits.open(path) as hdus:
        warnings.simplefilter("ignore")
        assert [hdu.name for hdu in found[1:]] == [hdu.name.upper() for hdu in hdus[1:]]
        for ours, theirs in zip(found, hdus, strict=True):
            _assert_cards(ours.cards, theirs.header)
            if not ours.is_table:
                continue
            table = read_table(path.name, ours, content)
            assert table.names == theirs.columns.names
            for column in theirs.columns:
                assert (table.unit(column.name) or None) == ((column.unit or "").strip() or None)
                if column.format.lstrip("0123456789")[0] in "PQ":
                    with pytest.raises(InputFileError, match="variable length"):
                        table.column(column.name)
                    continue
                _assert_equal(table.column(column.name), np.asarray(theirs.data[column.name]), column.name)


def _assert_cards(ours: Any, theirs: Any) -> None:
    for key in theirs:
        if key not in _KEYS:
            value = theirs[key]
            wanted = None if isinstance(value, fits.card.Undefined) else value
            assert ours[key] == (wanted.rstrip() if isinstance(wanted, str) else wanted), key
    for key in ("HISTORY", "COMMENT"):
        assert [str(line) for line in theirs.get(key, [])] == ours.get(key, [])


def _assert_equal(ours: np.ndarray, theirs: np.ndarray, name: str) -> None:
    assert ours.shape == theirs.shape, name
    if theirs.dtype.kind in "US":
        assert np.char.rstrip(theirs.astype(str)).tolist() == ours.tolist(), name
        return
    assert ours.dtype == theirs.dtype.newbyteorder("="), name
    np.testing.assert_array_equal(ours, theirs, err_msg=name)


def _file(path: Path, columns: list[fits.Column]) -> Path:
    primary = fits.PrimaryHDU(header=fits.Header({"TELESCOP": "SOLO/STIX"}))
    fits.HDUList([primary, fits.BinTableHDU.from_columns(columns, name="data")]).writeto(path)
    return path


def test_every_type_and_shape(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    columns = [
        fits.Column("bool", "L", array=np.array([True, False, True])),
        fits.Column("bools", "4L", array=rng.random((3, 4)) > 0.5),
        fits.Column("bytes", "6B", dim="(3,2)", array=rng.integers(0, 256, (3, 2, 3), dtype=np.uint8)),
        fits.Column("signed", "B", bzero=-128, array=np.array([-128, 0, 127], dtype=np.int8)),
        *(
            fits.Column(
                f"u{n}", code, bzero=1 << 8 * n - 1, bscale=1, array=np.array([0, 1, 2 ** (8 * n) - 1], f"u{n}")
            )
            for n, code in ((2, "I"), (4, "J"), (8, "K"))
        ),
        fits.Column("scaled", "E", bscale=0.5, bzero=3.0, array=np.array([3.0, 4.5, 10.0], np.float32)),
        fits.Column("float", "2E", array=rng.random((3, 2), dtype=np.float32)),
        fits.Column("complex", "4M", dim="(2,2)", array=rng.random((3, 2, 2)) + 1j * rng.random((3, 2, 2))),
        fits.Column("text", "5A", array=np.array(["ab", "", "cdefg"])),
        fits.Column("texts", "6A", dim="(3,2)", array=np.array([["a", "bcd"], ["", "x"], ["abc", "y"]])),
        fits.Column("one", "1D", dim="(1)", array=rng.random((3, 1))),
    ]
    path = _file(tmp_path / "types.fits", columns)
    with open_stix(path) as file, fits.open(path) as hdus:
        table = file.table("DATA")
        for name in table.names:
            theirs = np.asarray(hdus["DATA"].data[name])
            # astropy makes floating point of whole numbers with a sign of their own.
            found = table.column(name)
            _assert_equal(found.astype(theirs.dtype) if name in ("signed", "scaled") else found, theirs, name)
        assert table.column("signed").dtype == np.int8


def test_single_bits_are_refused(tmp_path: Path) -> None:
    path = _file(tmp_path / "bits.fits", [fits.Column("x", "8X", array=np.ones((2, 8), dtype=bool))])
    with open_stix(path) as file, pytest.raises(InputFileError, match="single bits"):
        file.table("DATA").column("x")


def test_what_was_read_outlives_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path / "gone.fits", [fits.Column("x", "B", array=np.arange(5, dtype=np.uint8))])
    with open_stix(path) as file:
        values = file.table("DATA").column("x")
    path.unlink()
    assert values.tolist() == [0, 1, 2, 3, 4]
    while values.base is not None:
        values = values.base
        assert not isinstance(values, np.memmap)
