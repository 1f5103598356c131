"""From Datasets back to packets: what the instrument would have sent for them.

The inverse of decoding and building: `build(decode(packetise(dataset)))` is `dataset` again, for every Dataset whose
numbers the telemetry can carry (decompressed counts, times on the 0.1 s raster of a request).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.telemetry.compression import SCALED, Scheme, compress, decompress, unpack_skm
from stixflow.telemetry.decode import Records, layout_scheme
from stixflow.telemetry.layouts import PRODUCT_TYPES, Layout, Scope, find_layout
from stixflow.time import TICKS_PER_SECOND

Columns = dict[str, NDArray[Any]]
Levels = dict[str, Columns]

MAX_PACKET_BYTES = 4112
MAX_QL_SAMPLES = 580
TC_PACKET_ID = 91
_HEADER_BYTES = 16
_ANY = 1 << 62
_MODULO = 16384
_TICKS_PER_STEP = TICKS_PER_SECOND / 10
_MIDDLE, _FIRST, _LAST, _ALONE = range(4)


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
        `ql_lightcurve`, `sci_pixels` or `sci_spectrogram` of the data model.
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
    layout = find_layout(PRODUCT_TYPES[product], int(scet[0]) >> 16)
    counts, after = (counter or SequenceCounter()).take(layout.apid, len(scet))
    return Records.from_levels(product, levels, scet=scet, sequence_count=counts, sequence_flag=flags), after


def _arrange_light_curve(arrays: Columns, _: Mapping[Any, Any], quantise: bool, __: int) -> tuple[Levels, Any, Any]:
    """Light curves: at most 580 samples a packet, a new packet where anything but the numbers changes."""
    low, high = _edge_masks(arrays["channel_start"], arrays["channel_stop"])
    units = _tenths(arrays["timedel"], 1, 65536, "timedel", quantise)
    states = [arrays[name] for name in ("detector_mask", "pixel_mask", "counts_skm", "triggers_skm")]
    n_energies = arrays["counts"].shape[1]
    layout = find_layout(PRODUCT_TYPES["ql_lightcurve"], int(arrays["scet"][0]) >> 16)
    fixed = _HEADER_BYTES + layout.scope.min_size + 2 * n_energies
    room = min((MAX_PACKET_BYTES - fixed) // (n_energies + 2), MAX_QL_SAMPLES)
    starts = _equal_runs(arrays["scet"], units * _TICKS_PER_STEP, [units, *states], room)
    sizes = np.diff(np.append(starts, len(units)))
    counts = _codes(arrays["counts"], arrays["counts_skm"], "counts", quantise)
    triggers = _codes(arrays["triggers"], arrays["triggers_skm"], "triggers", quantise)
    end = arrays["scet"][starts + sizes - 1] + np.rint(units[starts] * _TICKS_PER_STEP).astype(np.int64)
    levels = {
        "packet": {
            "scet_coarse": arrays["scet"][starts] >> 16,
            "scet_fine": arrays["scet"][starts] & 0xFFFF,
            "integration_time": units[starts] - 1,
            "detector_mask": arrays["detector_mask"][starts],
            "pixel_mask": arrays["pixel_mask"][starts],
            **_skm_fields("counts", arrays["counts_skm"][starts]),
            **_skm_fields("triggers", arrays["triggers_skm"][starts]),
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
    return levels, end, np.full(len(starts), _ALONE)


def _arrange_pixels(
    arrays: Columns, attrs: Mapping[Any, Any], quantise: bool, tolerance: int
) -> tuple[Levels, Any, Any]:
    """Pixel data: a unit is one energy of one time bin; packets are cut between units."""
    _refuse_outside_masks(arrays)
    n_pixels = _popcount(arrays["pixel_mask"], 12)
    n_numbers = _popcount(arrays["detector_mask"], 32) * n_pixels
    header = _request_times(arrays, quantise, tolerance)
    scope = _substructure(header.layout)
    bins, energies = _pixel_units(arrays["observed"])
    sizes = np.where(energies < 0, 0, scope.repeats[1].scope.min_size + n_numbers[bins])
    heads = (scope.min_size + scope.repeats[0].scope.min_size * n_pixels)[bins]
    room = MAX_PACKET_BYTES - _HEADER_BYTES - header.layout.scope.min_size
    packet = _fill(sizes, heads, bins, room)
    first = np.flatnonzero(np.diff(packet, prepend=-1) | np.diff(bins, prepend=-1))
    when = bins[first]
    trigger_skm = arrays["counts_skm" if triggers_follow_counts(header.layout) else "triggers_skm"]
    counts = _codes(arrays["counts"], arrays["counts_skm"], "counts", quantise)
    selected = counts[bins, energies][energies >= 0]
    inside = _bits(arrays["detector_mask"], 32)[:, :, np.newaxis] & _bits(arrays["pixel_mask"], 12)[:, np.newaxis, :]
    groups = bins[energies >= 0]
    channel = energies[energies >= 0]
    pixel_sets = _bits(arrays["pixel_mask"], 12)[when]
    levels: Levels = {
        "packet": header.packet_columns(arrays, attrs, np.bincount(packet[first])),
        "num_substructures": {
            header.time_field: header.steps[when],
            "rcr": arrays["rcr"][when],
            "num_pixel_sets": n_pixels[when],
            "detector_mask": arrays["detector_mask"][when],
            "integration_time": header.durations[when],
            "trigger": _codes(arrays["triggers"], trigger_skm, "triggers", quantise)[when],
            "num_energy_groups": np.asarray(np.add.reduceat((energies >= 0).astype(np.int64), first)),
        },
        "num_pixel_sets": {"pixel_mask": 1 << np.nonzero(pixel_sets)[1]},
        "num_energy_groups": {
            "e_low": arrays["channel_start"][channel],
            "e_high": arrays["channel_stop"][channel] - 1,
            "num_data": n_numbers[groups],
        },
        "num_data": {"counts": selected[inside[groups]]},
    }
    return levels, *_segment(packet[-1] + 1, header.end)


def _pixel_units(observed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Time bin and energy of each unit in order; a bin without any energy keeps its triggers in a unit of energy -1."""
    bins, energies = np.nonzero(observed)
    empty = np.flatnonzero(~observed.any(axis=1))
    bins, energies = np.append(bins, empty), np.append(energies, np.full(empty.size, -1))
    order = np.lexsort((energies, bins))
    return bins[order], energies[order]


def _arrange_spectrogram(
    arrays: Columns, attrs: Mapping[Any, Any], quantise: bool, tolerance: int
) -> tuple[Levels, Any, Any]:
    """Spectrogram: a unit is one time bin; a substructure ends where masks change or a bin does not join the next."""
    header = _request_times(arrays, quantise, tolerance)
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
    room = MAX_PACKET_BYTES - _HEADER_BYTES - header.layout.scope.min_size
    packet = _fill(np.full(n_times, size), np.full(n_times, scope.min_size), runs, room)
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
            "triggers": _codes(arrays["triggers"], arrays["triggers_skm"], "triggers", quantise),
            "num_energies": np.full(n_times, n_energies),
        },
        "num_energies": {"counts": _codes(arrays["counts"], arrays["counts_skm"], "counts", quantise).ravel()},
    }
    return levels, *_segment(packet[-1] + 1, header.end)


_ARRANGERS = {
    "ql_lightcurve": _arrange_light_curve,
    "sci_pixels": _arrange_pixels,
    "sci_spectrogram": _arrange_spectrogram,
}


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
            "tc_packet_id": TC_PACKET_ID,
            "tc_packet_seq_control": attrs["seq_control"],
            "request_id": attrs["request_id"],
            "time_stamp": self.origin,
        }
        return {
            **{name: np.full(number, int(value), dtype=np.int64) for name, value in fixed.items()},
            **_skm_fields("counts", np.full(number, counts_skm)),
            **_skm_fields("triggers", np.full(number, triggers_skm)),
            "num_substructures": substructures,
        }


def _request_times(arrays: Columns, quantise: bool, tolerance: int) -> _RequestTimes:
    """Find T0 so that every bin start is a whole number of 0.1 s after it, to the tick."""
    scet = arrays["scet"].astype(np.int64)
    durations = _tenths(arrays["timedel"], 1, 65535, "timedel", quantise)
    end = int((scet + np.rint(durations * _TICKS_PER_STEP).astype(np.int64)).max())
    layout = request_layout("sci_pixels" if arrays["counts"].ndim == 4 else "sci_spectrogram", end)
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
    steps = np.rint((scet - origin) / _TICKS_PER_STEP).astype(np.int64) - shift
    limit = 2 ** (24 if shift else 16) - 1
    if steps.max() > limit:
        raise UsageError(
            f"a request of {steps.max() / 10:.1f} s", expected=f"at most {limit / 10} s", advice="split the request"
        )
    return _RequestTimes(layout, time_field, origin, steps, durations, end)


def request_layout(product: str, end: int) -> Layout:
    """Layout of the packets of a request whose data end at an onboard time."""
    return find_layout(PRODUCT_TYPES[product], _header_second(end))


def _raster(scet: NDArray[np.int64], shift: int) -> tuple[int, int]:
    """Find the origin whose 0.1 s raster is nearest to all times, and the largest distance in ticks."""
    best = (int(scet.min()), 1 << 62)
    for tenths in range(shift, shift + 5):
        for jitter in (0, -1, 1, -2, 2):
            origin = int(scet.min()) - round(tenths * _TICKS_PER_STEP) + jitter
            steps = np.rint((scet - origin) / _TICKS_PER_STEP)
            residual = int(np.abs(np.rint(steps * _TICKS_PER_STEP) - (scet - origin)).max())
            if residual < best[1] and steps.min() >= shift:
                best = origin, residual
            if residual == 0 and steps.min() >= shift:
                return best
    return best


def _header_second(end: int) -> int:
    return (end >> 16) + 1


def _segment(number: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Header times after the end of the data, rising inside one second, and sequence flags of `number` packets."""
    step = max(TICKS_PER_SECOND // max(number, 2), 1)
    scet = (_header_second(end) << 16) + step * np.arange(number, dtype=np.int64)
    flags = np.full(number, _MIDDLE)
    flags[0], flags[-1] = _FIRST, _LAST
    return scet, flags if number > 1 else np.array([_ALONE])


def _fill(
    sizes: NDArray[np.int64], heads: NDArray[np.int64], owners: NDArray[np.int64], room: int
) -> NDArray[np.int64]:
    """Give each unit its packet: units in order, as many as fit, a head for every owner in every packet.

    Raises
    ------
    UsageError
        If a unit with its head is larger than a packet.
    """
    if (sizes + heads).max(initial=0) > room:
        raise UsageError(f"a piece of {int((sizes + heads).max())} bytes", expected=f"at most {room} bytes in a packet")
    packets = np.empty(len(sizes), dtype=np.int64)
    used, packet, last = 0, 0, -1
    for index, (size, head, owner) in enumerate(zip(sizes.tolist(), heads.tolist(), owners.tolist(), strict=True)):
        needed = size if owner == last else size + head
        if used + needed > room:
            packet, used, needed = packet + 1, 0, size + head
        used, last = used + needed, owner
        packets[index] = packet
    return packets


def _equal_runs(
    scet: NDArray[np.int64], spacing: NDArray[np.floating[Any]], states: Sequence[NDArray[Any]], longest: int
) -> NDArray[np.int64]:
    """Cut samples into runs of constant state whose times are start + round(j * spacing); returns their starts."""
    changes = np.zeros(len(scet), dtype=bool)
    for state in states:
        changes[1:] |= state[1:] != state[:-1]
    next_change = np.append(np.flatnonzero(changes), len(scet))
    starts = [0]
    while True:
        start = starts[-1]
        stop = min(start + longest, int(next_change[np.searchsorted(next_change, start, side="right")]))
        expected = scet[start] + np.rint(np.arange(stop - start) * spacing[start]).astype(np.int64)
        wrong = np.flatnonzero(scet[start:stop] != expected)
        stop = start + int(wrong[0]) if wrong.size else stop
        if stop >= len(scet):
            return np.array(starts, dtype=np.int64)
        starts.append(stop)


def _codes(values: NDArray[Any], skm: NDArray[Any], name: str, quantise: bool) -> NDArray[np.uint8]:
    """Compress with the scheme of each time bin.

    Raises
    ------
    UsageError
        If a number would come back changed and `quantise` is off, or the scheme is one that scales.
    """
    codes = np.empty(values.shape, dtype=np.uint8)
    for packed in np.unique(skm):
        rows = slice(None) if (skm == packed).all() else np.flatnonzero(skm == packed)
        s, k, m = (int(part) for part in unpack_skm(packed))
        codes[rows] = _compressed(values[rows], (s, k, m), name, quantise)
    return codes


def _compressed(values: NDArray[Any], scheme: Scheme, name: str, quantise: bool) -> NDArray[np.uint8]:
    if scheme == SCALED:
        raise UsageError(f"{name} scaled on board (0,0,7)", expected="compressed numbers", advice="use scheme (0,5,3)")
    codes: NDArray[np.uint8] = compress(values, scheme)
    if not quantise:
        changed = decompress(codes, scheme) != values
        if changed.any():
            raise UsageError(
                f"{int(changed.sum())} of {values.size} {name} have no code in scheme {scheme}, first "
                f"{values[changed].flat[0]}",
                expected="decompressed numbers",
                advice="compress them on the way with quantise=True",
            )
    return codes


def _tenths(seconds: NDArray[np.float64], low: int, high: int, name: str, quantise: bool) -> NDArray[np.int64]:
    """Seconds as a whole number of 0.1 s."""
    exact = seconds * 10.0
    tenths = np.rint(exact).astype(np.int64)
    if (np.abs(exact - tenths) > 1e-3).any() and not quantise:
        raise UsageError(
            f"{name} of {seconds[np.abs(exact - tenths) > 1e-3][0]} s",
            expected="multiples of 0.1 s",
            advice="round them on the way with quantise=True",
        )
    if tenths.min() < low or tenths.max() > high:
        raise UsageError(
            f"{name} from {seconds.min()} to {seconds.max()} s",
            expected=f"{low / 10} to {high / 10} s",
            advice="split or join bins",
        )
    return tenths


def _edge_masks(start: NDArray[np.uint8], stop: NDArray[np.uint8]) -> tuple[int, int]:
    """Edges of the energy bins as bits 0 to 31, and bit 32."""
    if (start[1:] != stop[:-1]).any():
        raise UsageError("light curves with a gap between energy bins", expected="each bin to begin where one ends")
    edges = [int(edge) for edge in (*start, stop[-1])]
    return sum(1 << edge for edge in edges if edge < 32), int(32 in edges)


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
    detectors, pixels = _bits(arrays["detector_mask"], 32), _bits(arrays["pixel_mask"], 12)
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


def _skm_fields(prefix: str, skm: NDArray[Any]) -> Columns:
    return {f"{prefix}_{letter}": part for letter, part in zip("skm", unpack_skm(skm), strict=True)}


def _only(values: NDArray[Any], name: str) -> int:
    found = np.unique(values)
    if len(found) != 1:
        raise UsageError(f"{len(found)} values of {name} in one request", expected="one", advice="split the request")
    return int(found[0])


def _bits(masks: NDArray[Any], width: int) -> NDArray[np.bool_]:
    return np.asarray((masks.astype(np.int64)[:, np.newaxis] >> np.arange(width)) & 1, dtype=bool)


def _popcount(masks: NDArray[Any], width: int) -> NDArray[np.int64]:
    return np.asarray(_bits(masks, width).sum(axis=1), dtype=np.int64)
