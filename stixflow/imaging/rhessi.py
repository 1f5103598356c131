"""Visibilities of RHESSI, from the FITS files of its software, for the same image methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import InputFileError, MissingFile
from stixflow.imaging.visibilities import from_arrays

_EPOCH = np.datetime64("1979-01-01T00:00:00", "ns")
_UNITS = {"photon": "ph / (s cm2)", "electr": "electron / (s cm2)"}
_FINEST_SPARED = 2
_NEEDED = {"ISC", "HARM", "ERANGE", "TRANGE", "U", "V", "OBSVIS", "SIGAMP", "XYOFFSET"}


def read_rhessi_visibilities(path: str | Path, *, subcollimators: ArrayLike | None = None) -> list[xr.Dataset]:
    """Read the visibilities of a RHESSI file: one Dataset for each time and energy range, in that order.

    The spacecraft turns, so every time has its own spatial frequencies. Phases refer to the map centre of the file
    (`center_x`, `center_y`: heliocentric arcsec seen from the Earth). Visibilities that are zero were not measured and
    are left out.

    Parameters
    ----------
    subcollimators
        Indices 0 (finest) to 8; by default 2 to 8, as the finest two see little of most flares.

    Raises
    ------
    MissingFile, InputFileError
        If the file is not there, or holds no such table.
    """
    chosen = np.arange(_FINEST_SPARED, 9) if subcollimators is None else np.atleast_1d(np.asarray(subcollimators))
    table = _table(Path(path))
    used = np.isin(table["ISC"], chosen) & (table["OBSVIS"] != 0) & np.isfinite(table["OBSVIS"])
    keys = np.concatenate([table["TRANGE"], table["ERANGE"]], axis=1).astype(np.float64)
    ranges, which = np.unique(keys, axis=0, return_inverse=True)
    sets = [np.flatnonzero(used & (which.ravel() == number)) for number in range(len(ranges))]
    return [_dataset(table, rows) for rows in sets if rows.size]


def _table(path: Path) -> NDArray[Any]:
    from astropy.io import fits

    from stixflow.fits.headers import checked

    if not path.is_file():
        raise MissingFile(f"there is no file {path}", expected="a FITS file of visibilities", advice="correct the path")
    try:
        with fits.open(checked(path), memmap=False) as file:
            for hdu in file:
                if set(getattr(getattr(hdu, "columns", None), "names", ())) >= _NEEDED:
                    return np.asarray(hdu.data)
    except OSError as error:
        raise InputFileError(f"{path.name} is not FITS", expected="a FITS file", advice=str(error)) from error
    raise InputFileError(
        f"{path.name} has no table of visibilities",
        expected=f"columns {', '.join(sorted(_NEEDED))}",
        advice="another file",
    )


def _dataset(table: NDArray[Any], rows: NDArray[np.intp]) -> xr.Dataset:
    one = table[rows]
    kind = str(one["TYPE"][0]).strip().lower() if "TYPE" in (one.dtype.names or ()) else "photon"
    label = [f"{index + 1}" if harmonic == 1 else f"{index + 1}h{harmonic}" for index, harmonic in zip(
        one["ISC"], one["HARM"], strict=True)]  # fmt: skip
    data = from_arrays(
        one["U"], one["V"], one["OBSVIS"], one["SIGAMP"], center=one["XYOFFSET"][0].astype(np.float64), label=label,
        units=_UNITS.get(kind, ""),
    )  # fmt: skip
    start, stop = (_EPOCH + np.rint(one["TRANGE"][0] * 1e9).astype("timedelta64[ns]")).tolist()
    low, high = one["ERANGE"][0].astype(np.float64)
    return data.assign(
        time_start=("image", np.array([start], dtype="datetime64[ns]")),
        time_stop=("image", np.array([stop], dtype="datetime64[ns]")),
        energy_low=("image", [low]),
        energy_high=("image", [high]),
    ).assign_attrs(instrument="RHESSI")
