"""What a level-1 file says beyond its measurements: telemetry files, packets, databases, plans of the mission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from stixflow.fits._reading import StixFile, open_stix

PLAN_CARDS = ("OBS_ID", "OBS_TYPE", "OBS_MODE", "SOOPNAME", "SOOPTYPE", "TARGET")
"""Cards about the plan of the observation."""

_KEPT_CARDS = (*PLAN_CARDS, "SCI_TCC", "SPICE_MK", "HCIX_VOB", "HCIY_VOB", "HCIZ_VOB", "OBS_VR")
_TIMES = ("obt_start", "obt_end")
_LINE = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What made a dataset and is not in it; what is not known is left at its default and written as not known."""

    raw_files: tuple[str, ...] = ()
    """Telemetry files."""
    parents: tuple[str, ...] = ()
    """Files of the level below."""
    packets: tuple[int, ...] = ()
    """Source sequence counts of the packets of a request."""
    substructures: tuple[int, ...] = ()
    """Substructures in each of those packets."""
    packet_id: int | None = None
    """Reference of the telecommand packet of a request."""
    time_stamp: float | None = None
    """Onboard time of the first packet of a request, s."""
    databases: tuple[tuple[str, float, float], ...] = ()
    """Versions of the instrument database, each with the onboard times of its first and last packet, s."""
    cards: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Cards of the primary header that only the mission knows: plan, SPICE kernels, velocities."""
    history: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()


def read_origin(path: str | Path) -> Origin:
    """Read from an official file what `stixflow.fits.read_level1` leaves out, for `stixflow.fits.write_level1`.

    Raises
    ------
    MissingFile, InputFileError
        As `stixflow.fits.read_level1`.
    """
    with open_stix(path) as file:
        return Origin(
            raw_files=_names(file, "RAW_FILE"),
            parents=_names(file, "PARENT"),
            packets=_numbers(file, "packet"),
            substructures=_numbers(file, "num_substructures"),
            packet_id=next(iter(_numbers(file, "tc_packet_id_ref")), None),
            time_stamp=_first(file, "time_stamp"),
            databases=_databases(file),
            cards={key: file.header[key] for key in _KEPT_CARDS if file.header.get(key) is not None},
            history=_lines(file, "HISTORY"),
            comments=_lines(file, "COMMENT"),
        )


def _names(file: StixFile, key: str) -> tuple[str, ...]:
    return tuple(name for name in str(file.keyword(key) or "").split(";") if name)


def _lines(file: StixFile, key: str) -> tuple[str, ...]:
    """Join the lines of a card that astropy broke: full lines go on in the next."""
    joined: list[str] = []
    goes_on = False
    for line in map(str, file.header.get(key, [])):
        if goes_on:
            joined[-1] += line
        else:
            joined.append(line)
        goes_on = len(line) >= _LINE
    return tuple(joined)


def _numbers(file: StixFile, name: str) -> tuple[int, ...]:
    found = file.table("CONTROL").find(name)
    if found is None or found.dtype.kind not in "iu":
        return ()
    return tuple(np.atleast_1d(found[0]).tolist())


def _first(file: StixFile, name: str) -> float | None:
    found = file.table("CONTROL").find(name)
    return None if found is None or not found.size else float(found[0])


def _databases(file: StixFile) -> tuple[tuple[str, float, float], ...]:
    table = file.tables.get("IDB_VERSIONS")
    if table is None:
        return ()
    start, end = (table.column(name).astype(np.float64).tolist() for name in _TIMES)
    return tuple(zip(map(str, table.column("version").tolist()), start, end, strict=True))


__all__ = ["PLAN_CARDS", "Origin", "read_origin"]
