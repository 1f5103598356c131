"""Energy calibrations as files: the official product (CAL) with one table more, and CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.calibration.fit import UNITS
from stixflow.calibration.lines import LINE_ENERGIES, LINE_NAMES
from stixflow.calibration.reasons import flag_attributes
from stixflow.calibration.table import active_table, energy_edges_of
from stixflow.errors import InputFileError
from stixflow.fits import Origin, read_level1, write_level1
from stixflow.fits._higher import fit_columns

METHOD = "stixflow_joint_line_fit"
_PIXEL = ("detector", "pixel")
_USUAL_GAINS = 0.08, 0.14
"""keV per ADC channel: the official check of 0.4 to 1.4 is one of gains relative to those of the start."""


def write_calibration(
    path: str | Path,
    calibration: xr.Dataset,
    *,
    version: str = "V02",
    ephemeris: xr.Dataset | None = None,
    provenance: Origin | None = None,
) -> Path:
    """Write a calibration as the official CAL product has it: CONTROL, DATA, IDB_VERSIONS; and FIT, with its errors.

    Parameters
    ----------
    path
        File, or a folder that gets a file of the official name.
    calibration
        As `calibrate` gives it.
    version
        What the file calls its version.
    ephemeris
        Where the spacecraft was; as in `write_level1`.
    provenance
        Files that the run is from.

    Returns
    -------
    The path of the file. Its ``goc`` is the reduced chi2; the unit of ``gain`` is that of the numbers, keV per ADC
    channel, where official files say its inverse.
    """
    gain = calibration["gain"].values
    with np.errstate(invalid="ignore"):
        is_odd = (gain < _USUAL_GAINS[0]) | (gain > _USUAL_GAINS[1])
    told = {
        "ob_elut_name": f"elut_table_{active_table(calibration)}",
        "ecc_config_name": METHOD,
        "gain_range_ok": bool(not is_odd.any()),
    }
    edges = ((*_PIXEL, "channel_edge"), energy_edges_of(calibration))
    return write_level1(
        path,
        calibration.assign(energy_edges=edges).assign_attrs(told),
        version=version,
        ephemeris=ephemeris,
        provenance=provenance,
    )


def read_calibration(path: str | Path) -> xr.Dataset:
    """Read an energy calibration, official or written here, into the form that `calibrate` gives.

    What official files do not have is NaN; pixels of which a file has no gain are NaN in all.

    Raises
    ------
    InputFileError
        If the file is no energy calibration.
    """
    found = read_level1(path)
    if found.attrs.get("product") != "cal_energy":
        raise InputFileError(
            f"{Path(path).name} is of the product {found.attrs.get('product')}",
            expected="an energy calibration, solo_CAL_stix-cal-energy_*.fits",
            advice="calibrate the run first: stixflow calibrate FILE --output CAL.fits",
        )
    shape = found["gain"].shape[1:]
    fitted = fit_columns(path)
    values = {"gain": found["gain"].values[0], "offset": found["offset"].values[0]}
    variables: dict[str, tuple[tuple[str, ...], NDArray[np.generic], dict[str, object]]] = {}
    for name, (unit, text) in UNITS.items():
        dims = (*_PIXEL, "line") if name.startswith("line_") else _PIXEL
        full = shape if len(dims) == len(_PIXEL) else (*shape, len(LINE_NAMES))
        value = values.get(name, fitted.get(name, np.full(full, np.nan)))
        variables[name] = (dims, value.reshape(full), {"units": unit, "long_name": text})
    flags = fitted.get("flags", np.zeros(shape)).reshape(shape).astype(np.uint16)
    variables["flags"] = (_PIXEL, flags, flag_attributes())
    made = xr.Dataset(
        variables,
        {
            **{name: found[name].values for name in _PIXEL},
            "line": list(LINE_NAMES),
            "line_energy": ("line", LINE_ENERGIES, {"units": "keV"}),
        },
        {"product": "energy_calibration", "level": "CAL", "source_file": found.attrs["source_file"]},
    )
    return made.assign({name: found[name] for name in ("time_start", "timedel", "scet", "live_time")})


def write_csv(path: str | Path, calibration: xr.Dataset) -> Path:
    """Write a calibration as a table, one row for each pixel; what a pixel does not have is empty."""
    import pandas as pd

    detector, pixel = np.indices(calibration["gain"].shape).reshape(2, -1)
    columns: dict[str, NDArray[np.generic]] = {"detector": detector, "pixel": pixel}
    for name in UNITS:
        values = calibration[name].values
        if values.ndim == len(_PIXEL):
            columns[name] = values.reshape(-1)
        else:
            columns |= {
                f"{name}_{line.split()[0]}": values[..., place].reshape(-1) for place, line in enumerate(LINE_NAMES)
            }
    columns["flags"] = calibration["flags"].values.reshape(-1)
    target = Path(path)
    pd.DataFrame(columns).to_csv(target, index=False)
    return target


def write_elut(path: str | Path, table: xr.Dataset) -> Path:
    """Write an energy table, as `elut_of` makes it, one row for each pixel: offset, gain, first ADC values, origin."""
    import pandas as pd

    detector, pixel = np.indices(table["gain"].shape).reshape(2, -1)
    edges = table["adc_edges"].values.reshape(detector.size, -1)
    columns: dict[str, NDArray[np.generic]] = {"detector": detector, "pixel": pixel}
    columns |= {name: table[name].values.reshape(-1) for name in ("offset", "gain", "calibrated")}
    columns |= {f"adc_{energy:g}_keV": edges[:, place] for place, energy in enumerate(table["energy"].values)}
    target = Path(path)
    pd.DataFrame(columns).to_csv(target, index=False)
    return target


__all__ = ["METHOD", "read_calibration", "write_calibration", "write_csv", "write_elut"]
