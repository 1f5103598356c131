"""Containers of packets back to back: binary files, and the same as hexadecimal text.

Every container is read in pieces of its file; what each piece gave is a `Content`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import InputFileError
from stixflow.telemetry.ccsds import HEADER_SIZE, LONGEST, frame, is_header, next_header
from stixflow.telemetry.packets import GROUND, Quarantined

EXPECTED = "SOC XML (PktTmRaw), back-to-back binary, hexadecimal text, ASCII lines or level-binary FITS"
"""What a file of telemetry is."""
SNIFFED = 4096
"""Bytes at the beginning of a file that tell what it is."""
SMALLEST_BATCH = 4 * (LONGEST + HEADER_SIZE)
"""Bytes of a piece of a file, at least."""

_HEX_TEXT = re.compile(rb"\s*(?:0[xX])?[0-9a-fA-F\s]+")
_HEX_SNIFFED = 64


@dataclass(frozen=True, slots=True)
class Content:
    """Packets of one piece of a file: their bytes, where each begins, and what could not be used."""

    data: bytes
    offset: NDArray[np.int64]
    rejected: tuple[Quarantined, ...]
    base: int = 0
    """Byte in the file where the data begin."""
    ground_time: NDArray[np.datetime64] = field(default_factory=lambda: np.empty(0, GROUND))
    """One for each packet, or none at all."""

    @property
    def times(self) -> NDArray[np.datetime64]:
        return self.ground_time if self.ground_time.size else np.full(self.offset.size, "NaT", dtype=GROUND)


Chunks = Iterator[tuple[bytes, bool]]
"""Pieces of a file, each with whether it is the last."""


def read_binary(path: Path, chunks: Chunks) -> Iterator[Content]:
    """Packets back to back."""
    rest, base = b"", 0
    for chunk, final in chunks:
        data = rest + chunk if rest else chunk
        frames = frame(data, final=final)
        rejected = tuple(
            Quarantined(bad.reason, str(path), base + bad.start, data[bad.start : bad.stop], bad.expected)
            for bad in frames.bad
        )
        yield Content(data, frames.offset, rejected, base)
        rest, base = data[frames.stop :], base + frames.stop


def read_hex(path: Path, chunks: Chunks) -> Iterator[Content]:
    """Convert the text piece by piece; what is no hexadecimal is set apart with its line."""
    wrong: list[Quarantined] = []
    for content in read_binary(path, _hex_chunks(path, chunks, wrong)):
        yield replace(content, rejected=(*content.rejected, *wrong))
        wrong.clear()


def _hex_chunks(path: Path, chunks: Chunks, wrong: list[Quarantined]) -> Chunks:
    rest, base = b"", 0
    for chunk, final in chunks:
        text = rest + chunk.removeprefix(b"\xef\xbb\xbf")
        cut = len(text) if final else _last_line(text)
        data = _from_hex(path, text[:cut], base, wrong)
        rest, base = text[cut:], base + len(data)
        yield data, final


def _last_line(text: bytes) -> int:
    """Where a text that goes on may be cut: behind its last line, or, if it is one long line, between two bytes."""
    line = text.rfind(b"\n") + 1
    return line if line else len(text) - len(text) % 2


def _from_hex(path: Path, text: bytes, base: int, wrong: list[Quarantined]) -> bytes:
    plain = text.replace(b"0x", b"").replace(b"0X", b"")
    try:
        return bytes.fromhex(plain.decode("ascii"))
    except ValueError:
        pass
    with suppress(ValueError):
        data = bytes.fromhex(plain.translate(None, b" \t\r\n\v\f").decode("ascii"))
        if not frame(data).bad:
            return data
    good: list[bytes] = []
    at = base
    for line in plain.splitlines():
        try:
            good.append(bytes.fromhex(line.decode("ascii")))
            at += len(good[-1])
        except ValueError:
            wrong.append(Quarantined("text that is not hexadecimal", str(path), at, line, "pairs of 0-9, a-f"))
    return b"".join(good)


def is_hex(text: bytes) -> bool:
    """Tell whether a text begins as hexadecimal."""
    return _HEX_TEXT.fullmatch(text[:_HEX_SNIFFED]) is not None


def check_hex(path: Path, text: bytes) -> None:
    """Raise InputFileError if hexadecimal text holds no packet header."""
    data = _from_hex(path, text[: _last_line(text)] if len(text) > LONGEST else text, 0, [])
    if not is_header(data, 0) and next_header(data, 0) == len(data):
        raise InputFileError(
            f"{path} is hexadecimal text without a packet header", expected=EXPECTED, advice="leave it out"
        )
