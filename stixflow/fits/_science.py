"""Science requests of official files: pixel data, pixel sums, visibilities, spectrograms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.model import N_PIXEL_SETS, N_PIXELS
from stixflow.fits._columns import (
    Arrays,
    bin_times,
    compression,
    energy_bins,
    on_all_pixels,
    packet_of_row,
    received,
    whole_counts,
)
from stixflow.fits._reading import StixFile, Table, bits


def read_spectrogram(file: StixFile) -> Arrays:
    """Spectrograms (SSID 24)."""
    control, data = file.table("CONTROL"), file.table("DATA")
    packet = packet_of_row(file)
    energies, kept = energy_bins(file, data.column("counts").shape[-1])
    pixel_masks, rcr = data.find("pixel_masks"), data.find("rcr")
    if pixel_masks is None:
        pixel_masks = control.column("pixel_mask", "pixel_masks")[packet]
    if rcr is None:
        rcr = control.column("rcr")[packet]
    return {
        **bin_times(file),
        **energies,
        "counts": whole_counts(file, data.column("counts")[:, kept]),
        "triggers": whole_counts(file, data.column("triggers").reshape(len(packet))),
        "rcr": rcr.astype(np.uint8),
        "detector_mask": bits(control.column("detector_masks", "detector_mask"))[packet].astype(np.uint32),
        "pixel_mask": bits(pixel_masks).astype(np.uint16),
        **compression(control, packet),
    }


def read_pixels(file: StixFile) -> Arrays:
    """Single pixels (SSID 20, 21)."""
    data = file.table("DATA")
    packet = packet_of_row(file)
    sent = data.column("counts")
    energies, kept = energy_bins(file, sent.shape[-1])
    pixel_masks = data.column("pixel_masks")
    counts = whole_counts(file, np.moveaxis(sent[..., kept], -1, 1))
    return {
        **bin_times(file),
        **energies,
        **_pixel_axes(sent.shape[1], N_PIXELS),
        "counts": on_all_pixels(file, counts, pixel_masks),
        "observed": _observed(file, "counts", sent.shape, kept),
        "triggers": whole_counts(file, data.column("triggers")),
        "rcr": data.column("rcr").astype(np.uint8),
        "detector_mask": bits(data.column("detector_masks")).astype(np.uint32),
        "pixel_mask": bits(pixel_masks).astype(np.uint16),
        **compression(file.table("CONTROL"), packet),
    }


def read_pixel_sums(file: StixFile) -> Arrays:
    """Sums of pixel sets (SSID 22): of the pixel axis, only as many elements as there are sets are used."""
    data = file.table("DATA")
    packet = packet_of_row(file)
    masks = bits(data.column("pixel_masks")).astype(np.uint16)
    n_sets = masks.shape[1]
    sent = data.column("counts")
    energies, kept = energy_bins(file, sent.shape[-1])
    counts = whole_counts(file, np.moveaxis(sent[:, :, :n_sets, kept], -1, 1))
    return {
        **bin_times(file),
        **energies,
        **_pixel_axes(sent.shape[1], n_sets),
        "counts": np.ascontiguousarray(counts),
        "observed": _observed(file, "counts", sent.shape, kept),
        "triggers": whole_counts(file, data.column("triggers")),
        "rcr": data.column("rcr").astype(np.uint8),
        "detector_mask": bits(data.column("detector_masks")).astype(np.uint32),
        "pixel_mask": np.bitwise_or.reduce(masks, axis=1),
        "pixel_set": masks,
        **compression(file.table("CONTROL"), packet),
    }


def read_visibilities(file: StixFile) -> Arrays:
    """Visibilities (SSID 23) of the data centre; where a file holds none at all, they are NaN, not zero."""
    data = file.table("DATA")
    packet = packet_of_row(file)
    flux = whole_counts(file, data.column("flux"))
    energies, kept = energy_bins(file, flux.shape[-1])
    detectors = data.column("detector_masks").astype(bool)
    visibility = _complex(data)[:, kept]
    sent = np.broadcast_to(detectors[:, np.newaxis], visibility.shape)
    is_empty = bool(flux.any()) and not visibility.any()
    masks = np.stack([bits(data.column(f"pixel_mask{n}")) for n in range(1, N_PIXEL_SETS + 1)], axis=1)
    return {
        **bin_times(file),
        **energies,
        "detector": np.arange(detectors.shape[1], dtype=np.uint8),
        "visibility": np.where(sent & (not is_empty), visibility, np.nan + 1j * np.nan),
        "flux": flux[:, kept],
        "observed": _observed(file, "flux", flux.shape, kept),
        "triggers": whole_counts(file, data.column("triggers")),
        "rcr": data.column("rcr").astype(np.uint8),
        "detector_mask": bits(detectors).astype(np.uint32),
        "pixel_mask": np.bitwise_or.reduce(masks, axis=1).astype(np.uint16),
        "pixel_set": masks.astype(np.uint16),
        **compression(file.table("CONTROL"), packet),
    }


def _complex(data: Table) -> NDArray[np.complex128]:
    found = data.find("visibility")
    if found is None:
        found = data.column("real") + 1j * data.column("imaginary")
    return found.astype(np.complex128)


def _observed(file: StixFile, name: str, shape: tuple[int, ...], kept: Any) -> NDArray[np.bool_]:
    """Tell which energies of each time were received; those of a file are all, if it does not say otherwise."""
    found = received(file, name, np.ones((shape[0], shape[-1]), dtype=bool))
    between = tuple(range(1, found.ndim - 1))
    return np.asarray(np.asarray(found.any(axis=between) if between else found)[:, kept])


def _pixel_axes(n_detectors: int, n_pixels: int) -> dict[str, NDArray[Any]]:
    return {"detector": np.arange(n_detectors, dtype=np.uint8), "pixel": np.arange(n_pixels, dtype=np.uint8)}
