"""Opening official FITS files: what is there, under which of its names, or a clear refusal."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import InputFileError
from stixflow.fits.headers import checked
from stixflow.time import Scet, Utc, to_utc

_NS_PER_UNIT = {"cs": 10_000_000, "s": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Table:
    """One binary table; columns are read when asked for."""

    file: str
    name: str
    hdu: Any

    def column(self, *names: str) -> NDArray[Any]:
        """Read the first of `names` that exists, in the byte order of this machine.

        Raises
        ------
        InputFileError
            If none of them exists.
        """
        found = self.find(*names)
        if found is None:
            raise InputFileError(
                f"{self.file} has no column {' or '.join(names)} in its table {self.name}",
                expected=f"a level-1 product; the table has {', '.join(self.hdu.columns.names)}",
                advice="check that the file is what its name says",
            )
        return found

    def find(self, *names: str) -> NDArray[Any] | None:
        """Read the first of `names` that exists, else None."""
        for name in names:
            if name in self.hdu.columns.names:
                if self.hdu.columns[name].format.lstrip("0123456789")[0] in "PQ":
                    raise InputFileError(
                        f"{self.file} has arrays of variable length in its column {name}",
                        expected="a column of one shape",
                        advice="check that the file is what its name says",
                    )
                values = np.asarray(self.hdu.data[name])
                return values.astype(values.dtype.newbyteorder("="), copy=False)
        return None

    def nanoseconds(self, name: str) -> NDArray[np.int64]:
        """Read a column of times in seconds or hundredths of it; without a unit it is that of ``time``."""
        values = self.column(name)
        unit = self.hdu.columns[name].unit or self.hdu.columns["time"].unit
        if unit not in _NS_PER_UNIT:
            raise InputFileError(f"{self.file} gives {name} in {unit!r}", expected="'s' or 'cs'")
        return np.asarray(np.rint(values.astype(np.float64) * _NS_PER_UNIT[unit]), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class StixFile:
    """An official file of the instrument, open."""

    name: str
    header: Mapping[str, Any]
    tables: Mapping[str, Table]

    def keyword(self, *names: str) -> Any:
        """Return the first of the keywords that exists, else None."""
        return next((self.header[name] for name in names if name in self.header), None)

    def table(self, name: str) -> Table:
        if name not in self.tables:
            raise InputFileError(
                f"{self.name} has no table {name}",
                expected="the tables CONTROL, DATA and ENERGIES of a level-1 product",
                advice="check that the file is complete and what its name says",
            )
        return self.tables[name]

    def start(self) -> np.datetime64:
        """Return the UTC that the times of the file count from."""
        text = self.keyword("DATE-BEG", "DATE_BEG", "DATE-OBS", "DATE_OBS")
        if text is None:
            raise InputFileError(f"{self.name} does not say when it begins", expected="the keyword DATE-BEG")
        return to_utc(text)

    def is_first_format(self) -> bool:
        """Tell files of the first software, of 2020: their keywords have underscores, they are no L1A of later."""
        return "DATE_BEG" in self.header and self.keyword("LEVEL") == "L1"

    def start_scet(self) -> int | None:
        """Onboard time of the beginning, if the header gives it."""
        value = self.keyword("OBT_BEG")
        if value is None:
            return None
        if isinstance(value, str):
            coarse, _, fine = value.partition(":")
            if not coarse.isdigit():
                # Early files give a date here, that of the beginning.
                return None
            return (int(coarse) << 16) | int(fine or 0)
        # The official files turn the fine part into a fraction with 65535.
        coarse_part, fraction = divmod(float(value), 1.0)
        return (int(coarse_part) << 16) | round(fraction * 65535)


@contextmanager
def open_stix(path: str | Path, *, name: str | None = None) -> Iterator[StixFile]:
    """Open an official FITS file of the instrument.

    Parameters
    ----------
    name
        What the file is called, where that is not the name it is kept under.

    Raises
    ------
    MissingFile, InputFileError
        If there is no file, it is not FITS, it is cut short or declares sizes that it does not have, or it is not of
        this instrument.
    """
    from astropy.io import fits

    name = name or Path(path).name
    source = checked(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _opened(name, source) as hdus:
                yield _stix_file(name, hdus)
        except fits.VerifyError as error:
            raise InputFileError(
                f"{name} has a damaged header ({error})", expected="cards of FITS", advice="fetch it again"
            ) from error


def _opened(name: str, source: Any) -> Any:
    from astropy.io import fits

    try:
        return fits.open(source, mode="readonly", lazy_load_hdus=False)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputFileError(
            f"{name} is not a FITS file ({error})", expected="FITS", advice="fetch it again"
        ) from error


def _stix_file(name: str, hdus: Any) -> StixFile:
    _check_instrument(name, hdus[0].header)
    tables = {hdu.name: Table(name, hdu.name, hdu) for hdu in hdus[1:] if hasattr(hdu, "columns")}
    return StixFile(name, hdus[0].header, tables)


def _check_instrument(name: str, header: Mapping[str, Any]) -> None:
    if "STIX" not in f"{header.get('TELESCOP', '')} {header.get('INSTRUME', '')}".upper():
        raise InputFileError(
            f"{name} is from {header.get('TELESCOP', 'no telescope')} / {header.get('INSTRUME', 'no instrument')}",
            expected="TELESCOP = 'SOLO/STIX' or INSTRUME = 'STIX'",
            advice="give a product of STIX",
        )


def utc_of(start: np.datetime64, nanoseconds: NDArray[np.int64]) -> Utc:
    """Times that many nanoseconds after the start."""
    return np.asarray(start + nanoseconds.astype("timedelta64[ns]"))


def ticks_of(nanoseconds: NDArray[np.int64]) -> Scet:
    """Nanoseconds as ticks of the onboard clock."""
    return np.asarray(np.rint(nanoseconds * (65536 / 1e9)), dtype=np.int64)


def bits(mask: NDArray[Any]) -> NDArray[np.int64]:
    """Join the last axis of zeros and ones to one number, first element = bit 0."""
    return np.asarray(mask.astype(np.int64) @ (1 << np.arange(mask.shape[-1], dtype=np.int64)))
