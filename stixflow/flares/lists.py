"""Flare lists as files: official ones into our table, ours out as FITS, CSV, VOTable or ASCII, two compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stixflow.errors import InputFileError, MissingFile, UsageError
from stixflow.flares.columns import Column, flare_columns

BANDS_KEV = ((4.0, 10.0), (10.0, 15.0), (15.0, 25.0), (25.0, 50.0), (50.0, 84.0))
_SOLAR_RADIUS_AU = 695_700.0 / 149_597_870.7
_MATCH_S = 90.0
"""Peaks no further apart are one flare, as in the operational store."""

LOCATION_COLUMNS: Mapping[str, Column] = {
    "x_hpc": Column("float64", "arcsec", "helioprojective position seen from the spacecraft, to the west"),
    "y_hpc": Column("float64", "arcsec", "helioprojective position seen from the spacecraft, to the north"),
    "x_hpc_earth": Column("float64", "arcsec", "helioprojective position seen from Earth, to the west"),
    "y_hpc_earth": Column("float64", "arcsec", "helioprojective position seen from Earth, to the north"),
    "hgs_lon": Column("float64", "deg", "Stonyhurst longitude"),
    "hgs_lat": Column("float64", "deg", "heliographic latitude"),
    "hgc_lon": Column("float64", "deg", "Carrington longitude"),
    "visible_from_earth": Column("bool", "", "the Earth sees the flare"),
    "sidelobe_ratio": Column("float64", "1", "second highest peak of the image over the highest; above 0.9 doubtful"),
    "pixel_file": Column("str", "", "level-1 file of the pixel data of the position"),
    "hgc_lat": Column("float64", "deg", "heliographic latitude, again"),
    "solo_lon": Column("float64", "deg", "Stonyhurst longitude of the spacecraft"),
    "solo_lat": Column("float64", "deg", "heliographic latitude of the spacecraft"),
    "request_id": Column("int64", "1", "science request of the position, 0 if none"),
    "goes_measured_flux": Column("float64", "W m-2", "measured 0.1-0.8 nm flux, background included"),
    "goes_measured_background": Column("float64", "W m-2", "least flux in the hour before the peak"),
    "goes_measured_class": Column("str", "", "class of the measured flux"),
    "attenuator_listed": Column("bool", "", "attenuator flag of the official list; unreliable, see rcr_peak"),
}
"""Columns that a list may have beside those of `FLARE_COLUMNS`."""

_CSV_NAMES = {
    "start_UTC": "start",
    "end_UTC": "stop",
    "peak_UTC": "peak",
    "att_in": "attenuator_listed",
    "bkg_baseline_4-10 keV": "baseline",
    "hpc_x_solo": "x_hpc",
    "hpc_y_solo": "y_hpc",
    "hpc_x_earth": "x_hpc_earth",
    "hpc_y_earth": "y_hpc_earth",
    "solo_position_AU_distance": "distance_au",
    "solo_position_lon": "solo_lon",
    "solo_position_lat": "solo_lat",
    "light_travel_time": "light_time_s",
    "file_request_id_used": "request_id",
    "GOES_class_time_of_flare": "goes_measured_class",
    "GOES_flux_time_of_flare": "goes_measured_flux",
} | {
    f"{prefix}{low:g}-{high:g} keV": f"{name}_{band}"
    for band, (low, high) in enumerate(BANDS_KEV)
    for prefix, name in (("", "peak_counts"), ("bkg ", "bkg_median"))
}
_FITS_NAMES = {
    "duration": "duration_s",
    "bkg_baseline": "baseline",
    "att_in": "attenuator_listed",
    "GOES_class": "goes_measured_class",
    "GOES_flux": "goes_measured_flux",
    "goes_mean_class_est": "goes_class",
    "goes_min_class_est": "goes_class_min",
    "goes_max_class_est": "goes_class_max",
    "sidelobes_ratio": "sidelobe_ratio",
    "rcr_at_peak": "rcr_peak",
    "visible_from_earth": "visible_from_earth",
    "time_shift": "light_time_s",
    "cpd_path": "pixel_file",
}
_TEXT_OF_NOTHING = ("nan", "NA", "None")


def read_official(path: str | Path) -> pd.DataFrame:
    """Read an official flare list into the columns of our table.

    The level-3 FITS list (its logarithms of fluxes become W m-2, its text ``nan`` becomes empty) or the operational CSV
    list with locations. Columns that the file does not have are absent; ``attrs["origin"]`` names the file.

    Raises
    ------
    MissingFile, InputFileError
        If there is no file, or it is neither.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"{path} is not there", expected="a flare list", advice="check the path")
    with path.open("rb") as stream:
        head = stream.read(6)
    is_fits = head == b"SIMPLE" or head[:2] == b"\x1f\x8b"
    table = _from_fits(path) if is_fits else _from_csv(path)
    table = table.sort_values(["peak", "flare_id"], ignore_index=True)
    table.attrs = {"origin": path.name, "energy_bands": [list(band) for band in BANDS_KEV]}
    return table


def _refuse(path: Path, missing: list[str]) -> InputFileError:
    return InputFileError(
        f"{path.name} lacks the columns {', '.join(missing)}",
        expected="the official level-3 FITS list, or the operational CSV list with locations",
        advice="read our own lists with stixflow.flares.read_list",
    )


def _from_csv(path: Path) -> pd.DataFrame:
    raw = _read_csv(path, {"flare_id": str})
    needed = ["flare_id", "start_UTC", "peak_UTC", "end_UTC", "4-10 keV"]
    if missing := [name for name in needed if name not in raw.columns]:
        raise _refuse(path, missing)
    table = raw.rename(columns=_CSV_NAMES)
    for name in ("start", "peak", "stop"):
        table[name] = pd.to_datetime(table[name], format="ISO8601").astype("datetime64[ns]")
    table["goes_measured_flux"] = table["goes_measured_flux"].where(table["goes_measured_flux"] > 0)
    return _completed(table)


def _read_csv(path: Path, dtype: Mapping[str, Any]) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=dict(dtype), keep_default_na=True)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputFileError(f"{path.name} is no table of text: {error}", expected="a CSV flare list") from error


def _from_fits(path: Path) -> pd.DataFrame:
    from astropy.io import fits

    from stixflow.fits.headers import checked

    with fits.open(checked(path)) as hdus:
        data = next(
            (hdu.data for hdu in hdus[1:] if "peak_UTC" in getattr(hdu, "columns", fits.ColDefs([])).names), None
        )
        if data is None:
            raise _refuse(path, ["peak_UTC"])
        if missing := [name for name in ("flare_id", "start_UTC", "end_UTC", "lc_peak") if name not in data.names]:
            raise _refuse(path, missing)
        columns: dict[str, Any] = {"flare_id": [str(value) for value in data["flare_id"].tolist()]}
        for name, ours in {"start_UTC": "start", "peak_UTC": "peak", "end_UTC": "stop"}.items():
            columns[ours] = _from_julian(data[name])
        for theirs, ours in _FITS_NAMES.items():
            if theirs in data.names:
                columns[ours] = _native(data[theirs])
        for suffix, middle in {"": "mean", "_min": "min", "_max": "max"}.items():
            columns[f"goes_flux{suffix}"] = 10.0 ** _native(data[f"goes_{middle}_flux_est"])
        for theirs, ours in {"lc_peak": "peak_counts", "lc_bgk_peak": "bkg_median"}.items():
            for band, values in enumerate(_native(data[theirs]).T):
                columns[f"{ours}_{band}"] = values.astype(np.int64) if ours == "peak_counts" else values
        radius = np.radians(_native(data["sun_disc_size"]) / 3600.0)
        columns["distance_au"] = _SOLAR_RADIUS_AU / np.sin(np.where(radius > 0, radius, np.nan))
    table = pd.DataFrame(columns)
    table["goes_measured_flux"] = table["goes_measured_flux"].where(table["goes_measured_flux"] > 0)
    return _completed(table)


def _native(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind in "US":
        text = np.char.strip(np.asarray(values).astype(str))
        return np.asarray(np.where(np.isin(text, _TEXT_OF_NOTHING), "", text), dtype=object)
    return np.asarray(values).astype(values.dtype.newbyteorder("="))


def _from_julian(pairs: NDArray[np.float64]) -> NDArray[np.datetime64]:
    """Two-part Julian dates as UTC, to the nanosecond that the two parts hold."""
    whole = np.floor(pairs[:, 0] - 2440587.5)
    rest = (pairs[:, 0] - 2440587.5 - whole) + pairs[:, 1]
    days = whole.astype("datetime64[D]").astype("datetime64[ns]")
    return np.asarray(days + np.rint(rest * 86400e9).astype("timedelta64[ns]"))


def _completed(table: pd.DataFrame) -> pd.DataFrame:
    """Add what follows from other columns."""
    table = table.copy()
    table["peak_counts"] = table["peak_counts_0"]
    if "duration_s" not in table:
        length = table["stop"].to_numpy() - table["start"].to_numpy()
        table["duration_s"] = length / np.timedelta64(1, "s")
    table["is_duplicate_id"] = table["flare_id"].duplicated(keep=False)
    table["method"] = "official"
    for name in table.columns:
        if table[name].dtype.kind not in "fiubM":
            table[name] = _as_text(table[name])
    return table


def write_list(flares: pd.DataFrame, path: str | Path, *, layout: str = "stixflow") -> Path:
    """Write a flare table as a file: CSV, FITS, VOTable or ASCII by the ending ``.csv``, ``.fits``, ``.vot``, ``.txt``.

    ASCII is the text of the HESSI flare list, which has its own columns in either layout.

    Parameters
    ----------
    layout
        ``"stixflow"``: every column under our names. ``"official"``: the names of the level-3 list, with right units.

    Raises
    ------
    UsageError
        If the ending or the layout is unknown.
    """
    path = Path(path)
    formats = {".csv": "csv", ".fits": "fits", ".vot": "votable", ".txt": "ascii"}
    if path.suffix not in formats or layout not in ("stixflow", "official"):
        raise UsageError(
            f"cannot write {path.name} in the layout {layout!r}",
            expected=f"an ending {', '.join(formats)} and the layout 'stixflow' or 'official'",
        )
    if path.suffix == ".txt":
        from stixflow.hessi.stix import list_from_table

        list_from_table(flares).write_ascii(path)
        return path
    table, units = (flares, _units(flares)) if layout == "stixflow" else _official(flares)
    text = _times_as_text(table)
    if path.suffix == ".csv":
        text.to_csv(path, index=False)
        return path
    from astropy.table import Table

    out = Table.from_pandas(_plain_text(text))
    for name, (unit, description) in units.items():
        if name in out.colnames:
            out[name].unit, out[name].description = unit or None, description
    out.meta = {"EXTNAME": "FLARES"} if path.suffix == ".fits" else {}
    out.write(path, format=formats[path.suffix], overwrite=True)
    return path


def read_list(path: str | Path) -> pd.DataFrame:
    """Read a list that `write_list` wrote in our own layout as CSV or FITS.

    Raises
    ------
    MissingFile, InputFileError
        If there is no file, or it is no such list.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"{path} is not there", expected="a flare list", advice="check the path")
    if path.suffix == ".fits":
        from astropy.table import Table

        from stixflow.fits.headers import checked

        table: pd.DataFrame = Table.read(checked(path), format="fits").to_pandas()
    else:
        table = _read_csv(path, {"flare_id": str})
    if missing := [name for name in ("flare_id", "start", "peak", "stop") if name not in table.columns]:
        raise InputFileError(
            f"{path.name} lacks the columns {', '.join(missing)}",
            expected="a list written by stixflow.flares.write_list",
            advice="read official lists with stixflow.flares.read_official",
        )
    known = _known(table)
    for name in table.columns:
        if name in known:
            table[name] = _typed(table[name], known[name].dtype)
    return table


def _known(table: pd.DataFrame) -> dict[str, Column]:
    bands = sum(f"peak_counts_{band}" in table.columns for band in range(32))
    return flare_columns(bands) | dict(LOCATION_COLUMNS)


def _typed(values: pd.Series[Any], dtype: str) -> pd.Series[Any]:
    if dtype == "str":
        return _as_text(values)
    if dtype.startswith("datetime"):
        text = np.array([_text(value) or "NaT" for value in values], dtype="datetime64[ns]")
        return pd.Series(text, index=values.index)
    if dtype == "float64" or values.notna().all():
        return pd.Series(values.to_numpy().astype(np.dtype(dtype)), index=values.index)
    return values


def _as_text(values: pd.Series[Any]) -> pd.Series[Any]:
    return pd.Series([_text(value) for value in values], index=values.index, dtype=object)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()
    return "" if value is None or value != value else str(value).strip()


def _units(flares: pd.DataFrame) -> dict[str, tuple[str, str]]:
    named = {"counts / bin": "ct", "counts": "ct", "counts / s": "ct / s", "UTC": "", "1": "", "1 / d": "1 / d"}
    return {name: (named.get(c.units, c.units), c.description) for name, c in _known(flares).items()}


def _times_as_text(table: pd.DataFrame) -> pd.DataFrame:
    out = table.copy()
    for name in out.columns:
        if out[name].dtype.kind == "M":
            text = np.datetime_as_string(out[name].to_numpy().astype("datetime64[ns]"))
            out[name] = np.where(text == "NaT", "", text)
    return out


def _plain_text(table: pd.DataFrame) -> pd.DataFrame:
    """Give every text column at least one character of width, as FITS asks."""
    out = table.copy()
    for name in out.columns:
        if out[name].dtype.kind not in "fiub":
            text = _as_text(out[name])
            out[name] = text if any(text) else pd.Series([" "] * len(text), index=out.index, dtype=object)
    return out


def _official(flares: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, tuple[str, str]]]:
    """Our table under the names of the level-3 list; fluxes in W m-2, which theirs only claim."""
    back = {ours: theirs for theirs, ours in _FITS_NAMES.items()} | {
        "flare_id": "flare_id",
        "start": "start_UTC",
        "stop": "end_UTC",
        "peak": "peak_UTC",
        "goes_flux": "goes_mean_flux_est",
        "goes_flux_min": "goes_min_flux_est",
        "goes_flux_max": "goes_max_flux_est",
        "x_hpc": "hpc_x_solo",
        "y_hpc": "hpc_y_solo",
        "x_hpc_earth": "hpc_x_earth",
        "y_hpc_earth": "hpc_y_earth",
        "hgs_lon": "hgs_lon",
        "hgs_lat": "hgs_lat",
        "hgc_lon": "hgc_lon",
        "distance_au": "solo_position_AU_distance",
    }
    for ours, theirs in {"peak_counts_": "lc_peak_", "bkg_median_": "lc_bkg_peak_"}.items():
        back |= {name: name.replace(ours, theirs) for name in map(str, flares.columns) if name.startswith(ours)}
    chosen = [name for name in flares.columns if name in back]
    table = flares[chosen].rename(columns=back)
    if "rcr_max" in flares:
        table["att_in"] = flares["rcr_max"] > 0
    units = _units(flares)
    return table, {back[name]: units[name] for name in chosen if name in units}


def compare_lists(ours: pd.DataFrame, reference: pd.DataFrame, *, tolerance_s: float = _MATCH_S) -> pd.DataFrame:
    """Pair two lists by their peaks, the nearest first, each flare once.

    Returns
    -------
    One row per flare of either in order of time: `kind` (``matched``, ``missed``: only in the reference, ``extra``:
    only in ours), `flare_id`, `peak` and `peak_counts` of ours and `reference_id`, `reference_peak`,
    `reference_counts`, and for pairs `peak_off_s`, `start_off_s`, `stop_off_s` (ours - reference).
    """
    pairs = _pairs(_ns(ours, "peak"), _ns(reference, "peak"), round(tolerance_s * 1e9))
    left = {int(i) for i, _ in pairs}
    right = {int(j) for _, j in pairs}
    rows = [(int(i), int(j), "matched") for i, j in pairs]
    rows += [(i, -1, "extra") for i in range(len(ours)) if i not in left]
    rows += [(-1, j, "missed") for j in range(len(reference)) if j not in right]
    mine, theirs, kinds = (np.array(values) for values in zip(*rows, strict=True)) if rows else (np.empty(0, int),) * 3
    table = pd.DataFrame({"kind": kinds.astype(object)})
    for name, source, index in (("", ours, mine), ("reference_", reference, theirs)):
        for column, out in {
            "flare_id": "flare_id" if not name else "id",
            "peak": "peak",
            "peak_counts": "counts",
        }.items():
            target = "peak_counts" if column == "peak_counts" and not name else f"{name}{out}"
            table[target] = _pick(source[column], index)
    for column in ("peak", "start", "stop"):
        off = _pick(ours[column], mine).to_numpy() - _pick(reference[column], theirs).to_numpy()
        table[f"{column}_off_s"] = off / np.timedelta64(1, "s")
    when = table["peak"].where(table["peak"].notna(), table["reference_peak"])
    return table.iloc[np.argsort(when.to_numpy(), kind="stable")].reset_index(drop=True)


def _ns(table: pd.DataFrame, name: str) -> NDArray[np.int64]:
    return np.asarray(table[name].to_numpy().astype("datetime64[ns]").astype(np.int64))


def _pick(values: pd.Series[Any], index: NDArray[np.intp]) -> pd.Series[Any]:
    """Values at an index, missing where it is -1."""
    return values.reset_index(drop=True).reindex(np.where(index < 0, len(values), index)).reset_index(drop=True)


def _pairs(one: NDArray[np.int64], other: NDArray[np.int64], tolerance: int) -> list[tuple[int, int]]:
    order = np.argsort(other, kind="stable")
    first = np.searchsorted(other[order], one - tolerance)
    last = np.searchsorted(other[order], one + tolerance, side="right")
    near = [(abs(int(one[i] - other[j])), i, int(j)) for i in range(len(one)) for j in order[first[i] : last[i]]]
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for _, i, j in sorted(near):
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            pairs.append((i, j))
    return pairs
