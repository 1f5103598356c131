"""Official level-1 products as Datasets of the data model.

Three generations of files are read: L1A of the data centre (2020, 2021), V01 and V02 of the instrument pipeline. They
differ in the names of columns, the unit of times, whether the energy table is trimmed, and in what is kept once a
file, once a packet, or once a time bin.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.assemble import assemble
from stixflow.cubes.model import N_PIXELS, PRODUCTS
from stixflow.errors import InputFileError
from stixflow.fits._reading import StixFile, Table, bits, open_stix, ticks_of, utc_of
from stixflow.instrument import N_CHANNELS, energy_edges
from stixflow.time import scet_from_coarse_fine, utc_to_scet

_Arrays = dict[str, NDArray[Any]]

_COUNTS_SKM = ("compression_scheme_counts_skm",)
_TRIGGERS_SKM = ("compression_scheme_triggers_skm", "compression_scheme_trig_skm")
_SHIFT_ENDED = np.datetime64("2021-12-09T14:00:00", "ns")
_SEQUENCE_MASK = 0xFFFF


def read_level1(path: str | Path) -> xr.Dataset:
    """Read an official level-1 file: quick-look light curve, pixel data, or spectrogram.

    Parameters
    ----------
    path
        FITS file; the product is taken from its header, or for L1A files from its name.

    Returns
    -------
    A Dataset of the product `ql_lightcurve`, `sci_pixels` or `sci_spectrogram`, counts decompressed as in the file.
    Energies that the file has room for but the instrument did not send are left out; pixels that were not sent are
    zero and not in `pixel_mask`. Attributes give the request, the place of the spacecraft (`dsun_m`, `hgln_deg`,
    `hglt_deg`, `rsun_arcsec`, where the file has them) and `bin_shift`: whether times and counts are shifted by one
    bin against each other ("none", "corrected", "possible"), as in requests before 2021-12-09.

    Raises
    ------
    MissingFile, InputFileError
        If the file is not there, not FITS, cut short, or not one of these products.
    """
    with open_stix(path) as file:
        product, ssid, build = _kind(file)
        arrays = _sorted(file, product, build(file))
        attrs = {"ssid": ssid, **_attributes(file)} | (_request(file) if build is not _lightcurve else {})
        level = str(file.keyword("LEVEL") or "L1")
    return assemble(product, arrays, level=level, attrs=attrs)


def _sorted(file: StixFile, product: str, arrays: _Arrays) -> _Arrays:
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


def _lightcurve(file: StixFile) -> _Arrays:
    control, data = file.table("CONTROL"), file.table("DATA")
    packet = _packet_of_row(file)
    energies, kept = _energies(file, data.column("counts").shape[-1])
    return {
        **_times(file),
        **energies,
        "scet": _scet_by_packet(file, packet),
        "counts": _counts(file, data.column("counts")[:, kept]),
        "triggers": _counts(file, data.column("triggers").reshape(len(packet))),
        "rcr": data.column("rcr").astype(np.uint8),
        "detector_mask": bits(control.column("detector_mask"))[packet].astype(np.uint32),
        "pixel_mask": bits(control.column("pixel_mask"))[packet].astype(np.uint16),
        **_compression(control, packet),
    }


def _spectrogram(file: StixFile) -> _Arrays:
    control, data = file.table("CONTROL"), file.table("DATA")
    packet = _packet_of_row(file)
    energies, kept = _energies(file, data.column("counts").shape[-1])
    pixel_masks, rcr = data.find("pixel_masks"), data.find("rcr")
    if pixel_masks is None:
        pixel_masks = control.column("pixel_mask", "pixel_masks")[packet]
    if rcr is None:
        rcr = control.column("rcr")[packet]
    return {
        **_times(file),
        **energies,
        "counts": _counts(file, data.column("counts")[:, kept]),
        "triggers": _counts(file, data.column("triggers").reshape(len(packet))),
        "rcr": rcr.astype(np.uint8),
        "detector_mask": bits(control.column("detector_masks", "detector_mask"))[packet].astype(np.uint32),
        "pixel_mask": bits(pixel_masks).astype(np.uint16),
        **_compression(control, packet),
    }


def _pixels(file: StixFile) -> _Arrays:
    data = file.table("DATA")
    packet = _packet_of_row(file)
    sent = data.column("counts")
    energies, kept = _energies(file, sent.shape[-1])
    pixel_masks = data.column("pixel_masks")
    counts = _counts(file, np.moveaxis(sent[..., kept], -1, 1))
    return {
        **_times(file),
        **energies,
        "detector": np.arange(sent.shape[1], dtype=np.uint8),
        "pixel": np.arange(N_PIXELS, dtype=np.uint8),
        "counts": _on_all_pixels(file, counts, pixel_masks),
        "observed": np.ones(counts.shape[:2], dtype=bool),
        "triggers": _counts(file, data.column("triggers")),
        "rcr": data.column("rcr").astype(np.uint8),
        "detector_mask": bits(data.column("detector_masks")).astype(np.uint32),
        "pixel_mask": bits(pixel_masks).astype(np.uint16),
        **_compression(file.table("CONTROL"), packet),
    }


def _on_all_pixels(file: StixFile, counts: NDArray[Any], pixel_masks: NDArray[Any]) -> NDArray[Any]:
    """Put the pixels of a trimmed axis in their places among the 12."""
    n_sent = counts.shape[-1]
    if n_sent == N_PIXELS:
        return np.ascontiguousarray(counts)
    places = np.flatnonzero(pixel_masks.any(axis=0))
    if places.size != n_sent:
        raise InputFileError(
            f"{file.name} holds {n_sent} pixels of each detector, its masks name {places.size}",
            expected="12 pixels, or those of the masks",
            advice="fetch the file again, or report it with its name",
        )
    full = np.zeros((*counts.shape[:-1], N_PIXELS), dtype=counts.dtype)
    full[..., places] = counts
    return full


def _counts(file: StixFile, values: NDArray[Any]) -> NDArray[Any]:
    """Return counts as the unsigned integers that they are; floating point in some files."""
    largest = values.max(initial=0)
    whole = values.dtype.kind in "iu" or (np.isfinite(values).all() and (values == np.rint(values)).all())
    if not whole or values.min(initial=0) < 0:
        raise InputFileError(f"{file.name} holds counts that are not whole numbers from 0", expected="counts")
    return values.astype(np.uint32 if largest <= np.iinfo(np.uint32).max else np.uint64, order="C")


def _times(file: StixFile) -> _Arrays:
    data, start = file.table("DATA"), file.start()
    centre, width = data.nanoseconds("time"), data.nanoseconds("timedel")
    time_start = centre - width // 2
    begin = file.start_scet()
    begin_ticks = utc_to_scet(start) if begin is None else np.int64(begin)
    return {
        "time": utc_of(start, centre),
        "time_start": utc_of(start, time_start),
        "timedel": width / 1e9,
        "scet": begin_ticks + ticks_of(time_start),
    }


def _scet_by_packet(file: StixFile, packet: NDArray[np.intp]) -> NDArray[np.int64]:
    """Onboard time of samples counted within their packet, of which a daily file may hold only a part.

    The official times are rounded, or converted to UTC; they tell only which sample of its packet a row is.
    """
    control = file.table("CONTROL")
    origin = scet_from_coarse_fine(control.column("scet_coarse"), control.column("scet_fine"))[packet]
    step = ticks_of(np.rint(control.column("integration_time").astype(np.float64) * 1e9).astype(np.int64))[packet]
    sample = np.rint((_times(file)["scet"] - origin) / step).astype(np.int64)
    return np.asarray(origin + sample * step, dtype=np.int64)


def _packet_of_row(file: StixFile) -> NDArray[np.intp]:
    """Row of CONTROL that describes each row of DATA."""
    index = file.table("CONTROL").column("index").astype(np.int64)
    wanted = file.table("DATA").column("control_index").astype(np.int64)
    order = np.argsort(index)
    row = order[np.minimum(np.searchsorted(index, wanted, sorter=order), index.size - 1)]
    if (index[row] != wanted).any():
        raise InputFileError(
            f"{file.name} has rows of DATA without their row in CONTROL",
            expected="every control_index among the index of CONTROL",
            advice="fetch the file again",
        )
    return np.asarray(row)


def _compression(control: Table, packet: NDArray[np.intp]) -> _Arrays:
    """Compression schemes for each time bin; 0 where the file knows none, as for data sent uncompressed."""

    def scheme(*names: str) -> NDArray[Any]:
        skm = control.find(*names)
        if skm is None:
            return np.zeros(len(packet), dtype=np.uint16)
        return (skm.astype(np.uint16) @ np.array([256, 16, 1], dtype=np.uint16))[packet]

    return {"counts_skm": scheme(*_COUNTS_SKM), "triggers_skm": scheme(*_TRIGGERS_SKM)}


def _energies(file: StixFile, n_counts: int) -> tuple[_Arrays, slice | NDArray[np.intp]]:
    """Energy bins of the counts, and which elements of their axis belong to them."""
    n_rows = file.table("ENERGIES").column("e_low").size
    start, stop = _channels(file)
    sent = _sent_rows(file.table("CONTROL"), n_rows)
    if n_counts not in (n_rows, sent.size):
        raise InputFileError(
            f"{file.name} holds counts in {n_counts} energies, its table has {n_rows}, its mask {sent.size}",
            expected="as many energies as counts",
            advice="fetch the file again, or report it with its name",
        )
    start, stop, nominal = start[sent], stop[sent], energy_edges(file.start())
    low, high = nominal[start], nominal[stop]
    bins = {
        "energy": np.where(np.isinf(high), low, (low + high) / 2),
        "energy_low": low,
        "energy_high": high,
        "channel_start": start.astype(np.uint8),
        "channel_stop": stop.astype(np.uint8),
    }
    return bins, sent if sent.size < n_counts else slice(None)


def _sent_rows(control: Table, n_rows: int) -> NDArray[np.intp]:
    """Rows of the energy table that were sent: an old mask names channels, a new one edges of a trimmed table."""
    mask = control.find("energy_bin_mask")
    if mask is None or mask.shape[-1] != n_rows:
        return np.arange(n_rows)
    return np.flatnonzero(mask.any(axis=0))


def _channels(file: StixFile) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Science channels of the rows of the energy table: ``[start, stop)``.

    The energies themselves are the last resort: V01 files of 2020 say 16-17 keV for the channel 16-18 keV.
    """
    table = file.table("ENERGIES")
    low, high = (table.column(name).astype(np.float64) for name in ("e_low", "e_high"))
    edge_mask = file.table("CONTROL").find("energy_bin_edge_mask")
    if edge_mask is not None and (edge_mask == edge_mask[0]).all() and edge_mask[0].sum() == low.size + 1:
        edge = np.flatnonzero(edge_mask[0])
        return edge[:-1], edge[1:]
    if low.size == N_CHANNELS:
        return np.arange(N_CHANNELS), np.arange(1, N_CHANNELS + 1)
    nominal = energy_edges(file.start())
    high[np.isnan(high)] = np.inf
    start, stop = (np.searchsorted(nominal, edges - 1e-3) for edges in (low, high))
    if not (np.isclose(nominal[start], low).all() and np.isclose(nominal[stop], high).all()):
        raise InputFileError(
            f"{file.name} has energies {low[0]:g} to {high[-1]:g} keV that are not edges of science channels",
            expected="the edges of the channels of its date",
            advice="check the date and the energy table of the file",
        )
    return start, stop


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
        "box": 0,
        "boxes": 1,
        "bin_shift": _bin_shift(file),
    }


def _bin_shift(file: StixFile) -> str:
    if file.start() >= _SHIFT_ENDED:
        return "none"
    remarks = " ".join(str(line) for key in ("COMMENT", "HISTORY") for line in file.header.get(key, []))
    return "corrected" if "offset fixed" in remarks else "possible"


_PRODUCTS: dict[int, tuple[str, Callable[[StixFile], _Arrays]]] = {
    20: ("sci_pixels", _pixels),
    21: ("sci_pixels", _pixels),
    24: ("sci_spectrogram", _spectrogram),
    30: ("ql_lightcurve", _lightcurve),
}
_SSID_OF_NAME = {
    "stix-ql-lightcurve": 30,
    "stix-sci-xray-rpd": 20,
    "stix-sci-xray-cpd": 21,
    "stix-sci-xray-spec": 24,
    "stix-sci-spectrogram": 24,
}


def _kind(file: StixFile) -> tuple[str, int, Callable[[StixFile], _Arrays]]:
    """Tell product, SSID and reader from the header, for files without an SSID from the name in it."""
    given = f"{file.keyword('FILENAME') or ''} {file.name}"
    by_name = next((ssid for part, ssid in _SSID_OF_NAME.items() if part in given), None)
    ssid = file.keyword("SSID") or by_name
    if ssid not in _PRODUCTS or "_stix-aux-" in given:
        raise InputFileError(
            f"{file.name} is a product that is not read (SSID {ssid or 'not given'})",
            expected="a level-1 quick-look light curve (SSID 30), pixel data (20, 21) or spectrogram (24)",
            advice="give one of these",
        )
    product, build = _PRODUCTS[int(ssid)]
    return product, int(ssid), build
