"""Reports about the instrument of official files: flare list, housekeeping, calibration spectra."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.housekeeping import HOUSEKEEPING, Parameter
from stixflow.cubes.model import N_DETECTORS, N_FLARE_SLOTS, N_PIXELS
from stixflow.errors import InputFileError, UsageError
from stixflow.fits._columns import Arrays, packet_of_row, received, report_times, scheme_of, utc_of_scet, whole_counts
from stixflow.fits._reading import StixFile, Table, bits
from stixflow.telemetry.engineering import calibrate
from stixflow.telemetry.layouts import known_types, text_table
from stixflow.telemetry.runs import starts_of
from stixflow.telemetry.structure import Field
from stixflow.time import TICKS_PER_SECOND, scet_from_coarse_fine

_KELVIN = 273.15
_N_ADC = 1024
_FINE_PER_S = 65535
_WHOLE = 1e-3
_FLARE_COLUMNS = {
    "highest_flare_flag": "highest_flareflag",
    "tm_byte_volume": "tm_byte_volume",
    "average_y": "average_y_loc",
    "average_z": "average_z_loc",
    "processing_status": "processing_mask",
}


def read_status(file: StixFile) -> Arrays:
    """Status and flare lists (SSID 43): a row of the file is one flare, or a report without one."""
    control, data = file.table("CONTROL"), file.table("DATA")
    report = packet_of_row(file)
    flare = np.flatnonzero(data.column("start_scet_coarse") > 0)
    n_reports = control.column("index").size
    number = np.bincount(report[flare], minlength=n_reports)
    order = flare[np.argsort(report[flare], kind="stable")]
    slot = np.arange(order.size) - starts_of(number)[report[order]]
    head = np.unique(report, return_index=True)[1]

    def in_slots(values: NDArray[Any]) -> NDArray[np.int64]:
        out = np.zeros((n_reports, N_FLARE_SLOTS), dtype=np.int64)
        out[report[order], slot] = values[order]
        return out

    scet = scet_from_coarse_fine(control.column("scet_coarse"), control.column("scet_fine"))
    return {
        "time": report_times(file, scet[report])[head],
        "scet": scet,
        "ubsd_counter": data.column("ubsd")[head],
        "pald_counter": data.column("pald")[head],
        "num_flares": number,
        "flare_start_scet": in_slots(data.column("start_scet_coarse").astype(np.int64) << 16),
        "flare_stop_scet": in_slots(data.column("end_scet_coarse").astype(np.int64) << 16),
        **{name: in_slots(data.column(column)) for name, column in _FLARE_COLUMNS.items()},
    }


def read_housekeeping(file: StixFile, product: str) -> Arrays:
    """Housekeeping: the files hold engineering values only; the raw numbers are those that give them."""
    control, data = file.table("CONTROL"), file.table("DATA")
    columns = {re.sub("[^a-z0-9]+", "_", name): name for name in data.names}
    fields = _fields(product)
    row = packet_of_row(file)
    scet = scet_from_coarse_fine(control.column("scet_coarse"), control.column("scet_fine"))[row]
    arrays: Arrays = {"time": report_times(file, scet), "scet": scet}
    for one in HOUSEKEEPING[product]:
        arrays |= _parameter(file, one, fields[one.name], data.column(columns.get(one.name, one.name)))
    return arrays


def _fields(product: str) -> dict[str, Field]:
    layouts = known_types()[3, 25, 1 if product == "hk_mini" else 2]
    return {field.name: field for layout in layouts for field in layout.scope.fields}


def _parameter(file: StixFile, one: Parameter, field: Field, values: NDArray[Any]) -> Arrays:
    if field.curve:
        found = values.astype(np.float64) - (_KELVIN if one.units == "degC" else 0.0)
        sent = _raw_of(file, field, found)
        return {one.name: calibrate(sent, str(field.curve)), f"{one.name}_raw": sent.astype(one.dtype)}
    if one.is_calibrated:
        scale = np.float64(field.scale[0] if field.scale else 1.0)
        raw = values.astype(np.float64) / (scale if values.dtype.kind == "f" else 1.0)
        return {one.name: raw * scale, f"{one.name}_raw": np.rint(raw).astype(one.dtype)}
    if values.dtype.kind in "US":
        return {one.name: _number_of(file, field, values).astype(one.dtype)}
    return {one.name: values.astype(one.dtype)}


def _raw_of(file: StixFile, field: Field, values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Raw numbers that a calibration curve turns into the values."""
    table = calibrate(np.arange(1 << field.bits), str(field.curve))
    order = np.argsort(table, kind="stable")
    after = np.minimum(np.searchsorted(table[order], values), order.size - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(table[order][before] - values) < np.abs(table[order][after] - values)
    raw = order[np.where(nearer, before, after)]
    worst = float(np.abs(table[raw] - values).max(initial=0.0))
    if worst > 1e-6 * (1.0 + np.abs(values).max(initial=0.0)):
        raise InputFileError(
            f"{file.name} gives {field.name} values that curve {field.curve} does not (off by {worst:g})",
            expected="values of the calibration curves of the instrument database",
            advice="report the file: it was made with other curves",
        )
    return np.asarray(raw)


def _number_of(file: StixFile, field: Field, texts: NDArray[Any]) -> NDArray[np.intp]:
    """Raw numbers of texts; a text that stands for several numbers is the first of them."""
    names = np.char.strip(texts.astype(str))
    known = {text: first for first, _, text in reversed(text_table(str(field.enum)))} if field.enum else {}
    distinct, inverse = np.unique(names, return_inverse=True)
    unknown = [name for name in distinct.tolist() if name not in known and not name.isdigit()]
    if unknown:
        raise InputFileError(f"{file.name} gives {field.name} as {unknown[0]!r}", expected=" or ".join(known))
    numbers = np.array([known.get(name, int(name) if name.isdigit() else 0) for name in distinct.tolist()])
    return np.asarray(numbers[inverse.reshape(-1)])


def read_calibration(file: StixFile, run: int | None) -> Arrays:
    """Calibration spectra of one run (SSID 41); spectra without a count count as not received.

    Files of 2020 give a tenth of the duration: no run can be shorter than its live time.

    Raises
    ------
    UsageError
        If the file holds several runs and none was chosen.
    """
    control, data = file.table("CONTROL"), file.table("DATA")
    row = _chosen_run(file, data, run)
    one = packet_of_row(file)[[row]]
    counts = whole_counts(file, np.moveaxis(data.column("counts")[row], -1, 0))
    live, seconds = control.column("live_time")[one] / 1e3, control.column("integration_time")[one].astype(np.float64)
    is_old = control.unit("quiet_time") != "us"
    seconds = np.where(is_old & (live > seconds), np.rint(seconds * 10), seconds)
    quiet = _quiet_raw(control.column("quiet_time")[one].astype(np.float64) * (1.0 if is_old else 1e-6))
    temperature = control.column("average_temperature")[one] - _KELVIN
    start = scet_from_coarse_fine(control.column("scet_coarse"), control.column("scet_fine"))[one]
    return {
        "time": utc_of_scet(file, start + np.rint(seconds * (TICKS_PER_SECOND / 2)).astype(np.int64)),
        "time_start": utc_of_scet(file, start),
        "timedel": seconds,
        "scet": start,
        **_adc_axis(file, control, int(one[0]), counts.shape[0]),
        "detector": np.arange(N_DETECTORS),
        "pixel": np.arange(N_PIXELS),
        "counts": np.ascontiguousarray(counts),
        "observed": _received(file, data, row, counts),
        "live_time": live,
        "quiet_time": quiet / 1e6,
        "average_temperature": temperature,
        "live_time_raw": np.rint(live * 1e3),
        "quiet_time_raw": quiet,
        "average_temperature_raw": _raw_of(file, _temperature_field(), temperature),
        "detector_mask": bits(control.column("detector_mask"))[one],
        "pixel_mask": bits(control.column("pixel_mask"))[one],
        "subspectrum_mask": bits(control.column("subspectrum_mask"))[one],
        "bit_reduction": np.zeros(1),
        "counts_skm": scheme_of(control, one, "compression_scheme_counts_skm"),
    }


def _received(file: StixFile, data: Table, row: int, counts: NDArray[Any]) -> NDArray[np.bool_]:
    is_sent = np.moveaxis(np.asarray(counts.any(axis=0))[np.newaxis], 0, -1)
    like = np.broadcast_to(is_sent, data.column("counts")[row].shape)
    found = received(file, "counts", like)
    of_run = found if found is like else np.asarray(found[row])
    return np.moveaxis(of_run, -1, 0).copy()


def _quiet_raw(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quiet times as sent, microseconds; files of 2020 took them for fractions of an onboard second."""
    fine = seconds * _FINE_PER_S
    whole = (np.rint(fine) >= 1) & (np.abs(fine - np.rint(fine)) < _WHOLE)
    return np.rint(np.where(whole, fine, seconds * 1e6))


def _temperature_field() -> Field:
    return next(field for field in known_types()[21, 6, 41][0].scope.fields if field.name == "average_temperature")


def _chosen_run(file: StixFile, data: Table, run: int | None) -> int:
    runs = len(data.column("time"))
    if (run is None and runs > 1) or (run is not None and not 0 <= run < runs):
        raise UsageError(
            f"{file.name} holds {runs} calibration runs" + ("" if run is None else f", not one numbered {run}"),
            expected=f"run=0 to run={runs - 1}",
            advice="choose one with run=",
        )
    return run or 0


def _adc_axis(file: StixFile, control: Table, packet: int, n_points: int) -> Arrays:
    """ADC channels of the points: the subspectra one after the other, or every channel."""
    points, summed, lowest = (
        control.column(f"subspec_{part}")[packet].astype(np.int64)
        for part in ("num_points", "num_summed_channel", "lowest_channel")
    )
    used = np.flatnonzero(control.column("subspectrum_mask")[packet])
    if points[used].sum() == n_points:
        number = np.repeat(used, points[used])
        low = np.concatenate([lowest[n] + np.arange(points[n]) * summed[n] for n in used.tolist()])
        return {"adc_start": low, "adc_stop": low + summed[number], "subspectrum": number}
    if n_points == _N_ADC:
        low = np.arange(n_points)
        return {"adc_start": low, "adc_stop": low + 1, "subspectrum": np.zeros(n_points)}
    raise InputFileError(
        f"{file.name} holds {n_points} points, its subspectra {int(points[used].sum())}",
        expected=f"as many, or {_N_ADC}",
        advice="fetch the file again, or report it with its name",
    )
