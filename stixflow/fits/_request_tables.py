"""Tables of the files of one request: pixel data, their sums, visibilities and spectrograms."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.model import N_DETECTORS, N_PIXELS
from stixflow.fits._tables import UNKNOWN, Span, edge_mask, runs, skm_columns, times, with_error
from stixflow.fits._writing import Column, smallest, unfold
from stixflow.fits.origin import Origin

_Array = NDArray[Any]


def request_control(dataset: xr.Dataset, origin: Origin) -> tuple[list[Column], NDArray[np.intp]]:
    """One row for each run of bins with equal compression, for spectrograms also of equal detectors."""
    summed = dataset.attrs["product"] == "sci_spectrogram"
    raw = dataset.attrs.get("ssid") == 20
    states = [dataset[name].values for name in ("counts_skm", "triggers_skm", *(["detector_mask"] * summed))]
    first, of_row = runs(*states)
    n = first.size
    raw_file = np.full((n, 1), ";".join(origin.raw_files) or " ")
    detectors = Column("detector_masks", unfold(dataset["detector_mask"].values[first], N_DETECTORS))
    return [
        _number_or_unknown("tc_packet_id_ref", origin.packet_id, n),
        Column("tc_packet_seq_control", np.full(n, dataset.attrs["seq_control"], dtype=np.uint16)),
        Column("request_id", np.full(n, dataset.attrs["request_id"], dtype=np.uint32)),
        _list_or_unknown("num_substructures", origin.substructures, n),
        Column("index", smallest(np.arange(n))),
        _list_or_unknown("packet", origin.packets, n, trimmed=True),
        Column("raw_file", raw_file),
        Column("parent", np.full(n, ";".join(origin.parents) or " ")),
        *([] if raw else skm_columns(dataset, first, "counts", "triggers")),
        *([detectors] if summed else []),
        edge_mask(dataset, n),
        Column("time_stamp", np.full(n, np.nan if origin.time_stamp is None else origin.time_stamp), "s"),
    ], of_row


def _number_or_unknown(name: str, value: int | None, n: int) -> Column:
    missing = UNKNOWN if value is None else None
    return Column(name, np.full(n, UNKNOWN if value is None else value, dtype=np.uint16), missing=missing)


def _list_or_unknown(name: str, values: tuple[int, ...], n: int, *, trimmed: bool = False) -> Column:
    numbers = np.asarray(values or (UNKNOWN,), dtype=np.uint16)
    return Column(name, np.tile(smallest(numbers) if trimmed else numbers, (n, 1)), missing=None if values else UNKNOWN)


def spectrogram(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of spectrograms."""
    return [
        *times(span),
        *with_error("triggers", dataset["triggers"].values, dataset["triggers_skm"].values),
        Column("rcr", dataset["rcr"].values),
        Column("pixel_masks", unfold(dataset["pixel_mask"].values, N_PIXELS)),
        *with_error("counts", dataset["counts"].values, dataset["counts_skm"].values, "count"),
    ]


def pixels(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of single pixels, compressed on board."""
    masks = _state_columns(dataset)
    sent = masks[1].values.sum(axis=1, dtype=np.uint8)
    return [
        *times(span),
        *masks,
        Column("num_pixel_sets", sent),
        *with_error("triggers", dataset["triggers"].values, dataset["triggers_skm"].values),
        *with_error(
            "counts", _pixel_counts(dataset), dataset["counts_skm"].values, "count", observed=_received(dataset)
        ),
    ]


def pixel_sums(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of sums of pixel sets; the pixel axis counts the sets."""
    rcr, _, detectors = _state_columns(dataset)
    sets = dataset["pixel_set"].values
    counts = np.moveaxis(dataset["counts"].values, 1, -1)
    return [
        *times(span),
        rcr,
        Column("pixel_masks", unfold(sets, N_PIXELS)),
        detectors,
        Column("num_pixel_sets", (sets != 0).sum(axis=1, dtype=np.uint8)),
        *with_error("triggers", dataset["triggers"].values, dataset["triggers_skm"].values),
        *with_error("counts", counts, dataset["counts_skm"].values, "count", observed=_received(dataset)),
    ]


def visibilities(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of visibilities, NaN where none was received."""
    rcr, _, detectors = _state_columns(dataset)
    sets = unfold(dataset["pixel_set"].values, N_PIXELS)
    skm, observed = dataset["counts_skm"].values, dataset["observed"].values
    return [
        *times(span),
        rcr,
        *(Column(f"pixel_mask{number + 1}", sets[:, number]) for number in range(sets.shape[1])),
        detectors,
        *with_error("triggers", dataset["triggers"].values, dataset["triggers_skm"].values),
        *with_error("flux", dataset["flux"].values, skm, "count", observed=observed),
        Column("visibility", dataset["visibility"].values, "count"),
    ]


def _received(dataset: xr.Dataset) -> _Array:
    """Tell which energies were received, on the axes of the counts in a file."""
    return np.asarray(dataset["observed"].values[:, np.newaxis, np.newaxis, :])


def raw_pixels(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of single pixels that were sent count by count, without compression."""
    return [
        *_state_columns(dataset),
        Column("triggers", smallest(dataset["triggers"].values)),
        *times(span),
        Column("counts", smallest(_pixel_counts(dataset)), "count"),
    ]


def _state_columns(dataset: xr.Dataset) -> list[Column]:
    return [
        Column("rcr", dataset["rcr"].values),
        Column("pixel_masks", unfold(dataset["pixel_mask"].values, N_PIXELS)),
        Column("detector_masks", unfold(dataset["detector_mask"].values, N_DETECTORS)),
    ]


def _pixel_counts(dataset: xr.Dataset) -> _Array:
    """Counts with the energies last; the pixel axis has only those pixels that some mask names."""
    counts = np.moveaxis(dataset["counts"].values, 1, -1)
    named = np.flatnonzero(unfold(np.bitwise_or.reduce(dataset["pixel_mask"].values), N_PIXELS))
    return counts if named.size in (0, N_PIXELS) else counts[:, :, named]
