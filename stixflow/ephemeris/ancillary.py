"""The daily ancillary files: attitude, aspect solution and place of the spacecraft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.assemble import assemble
from stixflow.ephemeris.constants import R_SUN_M
from stixflow.errors import InputFileError
from stixflow.fits._reading import StixFile, Table, open_stix, utc_of
from stixflow.time import TICKS_PER_SECOND, Utc, iso, scet_from_coarse_fine

if TYPE_CHECKING:
    from astropy.io import fits


def apparent_radius(distance_m: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Apparent radius of the Sun in arcsec, asin(R/d)."""
    return np.asarray(np.rad2deg(np.arcsin(R_SUN_M / np.asarray(distance_m, dtype=np.float64))) * 3600.0)


def read_ancillary(path: str | Path) -> xr.Dataset:
    """Read a daily ancillary file (``solo_L2_stix-aux-ephemeris_*``, ``solo_ANC_stix-asp-ephemeris_*``).

    Times are the stamps of the file. An aspect solution is valid where the file says so (`sas_ok`); files that do not
    say mark a missing one by NaN or 0. The column called Carrington longitude and latitude is Stonyhurst. The attribute
    `spice_mk` is the meta kernel that the file names.

    Returns
    -------
    A Dataset of the product `ephemeris`.

    Raises
    ------
    MissingFile, InputFileError
        If the file is not there, not FITS, cut short, or not an ancillary file.
    """
    with open_stix(path) as file:
        data, control = file.table("DATA"), file.table("CONTROL")
        if "roll_angle_rpy" not in data.names:
            raise InputFileError(
                f"{file.name} holds no attitude",
                expected="an ancillary file such as solo_L2_stix-aux-ephemeris_20221109_V01.fits",
                advice="give the ancillary file of the day",
            )
        arrays = _arrays(file, data, control)
        level = str(file.keyword("LEVEL") or "L2")
        attrs = {"source_file": file.name}
        if file.keyword("SPICE_MK"):
            attrs["spice_mk"] = str(file.keyword("SPICE_MK"))
    order = np.argsort(arrays["time"], kind="stable")
    return assemble("ephemeris", {name: values[order] for name, values in arrays.items()}, level=level, attrs=attrs)


def _arrays(file: StixFile, data: Table, control: Table) -> dict[str, NDArray[Any]]:
    attitude = data.column("roll_angle_rpy").astype(np.float64)
    place = data.column("solo_loc_carrington_lonlat").astype(np.float64)
    sas_y, sas_z = (data.column(name).astype(np.float64) for name in ("y_srf", "z_srf"))
    solved = np.isfinite(sas_y) & np.isfinite(sas_z) & ((sas_y != 0.0) | (sas_z != 0.0))
    flagged = data.find("sas_ok")
    distance = data.column("solo_loc_carrington_dist").astype(np.float64).reshape(-1) * 1e3
    row = np.searchsorted(control.column("index"), data.column("control_index"))
    return {
        "time": _times(file, data),
        "scet": scet_from_coarse_fine(control.column("scet_coarse"), control.column("scet_fine"))[row],
        "roll": attitude[:, 0],
        "pitch": attitude[:, 1],
        "yaw": attitude[:, 2],
        "sas_y": sas_y,
        "sas_z": sas_z,
        "sas_ok": solved if flagged is None else solved & flagged.astype(bool),
        "distance": distance,
        "hgln": place[:, 0],
        "hglt": place[:, 1],
        "rsun": data.column("spice_disc_size").astype(np.float64),
    }


def _times(file: StixFile, data: Table) -> Utc:
    written = data.find("time_utc")
    if written is None:
        return utc_of(file.start(), data.nanoseconds("time"))
    return written.astype("datetime64[ns]")


def write_ancillary(path: str | Path, dataset: xr.Dataset) -> None:
    """Write a Dataset of the product `ephemeris` in the structure of the daily ancillary files.

    Places and angles are kept as 32-bit floats, as in the official files.
    """
    from astropy.io import fits

    header = _header(Path(path).name, dataset)
    hdus = [fits.PrimaryHDU(header=header), _control(dataset), _data(dataset), _versions(dataset)]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def _header(name: str, dataset: xr.Dataset) -> fits.Header:
    from astropy.io import fits

    first, last = dataset["time"].values[[0, -1]]
    middle = dataset.isel(time=dataset.sizes["time"] // 2)
    coarse = dataset["scet"].values / TICKS_PER_SECOND
    return fits.Header(
        {
            "FILENAME": name,
            "LEVEL": "L2",
            "CREATOR": "stixflow",
            "VERSION": "01",
            "OBSRVTRY": "Solar Orbiter",
            "TELESCOP": "SOLO/STIX",
            "INSTRUME": "STIX",
            "STYPE": 0,
            "SSTYPE": 0,
            "SSID": 1,
            "OBT_BEG": float(coarse[0]),
            "OBT_END": float(coarse[-1]),
            "TIMESYS": "UTC",
            "DATE-OBS": iso(first),
            "DATE-BEG": iso(first),
            "DATE-AVG": iso(first + (last - first) / 2),
            "DATE-END": iso(last),
            "RSUN_ARC": float(middle["rsun"]),
            "HGLT_OBS": float(middle["hglt"]),
            "HGLN_OBS": float(middle["hgln"]),
            "DSUN_OBS": float(middle["distance"]),
        }
        | ({"SPICE_MK": str(dataset.attrs["spice_mk"])} if "spice_mk" in dataset.attrs else {})
    )


def _control(dataset: xr.Dataset) -> fits.BinTableHDU:
    scet = dataset["scet"].values
    rows = np.arange(scet.size)
    columns = [
        _column("scet_coarse", "K", scet >> 16),
        _column("scet_fine", "K", scet & 0xFFFF),
        _column("integration_time", "K", np.zeros_like(scet)),
        _column("index", "K", rows),
        _column("raw_file", "8A", np.full(scet.size, "")),
        _column("packet", "K", rows),
        _column("parent", "8A", np.full(scet.size, "")),
    ]
    return _table("CONTROL", columns)


def _data(dataset: xr.Dataset) -> fits.BinTableHDU:
    values = {str(name): dataset[name].values for name in dataset.variables}
    begin = values["time"][0].astype("datetime64[ms]").astype("datetime64[ns]")
    hundredths = np.rint((values["time"] - begin).astype(np.int64) / 1e7).astype(np.int64)
    longitude, latitude, km = np.deg2rad(values["hgln"]), np.deg2rad(values["hglt"]), values["distance"] * 1e-3
    place = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], -1)
    solved = values["sas_ok"]
    columns = [
        _column("time", "J", hundredths, "cs", bzero=2**31),
        _column("timedel", "J", np.zeros_like(hundredths), "cs", bzero=2**31),
        _column("time_utc", "26A", np.datetime_as_string(values["time"], unit="us")),
        _column("control_index", "K", np.arange(km.size)),
        _column("spice_disc_size", "E", values["rsun"], "arcsec"),
        _column("y_srf", "E", np.where(solved, values["sas_y"], np.nan), "arcsec"),
        _column("z_srf", "E", np.where(solved, values["sas_z"], np.nan), "arcsec"),
        _column("sas_ok", "B", solved.astype(np.uint8)),
        _column("solo_loc_carrington_lonlat", "2E", np.stack([values["hgln"], values["hglt"]], -1), "deg"),
        _column("solo_loc_carrington_dist", "E", km, "km"),
        _column("solo_loc_heeq_zxy", "3E", place * km[:, None], "km"),
        _column("roll_angle_rpy", "3E", np.stack([values["roll"], values["pitch"], values["yaw"]], -1), "deg"),
    ]
    return _table("DATA", columns)


def _versions(dataset: xr.Dataset) -> fits.BinTableHDU:
    seconds = dataset["scet"].values[[0, -1]] / TICKS_PER_SECOND
    columns = [
        _column("version", "7A", np.array([""])),
        _column("obt_start", "D", seconds[:1], "s"),
        _column("obt_end", "D", seconds[1:], "s"),
    ]
    return _table("IDB_VERSIONS", columns)


def _column(
    name: str, form: str, values: NDArray[Any], unit: str | None = None, *, bzero: int | None = None
) -> fits.Column:
    from astropy.io import fits

    return fits.Column(name=name, format=form, array=values, unit=unit, bzero=bzero)


def _table(name: str, columns: list[Any]) -> fits.BinTableHDU:
    from astropy.io import fits

    return fits.BinTableHDU.from_columns(columns, name=name)
