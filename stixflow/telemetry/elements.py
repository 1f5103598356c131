"""Containers with one packet in each element: SOC XML, lines of text with a time, and level-binary FITS."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stixflow.errors import InputFileError
from stixflow.telemetry.ccsds import HEADER_SIZE, LONGEST, is_header, next_header
from stixflow.telemetry.ground_header import NO_TIME, PREFIX_SIZE, packet_time
from stixflow.telemetry.packets import GROUND, Quarantined
from stixflow.telemetry.runs import starts_of
from stixflow.telemetry.streams import EXPECTED, SMALLEST_BATCH, SNIFFED, Chunks, Content

_HEADER_SIZES = (PREFIX_SIZE, 0)
_PACKET_ELEMENT = re.compile(rb"<(?:[\w.-]+:)?Packet(?:\s[^>]*)?>([^<]*)(</(?:[\w.-]+:)?Packet\s*>)?")
_STRAY_HEX = re.compile(rb"[0-9a-fA-F]{33,}")
_DATED_LINE = re.compile(rb"\s*(\d[\dA-Za-z]*[-:/.][-\w:/.]*(?:[ T][\d:.]+Z?)?)[\s,;]+(.*)")


def check_xml(path: Path, data: bytes) -> None:
    """Raise InputFileError if an XML file holds no telemetry packets."""
    if b"PktTcReport" in data[:SNIFFED]:
        raise InputFileError(
            f"{path} is a telecommand report",
            expected="telemetry (PktTmRaw)",
            advice="read it with stixflow.telemetry.read_tc_reports, and name the telemetry deliveries here",
        )
    if b"PktRawResponse" not in data and not _PACKET_ELEMENT.search(data):
        raise InputFileError(f"{path} is XML without packets", expected=EXPECTED, advice="leave it out")


@dataclass(frozen=True, slots=True)
class _Element:
    """Text that should be one packet in hexadecimal."""

    text: bytes
    is_closed: bool = True
    ground_time: np.datetime64 | None = None


def read_xml(path: Path, chunks: Chunks) -> Iterator[Content]:
    """Packets of a SOC XML delivery, each in an element of its own."""
    return _read_elements(path, map(_xml_elements, _cut(chunks, _last_tag)))


def _xml_elements(text: bytes) -> Iterator[_Element]:
    """Packet elements of a text, and what looks like a packet outside of them, where a tag is damaged."""
    after = 0
    for match in _PACKET_ELEMENT.finditer(text):
        yield from _strays(text, after, match.start())
        yield _Element(match.group(1), bool(match.group(2)))
        after = match.end()
    yield from _strays(text, after, len(text))


def _strays(text: bytes, start: int, stop: int) -> Iterator[_Element]:
    return (_Element(match.group()) for match in _STRAY_HEX.finditer(text, start, stop))


def _cut(chunks: Chunks, place: Callable[[bytes], int]) -> Iterator[bytes]:
    """Join and cut pieces of text so that no element or line is cut, unless it is longer than any packet can be."""
    rest = b""
    for chunk, final in chunks:
        text = rest + chunk if rest else chunk
        cut = len(text) if final else place(text)
        if len(text) - cut > SMALLEST_BATCH:
            cut = len(text)
        yield text[:cut] if cut < len(text) else text
        rest = text[cut:]


def _last_tag(text: bytes) -> int:
    """Where the last closed element of a text ends."""
    tag = text.rfind(b"</")
    end = text.find(b">", tag)
    return end + 1 if tag >= 0 and end >= 0 else max(tag, 0)


def has_dated_packets(data: bytes) -> bool:
    """Tell whether the first line is a time and a packet."""
    line = next((line for line in data[: 4 * LONGEST].splitlines() if line.strip()), b"")
    match = _DATED_LINE.fullmatch(line)
    return match is not None and _element_packet(_Element(match.group(2)))[0] is not None


def read_lines(path: Path, chunks: Chunks) -> Iterator[Content]:
    """Packets of lines of text, each after the time at which the ground had it."""
    return _read_elements(path, map(_line_elements, _cut(chunks, lambda text: text.rfind(b"\n") + 1)))


def _line_elements(text: bytes) -> Iterator[_Element]:
    for line in text.splitlines():
        match = _DATED_LINE.fullmatch(line)
        if match:
            yield _Element(match.group(2), ground_time=_utc(match.group(1).decode("ascii")))
        elif line.strip():
            yield _Element(line)


def _utc(text: str) -> np.datetime64 | None:
    """Read a time as the ground writes it: ISO, or with the day of the year."""
    plain = text.removesuffix("Z").replace("/", "-").replace(" ", "T")
    day_of_year = re.fullmatch(r"(\d{4})-(\d{3})(?:T(.*))?", plain)
    try:
        if day_of_year:
            year, day, clock = day_of_year.groups()
            date = np.datetime64(year, "D") + (int(day) - 1)
            return np.datetime64(f"{date}T{clock or '00'}", "us")
        return np.datetime64(plain, "us")
    except ValueError:
        return None


def read_fits(path: Path, chunks: Chunks) -> Iterator[Content]:
    """Packets of a level-binary FITS file, one in each row of its table DATA."""
    from astropy.io import fits

    from stixflow.fits.headers import checked

    head, is_whole = next(chunks)
    try:
        source = checked(path)
    except InputFileError as error:
        raise _damaged(path, error.found) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(source) as hdus:
                column = _hex_column(path, hdus)
                rows = max(len(column) if is_whole else 2 * len(head) // column.itemsize, 1)
                pieces = (column[start : start + rows] for start in range(0, max(len(column), 1), rows))
                yield from _read_elements(path, map(_row_elements, pieces))
    except OSError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> InputFileError:
    return InputFileError(f"{path} is a damaged FITS file: {reason}", expected=EXPECTED, advice="fetch it again")


def _row_elements(column: Any) -> Iterator[_Element]:
    return (_Element(str(text).encode("ascii", "replace")) for text in column)


def _hex_column(path: Path, hdus: Any) -> Any:
    names = [hdu.name for hdu in hdus]
    columns = hdus["DATA"].columns if "DATA" in names else None
    if columns is None or "data" not in columns.names or not columns["data"].format.endswith("A"):
        level = hdus[0].header.get("LEVEL", "")
        kind = f"a FITS file of level {level}" if level else "a FITS file"
        raise InputFileError(
            f"{path} is {kind} with HDUs {', '.join(names)}",
            expected="a level-binary (LB) FITS file, or another telemetry container",
            advice="read level 1 with stixflow.fits.read_level1",
        )
    return hdus["DATA"].data["data"]


def _read_elements(path: Path, batches: Iterable[Iterable[_Element]]) -> Iterator[Content]:
    """Packets of a container with one packet in each element."""
    numbers, base = itertools.count(1), 0
    for elements in batches:
        content = _read_batch(path, zip(elements, numbers, strict=False), base)
        yield content
        base += len(content.data)


def _read_batch(path: Path, elements: Iterable[tuple[_Element, int]], base: int) -> Content:
    parts: list[bytes] = []
    times: list[np.datetime64] = []
    rejected: list[Quarantined] = []
    at = base
    for element, number in elements:
        packet, reason, time = _element_packet(element)
        if packet is None:
            reason = f"element {number}: {reason}"
            rejected.append(Quarantined(reason, str(path), at, element.text, "one packet in hexadecimal"))
        else:
            parts.append(packet)
            times.append(time)
            at += len(packet)
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    return Content(b"".join(parts), starts_of(lengths), tuple(rejected), base, np.array(times, GROUND))


def _element_packet(element: _Element) -> tuple[bytes | None, str, np.datetime64]:
    """Packet of an element, or what is wrong with it; and when the ground had it."""
    text, closed = element.text, element.is_closed
    try:
        data = bytes.fromhex(text.decode("ascii").replace("0x", "").replace("0X", ""))
    except ValueError:
        return None, "not hexadecimal" if closed else "the file ends inside it", NO_TIME
    for at in _candidates(data):
        if is_header(data, at) and len(data) - at == (data[at + 4] << 8 | data[at + 5]) + 7 >= HEADER_SIZE:
            time = element.ground_time
            return data[at:], "", packet_time(data, at) if time is None else time
    reason = f"no packet that fits its {len(data)} bytes" if closed else "the file ends inside it"
    return None, reason, NO_TIME


def _candidates(data: bytes) -> Iterator[int]:
    """Where the packet may begin: after the ground header, without one, or behind a damaged one."""
    yield from _HEADER_SIZES
    at = next_header(data, 0)
    while at < len(data):
        yield at
        at = next_header(data, at + 1)
