"""Opening official FITS files: what is there, under which of its names, or a clear refusal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import InputFileError
from stixflow.fits._table import Table, read_table
from stixflow.fits.headers import read_hdus
from stixflow.time import Scet, Utc, to_utc


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
    """Open an official FITS file of the instrument, called `name` where that is not the name it is kept under.

    Raises
    ------
    MissingFile, InputFileError
        If there is no file, it is not FITS, it is cut short or declares sizes that it does not have, or it is not of
        this instrument.
    """
    name = name or Path(path).name
    content, hdus = read_hdus(path)
    header = hdus[0].cards
    _check_instrument(name, header)
    yield StixFile(name, header, {hdu.name: read_table(name, hdu, content) for hdu in hdus if hdu.is_table})


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


__all__ = ["StixFile", "Table", "bits", "open_stix", "ticks_of", "utc_of"]
