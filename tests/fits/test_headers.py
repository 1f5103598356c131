"""Files that declare what they do not have are refused before anything is allocated for them."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from example_cubes import make_dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stixflow.errors import InputFileError, MissingFile, StixflowError
from stixflow.fits import read_level1, write_level1
from stixflow.fits.headers import MOST_BYTES, checked, peek, verify_sums

_ALLOWED = 4_000_000
"""Bytes that a refusal may take: many times the file, a millionth of what the headers declare."""


@pytest.fixture(scope="module")
def good_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_level1(tmp_path_factory.mktemp("good"), make_dataset("ql_lightcurve"))


@pytest.fixture(scope="module")
def good(good_file: Path) -> bytes:
    return good_file.read_bytes()


def card(data: bytes, key: str, value: object, *, hdu: int = 0, absent: bool = False) -> bytes:
    """Return the file with the card of one of its headers changed: the first one, or that of the n-th extension."""
    start = 0
    for _ in range(hdu):
        start = data.index(b"XTENSION=", start + 1)
    text = (
        f"{key:8}= {value:>20}".ljust(80).encode()
        if not isinstance(value, str)
        else f"{key:8}= '{value}'".ljust(80).encode()
    )
    if absent:
        at = data.index(b"END     ", start)
        assert data[at + 80 : at + 160].strip() == b""
        return data[:at] + text + b"END".ljust(80) + data[at + 160 :]
    at = data.index(f"{key:8}= ".encode(), start)
    return data[:at] + text + data[at + 80 :]


_MISSING = "cut short|or declares them"
Spoil = Callable[[bytes], bytes]

ABSURD: dict[str, tuple[Spoil, str]] = {
    "a terabyte of rows": (lambda d: card(d, "NAXIS2", 10**12, hdu=2), _MISSING),
    "rows by the googol": (
        lambda d: card(d, "NAXIS2", "9" * 70, hdu=2).replace(b"'" + b"9" * 70 + b"'", b"9" * 70 + b"  "),
        "cut short",
    ),
    "a heap of an exabyte": (lambda d: card(d, "PCOUNT", 10**18, hdu=2), _MISSING),
    "many groups": (lambda d: card(d, "GCOUNT", 10**15, hdu=2), _MISSING),
    "rows shorter than their columns": (lambda d: card(d, "NAXIS1", 8, hdu=2), "rows of 8 bytes"),
    "a negative heap": (lambda d: card(d, "PCOUNT", -5, hdu=2), "PCOUNT as -5"),
    "negative rows": (lambda d: card(d, "NAXIS2", -1, hdu=2), "NAXIS2 as -1"),
    "half a row": (lambda d: card(d, "NAXIS2", 1.5, hdu=2), "NAXIS2 as 1.5"),
    "a column of a terabyte": (lambda d: card(d, "TFORM1", "999999999999D", hdu=2), "rows of"),
    "no such format": (lambda d: card(d, "TFORM1", "7Z", hdu=2), "TFORM1"),
    "more shape than values": (lambda d: card(d, "TDIM1", "(999999,999999)", hdu=2, absent=True), "TDIM1"),
    "a million columns": (lambda d: card(d, "TFIELDS", 10**6, hdu=2), "1000000 columns"),
    "an image of a terabyte": (lambda d: _header_of_image(d, 10**12), _MISSING),
    "999999 axes": (lambda d: card(d, "NAXIS", 999999), "NAXIS"),
    "bits of its own": (lambda d: card(d, "BITPIX", 7), "BITPIX as 7"),
    "no axes told": (lambda d: d.replace(b"NAXIS   =", b"NAXOS   =", 1), "NAXIS as None"),
    "no end of its header": (lambda d: d[:2880].replace(b"END     ", b"COMMENT ") + b" " * 2880 * 3, "header"),
    "headers without end": (lambda d: d[:80] + b"COMMENT x".ljust(80) * 36 * 501, "header of more than"),
    "cut in a header": (lambda d: d[:4000], "cut short"),
    "cut in its data": (lambda d: d[: len(d) // 2], _MISSING),
    "nothing at all": (lambda _: b"", "empty"),
    "text": (lambda _: b"what is this?" * 1000, "not a FITS file"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("case", ABSURD)
def test_absurd_sizes_are_refused_without_memory(case: str, packed: bool, good: bytes, tmp_path: Path) -> None:
    spoil, words = ABSURD[case]
    data = spoil(good)
    path = tmp_path / "solo_L1_stix-ql-lightcurve_20221109_V01.fits"
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    tracemalloc.start()
    try:
        with pytest.raises(InputFileError, match=words):
            checked(path)
        assert tracemalloc.get_traced_memory()[1] < _ALLOWED + 8 * len(data)
    finally:
        tracemalloc.stop()
    with pytest.raises(InputFileError, match=words):
        read_level1(path)


def bomb(path: Path, head: bytes, megabytes: int) -> Path:
    """Write a gzip file of a header and zeros, without ever holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(packer.compress(head))
        for _ in range(megabytes):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    return path


def test_a_bomb_of_zeros_is_left_packed(tmp_path: Path) -> None:
    path = bomb(tmp_path / "zeros.fits.gz", b"", 50)
    _refused_cheaply(path, "not a FITS file")


def _header_of_image(good: bytes, size: int) -> bytes:
    """Return the primary header, declaring an image of that many bytes."""
    head = card(good, "NAXIS", 1).replace(b"EXTEND  =                    T", f"NAXIS1  = {size:>20}".encode(), 1)
    return head[: head.index(b"XTENSION=")]


def test_a_bomb_behind_a_header_is_left_packed(good: bytes, tmp_path: Path) -> None:
    path = bomb(tmp_path / "behind.fits.gz", _header_of_image(good, 6 * 10**9), 30)
    _refused_cheaply(path, "bytes, or declares them")


def test_what_deflate_cannot_give_is_not_waited_for(good: bytes, tmp_path: Path) -> None:
    path = bomb(tmp_path / "small.fits.gz", _header_of_image(good, 3 * 10**9), 1)
    _refused_cheaply(path, "cut short")


def test_what_follows_the_last_table_stays_packed(good: bytes, tmp_path: Path) -> None:
    path = bomb(tmp_path / "tail.fits.gz", good, 50)
    tracemalloc.start()
    try:
        assert len(checked(path).getvalue()) < len(good) + 5000  # type: ignore[union-attr]
        assert tracemalloc.get_traced_memory()[1] < _ALLOWED + 8 * len(good)
    finally:
        tracemalloc.stop()


def _refused_cheaply(path: Path, words: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputFileError, match=words):
            checked(path)
        assert tracemalloc.get_traced_memory()[1] < _ALLOWED
    finally:
        tracemalloc.stop()


def test_a_sparse_file_of_terabytes_is_refused(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sparse.fits"
    with path.open("wb") as file:
        file.write(good)
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InputFileError, match="bytes, or declares them"):
        checked(path)


# Arrays of variable length --------------------------------------------------------------------------------------------


def _with_heap(path: Path, spoil: Callable[[np.ndarray], None]) -> Path:
    arrays = np.array([np.arange(n, dtype=np.int16) for n in (3, 5, 2)], dtype=object)
    columns = [fits.Column("a", "J", array=np.arange(3)), fits.Column("b", "PI()", array=arrays)]
    primary = fits.PrimaryHDU(header=fits.Header({"TELESCOP": "SOLO/STIX", "SSID": 30, "LEVEL": "L1"}))
    fits.HDUList([primary, fits.BinTableHDU.from_columns(columns, name="DATA")]).writeto(path)
    data = bytearray(path.read_bytes())
    table = np.frombuffer(data, dtype=">i4", count=9, offset=5760).reshape(3, 3)
    spoil(table)
    path.write_bytes(bytes(data))
    return path


HEAPS: dict[str, Callable[[np.ndarray], None]] = {
    "behind its end": lambda t: t.__setitem__((1, 2), 1000),
    "over its end": lambda t: t.__setitem__((2, 1), 1000),
    "before its begin": lambda t: t.__setitem__((0, 2), -4),
    "a negative number": lambda t: t.__setitem__((0, 1), -1),
    "more than a computer has": lambda t: t.__setitem__((0, 1), 2**31 - 1),
}


@pytest.mark.parametrize("case", HEAPS)
def test_pointers_outside_of_the_heap_are_refused(case: str, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"points from column 2 of HDU 1 outside of its heap"):
        checked(_with_heap(tmp_path / "heap.fits", HEAPS[case]))


def test_pointers_into_the_heap_are_fine_but_no_column_of_ours(tmp_path: Path) -> None:
    from stixflow.fits._reading import open_stix

    path = _with_heap(tmp_path / "heap.fits", lambda _: None)
    assert checked(path) == path
    with open_stix(path) as file, pytest.raises(InputFileError, match="arrays of variable length"):
        file.table("DATA").find("b")


# Any bytes ------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1 << 30), packed=st.booleans())
@example(seed=1759166, packed=False)  # samples that last 0 s
@example(seed=12695, packed=False)  # a date that ends in a letter
@settings(max_examples=80, deadline=None)
def test_flipped_bytes_are_read_or_refused_and_nothing_else(
    seed: int, packed: bool, good_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(good_file.read_bytes())
    # Headers are a small part of the file: half of the changes go there.
    heads = [at for at in range(0, len(data), 2880) if data[at : at + 9] in (b"SIMPLE  =", b"XTENSION=")]
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.choice(heads)) + int(rng.integers(0, 2880)) if rng.random() < 0.5 else int(rng.integers(len(data)))
        data[at] = int(rng.integers(0, 256)) if rng.random() < 0.5 else int(rng.choice(list(b"0123456789JKEDAPQT '")))
    path = tmp_path_factory.mktemp("flip") / "solo_L1_stix-ql-lightcurve_20221109_V01.fits"
    path.write_bytes(gzip.compress(bytes(data), 1) if packed else bytes(data))
    with suppress(StixflowError):
        read_level1(path)
    assert isinstance(peek(path), dict)


def test_peek_reads_the_first_header_alone(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "one.fits"
    path.write_bytes(good[:2880] if good[2880:2889] == b"XTENSION=" else good[: good.index(b"XTENSION=")])
    cards = peek(path)
    assert cards["SIMPLE"] is True
    assert (cards["LEVEL"], cards["SSID"], cards["TELESCOP"]) == ("L1", 30, "SOLO/STIX")
    (tmp_path / "text.txt").write_text("SIMPLE?")
    assert peek(tmp_path / "text.txt") == {}
    with pytest.raises(MissingFile):
        peek(tmp_path / "none")


def test_sums_that_do_not_hold_are_told(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "one.fits"
    path.write_bytes(good)
    verify_sums(path)
    table = good.index(b"XTENSION=")
    for at, words in ((300, "HDU 0"), (table + 2880, "HDU 1"), (len(good) - 3000, "HDU 4")):
        data = bytearray(good)
        data[at] ^= 4
        path.write_bytes(bytes(data))
        with pytest.raises(InputFileError, match=f"{words} than when its checksum was made"):
            verify_sums(path)


def test_sums_of_every_real_file_hold(shared: Path) -> None:
    paths = sorted((shared / "data").rglob("solo*.fits"))
    assert len(paths) > 90
    for path in paths:
        verify_sums(path)
