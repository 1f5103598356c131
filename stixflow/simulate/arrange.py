"""How the products of a day and calibration runs lie in packets; the inverse of `stixflow.cubes.build`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.housekeeping import HOUSEKEEPING
from stixflow.cubes.sources import SOURCES
from stixflow.errors import UsageError
from stixflow.simulate.packing import (
    ALONE,
    HEADER_BYTES,
    MAX_PACKET_BYTES,
    TICKS_PER_STEP,
    Arranged,
    Columns,
    Levels,
    codes_of,
    edge_masks,
    equal_runs,
    fill_packets,
    segment,
    skm_fields,
    tenths_of,
)
from stixflow.telemetry.layouts import find_layout
from stixflow.telemetry.structure import Layout
from stixflow.time import TICKS_PER_SECOND

_MAX_TENTHS = 65536
_MAX_INTEGRATIONS = 255
_N_SUBSPECTRA = 8
_NOT_TOLD = 255
_DIODES = ("cha_diode0", "cha_diode1", "chb_diode0", "chb_diode1")
_FLARE_FIELDS = {
    "start_scet_coarse": "flare_start_scet",
    "end_scet_coarse": "flare_stop_scet",
    **{name: name for name in ("highest_flare_flag", "tm_byte_volume", "average_z", "average_y", "processing_status")},
}


def layout_at(product: str, scet: int) -> Layout:
    """Layout of the packets of a product of one type at an onboard time."""
    return find_layout(SOURCES[product][0], scet >> 16)


def arrange_background(arrays: Columns, _: Mapping[Any, Any], quantise: bool, __: int) -> Arranged:
    """Background monitor (SSID 31)."""
    n_energies = arrays["counts"].shape[1]
    low, high = edge_masks(arrays["channel_start"], arrays["channel_stop"])
    skm = [arrays["counts_skm"], arrays["triggers_skm"]]
    fixed = layout_at("ql_background", int(arrays["scet"][0])).scope.min_size + 2 * n_energies
    runs = _Runs(arrays, skm, fixed, n_energies + 1, quantise)
    counts = codes_of(arrays["counts"], arrays["counts_skm"], "counts", quantise)
    levels: Levels = {
        "packet": {
            **runs.head(),
            **skm_fields("counts", arrays["counts_skm"][runs.starts]),
            **skm_fields("triggers", arrays["triggers_skm"][runs.starts]),
            "energy_edge_mask_32": np.full(len(runs.starts), high),
            "energy_edge_mask_0_31": np.full(len(runs.starts), low),
            "num_energies": np.full(len(runs.starts), n_energies),
            "num_triggers": runs.sizes,
        },
        "num_energies": {"num_samples": np.repeat(runs.sizes, n_energies)},
        "num_samples": {"counts": np.concatenate([part.T.ravel() for part in np.split(counts, runs.starts[1:])])},
        "num_triggers": {"triggers": codes_of(arrays["triggers"], arrays["triggers_skm"], "triggers", quantise)},
    }
    return runs.arranged(levels)


def arrange_variance(arrays: Columns, _: Mapping[Any, Any], quantise: bool, __: int) -> Arranged:
    """Variance (SSID 33)."""
    same = ("samples_per_variance", "detector_mask", "pixel_mask")
    states = [arrays[name] for name in (*same, "channel_mask", "variance_skm")]
    runs = _Runs(arrays, states, layout_at("ql_variance", int(arrays["scet"][0])).scope.min_size, 1, quantise)
    levels: Levels = {
        "packet": {
            **runs.head(),
            **{name: arrays[name][runs.starts] for name in same},
            "energy_mask": _reversed_bits(arrays["channel_mask"][runs.starts]),
            **skm_fields("variance", arrays["variance_skm"][runs.starts]),
            "num_samples": runs.sizes,
        },
        "num_samples": {"variance": codes_of(arrays["variance"], arrays["variance_skm"], "variance", quantise)},
    }
    return runs.arranged(levels)


def _reversed_bits(masks: NDArray[Any]) -> NDArray[np.int64]:
    bits = masks.astype(np.int64)[:, np.newaxis] >> np.arange(32) & 1
    return np.asarray(bits @ (1 << np.arange(31, -1, -1, dtype=np.int64)))


def arrange_flareflag(arrays: Columns, _: Mapping[Any, Any], quantise: bool, __: int) -> Arranged:
    """Flare flag and location (SSID 34).

    Raises
    ------
    UsageError
        If software that has no such flag should tell whether a flare is in progress.
    """
    layout = layout_at("ql_flareflag", int(arrays["scet"][0]))
    told = arrays["flare_in_progress"] != _NOT_TOLD
    samples = {
        "location_z": arrays["loc_z"],
        "location_y": arrays["loc_y"],
        **{name: arrays[name] for name in ("location_status", "non_thermal_index", "thermal_index")},
    }
    if any(field.name == "flare_in_progress" for field in layout.levels["num_samples"][1].fields):
        samples["flare_in_progress"] = np.where(told, arrays["flare_in_progress"], 0)
    elif told.any():
        raise UsageError("flare_in_progress before its software", expected="255, not told")
    runs = _Runs(arrays, [], layout.scope.min_size, 3, quantise)
    return runs.arranged({"packet": {**runs.head(), "num_samples": runs.sizes}, "num_samples": samples})


def arrange_aspect(arrays: Columns, _: Mapping[Any, Any], __: bool, ___: int) -> Arranged:
    """Aspect (SSID 42)."""
    layout = layout_at("aspect", int(arrays["scet"][0]))
    states = [arrays["averaging_value"], arrays["summing_value"]]
    room = (MAX_PACKET_BYTES - HEADER_BYTES - layout.scope.min_size) // 8
    starts = equal_runs(arrays["scet"], arrays["timedel"] * TICKS_PER_SECOND, states, room)
    sizes = np.diff(np.append(starts, len(arrays["scet"])))
    packet = {
        "scet_coarse": arrays["scet"][starts] >> 16,
        "scet_fine": arrays["scet"][starts] & 0xFFFF,
        "summing_value": arrays["summing_value"][starts],
        "num_samples": sizes,
    }
    if any(field.name == "averaging_value" for field in layout.scope.fields):
        packet["averaging_value"] = arrays["averaging_value"][starts]
    last = starts + sizes - 1
    end = arrays["scet"][last] + np.rint(arrays["timedel"][last] * TICKS_PER_SECOND).astype(np.int64)
    return {"packet": packet, "num_samples": {name: arrays[name] for name in _DIODES}}, end, _alone(starts)


def arrange_spectra(arrays: Columns, _: Mapping[Any, Any], quantise: bool, tolerance: int) -> Arranged:
    """Spectra of the detectors (SSID 32): those of a sweep are as many integrations after the first of the packet."""
    sweep, detector = np.nonzero(arrays["observed"])
    units = tenths_of(arrays["timedel"], 1, _MAX_TENTHS, "timedel", quantise)
    layout = layout_at("ql_spectra", int(arrays["scet"][0]))
    room = (MAX_PACKET_BYTES - HEADER_BYTES - layout.scope.min_size) // 35
    first, number = _sweep_packets(arrays, units, sweep, room, tolerance)
    starts = np.flatnonzero(np.diff(first, prepend=-1) != 0)
    head = sweep[starts]
    counts = np.moveaxis(codes_of(arrays["counts"], arrays["counts_skm"], "counts", quantise), 1, 2)
    triggers = codes_of(arrays["triggers"], arrays["triggers_skm"], "triggers", quantise)
    levels: Levels = {
        "packet": {
            "scet_coarse": arrays["scet"][head] >> 16,
            "scet_fine": arrays["scet"][head] & 0xFFFF,
            "integration_time": units[head] - 1,
            **skm_fields("counts", arrays["counts_skm"][head]),
            **skm_fields("triggers", arrays["triggers_skm"][head]),
            "pixel_mask": arrays["pixel_mask"][head],
            "num_samples": np.diff(np.append(starts, sweep.size)),
        },
        "num_samples": {
            "detector_id": detector,
            "counts_e": counts[sweep, detector],
            "triggers": triggers[sweep, detector],
            "num_integrations": number,
        },
    }
    last = sweep[np.append(starts[1:], sweep.size) - 1]
    end = arrays["scet"][last] + np.rint(units[last] * TICKS_PER_STEP).astype(np.int64)
    return levels, end, _alone(starts)


def _sweep_packets(
    arrays: Columns, units: NDArray[np.int64], sweep: NDArray[np.intp], room: int, tolerance: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First sample of the packet of each sample, and how many integrations after it the sample is."""
    first, number = np.empty(sweep.size, dtype=np.int64), np.empty(sweep.size, dtype=np.int64)
    states = np.stack(
        [units, *(arrays[name].astype(np.int64) for name in ("counts_skm", "triggers_skm", "pixel_mask"))]
    )
    at = 0
    for sample, row in enumerate(sweep.tolist()):
        ticks = int(arrays["scet"][row] - arrays["scet"][sweep[at]])
        step = units[sweep[at]] * TICKS_PER_STEP
        later = round(ticks / step)
        joins = later <= _MAX_INTEGRATIONS and abs(round(later * step) - ticks) <= tolerance
        if sample - at >= room or not joins or (states[:, row] != states[:, sweep[at]]).any():
            at, later = sample, 0
        first[sample], number[sample] = at, later
    return first, number


def arrange_status(arrays: Columns, _: Mapping[Any, Any], __: bool, ___: int) -> Arranged:
    """Memory status and flare list (SSID 43)."""
    number = arrays["num_flares"].astype(np.int64)
    used = np.arange(arrays["highest_flare_flag"].shape[1]) < number[:, np.newaxis]
    flares = {
        field: arrays[name][used] >> (16 if name.endswith("scet") else 0) for field, name in _FLARE_FIELDS.items()
    }
    packet = {"ubsd_counter": arrays["ubsd_counter"], "pald_counter": arrays["pald_counter"], "num_flares": number}
    return {"packet": packet, "num_flares": flares}, arrays["scet"], _alone(number)


def arrange_housekeeping(arrays: Columns, attrs: Mapping[Any, Any], _: bool, __: int) -> Arranged:
    """Housekeeping, from the raw numbers; the engineering values follow from them."""
    parameters = HOUSEKEEPING[str(attrs["product"])]
    packet = {one.name: arrays[f"{one.name}_raw" if one.is_calibrated else one.name] for one in parameters}
    return {"packet": packet}, arrays["scet"], _alone(arrays["scet"])


def arrange_calibration(arrays: Columns, _: Mapping[Any, Any], quantise: bool, __: int) -> Arranged:
    """Calibration run (SSID 41): as many spectra in a packet as fit."""
    subspectrum, first, points = np.unique(arrays["subspectrum"], return_index=True, return_counts=True)
    received = np.argwhere(arrays["observed"][first].transpose(1, 2, 0))
    detector, pixel, chosen = received.T
    layout = layout_at("cal_spectrum", int(arrays["scet"][0]))
    scope = layout.levels["num_structures"][1]
    sizes = scope.min_size + points[chosen]
    room = MAX_PACKET_BYTES - HEADER_BYTES - layout.scope.min_size
    packet = fill_packets(sizes, np.zeros_like(sizes), np.zeros_like(sizes), room)
    number = np.bincount(packet)
    fixed = {
        "scet_coarse": arrays["scet"] >> 16,
        "duration": np.rint(arrays["timedel"]),
        "quiet_time": arrays["quiet_time_raw"],
        "live_time": arrays["live_time_raw"],
        "average_temperature": arrays["average_temperature_raw"],
        **skm_fields("counts", arrays["counts_skm"]),
        **{name: arrays[name] for name in ("detector_mask", "pixel_mask")},
        "subspec_mask": arrays["subspectrum_mask"],
        **_subspectra(arrays, subspectrum, first, points),
    }
    if any(field.name == "bit_reduction" for field in layout.scope.fields):
        fixed["bit_reduction"] = arrays["bit_reduction"]
    flat = np.broadcast_to(arrays["counts_skm"], arrays["counts"].shape[:1])
    codes = codes_of(arrays["counts"], flat, "counts", quantise).transpose(1, 2, 0)
    spans = zip(detector, pixel, first[chosen], first[chosen] + points[chosen], strict=True)
    head = {name: np.repeat(value.astype(np.int64), number.size) for name, value in fixed.items()}
    structures = {
        "detector_id": detector,
        "pixel_id": pixel,
        "subspec_id": subspectrum[chosen],
        "num_points": points[chosen],
    }
    levels: Levels = {
        "packet": {**head, "num_structures": number},
        "num_structures": structures,
        "num_points": {"counts": np.concatenate([codes[d, p, start:stop] for d, p, start, stop in spans])},
    }
    end = int(arrays["scet"][0]) + round(float(arrays["timedel"][0]) * TICKS_PER_SECOND)
    return levels, *segment(number.size, end)


def _subspectra(
    arrays: Columns, subspectrum: NDArray[Any], first: NDArray[np.intp], points: NDArray[np.intp]
) -> Columns:
    """Columns with the layout of the eight subspectra; those not in use are zero."""
    columns: Columns = {}
    width = arrays["adc_stop"][first].astype(np.int64) - arrays["adc_start"][first]
    for number in range(_N_SUBSPECTRA):
        at = np.flatnonzero(subspectrum == number)
        values = (points[at] - 1, width[at] - 1, arrays["adc_start"][first[at]].astype(np.int64))
        parts = ("num_points_minus_1", "num_summed_minus_1", "lowest_channel")
        for part, value in zip(parts, values, strict=True):
            columns[f"subspec{number + 1}_{part}"] = value if at.size else np.zeros(1, dtype=np.int64)
    return columns


class _Runs:
    """Quick-look samples cut into packets: a new one where a state changes, or a sample does not join."""

    def __init__(
        self, arrays: Columns, states: Sequence[NDArray[Any]], fixed: int, sample_bytes: int, quantise: bool
    ) -> None:
        self.scet = arrays["scet"]
        self.units = tenths_of(arrays["timedel"], 1, _MAX_TENTHS, "timedel", quantise)
        room = (MAX_PACKET_BYTES - HEADER_BYTES - fixed) // sample_bytes
        self.starts = equal_runs(self.scet, self.units * TICKS_PER_STEP, [self.units, *states], room)
        self.sizes = np.diff(np.append(self.starts, len(self.units)))

    def head(self) -> Columns:
        """Columns of the packets that say when the samples were."""
        return {
            "scet_coarse": self.scet[self.starts] >> 16,
            "scet_fine": self.scet[self.starts] & 0xFFFF,
            "integration_time": self.units[self.starts] - 1,
        }

    def arranged(self, levels: Levels) -> Arranged:
        """Add header times, at the end of the data, and flags."""
        last = self.starts + self.sizes - 1
        end = self.scet[last] + np.rint(self.units[last] * TICKS_PER_STEP).astype(np.int64)
        return levels, end, _alone(self.starts)


def _alone(packets: NDArray[Any]) -> NDArray[np.int64]:
    return np.full(len(packets), ALONE)


__all__ = [
    "arrange_aspect",
    "arrange_background",
    "arrange_calibration",
    "arrange_flareflag",
    "arrange_housekeeping",
    "arrange_spectra",
    "arrange_status",
    "arrange_variance",
    "layout_at",
]
