"""The flare list: an object with the verbs of the HESSI catalog, in FITS and in ASCII."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import InputFileError, MissingFile, NotFound, UsageError
from stixflow.hessi.archive import archive_root
from stixflow.hessi.rates import ccsds, ut_of_utc, utc_at
from stixflow.hessi.summary import MISSING, Missing, ut_seconds
from stixflow.hessi.tables import (
    Part,
    Table,
    find_files,
    lower_case,
    make_table,
    parts_of,
    read_tables,
    text_of,
    write_tables,
)
from stixflow.time import TimeRange

FLAG_IDS = (
    "SAA At Start",
    "SAA at End",
    "SAA",
    "Eclipse at Start",
    "Eclipse At End",
    "Flare at SOF",
    "Flare at EOF",
    "Fast Rate Mode",
    "Decimation",
    "Att State at peak",
)
"""Flags of a flare by their number, as of June 2000; the flight has others, which its files name."""
_ENERGY_RANGE_KEV = (6.0, 25.0)

FLARE = np.dtype(
    [
        ("ID_NUMBER", ">i4"),
        ("START_TIME", ">f8"),
        ("END_TIME", ">f8"),
        ("PEAK_TIME", ">f8"),
        ("BCK_TIME", ">f8", (2,)),
        ("ENERGY_HI", ">f4", (2,)),
        ("PEAK_COUNTRATE", ">f4"),
        ("BCK_COUNTRATE", ">f4"),
        ("TOTAL_COUNTS", ">f4"),
        ("POSITION", ">f4", (2,)),
        ("FILENAME", "S80"),
        ("FLAGS", "u1", (32,)),
    ]
)
"""One flare: times in seconds since 1979-01-01, rates in counts per second, position in arcsec from Sun centre."""

_ID = "HESSI FLARE LIST ID TABLE"
_INFO, _DATA = "HSI_FLARELISTINFO", "HSI_FLARELISTDATA"
_TITLE = "HESSI FLARE LIST FILE"
_COLUMNS = (
    "id_number", "Start_date", "Start_time", "End_time", "Peak_time", "hi_eband0", "hi_eband1",
    "peak_rate", "total_cnt", "xcen", "ycen", "Flags",
)  # fmt: skip
_DAY_S = 86400.0


@dataclass(slots=True, eq=False)
class FlareList:
    """A flare list, filled by `getdata` or by `make_flare_list`."""

    data_dir: str | Path | None = None
    """Root of the archive, instead of the environment variable HSI_DATA_ARCHIVE."""
    part: Part | None = None
    created: str = ""
    """When the ASCII file was written, CCSDS; now by default."""
    head: tuple[Table, ...] = field(default=())

    def getdata(
        self,
        *,
        filename: str | Path | None = None,
        ut_time_range: tuple[object, object] | None = None,
        missing: Missing = "raise",
    ) -> NDArray[Any] | int:
        """Read a list by file (FITS or ASCII) or by time range, and return its flares.

        Parameters
        ----------
        ut_time_range
            Two times, UTC or seconds since 1979-01-01: flares that start in between, from monthly or daily files.
        missing
            "raise" NotFound, or return -1 and leave everything -1 ("sentinel").

        Returns
        -------
        Structured, one row per flare, field names in lower case.
        """
        if (filename is None) == (ut_time_range is None):
            raise UsageError("getdata needs a filename or a ut_time_range", expected="one of them")
        self.part, self.head, self.created = None, (), ""
        try:
            found = read_flare_list(filename) if filename is not None else self._of_range(ut_time_range)
        except (LookupError, FileNotFoundError):
            if missing == "raise":
                raise
            return MISSING
        self.part, self.head, self.created = found.part, found.head, found.created
        return self.get("data")  # type: ignore[no-any-return]

    def get(self, name: str) -> Any:
        """Return `info`, `data`, `version` or `list_id`; -1 without data."""
        if name not in ("info", "data", "version", "list_id"):
            raise UsageError(f"a flare list has no {name!r}", expected="info, data, version, list_id")
        if self.part is None:
            return MISSING
        if name in ("info", "data"):
            return getattr(self.part, name)
        column = {"version": "version_number", "list_id": "id_string"}[name]
        return text_of(lower_case(self.part.identity.rows)[column][0])

    def write(self, filename: str | Path) -> None:
        """Write the list as FITS, in the layout of the flight."""
        info = self._filled().info
        keywords = {
            "TELESCOP": "HESSI",
            "OBJECT": "Sun",
            "ORIGIN": "stixflow",
            "DATE_OBS": info["list_start_time"],
            "DATE_END": info["list_end_time"],
        }
        write_tables(filename, self.tables(), keywords)

    def tables(self) -> list[Table]:
        """Every table of the list, in the order of the file."""
        return [*self.head, *self._filled().tables()]

    def write_ascii(self, ascii_filename: str | Path) -> None:
        """Write the list as text."""
        Path(ascii_filename).write_text(self.to_ascii(), encoding="ascii")

    def to_ascii(self) -> str:
        """The list as text, in the layout of June 2000."""
        part = self._filled()
        info, flares = part.info, part.data
        low, high = info.get("energy_range_found", _range_found(flares))
        start, stop = (_zulu(info[f"list_{end}_time"]) for end in ("start", "end"))
        names = [text_of(name) for name in info["flag_ids"]][: int(info["nflags"])]
        lines = [
            _TITLE,
            f"Created: {self.created or _now()}",
            f"ID: {self.get('list_id')}",
            f"Number of Flares: {len(flares)}",
            f"Time Range: {start}",
            f"To: {stop}",
            f"Energy Range Found (keV): {_idl(low)} {_idl(high)}",
            *(["Simulated Data"] if info["simulated_data"] else []),
            "DATA:",
            "".join(f"{name} | " for name in _COLUMNS).rstrip(),
            *(_row(flare) for flare in flares),
            "FLAGS",
            "-1 : NONE",
            *(f"{number} : {name}" for number, name in enumerate(names)),
        ]
        return "\n".join(lines) + "\n"

    def _filled(self) -> Part:
        if self.part is None:
            raise NotFound("the list is empty", advice="getdata first")
        return self.part

    def _of_range(self, ut_time_range: tuple[object, object] | None) -> FlareList:
        start, stop = (ut_seconds(one) for one in ut_time_range or ())
        if not start < stop:
            raise UsageError("an empty time range", expected="a start before the stop")
        root = archive_root(self.data_dir)
        days = TimeRange(utc_at(start), utc_at(stop)).days()
        months = sorted({f"{day:%Y%m}" for day in days})
        files = find_files(root, [f"hessi_flare_list_{month}" for month in months])
        if not files:
            raise NotFound(f"no flare list of {days[0]:%Y-%m}", expected=f"hessi_flare_list_yyyymm.fits under {root}")
        return _join_flare_lists([read_flare_list(path) for path in files], start, stop)


def read_flare_list(path: str | Path) -> FlareList:
    """Read a flare list, FITS or ASCII.

    Raises
    ------
    MissingFile, InputFileError
        If there is no file, or it holds no flare list.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingFile(f"no file {file}", expected="a HESSI flare list", advice="correct the path")
    with file.open("rb") as stream:
        is_text = stream.read(len(_TITLE)) == _TITLE.encode()
    if is_text:
        return parse_ascii(file.read_text(encoding="ascii"))
    tables = read_tables(file)
    part = parts_of(tables).get(_ID)
    if part is None:
        raise InputFileError(f"{file.name} holds no flare list", expected="a file such as hessi_flare_list_201802.fits")
    return FlareList(part=part)


def make_flare_list(
    flares: NDArray[Any],
    time_range: tuple[float, float],
    *,
    list_id: str = "",
    energy_range: tuple[float, float] = _ENERGY_RANGE_KEV,
    flag_ids: Sequence[str] = FLAG_IDS,
    simulated: bool = False,
    concatenated: bool = False,
    created: str = "",
) -> FlareList:
    """Make a list of flares (`FLARE`) found in a time range, seconds since 1979-01-01."""
    start, stop = (ccsds(time) for time in time_range)
    names = [*flag_ids, *[""] * (32 - len(flag_ids))]
    identity = make_table(
        _ID,
        {
            "VERSION NUMBER": np.array([0], np.int16),
            "ID STRING": [list_id or f"flare list: {start} to {stop}"],
            "INFO VERSION NUMBER": np.array([1], np.int16),
            "DATA VERSION NUMBER": np.array([0], np.int16),
        },
    )
    info = make_table(
        _INFO,
        {
            "N_FLARES": np.array([len(flares)], np.int32),
            "LIST_START_TIME": [start],
            "LIST_END_TIME": [stop],
            "ENERGY_RANGE_FOUND": np.array([energy_range], np.float32),
            "NFLAGS": np.array([len(flag_ids)], np.int16),
            "FLAG_IDS": [names],
            "SIMULATED_DATA": np.array([simulated], np.int16),
            "CONCAT_FLAG": np.array([concatenated], np.int16),
        },
    )
    return FlareList(part=Part(identity, info, Table(_DATA, flares)), created=created)


def _join_flare_lists(lists: Sequence[FlareList], start: float, stop: float) -> FlareList:
    """The flares of several lists that start in [start, stop)."""
    parts = [one._filled() for one in lists]
    rows = np.concatenate([part.data_table.rows for part in parts])
    began = lower_case(rows)["start_time"]
    rows = rows[(began >= start) & (began < stop)]
    if not rows.size:
        raise NotFound(f"no flare between {ccsds(start)} and {ccsds(stop)}")
    info = parts[0].info_table.rows.copy()
    values = {
        "n_flares": len(rows),
        "list_start_time": ccsds(start, zulu=False),
        "list_end_time": ccsds(stop, zulu=False),
        "concat_flag": len(lists) > 1,
    }
    view = lower_case(info)
    for name, value in values.items():
        view[name] = str(value).ljust(80).encode() if isinstance(value, str) else value
    return FlareList(part=Part(parts[0].identity, parts[0].info_table._replace(rows=info), Table(_DATA, rows)))


def parse_ascii(text: str) -> FlareList:
    """Read the text of a flare list.

    What the text does not hold is NaN: background, and 0: file names and values of flags beyond being set.

    Raises
    ------
    InputFileError
        If it does not follow the layout.
    """
    lines = text.splitlines()
    try:
        heading = lines.index("DATA:")
        legend = lines.index("FLAGS", heading)
        keys = dict(line.split(": ", 1) for line in lines[1:heading] if ": " in line)
        names = [line.split(" : ", 1)[1] for line in lines[legend + 2 :] if " : " in line]
        flares = np.array([_parse_row(line) for line in lines[heading + 2 : legend]], dtype=FLARE)
        if len(flares) != int(keys["Number of Flares"]):
            raise InputFileError(f"{len(flares)} flares", expected=f"{keys['Number of Flares']} as the file says")
        low, high = (float(value) for value in keys["Energy Range Found (keV)"].split())
        start, stop = (float(ut_of_utc(keys[key])) for key in ("Time Range", "To"))
        list_id, created = keys["ID"], keys["Created"]
    except (KeyError, ValueError, IndexError) as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"not a flare list: {error}", expected="the ASCII layout of June 2000") from error
    return make_flare_list(
        flares, (start, stop), list_id=list_id, energy_range=(low, high), flag_ids=names,
        simulated="Simulated Data" in lines[:heading], created=created,
    )  # fmt: skip


def flag_numbers(flags: ArrayLike) -> list[int]:
    """Numbers of the flags that are set; [-1] if none is."""
    numbers = np.flatnonzero(np.asarray(flags))
    return [int(number) for number in numbers] or [-1]


def _row(flare: Any) -> str:
    start, end, peak = (_clock(float(flare[f"{which}_time"])) for which in ("start", "end", "peak"))
    numbers = [*flare["energy_hi"], flare["peak_countrate"], flare["total_counts"], *flare["position"]]
    values = [str(flare["id_number"]), start[0], start[1], end[1], peak[1], *(f"{value:.2f}" for value in numbers)]
    return "".join(f"{value} | " for value in [*values, " ".join(map(str, flag_numbers(flare["flags"])))]).rstrip()


def _parse_row(line: str) -> tuple[Any, ...]:
    values = [value.strip() for value in line.rstrip(" |").split(" | ")]
    if len(values) != len(_COLUMNS):
        raise InputFileError(f"a row of {len(values)} columns: {line!r}", expected=f"{len(_COLUMNS)} columns")
    number, day, *clocks = values[:5]
    start, end, peak = (float(ut_of_utc(f"{day}T{clock}")) for clock in clocks)
    later = (end + _DAY_S * (end < start), peak + _DAY_S * (peak < start))
    low, high, rate, total, x, y = (float(value) for value in values[5:11])
    flags = np.zeros(32, np.uint8)
    flags[[int(flag) for flag in re.split(r"[ ,]+", values[11]) if flag != "-1"]] = 1
    nan = float("nan")
    return (int(number), start, *later, (nan, nan), (low, high), rate, nan, total, (x, y), b"", flags)


def _clock(seconds: float) -> tuple[str, str]:
    day, clock = ccsds(seconds, zulu=False).split("T")
    return day, clock[:8]


def _zulu(text: str) -> str:
    return text if text.endswith("Z") else text + "Z"


def _idl(value: float) -> str:
    """A number as IDL prints it: six digits."""
    return f"{value:#.6g}"


def _range_found(flares: NDArray[Any]) -> tuple[float, float]:
    """Energy range of a list of the flight, which keeps it with every flare."""
    if "energy_range_found" in (flares.dtype.names or ()) and len(flares):
        low, high = flares["energy_range_found"][0]
        return float(low), float(high)
    return _ENERGY_RANGE_KEV


def _now() -> str:
    return str(np.datetime_as_string(np.datetime64("now", "ms"), unit="ms")) + "Z"
