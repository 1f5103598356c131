"""From Datasets back to packets: what the instrument would have sent for them.

The inverse of decoding and building: `build(decode(packetise(dataset)))` is `dataset` again, for every Dataset whose
numbers the telemetry can carry (decompressed counts, times on the 0.1 s raster of a request).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.sources import SOURCES
from stixflow.errors import UsageError
from stixflow.simulate.arrange import (
    arrange_aspect,
    arrange_background,
    arrange_calibration,
    arrange_flareflag,
    arrange_housekeeping,
    arrange_spectra,
    arrange_status,
    arrange_variance,
    layout_at,
)
from stixflow.simulate.packing import (
    ALONE,
    HEADER_BYTES,
    MAX_PACKET_BYTES,
    TICKS_PER_STEP,
    Arranged,
    Columns,
    Levels,
    bits_of,
    codes_of,
    edge_masks,
    equal_runs,
    fill_packets,
    header_second,
    popcount,
    segment,
    skm_fields,
    tenths_of,
)
from stixflow.telemetry.compression import split_count_bytes
from stixflow.telemetry.layouts import PRODUCT_TYPES, find_layout, type_name
from stixflow.telemetry.records import Records
from stixflow.telemetry.schemes import layout_scheme
from stixflow.telemetry.structure import Layout, PacketType, Scope

_MAX_QL_SAMPLES = 580
_TC_PACKET_ID = 91
_RAW = 20
_ANY = 1 << 62
_MODULO = 16384


@dataclass(frozen=True, slots=True)
class SequenceCounter:
    """The next sequence count of each APID; counts wrap at 16384."""

    next: Mapping[int, int] = field(default_factory=dict)

    def take(self, apid: int, number: int) -> tuple[NDArray[np.int64], SequenceCounter]:
        """Draw `number` counts for an APID; returns them with the counter that follows."""
        start = self.next.get(apid, 0)
        counts = (start + np.arange(number, dtype=np.int64)) % _MODULO
        return counts, SequenceCounter({**self.next, apid: (start + number) % _MODULO})


def packetise(
    dataset: xr.Dataset, *, counter: SequenceCounter | None = None, quantise: bool = False, tolerance_ticks: int = 0
) -> tuple[Records, SequenceCounter]:
    """Lay a Dataset out as packets; `telemetry.encode` writes them.

    Energies not observed at a time are not sent; the time bins that lack some come back as a box of their own.

    Parameters
    ----------
    dataset
        Of a product that is made from telemetry, but no visibilities.
    counter
        Where the sequence counts go on.
    quantise
        Compress numbers and round times that the telemetry cannot carry as they are, instead of refusing them.
    tolerance_ticks
        How far (1/65536 s) the bins of a request may be off their 0.1 s raster even without `quantise`.

    Raises
    ------
    UsageError
        If something in the Dataset has no place in the packets, or would come back changed.
    """
    product = str(dataset.attrs.get("product"))
    if product not in _ARRANGERS:
        raise UsageError(
            f"a Dataset of product {product!r}", expected=" or ".join(_ARRANGERS), advice="give one of these products"
        )
    arrays = {str(name): variable.values for name, variable in dataset.variables.items()}
    levels, scet, flags = _ARRANGERS[product](arrays, dataset.attrs, quantise, _ANY if quantise else tolerance_ticks)
    kind = _packet_type(product, dataset.attrs)
    layout = find_layout(kind, int(scet[0]) >> 16)
    counts, after = (counter or SequenceCounter()).take(layout.apid, len(scet))
    return Records.from_levels(type_name(kind), levels, scet=scet, sequence_count=counts, sequence_flag=flags), after


def _arrange_light_curve(arrays: Columns, _: Mapping[Any, Any], quantise: bool, __: int) -> Arranged:
    """Light curves: at most 580 samples a packet, a new packet where anything but the numbers changes."""
    low, high = edge_masks(arrays["channel_start"], arrays["channel_stop"])
    units = tenths_of(arrays["timedel"], 1, 65536, "timedel", quantise)
    states = [arrays[name] for name in ("detector_mask", "pixel_mask", "counts_skm", "triggers_skm")]
    n_energies = arrays["counts"].shape[1]
    layout = layout_at("ql_lightcurve", int(arrays["scet"][0]))
    fixed = HEADER_BYTES + layout.scope.min_size + 2 * n_energies
    room = min((MAX_PACKET_BYTES - fixed) // (n_energies + 2), _MAX_QL_SAMPLES)
    starts = equal_runs(arrays["scet"], units * TICKS_PER_STEP, [units, *states], room)
    sizes = np.diff(np.append(starts, len(units)))
    counts = codes_of(arrays["counts"], arrays["counts_skm"], "counts", quantise)
    triggers = codes_of(arrays["triggers"], arrays["triggers_skm"], "triggers", quantise)
    end = arrays["scet"][starts + sizes - 1] + np.rint(units[starts] * TICKS_PER_STEP).astype(np.int64)
    levels = {
        "packet": {
            "scet_coarse": arrays["scet"][starts] >> 16,
            "scet_fine": arrays["scet"][starts] & 0xFFFF,
            "integration_time": units[starts] - 1,
            "detector_mask": arrays["detector_mask"][starts],
            "pixel_mask": arrays["pixel_mask"][starts],
            **skm_fields("counts", arrays["counts_skm"][starts]),
            **skm_fields("triggers", arrays["triggers_skm"][starts]),
            "energy_edge_mask_32": np.full(len(starts), high),
            "energy_edge_mask_0_31": np.full(len(starts), low),
            "num_energies": np.full(len(starts), n_energies),
            "num_triggers": sizes,
            "num_rcr": sizes,
        },
        "num_energies": {"num_samples": np.repeat(sizes, n_energies)},
        "num_samples": {"counts": np.concatenate([part.T.ravel() for part in np.split(counts, starts[1:])])},
        "num_triggers": {"triggers": triggers},
        "num_rcr": {"rcr": arrays["rcr"]},
    }
    return levels, end, np.full(len(starts), ALONE)


def _arrange_pixels(arrays: Columns, attrs: Mapping[Any, Any], quantise: bool, tolerance: int) -> Arranged:
    """Pixel data: a unit is one energy of one time bin; packets are cut between units."""
    _refuse_outside_masks(arrays)
    if attrs.get("ssid") == _RAW:
        return _arrange_raw(arrays, attrs, quantise, tolerance)
    bits = bits_of(arrays["pixel_mask"], 12)
    sets = np.where(bits, 1 << np.arange(12), 0)
    return _arrange_pixel_sets(arrays, attrs, sets, quantise, tolerance)


def _arrange_pixel_sums(arrays: Columns, attrs: Mapping[Any, Any], quantise: bool, tolerance: int) -> Arranged:
    """Pixel sums: as pixel data, the sets as they were sent."""
    return _arrange_pixel_sets(arrays, attrs, arrays["pixel_set"].astype(np.int64), quantise, tolerance)


def _arrange_pixel_sets(
    arrays: Columns, attrs: Mapping[Any, Any], sets: NDArray[np.int64], quantise: bool, tolerance: int
) -> Arranged:
    """Lay counts of `sets` of pixels out, shape (time, pixel); zero where there is none."""
    n_pixels = (sets != 0).sum(axis=1)
    n_numbers = popcount(arrays["detector_mask"], 32) * n_pixels
    header = _request_times(arrays, attrs, quantise, tolerance)
    scope = _substructure(header.layout)
    bins, energies = _pixel_units(arrays["observed"])
    sizes = np.where(energies < 0, 0, scope.repeats[1].scope.min_size + n_numbers[bins])
    heads = (scope.min_size + scope.repeats[0].scope.min_size * n_pixels)[bins]
    room = MAX_PACKET_BYTES - HEADER_BYTES - header.layout.scope.min_size
    packet = fill_packets(sizes, heads, bins, room)
    first = np.flatnonzero(np.diff(packet, prepend=-1) | np.diff(bins, prepend=-1))
    when = bins[first]
    trigger_skm = arrays["counts_skm" if triggers_follow_counts(header.layout) else "triggers_skm"]
    counts = codes_of(arrays["counts"], arrays["counts_skm"], "counts", quantise)
    selected = counts[bins, energies][energies >= 0]
    inside = bits_of(arrays["detector_mask"], 32)[:, :, np.newaxis] & (sets != 0)[:, np.newaxis, :]
    groups = bins[energies >= 0]
    channel = energies[energies >= 0]
    sent = sets[when]
    levels: Levels = {
        "packet": header.packet_columns(arrays, attrs, np.bincount(packet[first])),
        "num_substructures": {
            header.time_field: header.steps[when],
            "rcr": arrays["rcr"][when],
            "num_pixel_sets": n_pixels[when],
            "detector_mask": arrays["detector_mask"][when],
            "integration_time": header.durations[when],
            "trigger": codes_of(arrays["triggers"], trigger_skm, "triggers", quantise)[when],
            "num_energy_groups": np.asarray(np.add.reduceat((energies >= 0).astype(np.int64), first)),
        },
        "num_pixel_sets": {"pixel_mask": sent[sent != 0]},
        "num_energy_groups": {
            "e_low": arrays["channel_start"][channel],
            "e_high": arrays["channel_stop"][channel] - 1,
            "num_data": n_numbers[groups],
        },
        "num_data": {"counts": selected[inside[groups]]},
    }
    return levels, *segment(packet[-1] + 1, header.end)


def _arrange_raw(arrays: Columns, attrs: Mapping[Any, Any], quantise: bool, tolerance: int) -> Arranged:
    """Raw pixel data: a unit is one number that is not zero; a time bin without any keeps its triggers."""
    if (arrays["channel_stop"].astype(int) - arrays["channel_start"] != 1).any():
        raise UsageError("raw pixel data in sums of channels", expected="single channels", advice="send it as SSID 21")
    header = _request_times(arrays, attrs, quantise, tolerance)
    empty = np.flatnonzero(~arrays["counts"].any(axis=(1, 2, 3)))
    nothing = np.stack([empty, np.full_like(empty, -1), np.zeros_like(empty), np.zeros_like(empty)], axis=1)
    found = np.concatenate([np.argwhere(arrays["counts"]), nothing])
    bins, energy, detector, pixel = found[np.lexsort(found.T[::-1])].T
    sent = np.flatnonzero(energy >= 0)
    number, data = split_count_bytes(arrays["counts"][bins[sent], energy[sent], detector[sent], pixel[sent]])
    sizes = np.zeros(bins.size, dtype=np.int64)
    sizes[sent] = 2 + number
    heads = np.full(bins.size, _substructure(header.layout).min_size)
    packet = fill_packets(sizes, heads, bins, MAX_PACKET_BYTES - HEADER_BYTES - header.layout.scope.min_size)
    first = np.flatnonzero(np.diff(packet, prepend=-1) | np.diff(bins, prepend=-1))
    when = bins[first]
    levels: Levels = {
        "packet": header.packet_columns(arrays, attrs, np.bincount(packet[first])),
        "num_substructures": {
            header.time_field: header.steps[when],
            "integration_time": header.durations[when],
            **{name: arrays[name][when] for name in ("rcr", "pixel_mask", "detector_mask")},
            "trigger": arrays["triggers"][when],
            "num_samples": np.asarray(np.add.reduceat((energy >= 0).astype(np.int64), first)),
        },
        "num_samples": {
            "pixel_id": pixel[sent],
            "detector_id": detector[sent],
            "energy_id": arrays["channel_start"][energy[sent]],
            "num_count_bytes": number,
        },
        "num_count_bytes": {"count_byte": data},
    }
    return levels, *segment(packet[-1] + 1, header.end)


def _pixel_units(observed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Time bin and energy of each unit in order; a bin without any energy keeps its triggers in a unit of energy -1."""
    bins, energies = np.nonzero(observed)
    empty = np.flatnonzero(~observed.any(axis=1))
    bins, energies = np.append(bins, empty), np.append(energies, np.full(empty.size, -1))
    order = np.lexsort((energies, bins))
    return bins[order], energies[order]


def _arrange_spectrogram(arrays: Columns, attrs: Mapping[Any, Any], quantise: bool, tolerance: int) -> Arranged:
    """Spectrogram: a unit is one time bin; a substructure ends where masks change or a bin does not join the next."""
    header = _request_times(arrays, attrs, quantise, tolerance)
    scope = _substructure(header.layout)
    unit = _energy_unit(arrays)
    n_times, n_energies = arrays["counts"].shape
    joined = header.steps[:-1] + header.durations[:-1] == header.steps[1:]
    changed = np.zeros(n_times, dtype=bool)
    changed[1:] = ~joined
    for name in ("pixel_mask", "detector_mask", "rcr"):
        changed[1:] |= np.diff(arrays[name].astype(np.int64)) != 0
    runs = np.cumsum(changed)
    size = scope.repeats[0].scope.min_size + n_energies
    room = MAX_PACKET_BYTES - HEADER_BYTES - header.layout.scope.min_size
    packet = fill_packets(np.full(n_times, size), np.full(n_times, scope.min_size), runs, room)
    first = np.flatnonzero(np.diff(packet, prepend=-1) | np.diff(runs, prepend=-1))
    samples = np.diff(np.append(first, n_times))
    levels: Levels = {
        "packet": header.packet_columns(arrays, attrs, np.bincount(packet[first])),
        "num_substructures": {
            "pixel_mask": arrays["pixel_mask"][first],
            "detector_mask": arrays["detector_mask"][first],
            "rcr": arrays["rcr"][first],
            "e_low": np.full(len(first), arrays["channel_start"][0]),
            "e_high": np.full(len(first), arrays["channel_stop"][-1] - 1),
            "e_unit_minus_1": np.full(len(first), unit - 1),
            "num_samples": samples,
            "closing_time_offset": header.durations[first + samples - 1],
        },
        "num_samples": {
            header.time_field: header.steps,
            "triggers": codes_of(arrays["triggers"], arrays["triggers_skm"], "triggers", quantise),
            "num_energies": np.full(n_times, n_energies),
        },
        "num_energies": {"counts": codes_of(arrays["counts"], arrays["counts_skm"], "counts", quantise).ravel()},
    }
    return levels, *segment(packet[-1] + 1, header.end)


_ARRANGERS = {
    "ql_lightcurve": _arrange_light_curve,
    "sci_pixels": _arrange_pixels,
    "sci_pixel_sums": _arrange_pixel_sums,
    "sci_spectrogram": _arrange_spectrogram,
    "ql_background": arrange_background,
    "ql_spectra": arrange_spectra,
    "ql_variance": arrange_variance,
    "ql_flareflag": arrange_flareflag,
    "cal_spectrum": arrange_calibration,
    "aspect": arrange_aspect,
    "tm_status": arrange_status,
    "hk_mini": arrange_housekeeping,
    "hk_maxi": arrange_housekeeping,
}


def _packet_type(product: str, attrs: Mapping[Any, Any]) -> PacketType:
    """Packets that a Dataset is laid out as: of the types of its product the one of its SSID, else the compressed."""
    types = SOURCES[product]
    return next((one for one in types if one[2] == attrs.get("ssid")), types[-1])


@dataclass(frozen=True, slots=True, eq=False)
class _RequestTimes:
    """Times of a request on its raster: T0, steps of 0.1 s as the packets carry them, durations in 0.1 s."""

    layout: Layout
    time_field: str
    origin: int
    steps: NDArray[np.int64]
    durations: NDArray[np.int64]
    end: int

    def packet_columns(self, arrays: Columns, attrs: Mapping[Any, Any], substructures: NDArray[np.int64]) -> Columns:
        """Columns of the fixed part of every packet of the request."""
        number = len(substructures)
        counts_skm, triggers_skm = (_only(arrays[name], name) for name in ("counts_skm", "triggers_skm"))
        fixed = {
            "tc_packet_id": _TC_PACKET_ID,
            "tc_packet_seq_control": attrs["seq_control"],
            "request_id": attrs["request_id"],
            "time_stamp": self.origin,
        }
        return {
            **{name: np.full(number, int(value), dtype=np.int64) for name, value in fixed.items()},
            **skm_fields("counts", np.full(number, counts_skm)),
            **skm_fields("triggers", np.full(number, triggers_skm)),
            "num_substructures": substructures,
        }


def _request_times(arrays: Columns, attrs: Mapping[Any, Any], quantise: bool, tolerance: int) -> _RequestTimes:
    """Find T0 so that every bin start is a whole number of 0.1 s after it, to the tick."""
    scet = arrays["scet"].astype(np.int64)
    durations = tenths_of(arrays["timedel"], 1, 65535, "timedel", quantise)
    end = int((scet + np.rint(durations * TICKS_PER_STEP).astype(np.int64)).max())
    layout = find_layout(_packet_type(str(attrs["product"]), attrs), header_second(end))
    names = {item.name for _, scope in layout.levels.values() for item in scope.fields}
    time_field = "start_time" if "start_time" in names else "delta_time"
    # A `start_time` of x means 0.1 x + 0.1 s after T0, a `delta_time` 0.1 x s.
    shift = 1 if time_field == "start_time" else 0
    origin, residual = _raster(scet, shift)
    if residual > tolerance:
        raise UsageError(
            f"bin starts up to {residual} ticks (of 1/65536 s) off the 0.1 s raster of a request",
            expected="all bin starts a multiple of 0.1 s after one time",
            advice="round the times, or allow it with quantise=True",
        )
    steps = np.rint((scet - origin) / TICKS_PER_STEP).astype(np.int64) - shift
    limit = 2 ** (24 if shift else 16) - 1
    if steps.max() > limit:
        raise UsageError(
            f"a request of {steps.max() / 10:.1f} s", expected=f"at most {limit / 10} s", advice="split the request"
        )
    return _RequestTimes(layout, time_field, origin, steps, durations, end)


def request_layout(product: str, end: int) -> Layout:
    """Layout of the packets of a request whose data end at an onboard time."""
    return find_layout(PRODUCT_TYPES[product], header_second(end))


def _raster(scet: NDArray[np.int64], shift: int) -> tuple[int, int]:
    """Find the origin whose 0.1 s raster is nearest to all times, and the largest distance in ticks."""
    best = (int(scet.min()), 1 << 62)
    for tenths in range(shift, shift + 5):
        for jitter in (0, -1, 1, -2, 2):
            origin = int(scet.min()) - round(tenths * TICKS_PER_STEP) + jitter
            steps = np.rint((scet - origin) / TICKS_PER_STEP)
            residual = int(np.abs(np.rint(steps * TICKS_PER_STEP) - (scet - origin)).max())
            if residual < best[1] and steps.min() >= shift:
                best = origin, residual
            if residual == 0 and steps.min() >= shift:
                return best
    return best


def _energy_unit(arrays: Columns) -> int:
    """Return the number of channels in each energy bin of a spectrogram."""
    start, stop = arrays["channel_start"].astype(int), arrays["channel_stop"].astype(int)
    widths = stop - start
    if (widths != widths[0]).any() or (start[1:] != stop[:-1]).any():
        raise UsageError(
            f"a spectrogram with energy bins of {sorted(set(widths.tolist()))} channels",
            expected="bins of equal numbers of channels, without gaps",
            advice="sum or split energies",
        )
    return int(widths[0])


def _refuse_outside_masks(arrays: Columns) -> None:
    """Refuse counts where the masks and `observed` say that nothing was sent: they would be lost."""
    total = int(arrays["counts"].sum(dtype=np.int64))
    detectors, pixels = bits_of(arrays["detector_mask"], 32), bits_of(arrays["pixel_mask"], 12)
    inside = np.einsum(
        "tedp,te,td,tp->", arrays["counts"], arrays["observed"], detectors, pixels, dtype=np.int64, casting="unsafe"
    )
    if int(inside) != total:
        raise UsageError(
            f"{total - int(inside)} counts in pixels, detectors or energies that were not sent",
            expected="zero counts outside the masks",
            advice="correct the masks or the counts",
        )


def triggers_follow_counts(layout: Layout) -> bool:
    """Tell whether pixel data compress their triggers with the scheme of the counts, as the older layout does."""
    return layout_scheme(layout, "trigger") == layout_scheme(layout, "counts")


def _substructure(layout: Layout) -> Scope:
    return layout.levels["num_substructures"][1]


def _only(values: NDArray[Any], name: str) -> int:
    found = np.unique(values)
    if len(found) != 1:
        raise UsageError(f"{len(found)} values of {name} in one request", expected="one", advice="split the request")
    return int(found[0])
