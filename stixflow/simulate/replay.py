"""Official level-1 files turned back into telemetry, so that real data travels the whole chain."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stixflow.errors import InputFileError, UsageError
from stixflow.fits.level1 import read_every
from stixflow.simulate.packetise import SequenceCounter, packetise
from stixflow.telemetry import Packets, Records, encode, write_binary, write_xml

if TYPE_CHECKING:
    import xarray as xr

Container = Literal["xml", "binary"]
Progress = Callable[[str], None]

_TOLERANCE_TICKS = 2
"""Level-1 files give the start of a request with up to this error of rounding."""
_SUFFIX = {"xml": "_PktTmRaw.xml", "binary": ".bin"}


def replay(
    paths: Iterable[str | Path],
    out_dir: str | Path,
    *,
    container: Container = "xml",
    progress: Progress | None = None,
) -> list[Path]:
    """Write the telemetry that would give official level-1 files: one telemetry file for each.

    Parameters
    ----------
    paths
        Files of level 1 of every product that `packetise` lays out, with numbers as they were decompressed.
    out_dir
        Folder to write to; made if it is not there.
    container
        SOC XML (`PktTmRaw`) or packets back to back.
    progress
        Called with the name of each file before it is read.

    Raises
    ------
    InputFileError
        If a file holds what no telemetry can carry, as bin times off the 0.1 s raster of a request.
    """
    check_container(container)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    counter = SequenceCounter()
    written = []
    for path in map(Path, paths):
        if progress is not None:
            progress(path.name)
        pieces = []
        for cube in read_every(path):
            records, counter = _records_of(path, cube, counter)
            pieces.append(encode(records))
        written.append(write_container(Packets.from_bytes(b"".join(pieces)), folder / path.stem, container))
    return written


def check_container(container: str) -> None:
    """Raise UsageError for a container that cannot be written."""
    if container not in _SUFFIX:
        raise UsageError(f"container {container!r}", expected=" or ".join(_SUFFIX), advice="choose one of them")


def write_container(packets: Packets, stem: Path, container: Container) -> Path:
    """Write packets to `stem` with the suffix of the container; return the path."""
    write = write_xml if container == "xml" else write_binary
    return write(stem.with_name(stem.name + _SUFFIX[container]), packets)


def _records_of(path: Path, cube: xr.Dataset, counter: SequenceCounter) -> tuple[Records, SequenceCounter]:
    try:
        return packetise(cube, counter=counter, tolerance_ticks=_TOLERANCE_TICKS)
    except UsageError as error:
        raise InputFileError(
            f"{path.name}: {error.found}", expected=error.expected, advice="replay files of level 1 as published"
        ) from error
