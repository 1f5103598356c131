"""Binary tables of the HESSI catalog: an id table, an info structure and a data structure for each object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import InputFileError, MissingFile, NotFound
from stixflow.hessi.rates import utc_of_ut

_TEXT_WIDTH = 80

_FITS_BLOCK = 2880


class Table(NamedTuple):
    """One binary table as it is in the file."""

    name: str
    rows: NDArray[Any]
    """Structured; texts are bytes filled up to their width."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One object of the catalog: who it is, its info structure, and its data structures."""

    identity: Table
    info_table: Table
    data_table: Table

    @property
    def info(self) -> dict[str, Any]:
        """The info structure by lower-case name; texts without their filling."""
        return record(self.info_table)

    @property
    def data(self) -> NDArray[Any]:
        """The data structures, fields in lower case."""
        return lower_case(self.data_table.rows)

    def tables(self) -> tuple[Table, Table, Table]:
        """The three tables in the order of the file."""
        return self.identity, self.info_table, self.data_table

    def coordinates(self) -> Any:
        """Positions of an ephemeris part as an astropy SkyCoord, inertial about the Earth (GCRS), with their times."""
        import astropy.units as u
        from astropy.coordinates import GCRS, SkyCoord
        from astropy.time import Time

        place = np.asarray(self.data["xyz_eci"], dtype=np.float64)[:, :3].T
        times = Time(utc_of_ut(self.times()))
        return SkyCoord(*(place * u.km), representation_type="cartesian", frame=GCRS(obstime=times))

    def times(self) -> NDArray[np.float64]:
        """Start of every interval, seconds since 1979-01-01: times are derived, never stored."""
        info = self.info
        step = float(next(info[name] for name in ("time_intv", "av_spin_period", "dt_eph") if name in info))
        start = float(next(info[name] for name in ("ut_ref", "eph_ut_ref") if name in info))
        return np.asarray(start + np.arange(len(self.data_table.rows)) * step)

    def cut(self, start: float, stop: float) -> Part:
        """The intervals that start in [start, stop), with the reference time of the first."""
        times = self.times()
        inside = np.flatnonzero((times >= start) & (times < stop))
        if not inside.size:
            raise NotFound(f"{self.identity.name} has no interval in the time range")
        return self.with_rows(self.data_table.rows[inside], float(times[inside[0]]))

    def with_rows(self, rows: NDArray[Any], start: float) -> Part:
        """The same object with other rows, the first at `start`."""
        info = self.info_table.rows.copy()
        for name in info.dtype.names or ():
            if name.upper() in ("UT_REF", "EPH_UT_REF"):
                info[name] = start
            if name.upper() in ("N_TIME_INTV", "N_EPH"):
                info[name] = len(rows)
        return replace(
            self,
            info_table=self.info_table._replace(rows=info),
            data_table=self.data_table._replace(rows=rows),
        )


def make_table(name: str, columns: Mapping[str, ArrayLike]) -> Table:
    """Table of the given columns, rows first; texts are given as such.

    Raises
    ------
    ValueError
        If the columns have different lengths.
    """
    arrays = {key: _plain(values) for key, values in columns.items()}
    length = {len(values) for values in arrays.values()}
    if len(length) != 1:
        raise ValueError(f"columns of different length in {name}")
    kinds = [(key, values.dtype, values.shape[1:]) for key, values in arrays.items()]
    rows = np.zeros(length.pop(), dtype=kinds)
    for key, values in arrays.items():
        rows[key] = values
    return Table(name, rows)


def _plain(values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "US":
        return array.astype(array.dtype.newbyteorder(">"))
    filled = np.char.ljust(np.char.encode(array, "ascii") if array.dtype.kind == "U" else array, _TEXT_WIDTH)
    return filled.astype(f"S{_TEXT_WIDTH}")


def record(table: Table) -> dict[str, Any]:
    """First row of a table by lower-case name, texts without their filling."""
    return {name: text_of(table.rows[field][0]) for name, field in _fields(table.rows)}


def text_of(value: Any) -> Any:
    """Bytes, or an array of them, as text without filling; anything else unchanged."""
    array = np.asarray(value)
    if array.dtype.kind != "S":
        return value
    text = np.char.rstrip(np.char.decode(array, "ascii", "replace"), " \0")
    return str(text) if text.ndim == 0 else [str(one) for one in text.ravel()]


def lower_case(rows: NDArray[Any]) -> NDArray[Any]:
    """View of structured rows with lower-case field names."""
    fields: Any = rows.dtype.fields or {}
    names = rows.dtype.names or ()
    kind = np.dtype(
        {
            "names": [name.lower().replace(" ", "_") for name in names],
            "formats": [fields[name][0] for name in names],
            "offsets": [fields[name][1] for name in names],
            "itemsize": rows.dtype.itemsize,
        }
    )
    return rows.view(kind)


def _fields(rows: NDArray[Any]) -> list[tuple[str, str]]:
    return [(name.lower().replace(" ", "_"), name) for name in rows.dtype.names or ()]


def read_tables(path: str | Path) -> list[Table]:
    """Read every binary table of a FITS file, compressed or not.

    Raises
    ------
    MissingFile, InputFileError
        If the file is not there, or not FITS with tables.
    """
    from astropy.io import fits

    from stixflow.fits.headers import checked

    file = Path(path)
    if not file.is_file():
        raise MissingFile(f"no file {file}", expected="a FITS file of the HESSI catalog", advice="correct the path")
    try:
        with fits.open(checked(file), memmap=False) as hdus:
            tables = [Table(hdu.name, hdu.data.view(np.ndarray).copy()) for hdu in hdus if hasattr(hdu, "columns")]
    except (OSError, TypeError, ValueError) as error:
        raise InputFileError(
            f"{file.name} cannot be read: {error}", expected="a FITS file of the HESSI catalog", advice="fetch it again"
        ) from error
    if not tables:
        raise InputFileError(f"{file.name} holds no table", expected="a FITS file of the HESSI catalog")
    return tables


def write_tables(path: str | Path, tables: Sequence[Table], keywords: Mapping[str, str]) -> None:
    """Write tables as binary extensions, overwriting; texts keep their filling, which a table of astropy would not."""
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    for key, value in keywords.items():
        primary.header[key] = value
    primary.header["EXTEND"] = True
    content = [primary.header.tostring(), *(_header(table) for table in tables)]
    data = [b"", *(table.rows.tobytes() for table in tables)]
    with Path(path).open("wb") as file:
        for header, rows in zip(content, data, strict=True):
            file.write(header.encode("ascii"))
            file.write(rows)
            file.write(bytes(-len(rows) % _FITS_BLOCK))


def _header(table: Table) -> str:
    from astropy.io import fits

    header = fits.BinTableHDU(table.rows, name=table.name).header
    for i in range(1, header["TFIELDS"] + 1):
        if "," not in str(header.get(f"TDIM{i}", ",")):
            del header[f"TDIM{i}"]
    return str(header.tostring())


def parts_of(tables: Sequence[Table]) -> dict[str, Part]:
    """Objects by the name of their id table: an id table, the info after it, and the data after that."""
    return {
        table.name: Part(table, *tables[i + 1 : i + 3])
        for i, table in enumerate(tables[:-2])
        if table.name.endswith("ID TABLE") and "DATA" in tables[i + 2].name and "INFO" in tables[i + 1].name
    }


def find_files(root: Path, prefixes: Sequence[str]) -> list[Path]:
    """FITS files under `root` by the start of their names; of several versions of a prefix the last."""
    found = []
    for prefix in prefixes:
        versions = sorted(
            (path for path in root.rglob(f"{prefix}*") if path.name.endswith((".fits", ".fits.gz"))),
            key=lambda path: path.name,
        )
        if versions:
            found.append(versions[-1])
    return found
