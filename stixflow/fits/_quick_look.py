"""Quick look of official files: light curves, background, spectra, variance, flare flag."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.model import N_DETECTORS
from stixflow.fits._columns import (
    Arrays,
    bin_times,
    compression,
    energy_bins,
    packet_of_row,
    received,
    sample_times,
    scheme_of,
    utc_of_scet,
    whole_counts,
)
from stixflow.fits._reading import StixFile, bits
from stixflow.time import TICKS_PER_SECOND

_NOT_TOLD = 255


def read_lightcurve(file: StixFile) -> Arrays:
    """Light curves (SSID 30)."""
    control, data = file.table("CONTROL"), file.table("DATA")
    packet = packet_of_row(file)
    return {
        **read_background(file),
        "rcr": data.column("rcr").astype(np.uint8),
        "detector_mask": bits(control.column("detector_mask"))[packet].astype(np.uint32),
        "pixel_mask": bits(control.column("pixel_mask"))[packet].astype(np.uint16),
    }


def read_background(file: StixFile) -> Arrays:
    """Background monitor (SSID 31), and what light curves have in common with it."""
    control, data = file.table("CONTROL"), file.table("DATA")
    packet = packet_of_row(file)
    energies, kept = energy_bins(file, data.column("counts").shape[-1])
    return {
        **sample_times(file, packet),
        **energies,
        "counts": whole_counts(file, data.column("counts")[:, kept]),
        "triggers": whole_counts(file, data.column("triggers").reshape(len(packet))),
        **compression(control, packet),
    }


def read_spectra(file: StixFile) -> Arrays:
    """Spectra of the detectors (SSID 32), put back into sweeps.

    A row of the file holds 32 spectra as they came, from the middle of one sweep to the middle of the next; its time is
    that of the first. A new sweep, 32 integrations later, begins where the detector index falls.
    """
    control, data = file.table("CONTROL"), file.table("DATA")
    detector = data.column("detector_index").astype(np.intp)
    times = bin_times(file)
    wraps = np.cumsum(np.diff(detector, axis=1, prepend=detector[:, :1]) < 0, axis=1)
    later = wraps * (N_DETECTORS * times["timedel"])[:, np.newaxis]
    start = times["scet"][:, np.newaxis] + np.rint(later * TICKS_PER_SECOND).astype(np.int64)
    sent = np.flatnonzero(received(file, "triggers", np.ones(detector.shape, dtype=bool)))
    row = sent // detector.shape[1]
    sweep, head = _sweeps(start.reshape(-1)[sent], times["timedel"][row])
    place = sweep, detector.reshape(-1)[sent]
    energies, _ = energy_bins(file, data.column("spectra").shape[-1])
    spectra = whole_counts(file, data.column("spectra")).reshape(start.size, -1)
    triggers = whole_counts(file, data.column("triggers")).reshape(-1)
    counts = np.zeros((head.size, spectra.shape[1], N_DETECTORS), dtype=spectra.dtype)
    counts[place[0], :, place[1]] = spectra[sent]
    live, observed = np.zeros((head.size, N_DETECTORS), triggers.dtype), np.zeros((head.size, N_DETECTORS), np.bool_)
    live[place], observed[place] = triggers[sent], True
    first, begin = row[head], start.reshape(-1)[sent[head]]
    half = np.rint(times["timedel"][first] * (TICKS_PER_SECOND / 2)).astype(np.int64)
    state = _settings_of(file, first)
    return {
        "time": utc_of_scet(file, begin + half),
        "time_start": utc_of_scet(file, begin),
        "timedel": times["timedel"][first],
        "scet": begin,
        **energies,
        "detector": np.arange(N_DETECTORS, dtype=np.uint8),
        "counts": counts,
        "observed": observed,
        "triggers": live,
        "pixel_mask": bits(control.column("pixel_mask"))[state].astype(np.uint16),
        "counts_skm": scheme_of(control, state, "compression_scheme_spectra_skm"),
        "triggers_skm": scheme_of(control, state, "compression_scheme_triggers_skm"),
    }


def _settings_of(file: StixFile, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Row of CONTROL of rows of DATA; the first where the file, as those of 2020, numbers the two differently."""
    known = np.isin(file.table("DATA").column("control_index"), file.table("CONTROL").column("index")).all()
    return packet_of_row(file)[rows] if known else np.zeros(rows.size, dtype=np.intp)


def _sweeps(start: NDArray[np.int64], seconds: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number the sweep of each spectrum, and name the first spectrum of each sweep."""
    order = np.argsort(start, kind="stable")
    new = np.diff(start[order]) > seconds[order][1:] * (TICKS_PER_SECOND / 2)
    number = np.empty(start.size, dtype=np.intp)
    number[order] = np.concatenate([[0], np.cumsum(new)])
    return number, order[np.unique(number[order], return_index=True)[1]]


def read_variance(file: StixFile) -> Arrays:
    """Variances (SSID 33)."""
    control = file.table("CONTROL")
    packet = packet_of_row(file)
    return {
        **sample_times(file, packet),
        "variance": whole_counts(file, file.table("DATA").column("variance").reshape(len(packet))),
        "samples_per_variance": control.column("samples_per_variance")[packet].astype(np.uint8),
        "detector_mask": bits(control.column("detector_mask"))[packet].astype(np.uint32),
        "pixel_mask": bits(control.column("pixel_mask"))[packet].astype(np.uint16),
        "channel_mask": bits(control.column("energy_bin_mask"))[packet].astype(np.uint32),
        "variance_skm": scheme_of(control, packet, "compression_scheme_variance_skm"),
    }


def read_aspect(file: StixFile) -> Arrays:
    """Aspect photodiodes (SSID 42)."""
    control, data = file.table("CONTROL"), file.table("DATA")
    packet = packet_of_row(file)
    return {
        **bin_times(file),
        **{name: data.column(name) for name in ("cha_diode0", "cha_diode1", "chb_diode0", "chb_diode1")},
        **{name: control.column(name)[packet] for name in ("averaging_value", "summing_value")},
    }


def read_flareflag(file: StixFile) -> Arrays:
    """Flare flags and locations (SSID 34)."""
    data = file.table("DATA")
    packet = packet_of_row(file)
    going_on = data.find("flare_progress", "flare_in_progress")
    return {
        **sample_times(file, packet),
        **{name: data.column(name).reshape(len(packet)).astype(np.int8) for name in ("loc_y", "loc_z")},
        **{
            name: data.column(name).reshape(len(packet)).astype(np.uint8)
            for name in ("location_status", "thermal_index", "non_thermal_index")
        },
        "flare_in_progress": np.full(len(packet), _NOT_TOLD)
        if going_on is None
        else going_on.reshape(len(packet)).astype(np.uint8),
    }
