"""What the tables of official files have in common: times, energies, counts, compression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.assemble import energy_arrays
from stixflow.cubes.model import N_PIXELS
from stixflow.errors import InputFileError
from stixflow.fits._reading import StixFile, Table, ticks_of
from stixflow.instrument import N_CHANNELS, energy_edges
from stixflow.time import TICKS_PER_SECOND, Scet, Utc, scet_from_coarse_fine, scet_to_utc, utc_to_scet

Arrays = dict[str, NDArray[Any]]

_COUNTS_SKM = ("compression_scheme_counts_skm",)
_TRIGGERS_SKM = ("compression_scheme_triggers_skm", "compression_scheme_trig_skm")


def on_all_pixels(file: StixFile, counts: NDArray[Any], pixel_masks: NDArray[Any]) -> NDArray[Any]:
    """Put the pixels of a trimmed axis in their places among the 12.

    Raises
    ------
    InputFileError
        If there are not as many pixels as the masks name.
    """
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


def whole_counts(file: StixFile, values: NDArray[Any]) -> NDArray[Any]:
    """Return counts as the unsigned integers that they are; floating point in some files.

    Raises
    ------
    InputFileError
        If they are no whole numbers from 0.
    """
    largest = values.max(initial=0)
    whole = values.dtype.kind in "iu" or (np.isfinite(values).all() and (values == np.rint(values)).all())
    if not whole or values.min(initial=0) < 0:
        raise InputFileError(f"{file.name} holds counts that are not whole numbers from 0", expected="counts")
    return values.astype(np.uint32 if largest <= np.iinfo(np.uint32).max else np.uint64, order="C")


def received(file: StixFile, name: str, like: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell what was received: our files give NaN as the compression error of what was not; all, where none is NaN."""
    errors = file.table("DATA").find(f"{name}_comp_err", f"{name}_err")
    if errors is None or not np.isnan(errors).any():
        return like
    return np.asarray(~np.isnan(errors))


def bin_times(file: StixFile) -> Arrays:
    """Centre, start and length of each row of DATA, in UTC and on the onboard clock."""
    offset, width = _offsets(file)
    return _dated(file, _begin(file) + ticks_of(offset), offset, width)


def sample_times(file: StixFile, packet: NDArray[np.intp]) -> Arrays:
    """Times of samples counted within their packet, of which a daily file may hold only a part.

    The official times are rounded, or converted to UTC; they tell only which sample of its packet a row is.

    Raises
    ------
    InputFileError
        If samples last 0 s.
    """
    control = file.table("CONTROL")
    offset, width = _offsets(file)
    origin = scet_from_coarse_fine(control.column("scet_coarse"), control.column("scet_fine"))[packet]
    step = ticks_of(np.rint(control.column("integration_time").astype(np.float64) * 1e9).astype(np.int64))[packet]
    if (step <= 0).any():
        raise InputFileError(
            f"{file.name} has integration times of 0 s", expected="samples that last", advice="fetch the file again"
        )
    sample = np.rint((_begin(file) + ticks_of(offset) - origin) / step).astype(np.int64)
    return _dated(file, np.asarray(origin + sample * step, dtype=np.int64), offset, width)


def report_times(file: StixFile, scet: Scet) -> Utc:
    """UTC of reports about an instant, from the onboard time of each row of DATA."""
    return utc_of_scet(file, scet, int(scet[0]) - int(ticks_of(_offsets(file)[0])[0]))


def utc_of_scet(file: StixFile, scet: Scet, begin: int | None = None) -> Utc:
    """UTC of onboard times: the header's UTC of the beginning and the clock from there on.

    The times in the tables of versions 01 and 02 count seconds of the onboard clock, which in a day differ from those
    of UTC by 0.16 s.

    Parameters
    ----------
    begin
        Onboard time of the beginning, where it is known better than from the header.
    """
    since = scet_to_utc(_begin(file) if begin is None else begin)[()]
    return np.asarray(file.start() + (scet_to_utc(scet) - since))


def _offsets(file: StixFile) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and length of each row of DATA, ns since the beginning.

    Some of the first files (2020) count the times of requests from another moment, half their age before: what they
    call the beginning is that of their first bin, as in their telemetry.
    """
    data = file.table("DATA")
    centre, width = data.nanoseconds("time"), data.nanoseconds("timedel")
    start = centre - width // 2
    return (start - start[:1] if file.is_first_format() else start), width


def _begin(file: StixFile) -> np.int64:
    found = file.start_scet()
    return np.int64(utc_to_scet(file.start()) if found is None else found)


def _dated(file: StixFile, scet: Scet, offset: NDArray[np.int64], width: NDArray[np.int64]) -> Arrays:
    begin = int(scet[0]) - int(ticks_of(offset)[0]) if scet.size else None
    seconds = width / 1e9
    half = np.rint(seconds * (TICKS_PER_SECOND / 2)).astype(np.int64)
    return {
        "time": utc_of_scet(file, scet + half, begin),
        "time_start": utc_of_scet(file, scet, begin),
        "timedel": seconds,
        "scet": scet,
    }


def packet_of_row(file: StixFile) -> NDArray[np.intp]:
    """Row of CONTROL that describes each row of DATA.

    Raises
    ------
    InputFileError
        If a row of DATA has none.
    """
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


def compression(control: Table, packet: NDArray[np.intp]) -> Arrays:
    """Compression schemes for each time bin; 0 where the file knows none, as for data sent uncompressed."""

    return {
        "counts_skm": scheme_of(control, packet, *_COUNTS_SKM),
        "triggers_skm": scheme_of(control, packet, *_TRIGGERS_SKM),
    }


def scheme_of(control: Table, packet: NDArray[np.intp], *names: str) -> NDArray[Any]:
    """One compression scheme for each time bin, from the first of the columns that exists."""
    skm = control.find(*names)
    if skm is None:
        return np.zeros(len(packet), dtype=np.uint16)
    return np.asarray((skm.astype(np.uint16) @ np.array([256, 16, 1], dtype=np.uint16))[packet])


def energy_bins(file: StixFile, n_counts: int) -> tuple[Arrays, slice | NDArray[np.intp]]:
    """Energy bins of the counts, and which elements of their axis belong to them.

    Raises
    ------
    InputFileError
        If there are not as many energies as counts.
    """
    n_rows = file.table("ENERGIES").column("e_low").size
    start, stop = _channels(file)
    sent = _sent_rows(file.table("CONTROL"), n_rows)
    if n_counts not in (n_rows, sent.size):
        raise InputFileError(
            f"{file.name} holds counts in {n_counts} energies, its table has {n_rows}, its mask {sent.size}",
            expected="as many energies as counts",
            advice="fetch the file again, or report it with its name",
        )
    bins = energy_arrays(start[sent], stop[sent], energy_edges(file.start()))
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
