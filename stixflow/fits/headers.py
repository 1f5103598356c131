"""What a FITS file declares, compared with the bytes that it has before anything is allocated for it.

Files come from outside. A header of one block may declare tables of terabytes, rows that are no sum of their columns,
arrays outside of the heap; a gzip file of kilobytes may unpack to gigabytes. Everything is refused here that would make
a reader allocate more than the file holds, or read beside it.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import InputFileError, MissingFile

_BLOCK = 2880
MOST_BYTES = 1 << 32
"""Largest file that is read: the longest pixel request of the mission needs a tenth of it."""

_CARD = 80
_MOST_BLOCKS = 500
_MOST_HDUS = 100
_MOST_COLUMNS = 999
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_RATIO = 1032
"""What deflate can make of a byte at most."""
_WHOLE = (0, 0xFFFFFFFF)
"""Both zeros of ones' complement: the sum of an HDU with its CHECKSUM."""
_BITPIX = (8, 16, 32, 64, -32, -64)
_WIDTHS = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_FORM = re.compile(r"(\d{0,18})([LXBIJKAEDCMPQ])(?:([LXBIJKAEDCM])(?:\(\d*\))?)?")
_TEXT = re.compile(r"'((?:[^']|'')*)'")

Cards = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hdu:
    """One header, and where its data are."""

    number: int
    cards: Cards
    at: int
    n_bytes: int

    @property
    def name(self) -> str:
        return str(self.cards.get("EXTNAME", "")).strip().upper()

    @property
    def is_table(self) -> bool:
        return self.cards.get("XTENSION") == "BINTABLE"

    @property
    def span(self) -> int:
        """Bytes of the data with their padding."""
        return -(-self.n_bytes // _BLOCK) * _BLOCK


def peek(path: str | Path) -> dict[str, Any]:
    """Read the cards of the primary header, of a gzipped file too, and nothing else; empty if the file is not FITS.

    Raises
    ------
    MissingFile
        If there is no file.
    """
    source = Path(path)
    if not source.is_file():
        raise MissingFile(f"there is no file {path}", expected="a FITS file", advice="correct the path")
    with source.open("rb") as raw:
        packed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        try:
            with gzip.GzipFile(fileobj=raw) if packed else raw as stream:
                return dict(_header(source.name, stream, 0) or {})
        except (InputFileError, OSError, EOFError, zlib.error):
            return {}


def checked(path: str | Path) -> Path | io.BytesIO:
    """Compare what a file declares with what it holds; return what astropy may then read FITS from.

    Returns
    -------
    The path, or the content of a gzipped file.

    Raises
    ------
    MissingFile, InputFileError
        If there is no file, it is not FITS, cut short, too large, or declares what cannot be.
    """
    content, _ = read_hdus(path)
    return Path(path) if isinstance(content, np.memmap) else io.BytesIO(content.tobytes())


def read_hdus(path: str | Path) -> tuple[NDArray[np.uint8], list[Hdu]]:
    """Read the headers of a file and compare what they declare with what it holds.

    Returns
    -------
    The bytes of the file, mapped to memory, or unpacked from a gzipped file; and its HDUs.

    Raises
    ------
    MissingFile, InputFileError
        As `checked`.
    """
    source = Path(path)
    if not source.is_file():
        raise MissingFile(f"there is no file {path}", expected="a FITS file", advice="correct the path")
    size = source.stat().st_size
    with source.open("rb") as raw:
        if raw.read(2) == _GZIP_MAGIC:
            raw.seek(0)
            return _unpacked(source.name, raw, size)
        raw.seek(0)
        _refuse_large(source.name, size)
        hdus = []
        for hdu in _walk(source.name, raw):
            if hdu.at + hdu.n_bytes > size:
                raise _cut_short(source.name, size, hdu)
            raw.seek(hdu.at)
            _check_heap(source.name, hdu, raw)
            raw.seek(hdu.at + hdu.span)
            hdus.append(hdu)
    return np.memmap(source, dtype=np.uint8, mode="r"), hdus


def verify_sums(path: str | Path) -> None:
    """Compare every HDU of a file with its checksums, where it has them; all official files do.

    Raises
    ------
    MissingFile, InputFileError
        As `checked`, and if the sum of an HDU is not that of its header and data.
    """
    content, hdus = read_hdus(path)
    start = 0
    for hdu in hdus:
        end = hdu.at + hdu.span
        whole = "CHECKSUM" not in hdu.cards or _sum32(content[start:end]) in _WHOLE
        data = hdu.cards.get("DATASUM")
        if not whole or (data is not None and str(data).strip() != str(_sum32(content[hdu.at : end]))):
            what = "data" if whole else "header or data"
            raise _wrong(
                Path(path).name,
                f"has other {what} in HDU {hdu.number} than when its checksum was made",
                "CHECKSUM and DATASUM that hold",
                "fetch it again; if it was edited on purpose, write it anew with its checksums",
            )
        start = end


def _sum32(data: NDArray[np.uint8]) -> int:
    """Sum of 32-bit words in ones' complement, as FITS asks."""
    words = np.frombuffer(data, dtype=">u4", count=len(data) // 4)
    total = int(np.add.reduce(words, dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _unpacked(name: str, raw: BinaryIO, packed_bytes: int) -> tuple[NDArray[np.uint8], list[Hdu]]:
    """Unpack header by header, so that a bomb is seen before it is unpacked."""
    content, hdus = io.BytesIO(), []
    try:
        with gzip.GzipFile(fileobj=raw) as stream:
            for hdu in _walk(name, _Copied(stream, content)):
                end = hdu.at + hdu.span
                _refuse_large(name, end)
                if end > packed_bytes * _GZIP_RATIO:
                    raise _cut_short(name, packed_bytes * _GZIP_RATIO, hdu)
                data = stream.read(hdu.span)
                if len(data) < hdu.n_bytes:
                    raise _cut_short(name, hdu.at + len(data), hdu)
                content.write(data)
                _check_heap(name, hdu, io.BytesIO(data))
                hdus.append(hdu)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputFileError(
            f"{name} is not a FITS file, or cut short (gzip: {error})", expected="FITS", advice="fetch it again"
        ) from error
    return np.frombuffer(content.getvalue(), dtype=np.uint8), hdus


class _Copied:
    """A stream that keeps a copy of what was read."""

    def __init__(self, stream: Any, copy: io.BytesIO) -> None:
        self._stream, self._copy = stream, copy

    def read(self, size: int) -> bytes:
        data = bytes(self._stream.read(size))
        self._copy.write(data)
        return data

    def tell(self) -> int:
        return self._copy.tell()


def _walk(name: str, stream: Any) -> Iterator[Hdu]:
    """Yield every HDU; the caller moves the stream behind its data. What follows the last one is left alone."""
    for number in range(_MOST_HDUS):
        cards = _header(name, stream, number)
        if cards is None:
            if not number:
                raise _wrong(name, "is empty", "one HDU at least")
            return
        yield Hdu(number, cards, stream.tell(), _data_bytes(name, number, cards))
    raise _wrong(name, f"has more than {_MOST_HDUS} HDUs", "a handful")


def _header(name: str, stream: Any, number: int) -> Cards | None:
    """Read one header; None at the end of the file, or where no extension begins."""
    cards: dict[str, Any] = {}
    last = ""
    for block in range(_MOST_BLOCKS):
        data = stream.read(_BLOCK)
        if not block and not data.startswith(b"XTENSION=" if number else b"SIMPLE  ="):
            if number or not data:
                return None
            raise _wrong(name, "is not a FITS file (it does not begin with SIMPLE)", "FITS", "give another file")
        if len(data) < _BLOCK:
            raise _wrong(name, f"is cut short in the header of HDU {number}", "a header that ends", "fetch it again")
        for at in range(0, _BLOCK, _CARD):
            card = data[at : at + _CARD].decode("latin-1")
            key = card[:8].rstrip()
            if key == "END":
                return cards
            if card[8:10] == "= ":
                last = key if key not in cards else ""
                cards.setdefault(key, _value(card[10:]))
            elif key == "CONTINUE" and last and str(cards[last]).endswith("&"):
                cards[last] = f"{str(cards[last])[:-1]}{_value(card[8:])}"
            elif key in ("HISTORY", "COMMENT"):
                cards.setdefault(key, []).append(card[8:].rstrip())
    raise _wrong(name, f"has a header of more than {_MOST_BLOCKS * _BLOCK} bytes in HDU {number}", "one that ends")


def _value(text: str) -> Any:
    quoted = _TEXT.match(text.lstrip())
    if quoted:
        return quoted[1].replace("''", "'").rstrip()
    plain = text.partition("/")[0].strip()
    if plain in ("T", "F"):
        return plain == "T"
    if not plain:
        return None
    try:
        return int(plain)
    except ValueError:
        pass
    try:
        return float(plain.replace("D", "E"))
    except ValueError:
        return plain


def _whole(name: str, number: int, cards: Cards, key: str, default: int | None = None, *, least: int = 0) -> int:
    value = cards.get(key, default)
    if type(value) is not int or value < least:
        raise _wrong(name, f"gives {key} as {value!r} in HDU {number}", f"a whole number from {least}")
    return value


def _data_bytes(name: str, number: int, cards: Cards) -> int:
    """Bytes of the data of an HDU; the columns of a table must make up its rows."""
    bits, n_axes = cards.get("BITPIX"), _whole(name, number, cards, "NAXIS")
    if bits not in _BITPIX or n_axes > _MOST_COLUMNS:
        raise _wrong(name, f"gives BITPIX as {bits!r} and NAXIS as {n_axes} in HDU {number}", "those of FITS")
    if not n_axes:
        return 0
    axes = [_whole(name, number, cards, f"NAXIS{axis}") for axis in range(1, n_axes + 1)]
    extra = _whole(name, number, cards, "PCOUNT", 0)
    groups = _whole(name, number, cards, "GCOUNT", 1, least=1)
    if cards.get("XTENSION") == "BINTABLE":
        _check_columns(name, number, cards, axes)
    return abs(int(bits)) // 8 * groups * (extra + math.prod(axes))


def _check_columns(name: str, number: int, cards: Cards, axes: list[int]) -> None:
    width = sum(_width(name, number, cards, column)[0] for column in _columns(name, number, cards))
    if len(axes) != 2 or cards["BITPIX"] != 8 or axes[0] != width or (axes[1] and not width):
        raise _wrong(
            name,
            f"has rows of {axes[0]} bytes in HDU {number}, its {cards.get('TFIELDS')} columns have {width}",
            "rows that are the sum of their columns",
        )


def _columns(name: str, number: int, cards: Cards) -> range:
    n_columns = _whole(name, number, cards, "TFIELDS")
    if n_columns > _MOST_COLUMNS:
        raise _wrong(name, f"has {n_columns} columns in HDU {number}", f"at most {_MOST_COLUMNS}")
    return range(1, n_columns + 1)


def _width(name: str, number: int, cards: Cards, column: int) -> tuple[int, int, str, str]:
    """Bytes of a column in a row, its repeat count, its type, and that of the arrays it points to."""
    form = _FORM.match(str(cards.get(f"TFORM{column}", "")))
    if form is None:
        raise _wrong(name, f"gives TFORM{column} as {cards.get(f'TFORM{column}')!r} in HDU {number}", "a FITS format")
    repeat = int(form[1] or 1)
    shape = [int(size) for size in re.findall(r"\d+", str(cards.get(f"TDIM{column}", "")))]
    if shape and math.prod(shape) > repeat and form[2] not in "PQ":
        raise _wrong(name, f"gives TDIM{column} {tuple(shape)} to {repeat} values in HDU {number}", "as many values")
    width = -(-repeat // 8) if form[2] == "X" else repeat * _WIDTHS[form[2]]
    return width, repeat, form[2], form[3] or "B"


def widths_of(name: str, hdu: Hdu) -> list[tuple[int, int, str, str]]:
    """Bytes of each column in a row, its repeat count, its type, and that of the arrays it points to."""
    return [_width(name, hdu.number, hdu.cards, column) for column in _columns(name, hdu.number, hdu.cards)]


def _check_heap(name: str, hdu: Hdu, stream: BinaryIO) -> None:
    """Refuse arrays of variable length that begin or end outside of the heap of their table."""
    cards = hdu.cards
    if not hdu.is_table:
        return
    widths = widths_of(name, hdu)
    if not any(kind in "PQ" for _, _, kind, _ in widths):
        return
    row, rows = int(cards["NAXIS1"]), int(cards["NAXIS2"])
    gap = _whole(name, hdu.number, cards, "THEAP", row * rows) - row * rows
    room = int(cards.get("PCOUNT", 0)) - gap
    table = np.frombuffer(stream.read(row * rows), dtype=np.uint8).reshape(rows, row)
    at = 0
    for column, (width, _, kind, of) in enumerate(widths, start=1):
        if kind in "PQ":
            pairs = np.ascontiguousarray(table[:, at : at + width]).view(">i4" if kind == "P" else ">i8")
            count, start = (pairs[:, part::2].astype(np.float64) for part in (0, 1))
            ends = start + count * (0.125 if of == "X" else _WIDTHS[of])
            if gap < 0 or ((count < 0) | (start < 0) | ((count > 0) & (ends > room))).any():
                raise _wrong(
                    name,
                    f"points from column {column} of HDU {hdu.number} outside of its heap",
                    f"arrays within its {room} bytes",
                )
        at += width


def _refuse_large(name: str, size: int) -> None:
    if size > MOST_BYTES:
        raise _wrong(name, f"has {size} bytes, or declares them", f"at most {MOST_BYTES}")


def _cut_short(name: str, size: int, hdu: Hdu) -> InputFileError:
    return InputFileError(
        f"{name} is cut short: {size} bytes, its HDU {hdu.number} declares data up to {hdu.at + hdu.n_bytes}",
        expected="as many bytes as its headers say",
        advice="fetch the file again",
    )


def _wrong(name: str, found: str, expected: str, advice: str = "fetch it again, or leave it out") -> InputFileError:
    return InputFileError(f"{name} {found}", expected=expected, advice=advice)


__all__ = ["MOST_BYTES", "Hdu", "checked", "peek", "read_hdus", "verify_sums", "widths_of"]
