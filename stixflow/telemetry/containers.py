"""Files of telemetry, told apart by content: SOC XML, binary, hexadecimal text, ASCII lines and level-binary FITS.

Every container is read in pieces: one piece is the whole file for `read_packets`, and a few megabytes for
`iter_packets`, which therefore reads streams of any length in the same memory.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import InputFileError, MissingFile, UsageError
from stixflow.telemetry.ccsds import HEADER_SIZE, LONGEST, frame, is_header, next_header
from stixflow.telemetry.packets import GROUND, Packets, Quarantined, Seen, from_frames

BATCH_BYTES = 8_000_000
"""Bytes that `iter_packets` reads at a time."""

_PREFIX_SIZES = (76, 0)
_EXPECTED = "SOC XML (PktTmRaw), back-to-back binary, hexadecimal text, ASCII lines or level-binary FITS"
_PACKET_ELEMENT = re.compile(rb"<(?:[\w.-]+:)?Packet(?:\s[^>]*)?>([^<]*)(</(?:[\w.-]+:)?Packet\s*>)?")
_STRAY_HEX = re.compile(rb"[0-9a-fA-F]{33,}")
_HEX_TEXT = re.compile(rb"\s*(?:0[xX])?[0-9a-fA-F\s]+")
_DATED_LINE = re.compile(rb"\s*(\d[\dA-Za-z]*[-:/.][-\w:/.]*(?:[ T][\d:.]+Z?)?)[\s,;]+(.*)")
_SNIFFED = 4096
_HEX_SNIFFED = 64
_SMALLEST_BATCH = 4 * (LONGEST + HEADER_SIZE)


@dataclass(frozen=True, slots=True)
class _Content:
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


def read_packets(path_or_paths: str | Path | Iterable[str | Path]) -> Packets:
    """Read telemetry files of any container into framed, deduplicated, accounted-for packets.

    Parameters
    ----------
    path_or_paths
        Files or folders; a folder is walked, and files in it that are no telemetry are listed in `Packets.skipped`.

    Raises
    ------
    MissingFile
        If a path does not exist, or a folder holds no usable file.
    InputFileError
        If a file that was named is no telemetry.
    """
    skipped: list[tuple[str, str]] = []
    return _combine(dict(_read_all(path_or_paths, -1, skipped)), skipped)


def iter_packets(
    path_or_paths: str | Path | Iterable[str | Path], *, batch_bytes: int = BATCH_BYTES
) -> Iterator[Packets]:
    """Read telemetry files as `read_packets` does, but in batches, in memory that does not grow with the files.

    Packets of all batches together are those of `read_packets`, with the same rejects and balanced books: duplicates
    are known over the whole reading, at 20 bytes of memory for each packet. Only bytes that hold no packet over more
    than a batch become several rejects instead of one.

    Parameters
    ----------
    path_or_paths
        As for `read_packets`.
    batch_bytes
        Bytes of a file that are read at a time.

    Raises
    ------
    MissingFile, InputFileError
        As `read_packets`, when the reading comes to that file.
    """
    if batch_bytes < _SMALLEST_BATCH:
        raise UsageError(f"batches of {batch_bytes} bytes", expected=f"at least {_SMALLEST_BATCH}")
    return _batches(path_or_paths, batch_bytes)


def _batches(path_or_paths: str | Path | Iterable[str | Path], batch_bytes: int) -> Iterator[Packets]:
    seen, skipped = Seen(), list[tuple[str, str]]()
    for name, content in _read_all(path_or_paths, batch_bytes, skipped):
        yield replace(_packets(name, content, seen), skipped=tuple(skipped))
        skipped.clear()
    if skipped:
        nothing = _Content(b"", np.empty(0, np.int64), ())
        yield replace(_packets("", nothing, seen), skipped=tuple(skipped))


def _packets(name: str, content: _Content, seen: Seen) -> Packets:
    offset = content.offset
    return from_frames(
        np.frombuffer(content.data, dtype=np.uint8),
        offset,
        np.zeros(offset.size, dtype=np.int32),
        (name,),
        content.rejected,
        position=offset + content.base,
        ground_time=content.times,
        seen=seen,
    )


def _read_all(
    path_or_paths: str | Path | Iterable[str | Path], batch_bytes: int, skipped: list[tuple[str, str]]
) -> Iterator[tuple[str, _Content]]:
    """Pieces of all files, each file once, with its name."""
    names = [path_or_paths] if isinstance(path_or_paths, str | Path) else list(path_or_paths)
    if not names:
        raise MissingFile("no file to read", expected=_EXPECTED, advice="name at least one file or folder")
    paths = [Path(name) for name in names]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise MissingFile(f"{', '.join(missing)} does not exist", expected=_EXPECTED, advice="correct the path")
    read: set[str] = set()
    for path in paths:
        if path.is_dir():
            yield from _read_folder(path, batch_bytes, read, skipped)
        elif str(path) not in read:
            read.add(str(path))
            yield from ((str(path), piece) for piece in _read_file(path, batch_bytes))


def _read_folder(
    folder: Path, batch_bytes: int, read: set[str], skipped: list[tuple[str, str]]
) -> Iterator[tuple[str, _Content]]:
    usable, others = 0, 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if str(path) in read:
            usable += 1
            continue
        try:
            for piece in _read_file(path, batch_bytes):
                yield str(path), piece
            read.add(str(path))
            usable += 1
        except InputFileError as error:
            skipped.append((str(path), error.found))
            others += 1
    if not usable:
        found = f"{folder} holds no telemetry file"
        raise MissingFile(
            f"{found}; {others} other files" if others else found,
            expected=_EXPECTED,
            advice="name the folder that the deliveries are in",
        )


def _combine(read: dict[str, _Content], skipped: Sequence[tuple[str, str]]) -> Packets:
    contents = list(read.values())
    base = np.cumsum([0, *(len(content.data) for content in contents)])
    data = contents[0].data if len(contents) == 1 else b"".join(content.data for content in contents)
    offset = [content.offset + start for content, start in zip(contents, base[:-1], strict=True)]
    packets = from_frames(
        np.frombuffer(data, dtype=np.uint8),
        np.concatenate(offset),
        np.repeat(np.arange(len(contents), dtype=np.int32), [content.offset.size for content in contents]),
        tuple(read),
        [entry for content in contents for entry in content.rejected],
        position=np.concatenate([content.offset for content in contents]),
        ground_time=np.concatenate([content.times for content in contents]),
    )
    return replace(packets, skipped=tuple(skipped))


def _read_file(path: Path, batch_bytes: int) -> Iterator[_Content]:
    """Pieces of one file; one piece, for a negative number of bytes.

    Raises
    ------
    InputFileError
        Before the first piece, if the file is no telemetry.
    """
    with path.open("rb") as file:
        head = file.read(batch_bytes)
        reader = _reader_of(path, head)
        yield from reader(path, _chunks(head, file, batch_bytes))


def _chunks(head: bytes, file: BinaryIO, batch_bytes: int) -> Iterator[tuple[bytes, bool]]:
    """Yield pieces of a file that was begun, each with whether it is the last."""
    if batch_bytes < 0:
        yield head, True
        return
    while head:
        after = file.read(batch_bytes)
        yield head, not after
        head = after


_Chunks = Iterator[tuple[bytes, bool]]


def _reader_of(path: Path, data: bytes) -> Callable[[Path, _Chunks], Iterator[_Content]]:
    head = data[:_SNIFFED]
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise InputFileError(f"{path} is empty", expected=_EXPECTED, advice="fetch the file again")
    if head.startswith(b"SIMPLE  ="):
        return _read_fits
    if text.startswith(b"<"):
        _check_xml(path, data)
        return _read_xml
    if is_header(data, 0) or next_header(data, 0) < len(data):
        return _read_binary
    if _HEX_TEXT.fullmatch(text[:_HEX_SNIFFED]):
        _check_hex(path, data)
        return _read_hex
    if _has_dated_packets(data):
        return _read_lines
    raise InputFileError(f"{path} is {_describe(head)}", expected=_EXPECTED, advice="leave it out")


def _describe(head: bytes) -> str:
    kinds = {b"\x89PNG": "a PNG image", b"%PDF": "a PDF document", b"PK\x03\x04": "a ZIP archive"}
    kinds |= {b"\x1f\x8b": "a gzip file; unpack it first", b"CDF": "a netCDF file", b"\x89HDF": "an HDF5 file"}
    return next(
        (kind for magic, kind in kinds.items() if head.startswith(magic)), "no telemetry: no packet header in it"
    )


def _read_binary(path: Path, chunks: _Chunks) -> Iterator[_Content]:
    rest, base = b"", 0
    for chunk, final in chunks:
        data = rest + chunk if rest else chunk
        frames = frame(data, final=final)
        rejected = tuple(
            Quarantined(bad.reason, str(path), base + bad.start, data[bad.start : bad.stop], bad.expected)
            for bad in frames.bad
        )
        yield _Content(data, frames.offset, rejected, base)
        rest, base = data[frames.stop :], base + frames.stop


def _read_hex(path: Path, chunks: _Chunks) -> Iterator[_Content]:
    """Convert the text piece by piece; what is no hexadecimal is set apart with its line."""
    wrong: list[Quarantined] = []
    for content in _read_binary(path, _hex_chunks(path, chunks, wrong)):
        yield replace(content, rejected=(*content.rejected, *wrong))
        wrong.clear()


def _hex_chunks(path: Path, chunks: _Chunks, wrong: list[Quarantined]) -> _Chunks:
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


def _check_hex(path: Path, text: bytes) -> None:
    data = _from_hex(path, text[: _last_line(text)] if len(text) > LONGEST else text, 0, [])
    if not is_header(data, 0) and next_header(data, 0) == len(data):
        raise InputFileError(
            f"{path} is hexadecimal text without a packet header", expected=_EXPECTED, advice="leave it out"
        )


def _check_xml(path: Path, data: bytes) -> None:
    if b"PktTcReport" in data[:_SNIFFED]:
        raise InputFileError(
            f"{path} is a telecommand report",
            expected="telemetry (PktTmRaw)",
            advice="read it with stixflow.telemetry.read_tc_reports, and name the telemetry deliveries here",
        )
    if b"PktRawResponse" not in data and not _PACKET_ELEMENT.search(data):
        raise InputFileError(f"{path} is XML without packets", expected=_EXPECTED, advice="leave it out")


@dataclass(frozen=True, slots=True)
class _Element:
    """Text that should be one packet in hexadecimal."""

    text: bytes
    is_closed: bool = True
    ground_time: np.datetime64 | None = None


def _read_xml(path: Path, chunks: _Chunks) -> Iterator[_Content]:
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


def _cut(chunks: _Chunks, place: Callable[[bytes], int]) -> Iterator[bytes]:
    """Join and cut pieces of text so that no element or line is cut, unless it is longer than any packet can be."""
    rest = b""
    for chunk, final in chunks:
        text = rest + chunk if rest else chunk
        cut = len(text) if final else place(text)
        if len(text) - cut > _SMALLEST_BATCH:
            cut = len(text)
        yield text[:cut] if cut < len(text) else text
        rest = text[cut:]


def _last_tag(text: bytes) -> int:
    """Where the last closed element of a text ends."""
    tag = text.rfind(b"</")
    end = text.find(b">", tag)
    return end + 1 if tag >= 0 and end >= 0 else max(tag, 0)


def _has_dated_packets(data: bytes) -> bool:
    """Tell whether the first line is a time and a packet."""
    line = next((line for line in data[: 4 * LONGEST].splitlines() if line.strip()), b"")
    match = _DATED_LINE.fullmatch(line)
    return match is not None and _element_packet(_Element(match.group(2)))[0] is not None


def _read_lines(path: Path, chunks: _Chunks) -> Iterator[_Content]:
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


def _read_fits(path: Path, chunks: _Chunks) -> Iterator[_Content]:
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
    return InputFileError(f"{path} is a damaged FITS file: {reason}", expected=_EXPECTED, advice="fetch it again")


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


def _read_elements(path: Path, batches: Iterable[Iterable[_Element]]) -> Iterator[_Content]:
    """Packets of a container with one packet in each element."""
    numbers, base = itertools.count(1), 0
    for elements in batches:
        content = _read_batch(path, zip(elements, numbers, strict=False), base)
        yield content
        base += len(content.data)


def _read_batch(path: Path, elements: Iterable[tuple[_Element, int]], base: int) -> _Content:
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
    return _Content(b"".join(parts), np.cumsum(lengths) - lengths, tuple(rejected), base, np.array(times, GROUND))


_NO_TIME = np.datetime64("NaT", "us")


def _element_packet(element: _Element) -> tuple[bytes | None, str, np.datetime64]:
    """Packet of an element, or what is wrong with it; and when the ground had it."""
    text, closed = element.text, element.is_closed
    try:
        data = bytes.fromhex(text.decode("ascii").replace("0x", "").replace("0X", ""))
    except ValueError:
        return None, "not hexadecimal" if closed else "the file ends inside it", _NO_TIME
    for at in _candidates(data):
        if is_header(data, at) and len(data) - at == (data[at + 4] << 8 | data[at + 5]) + 7 >= HEADER_SIZE:
            time = element.ground_time
            return data[at:], "", _prefix_time(data, at) if time is None else time
    reason = f"no packet that fits its {len(data)} bytes" if closed else "the file ends inside it"
    return None, reason, _NO_TIME


def _prefix_time(data: bytes, at: int) -> np.datetime64:
    """Packet time in the ground header before `at`, if that is the header of this packet and no copy of another."""
    packet = data[at : at + HEADER_SIZE]
    apid = (packet[0] << 8 | packet[1]) & 0x7FF
    count = (packet[2] << 8 | packet[3]) & 0x3FFF
    own = apid.to_bytes(2, "big") + count.to_bytes(2, "big") + packet[7:9]
    if at != _PREFIX_SIZES[0] or data[70:76] != own or int.from_bytes(data[28:32], "big") != len(data):
        return _NO_TIME
    seconds, microseconds = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
    return np.datetime64(seconds * 1_000_000 + microseconds, "us")


def _candidates(data: bytes) -> Iterator[int]:
    """Where the packet may begin: after the ground header, without one, or behind a damaged one."""
    yield from _PREFIX_SIZES
    at = next_header(data, 0)
    while at < len(data):
        yield at
        at = next_header(data, at + 1)
