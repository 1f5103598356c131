"""Official products beyond level 1: energy calibration, flare lists, ephemeris."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.model import N_DETECTORS, N_PIXELS
from stixflow.fits._columns import bin_times
from stixflow.fits._energy_tables import FIT_COLUMNS
from stixflow.fits._reading import StixFile, open_stix

Reader = Callable[[StixFile, Path], xr.Dataset]

_PIXEL = ("time", "detector", "pixel")


def higher_reader(file: StixFile) -> Reader | None:
    """Return what reads the file if it is a product beyond level 1."""
    level = str(file.keyword("LEVEL") or "")
    given = f"{file.keyword('FILENAME') or ''} {file.name}"
    if "aux-ephemeris" in given or "asp-ephemeris" in given:
        return _read_ephemeris
    if level == "L3" and "flarelist" in given:
        return _read_flare_list
    return _read_energy_calibration if level == "CAL" and "cal-energy" in given else None


def _read_ephemeris(_file: StixFile, path: Path) -> xr.Dataset:
    from stixflow.ephemeris import read_ancillary

    return read_ancillary(path)


def _read_flare_list(file: StixFile, path: Path) -> xr.Dataset:
    """One row a flare, in the columns of our flare tables."""
    from stixflow.flares.columns import flare_columns
    from stixflow.flares.lists import BANDS_KEV, LOCATION_COLUMNS, read_official

    table = read_official(path)
    known = flare_columns(len(BANDS_KEV)) | dict(LOCATION_COLUMNS)
    columns = {str(name): _plain(table[name].to_numpy()) for name in table.columns}
    made = xr.Dataset(
        {
            name: ("flare", values, {"units": known[name].units, "long_name": known[name].description})
            if name in known
            else ("flare", values)
            for name, values in columns.items()
        }
    )
    bands = [list(band) for band in BANDS_KEV]
    return made.assign_attrs(product="flare_list", level="L3", source_file=file.name, energy_bands=bands)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(str) if values.dtype.kind == "O" else values


def _read_energy_calibration(file: StixFile, _path: Path) -> xr.Dataset:
    """Gain, offset and actual energies of every pixel; the units are those of the numbers, which the file misnames."""
    control, data = file.table("CONTROL"), file.table("DATA")
    times = bin_times(file)
    errors = data.column("ecc_error")
    rows = times["time"].size
    variables: dict[str, tuple[tuple[str, ...], NDArray[Any], str, str]] = {
        "time": (("time",), times["time"], "", "run centre, UTC"),
        "time_start": (("time",), times["time_start"], "", "run start, UTC"),
        "timedel": (("time",), times["timedel"], "s", "run duration"),
        "scet": (("time",), times["scet"], "s / 65536", "run start on the onboard clock, coarse << 16 | fine"),
        "detector": (("detector",), np.arange(N_DETECTORS, dtype=np.uint8), "1", "detector index, detector number - 1"),
        "pixel": (("pixel",), np.arange(N_PIXELS, dtype=np.uint8), "1", "pixel index"),
        "offset": (_PIXEL, data.column("offset"), "adu", "offset in ADC channels of 4096"),
        "gain": (_PIXEL, data.column("gain"), "keV / adu", "width of an ADC channel of 4096"),
        "goodness": (_PIXEL, data.column("goc"), "1", "goodness of the calibration"),
        "errors": (("time", "term", *_PIXEL[1:]), errors, "1", "errors of the calibration, as in the file"),
        "energy_edges": ((*_PIXEL, "edge"), data.column("e_edges_actual"), "keV", "actual edges of the channels"),
        "live_time": (("time",), data.column("live_time").reshape(rows), "s", "live time"),
        "gain_range_ok": (("time",), data.column("gain_range_ok").reshape(rows).astype(bool), "1", "gains as expected"),
    }
    dims = {dim for dims, *_ in variables.values() for dim in dims}
    made = {
        name: (where, values, {"units": units, "long_name": text})
        for name, (where, values, units, text) in variables.items()
    }
    names = {name: str(control.column(name)[0]) for name in ("ob_elut_name", "ecc_config_name")}
    return xr.Dataset(
        {name: value for name, value in made.items() if name not in dims},
        {name: value for name, value in made.items() if name in dims},
        {"product": "cal_energy", "level": "CAL", "source_file": file.name, **names},
    )


def fit_columns(path: str | Path) -> dict[str, NDArray[Any]]:
    """Columns of the table FIT of an energy calibration that was made here; none of others."""
    with open_stix(path) as file:
        table = file.tables.get("FIT")
        return {} if table is None else {name: table.column(name)[0].copy() for name in (*FIT_COLUMNS, "flags")}
