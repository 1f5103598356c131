"""Files of telemetry: SOC XML, back-to-back binary, hexadecimal text and level-binary FITS, told apart by content."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import InputFileError, MissingFile
from stixflow.telemetry.ccsds import HEADER_SIZE, frame, is_header, next_header
from stixflow.telemetry.packets import Packets, Quarantined, from_frames

_PREFIX_SIZES = (76, 0)
_EXPECTED = "SOC XML (PktTmRaw), back-to-back binary, hexadecimal text or level-binary FITS"
_PACKET_ELEMENT = re.compile(rb"<(?:[\w.-]+:)?Packet(?:\s[^>]*)?>([^<]*)(</(?:[\w.-]+:)?Packet\s*>)?")
_HEX_TEXT = re.compile(rb"\s*(?:0[xX])?[0-9a-fA-F\s]+")
_SNIFFED = 4096
_HEX_SNIFFED = 64


@dataclass(frozen=True, slots=True)
class _Content:
    """The packets of one file: their bytes, where each begins, and what could not be used."""

    data: bytes
    offset: NDArray[np.int64]
    rejected: tuple[Quarantined, ...]


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
    paths = [path_or_paths] if isinstance(path_or_paths, str | Path) else list(path_or_paths)
    read: dict[str, _Content] = {}
    skipped: list[tuple[str, str]] = []
    for path in map(Path, paths):
        if path.is_dir():
            _read_folder(path, read, skipped)
        elif path.is_file():
            read.setdefault(str(path), _read_file(path))
        else:
            raise MissingFile(f"{path} does not exist", expected=_EXPECTED, advice="correct the path")
    if not read:
        raise MissingFile("no file to read", expected=_EXPECTED, advice="name at least one file or folder")
    return _combine(read, skipped)


def _read_folder(folder: Path, read: dict[str, _Content], skipped: list[tuple[str, str]]) -> None:
    usable = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            read.setdefault(str(path), _read_file(path))
            usable += 1
        except InputFileError as error:
            skipped.append((str(path), error.found))
    if not usable:
        found = f"{folder} holds no telemetry file"
        raise MissingFile(
            f"{found}; {len(skipped)} other files" if skipped else found,
            expected=_EXPECTED,
            advice="name the folder that the deliveries are in",
        )


def _combine(read: dict[str, _Content], skipped: Sequence[tuple[str, str]]) -> Packets:
    contents = list(read.values())
    base = np.cumsum([0, *(len(content.data) for content in contents)])
    data = contents[0].data if len(contents) == 1 else b"".join(content.data for content in contents)
    offset = [content.offset + start for content, start in zip(contents, base[:-1], strict=True)]
    file = np.repeat(np.arange(len(contents), dtype=np.int32), [content.offset.size for content in contents])
    rejected = [entry for content in contents for entry in content.rejected]
    buffer = np.frombuffer(data, dtype=np.uint8)
    packets = from_frames(buffer, np.concatenate(offset), file, tuple(read), rejected, base[:-1])
    return replace(packets, skipped=tuple(skipped))


def _read_file(path: Path) -> _Content:
    data = path.read_bytes()
    return _reader_of(path, data)(path, data)


def _reader_of(path: Path, data: bytes) -> Callable[[Path, bytes], _Content]:
    head = data[:_SNIFFED]
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise InputFileError(f"{path} is empty", expected=_EXPECTED, advice="fetch the file again")
    if head.startswith(b"SIMPLE  ="):
        return _read_fits
    if text.startswith(b"<"):
        return _read_xml
    if is_header(data, 0) or next_header(data, 0) < len(data):
        return _read_binary
    if _HEX_TEXT.fullmatch(text[:_HEX_SNIFFED]):
        return _read_hex
    raise InputFileError(f"{path} is {_describe(head)}", expected=_EXPECTED, advice="leave it out")


def _describe(head: bytes) -> str:
    kinds = {b"\x89PNG": "a PNG image", b"%PDF": "a PDF document", b"PK\x03\x04": "a ZIP archive"}
    kinds |= {b"\x1f\x8b": "a gzip file; unpack it first", b"CDF": "a netCDF file", b"\x89HDF": "an HDF5 file"}
    return next(
        (kind for magic, kind in kinds.items() if head.startswith(magic)), "no telemetry: no packet header in it"
    )


def _read_binary(path: Path, data: bytes) -> _Content:
    frames = frame(data)
    rejected = [
        Quarantined(bad.reason, str(path), bad.start, data[bad.start : bad.stop], bad.expected) for bad in frames.bad
    ]
    return _Content(data, frames.offset, tuple(rejected))


def _read_hex(path: Path, data: bytes) -> _Content:
    plain = data.removeprefix(b"\xef\xbb\xbf").replace(b"0x", b"").replace(b"0X", b"")
    try:
        return _binary_with_packets(path, bytes.fromhex(plain.decode("ascii")))
    except ValueError:
        pass
    good: list[bytes] = []
    rejected: list[Quarantined] = []
    for line in plain.splitlines():
        try:
            good.append(bytes.fromhex(line.decode("ascii")))
        except ValueError:
            at = sum(map(len, good))
            rejected.append(Quarantined("text that is not hexadecimal", str(path), at, line, "pairs of 0-9, a-f"))
    content = _binary_with_packets(path, b"".join(good))
    return replace(content, rejected=(*content.rejected, *rejected))


def _binary_with_packets(path: Path, data: bytes) -> _Content:
    content = _read_binary(path, data)
    if content.offset.size == 0 and next_header(data, 0) == len(data) and not is_header(data, 0):
        raise InputFileError(
            f"{path} is hexadecimal text without a packet header", expected=_EXPECTED, advice="leave it out"
        )
    return content


def _read_xml(path: Path, data: bytes) -> _Content:
    if b"PktTcReport" in data[:_SNIFFED]:
        raise InputFileError(
            f"{path} is a telecommand report", expected="telemetry (PktTmRaw)", advice="name the telemetry deliveries"
        )
    if b"PktRawResponse" not in data and not _PACKET_ELEMENT.search(data):
        raise InputFileError(f"{path} is XML without packets", expected=_EXPECTED, advice="leave it out")
    elements = ((match.group(1), bool(match.group(2))) for match in _PACKET_ELEMENT.finditer(data))
    return _read_elements(path, elements)


def _read_fits(path: Path, _: bytes) -> _Content:
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path) as hdus:
                strings = _hex_column(path, hdus)
    except OSError as error:
        raise InputFileError(
            f"{path} is a damaged FITS file: {error}", expected=_EXPECTED, advice="fetch it again"
        ) from error
    return _read_elements(path, ((text, True) for text in strings))


def _hex_column(path: Path, hdus: Any) -> list[bytes]:
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
    return [str(text).encode("ascii", "replace") for text in hdus["DATA"].data["data"]]


def _read_elements(path: Path, elements: Iterable[tuple[bytes, bool]]) -> _Content:
    """Packets of a container with one packet in each element, given as hexadecimal text and whether it is closed."""
    parts: list[bytes] = []
    rejected: list[Quarantined] = []
    at = 0
    for number, (text, closed) in enumerate(elements):
        packet, reason = _element_packet(text, closed)
        if packet is None:
            rejected.append(
                Quarantined(f"element {number + 1}: {reason}", str(path), at, text, "one packet in hexadecimal")
            )
        else:
            parts.append(packet)
            at += len(packet)
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    return _Content(b"".join(parts), np.cumsum(lengths) - lengths, tuple(rejected))


def _element_packet(text: bytes, closed: bool) -> tuple[bytes | None, str]:
    try:
        data = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return None, "not hexadecimal" if closed else "the file ends inside it"
    for at in _candidates(data):
        if is_header(data, at) and len(data) - at == (data[at + 4] << 8 | data[at + 5]) + 7 >= HEADER_SIZE:
            return data[at:], ""
    return None, f"no packet that fits its {len(data)} bytes" if closed else "the file ends inside it"


def _candidates(data: bytes) -> Iterator[int]:
    """Where the packet may begin: after the ground header, without one, or behind a damaged one."""
    yield from _PREFIX_SIZES
    at = next_header(data, 0)
    while at < len(data):
        yield at
        at = next_header(data, at + 1)
