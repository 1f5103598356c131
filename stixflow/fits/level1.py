"""Official products as Datasets, those of level 1 as Datasets of the data model.

Three generations of files are read: L1A of the data centre (2020, 2021), V01 and V02 of the instrument pipeline. They
differ in the names of columns, the unit of times, whether the energy table is trimmed, and in what is kept once a
file, once a packet, or once a time bin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.assemble import assemble
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import InputFileError, StixflowError
from stixflow.fits._columns import Arrays
from stixflow.fits._higher import higher_reader
from stixflow.fits._quick_look import (
    read_aspect,
    read_background,
    read_flareflag,
    read_lightcurve,
    read_spectra,
    read_variance,
)
from stixflow.fits._reading import StixFile, open_stix
from stixflow.fits._science import read_pixel_sums, read_pixels, read_spectrogram, read_visibilities
from stixflow.fits._status import read_calibration, read_housekeeping, read_status
from stixflow.telemetry.compression import dtype_of, scheme_of

_SHIFT_ENDED = np.datetime64("2021-12-09T14:00:00", "ns")
_SEQUENCE_MASK = 0xFFFF
_COMPRESSED = {name: f"{name}_skm" for name in ("counts", "triggers", "variance")} | {"flux": "counts_skm"}
_RAW_LEVELS = ("L0", "LB")


def read_level1(path: str | Path, *, run: int | None = None) -> xr.Dataset:
    """Read an official file of the instrument: level 1 of every product, and what is made of it.

    Parameters
    ----------
    path
        FITS file; the product is taken from its header, or for L1A files from its name.
    run
        Which calibration run of a file of several.

    Returns
    -------
    A Dataset of the product, counts decompressed as in the file. Energies that the file has room for but the instrument
    did not send are left out; pixels that were not sent are zero and not in `pixel_mask`. Attributes give the request,
    the place of the spacecraft (`dsun_m`, `hgln_deg`, `hglt_deg`, `rsun_arcsec`, where the file has them) and
    `bin_shift`: whether times and counts are shifted by one bin against each other ("none", "corrected", "possible"),
    as in requests before 2021-12-09. Of ephemeris files the product `ephemeris`; of flare lists (L3) `flare_list`, one
    entry a flare in the columns of `stixflow.flares`; of energy calibrations (CAL) `cal_energy`, gain, offset and
    energies of every pixel.

    Raises
    ------
    MissingFile, InputFileError
        If the file is not there, not FITS, cut short, or not one of these products.
    UsageError
        If the file holds several calibration runs and none was chosen.
    """
    with open_stix(path) as file:
        higher = higher_reader(file)
        return _guarded(file, lambda: _read(file, run) if higher is None else higher(file, Path(path)))


def read_every(path: str | Path, *, name: str | None = None) -> list[xr.Dataset]:
    """Read every Dataset of an official level-1 file: one for each calibration run, of other products one.

    Parameters
    ----------
    name
        What the file is called, where that is not the name it is kept under.

    Raises
    ------
    MissingFile, InputFileError
        As `read_level1`.
    """
    with open_stix(path, name=name) as file:
        if higher_reader(file) is not None:
            raise InputFileError(
                f"{file.name} is a product beyond level 1, of which no cube is made",
                expected="level 1, or the daily ephemeris",
                advice="open it with stixflow.fits.read_level1",
            )
        product, _ = _kind(file)
        runs = len(file.table("DATA").column("time")) if product == "cal_spectrum" else 1
        return [_guarded(file, partial(_read, file, run if product == "cal_spectrum" else None)) for run in range(runs)]


def _guarded(file: StixFile, read: Callable[[], xr.Dataset]) -> xr.Dataset:
    try:
        return read()
    except StixflowError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, OSError) as error:
        raise InputFileError(
            f"{file.name} cannot be read ({type(error).__name__}: {error})",
            expected="columns of the shapes and types of the official files",
            advice="fetch the file again, or report it with its name",
        ) from error


def _read(file: StixFile, run: int | None) -> xr.Dataset:
    product, ssid = _kind(file)
    build = partial(read_calibration, run=run) if product == "cal_spectrum" else _READERS[product, ssid]
    if not len(file.table("DATA").column("time")):
        raise InputFileError(f"{file.name} holds no data", expected="one row or more", advice="leave it out")
    arrays = _widened(_sorted(file, product, build(file)))
    request = _request(file) if PRODUCTS[product].partition == "request" else {}
    attrs = {"ssid": ssid, **_attributes(file), **request}
    return assemble(product, arrays, level=str(file.keyword("LEVEL") or "L1"), attrs=attrs)


def _widened(arrays: Arrays) -> Arrays:
    """Give counts 64 bits where their compression can exceed 32, as from telemetry."""
    wide = {
        name: arrays[name].astype(np.uint64)
        for name, skm in _COMPRESSED.items()
        if name in arrays and skm in arrays and _exceeds(arrays[skm])
    }
    return arrays | wide


def _exceeds(skm: NDArray[np.uint16]) -> bool:
    schemes = (scheme_of(packed) for packed in np.unique(skm).tolist())
    return any(dtype_of((s, k, m)).itemsize == 8 for s, k, m in schemes if k or m)


def _sorted(file: StixFile, product: str, arrays: Arrays) -> Arrays:
    order = np.argsort(arrays["time"], kind="stable")
    steps = np.diff(arrays["time"][order])
    if (steps == np.timedelta64(0, "ns")).any():
        raise InputFileError(
            f"{file.name} gives the same time to {int((steps == np.timedelta64(0, 'ns')).sum()) + 1} or more bins",
            expected="one row for each time",
            advice="use a later version of the file",
        )
    if (np.diff(order) == 1).all():
        return arrays
    dims = {name: variable.dims for name, variable in PRODUCTS[product].variables.items()}
    return {name: values[order] if dims[name][0] == "time" else values for name, values in arrays.items()}


def _attributes(file: StixFile) -> dict[str, object]:
    place = {"dsun_m": "DSUN_OBS", "hgln_deg": "HGLN_OBS", "hglt_deg": "HGLT_OBS", "rsun_arcsec": "RSUN_ARC"}
    known = {name: file.keyword(key) for name, key in place.items()}
    return {
        "source_file": file.name,
        **{name: float(value) for name, value in known.items() if value is not None},
    }


def _request(file: StixFile) -> dict[str, object]:
    control = file.table("CONTROL")
    return {
        "request_id": int(control.column("request_id")[0]) & 0xFFFFFFFF,
        "seq_control": int(control.column("tc_packet_seq_control")[0]) & _SEQUENCE_MASK,
        "box": int(file.keyword("SCI_BOX") or 0),
        "boxes": int(file.keyword("SCI_BOXN") or 1),
        "bin_shift": _bin_shift(file),
    }


def _bin_shift(file: StixFile) -> str:
    if file.start() >= _SHIFT_ENDED:
        return "none"
    remarks = " ".join(str(line) for key in ("COMMENT", "HISTORY") for line in file.header.get(key, []))
    return "corrected" if "offset fixed" in remarks else "possible"


_READERS: dict[tuple[str, int], Callable[[StixFile], Arrays]] = {
    ("sci_pixels", 20): read_pixels,
    ("sci_pixels", 21): read_pixels,
    ("sci_pixel_sums", 22): read_pixel_sums,
    ("sci_visibilities", 23): read_visibilities,
    ("sci_spectrogram", 24): read_spectrogram,
    ("ql_lightcurve", 30): read_lightcurve,
    ("ql_background", 31): read_background,
    ("ql_spectra", 32): read_spectra,
    ("ql_variance", 33): read_variance,
    ("ql_flareflag", 34): read_flareflag,
    ("aspect", 42): read_aspect,
    ("tm_status", 43): read_status,
    ("hk_mini", 1): partial(read_housekeeping, product="hk_mini"),
    ("hk_maxi", 2): partial(read_housekeeping, product="hk_maxi"),
}
_PRODUCTS = {ssid: product for product, ssid in _READERS} | {41: "cal_spectrum"}
_SSID_OF_NAME = {
    "stix-hk-mini": 1,
    "stix-hk-maxi": 2,
    "stix-ql-lightcurve": 30,
    "stix-ql-background": 31,
    "stix-ql-spectra": 32,
    "stix-ql-variance": 33,
    "stix-ql-flareflag": 34,
    "tmstatusflarelist": 43,
    "stix-cal-energy": 41,
    "stix-sci-aspect": 42,
    "stix-sci-xray-rpd": 20,
    "stix-sci-xray-l0": 20,
    "stix-sci-xray-cpd": 21,
    "stix-sci-xray-l1": 21,
    "stix-sci-xray-scpd": 22,
    "stix-sci-xray-l2": 22,
    "stix-sci-xray-vis": 23,
    "stix-sci-xray-l3": 23,
    "stix-sci-xray-spec": 24,
    "stix-sci-spectrogram": 24,
}


def _kind(file: StixFile) -> tuple[str, int]:
    """Tell product and SSID (of housekeeping, the SID) from the header, for files without one from the name in it."""
    level = str(file.keyword("LEVEL") or "L1")
    if level in _RAW_LEVELS:
        raise InputFileError(
            f"{file.name} is a file of level {level}",
            expected="level 1, of which the counts are decompressed and the times UTC",
            advice="fetch the level-1 file of the same data"
            if level == "L0"
            else "read it as telemetry (stixflow.telemetry)",
        )
    given = f"{file.keyword('FILENAME') or ''} {file.name}"
    by_name = next((ssid for part, ssid in _SSID_OF_NAME.items() if part in given), None)
    ssid = file.keyword("SSID") or by_name
    if ssid not in _PRODUCTS:
        raise InputFileError(
            f"{file.name} is {_guess(file)} that is not read (SSID {ssid or 'not given'})",
            expected="a level-1 product: quick look (SSID 30-34), science data (20-24), calibration (41), aspect (42), "
            "status (43), housekeeping; ephemeris, a flare list (L3), or an energy calibration (CAL)",
            advice="give one of these",
        )
    return _PRODUCTS[int(ssid)], int(ssid)


def _guess(file: StixFile) -> str:
    """Say what a file of another kind seems to be."""
    if {"RATE", "SPECRESP MATRIX", "SPECTRUM"} & set(file.tables):
        return "an OSPEX spectrum or response"
    return "an image map" if file.header.get("NAXIS") == 2 else "a product"
