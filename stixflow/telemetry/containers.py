"""Files of telemetry, told apart by content: SOC XML, binary, hexadecimal text, ASCII lines and level-binary FITS.

Every container is read in pieces: one piece is the whole file for `read_packets`, and a few megabytes for
`iter_packets`, which therefore reads streams of any length in the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stixflow.errors import InputFileError, MissingFile, UsageError
from stixflow.telemetry.ccsds import is_header, next_header
from stixflow.telemetry.elements import check_xml, has_dated_packets, read_fits, read_lines, read_xml
from stixflow.telemetry.packets import Packets, Seen, from_frames
from stixflow.telemetry.streams import (
    EXPECTED,
    SMALLEST_BATCH,
    SNIFFED,
    Chunks,
    Content,
    check_hex,
    is_hex,
    read_binary,
    read_hex,
)

_BATCH_BYTES = 8_000_000
"""Bytes that `iter_packets` reads at a time."""


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
    path_or_paths: str | Path | Iterable[str | Path], *, batch_bytes: int = _BATCH_BYTES
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
    if batch_bytes < SMALLEST_BATCH:
        raise UsageError(f"batches of {batch_bytes} bytes", expected=f"at least {SMALLEST_BATCH}")
    return _batches(path_or_paths, batch_bytes)


def _batches(path_or_paths: str | Path | Iterable[str | Path], batch_bytes: int) -> Iterator[Packets]:
    seen, skipped = Seen(), list[tuple[str, str]]()
    for name, content in _read_all(path_or_paths, batch_bytes, skipped):
        yield replace(_packets(name, content, seen), skipped=tuple(skipped))
        skipped.clear()
    if skipped:
        nothing = Content(b"", np.empty(0, np.int64), ())
        yield replace(_packets("", nothing, seen), skipped=tuple(skipped))


def _packets(name: str, content: Content, seen: Seen) -> Packets:
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
) -> Iterator[tuple[str, Content]]:
    """Pieces of all files, each file once, with its name."""
    names = [path_or_paths] if isinstance(path_or_paths, str | Path) else list(path_or_paths)
    if not names:
        raise MissingFile("no file to read", expected=EXPECTED, advice="name at least one file or folder")
    paths = [Path(name) for name in names]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise MissingFile(f"{', '.join(missing)} does not exist", expected=EXPECTED, advice="correct the path")
    read: set[str] = set()
    for path in paths:
        if path.is_dir():
            yield from _read_folder(path, batch_bytes, read, skipped)
        elif str(path) not in read:
            read.add(str(path))
            yield from ((str(path), piece) for piece in _read_file(path, batch_bytes))


def _read_folder(
    folder: Path, batch_bytes: int, read: set[str], skipped: list[tuple[str, str]]
) -> Iterator[tuple[str, Content]]:
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
            expected=EXPECTED,
            advice="name the folder that the deliveries are in",
        )


def _combine(read: dict[str, Content], skipped: Sequence[tuple[str, str]]) -> Packets:
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


def _read_file(path: Path, batch_bytes: int) -> Iterator[Content]:
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


def _reader_of(path: Path, data: bytes) -> Callable[[Path, Chunks], Iterator[Content]]:
    head = data[:SNIFFED]
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise InputFileError(f"{path} is empty", expected=EXPECTED, advice="fetch the file again")
    if head.startswith(b"SIMPLE  ="):
        return read_fits
    if text.startswith(b"<"):
        check_xml(path, data)
        return read_xml
    if is_header(data, 0) or next_header(data, 0) < len(data):
        return read_binary
    if is_hex(text):
        check_hex(path, data)
        return read_hex
    if has_dated_packets(data):
        return read_lines
    raise InputFileError(f"{path} is {_describe(head)}", expected=EXPECTED, advice="leave it out")


def _describe(head: bytes) -> str:
    kinds = {b"\x89PNG": "a PNG image", b"%PDF": "a PDF document", b"PK\x03\x04": "a ZIP archive"}
    kinds |= {b"\x1f\x8b": "a gzip file; unpack it first", b"CDF": "a netCDF file", b"\x89HDF": "an HDF5 file"}
    return next(
        (kind for magic, kind in kinds.items() if head.startswith(magic)), "no telemetry: no packet header in it"
    )
