"""The data model: which variables a product has, and how they are laid out in a store.

Dimension order is always ``time, energy, detector, pixel``; intervals are half-open; ``time`` is the bin centre in UTC
and the onboard clock is kept beside it, so that a better clock kernel can redo UTC without the packets.

History of `DATA_MODEL_VERSION` (a new number whenever a reader of the old one would go wrong):

1. first model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from stixflow.cubes.housekeeping import HOUSEKEEPING, Parameter

DATA_MODEL_VERSION = 1

N_DETECTORS = 32
N_PIXELS = 12
N_CHANNELS = 32
N_ACCUMULATORS = 16
N_PIXEL_SETS = 5
"""Sets of pixels whose sums make a visibility: all, and two for each part."""
N_FLARE_SLOTS = 255
"""Flares that one status packet can list."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a product: its dimensions, the types it may have, and what its numbers mean."""

    dims: tuple[str, ...]
    dtypes: tuple[str, ...]
    units: str
    long_name: str


@dataclass(frozen=True, slots=True)
class Layout:
    """How arrays are cut and packed in a store.

    `chunks` is what one read fetches, `shard_time` what one object holds at most. An array of up to `whole_bytes` is
    one chunk whatever they say: cutting it would cost more requests than it saves bytes. `level` is that of zstd. Only
    how fast a store is and how large depends on these, never what is read from it.
    """

    chunks: Mapping[str, int]
    shard_time: int | None = None
    whole_bytes: int = 1 << 20
    level: int = 3


@dataclass(frozen=True, slots=True)
class Product:
    """One product: what a partition of it is, its variables, and its layout."""

    name: str
    partition: Literal["day", "request", "run"]
    variables: Mapping[str, Variable]
    layout: Layout
    fixed_sizes: Mapping[str, int] = field(default_factory=dict)
    """Dimensions that have the same size in every partition."""


_TIME = {
    "time": Variable(("time",), ("datetime64[ns]",), "", "bin centre, UTC"),
    "time_start": Variable(("time",), ("datetime64[ns]",), "", "bin start, UTC"),
    "timedel": Variable(("time",), ("float64",), "s", "bin duration"),
    "scet": Variable(("time",), ("int64",), "s / 65536", "bin start on the onboard clock, coarse << 16 | fine"),
}
_ENERGY = {
    "energy": Variable(("energy",), ("float64",), "keV", "bin centre; for the overflow bin its lower edge"),
    "energy_low": Variable(("energy",), ("float64",), "keV", "nominal lower edge"),
    "energy_high": Variable(("energy",), ("float64",), "keV", "nominal upper edge, infinite for the overflow bin"),
    "channel_start": Variable(("energy",), ("uint8",), "1", "first science channel summed into the bin"),
    "channel_stop": Variable(("energy",), ("uint8",), "1", "science channel after the last one summed into the bin"),
}
_STATE = {
    "rcr": Variable(("time",), ("uint8",), "1", "rate control regime, 0 = attenuator out"),
    "detector_mask": Variable(("time",), ("uint32",), "1", "detectors summed or sent, bit i = detector index i"),
    "pixel_mask": Variable(("time",), ("uint16",), "1", "pixels summed or sent, bit i = pixel index i"),
    "counts_skm": Variable(("time",), ("uint16",), "1", "compression of the counts, s << 8 | k << 4 | m"),
    "triggers_skm": Variable(("time",), ("uint16",), "1", "compression of the triggers, s << 8 | k << 4 | m"),
}
_COUNTS = ("uint32", "uint64")
_COUNTS_NAME = "decompressed counts"
_SUMMED_TRIGGERS = Variable(("time",), _COUNTS, "1", "triggers summed over the accumulators of active detectors")

_SPECTROGRAM = {
    **_TIME,
    **_ENERGY,
    "counts": Variable(("time", "energy"), _COUNTS, "1", _COUNTS_NAME),
    "triggers": _SUMMED_TRIGGERS,
    **_STATE,
}
_PIXELS = {
    **_TIME,
    **_ENERGY,
    "detector": Variable(("detector",), ("uint8",), "1", "detector index, detector number - 1"),
    "pixel": Variable(("pixel",), ("uint8",), "1", "pixel index: 0-3 large top, 4-7 large bottom, 8-11 small"),
    "counts": Variable(("time", "energy", "detector", "pixel"), _COUNTS, "1", _COUNTS_NAME),
    "observed": Variable(("time", "energy"), ("bool",), "1", "whether the energy bin was received at that time"),
    "triggers": Variable(("time", "accumulator"), _COUNTS, "1", "triggers of each accumulator"),
    **_STATE,
}
_PIXEL_SUMS = {
    name: replace(variable, long_name="index of a set of pixels, in the order sent") if name == "pixel" else variable
    for name, variable in _PIXELS.items()
} | {"pixel_set": Variable(("time", "pixel"), ("uint16",), "1", "pixels summed in each set, bit i = pixel index i")}
_VISIBILITIES = {
    **_TIME,
    **_ENERGY,
    "detector": _PIXELS["detector"],
    "visibility": Variable(
        ("time", "energy", "detector"),
        ("complex128",),
        "1",
        "counts of pixel set 2 - set 3 + i (set 4 - set 5); NaN where not received",
    ),
    "flux": Variable(("time", "energy"), _COUNTS, "1", "counts of pixel set 1 summed over the detectors"),
    "observed": _PIXELS["observed"],
    "triggers": _PIXELS["triggers"],
    **_STATE,
    "pixel_set": Variable(("time", "pixel_set"), ("uint16",), "1", "pixels of each set, bit i = pixel index i"),
}
_BACKGROUND = {
    **_TIME,
    **_ENERGY,
    "counts": Variable(("time", "energy"), _COUNTS, "1", "decompressed counts of the background monitor"),
    "triggers": Variable(("time",), _COUNTS, "1", "triggers of the accumulator of the background monitor"),
    "counts_skm": _STATE["counts_skm"],
    "triggers_skm": _STATE["triggers_skm"],
}
_SPECTRA = {
    **_TIME,
    **_ENERGY,
    "detector": _PIXELS["detector"],
    "counts": Variable(("time", "energy", "detector"), _COUNTS, "1", _COUNTS_NAME),
    "observed": Variable(("time", "detector"), ("bool",), "1", "whether the detector was received in that sweep"),
    "triggers": Variable(("time", "detector"), _COUNTS, "1", "triggers of the accumulator of each detector"),
    "pixel_mask": _STATE["pixel_mask"],
    "counts_skm": _STATE["counts_skm"],
    "triggers_skm": _STATE["triggers_skm"],
}
_VARIANCE = {
    **_TIME,
    "variance": Variable(("time",), _COUNTS, "1", "variance of the counts of the short samples within the bin"),
    "samples_per_variance": Variable(("time",), ("uint8",), "1", "short samples behind each variance"),
    "detector_mask": _STATE["detector_mask"],
    "pixel_mask": _STATE["pixel_mask"],
    "channel_mask": Variable(("time",), ("uint32",), "1", "science channels summed, bit i = channel i"),
    "variance_skm": Variable(("time",), ("uint16",), "1", "compression of the variance, s << 8 | k << 4 | m"),
}
_FLAREFLAG = {
    **_TIME,
    "loc_y": Variable(("time",), ("int8",), "1", "flare location on board, Y, unit not documented"),
    "loc_z": Variable(("time",), ("int8",), "1", "flare location on board, Z, unit not documented"),
    "location_status": Variable(
        ("time",), ("uint8",), "1", "0 not available, 1 previous location estimate, 2 new location"
    ),
    "thermal_index": Variable(
        ("time",), ("uint8",), "1", "0 no flare, 1 minor B1, 2 small C1, 3 moderate M1, 4 major X1"
    ),
    "non_thermal_index": Variable(("time",), ("uint8",), "1", "non-thermal flux: 0 none, 1 weak, 2 significant"),
    "flare_in_progress": Variable(("time",), ("uint8",), "1", "1 during a flare, 0 not, 255 not told by this software"),
}
_DIODE = "reading of aspect photodiode"
_ASPECT = {
    **_TIME,
    "cha_diode0": Variable(("time",), ("uint16",), "1", f"{_DIODE} A0"),
    "cha_diode1": Variable(("time",), ("uint16",), "1", f"{_DIODE} A1"),
    "chb_diode0": Variable(("time",), ("uint16",), "1", f"{_DIODE} B0"),
    "chb_diode1": Variable(("time",), ("uint16",), "1", f"{_DIODE} B1"),
    "averaging_value": Variable(("time",), ("uint16",), "ms", "averaging value of the packet"),
    "summing_value": Variable(("time",), ("uint8",), "1", "summing value of the packet"),
}
_SAMPLE_TIME = {
    "time": Variable(("time",), ("datetime64[ns]",), "", "time of the packet, UTC"),
    "scet": Variable(
        ("time",), ("int64",), "s / 65536", "time of the packet on the onboard clock, coarse << 16 | fine"
    ),
}
_TM_STATUS = {
    **_SAMPLE_TIME,
    "ubsd_counter": Variable(
        ("time",), ("uint32",), "1", "volume of user-requested data in memory, unit not documented"
    ),
    "pald_counter": Variable(("time",), ("uint32",), "1", "volume of archived data in memory, unit not documented"),
    "num_flares": Variable(("time",), ("uint8",), "1", "flares listed; the slots from there on are empty"),
    "flare_start_scet": Variable(("time", "flare"), ("int64",), "s / 65536", "start of the flare on the onboard clock"),
    "flare_stop_scet": Variable(("time", "flare"), ("int64",), "s / 65536", "end of the flare on the onboard clock"),
    "highest_flare_flag": Variable(("time", "flare"), ("uint8",), "1", "highest flare flag byte during the flare"),
    "tm_byte_volume": Variable(("time", "flare"), ("uint32",), "1", "telemetry volume, unit not documented"),
    "average_y": Variable(("time", "flare"), ("int8",), "1", "mean flare location on board, Y, unit not documented"),
    "average_z": Variable(("time", "flare"), ("int8",), "1", "mean flare location on board, Z, unit not documented"),
    "processing_status": Variable(
        ("time", "flare"),
        ("uint8",),
        "1",
        "bits: 1 BIA, 2 EIA, 4 BSA, 8 ESA, 16 BFP, 32 EFP, 64 FCA, 128 NUS",
    ),
}
_CALIBRATION = {
    **{name: replace(variable, long_name=variable.long_name.replace("bin", "run")) for name, variable in _TIME.items()},
    "adc_start": Variable(("adc",), ("uint16",), "1", "first ADC channel of the point"),
    "adc_stop": Variable(("adc",), ("uint16",), "1", "ADC channel after the last one of the point"),
    "subspectrum": Variable(("adc",), ("uint8",), "1", "subspectrum that the point belongs to, from 0"),
    "detector": _PIXELS["detector"],
    "pixel": _PIXELS["pixel"],
    "counts": Variable(("adc", "detector", "pixel"), _COUNTS, "1", _COUNTS_NAME),
    "observed": Variable(("adc", "detector", "pixel"), ("bool",), "1", "whether the point was received"),
    "live_time": Variable(("time",), ("float64",), "s", "live time; NaN where the correction was not made"),
    "quiet_time": Variable(("time",), ("float64",), "s", "quiet time; NaN where the correction was not made"),
    "average_temperature": Variable(("time",), ("float64",), "degC", "mean temperature during the run"),
    "live_time_raw": Variable(("time",), ("uint32",), "1", "live time as sent"),
    "quiet_time_raw": Variable(("time",), ("uint16",), "1", "quiet time as sent"),
    "average_temperature_raw": Variable(("time",), ("uint16",), "1", "mean temperature as sent"),
    "detector_mask": _STATE["detector_mask"],
    "pixel_mask": _STATE["pixel_mask"],
    "subspectrum_mask": Variable(("time",), ("uint8",), "1", "subspectra in use, bit i = subspectrum i"),
    "bit_reduction": Variable(("time",), ("uint8",), "1", "1 where counts were reduced on board"),
    "counts_skm": _STATE["counts_skm"],
}


def _housekeeping(parameters: tuple[Parameter, ...]) -> dict[str, Variable]:
    """Engineering values under the name of a parameter, its raw number beside it; without a curve the raw number."""
    variables = dict(_SAMPLE_TIME)
    for one in parameters:
        raw = Variable(("time",), (one.dtype,), "1", one.long_name)
        if one.is_calibrated:
            variables[one.name] = Variable(("time",), ("float64",), one.units, one.long_name)
            variables[f"{one.name}_raw"] = replace(raw, long_name=f"{one.long_name}, as sent")
        else:
            variables[one.name] = raw
    return variables


_EPHEMERIS = {
    "time": Variable(("time",), ("datetime64[ns]",), "", "time of the sample, UTC"),
    "scet": Variable(("time",), ("int64",), "s / 65536", "time of the sample on the onboard clock"),
    "roll": Variable(("time",), ("float64",), "deg", "spacecraft roll"),
    "pitch": Variable(("time",), ("float64",), "deg", "spacecraft pitch"),
    "yaw": Variable(("time",), ("float64",), "deg", "spacecraft yaw"),
    "sas_y": Variable(("time",), ("float64",), "arcsec", "aspect solution, Y in the instrument frame (y_srf)"),
    "sas_z": Variable(("time",), ("float64",), "arcsec", "aspect solution, Z in the instrument frame (z_srf)"),
    "sas_ok": Variable(("time",), ("bool",), "1", "whether the aspect solution is valid"),
    "distance": Variable(("time",), ("float64",), "m", "distance of the spacecraft from the centre of the Sun"),
    "hgln": Variable(("time",), ("float64",), "deg", "Stonyhurst longitude of the spacecraft"),
    "hglt": Variable(("time",), ("float64",), "deg", "Stonyhurst latitude of the spacecraft"),
    "rsun": Variable(("time",), ("float64",), "arcsec", "apparent solar radius, asin(R/d)"),
}

# One object a variable for a day of quick look. Pixel cubes: measured in docs/decisions.md, "Chunks of a pixel cube".
_DAY_LAYOUT = Layout(chunks={"time": 21600})
_RUN_LAYOUT = Layout(chunks={"time": 1, "adc": 512})
_PIXEL_LAYOUT = Layout(chunks={"time": 120, "energy": 8}, shard_time=3600)

PRODUCTS: Mapping[str, Product] = MappingProxyType(
    {
        product.name: product
        for product in (
            Product("ql_lightcurve", "day", _SPECTROGRAM, _DAY_LAYOUT),
            Product(
                "sci_pixels",
                "request",
                _PIXELS,
                _PIXEL_LAYOUT,
                {"detector": N_DETECTORS, "pixel": N_PIXELS, "accumulator": N_ACCUMULATORS},
            ),
            Product(
                "sci_pixel_sums",
                "request",
                _PIXEL_SUMS,
                _PIXEL_LAYOUT,
                {"detector": N_DETECTORS, "accumulator": N_ACCUMULATORS},
            ),
            Product(
                "sci_visibilities",
                "request",
                _VISIBILITIES,
                _DAY_LAYOUT,
                {"detector": N_DETECTORS, "accumulator": N_ACCUMULATORS, "pixel_set": N_PIXEL_SETS},
            ),
            Product("sci_spectrogram", "request", _SPECTROGRAM, _DAY_LAYOUT),
            Product("ql_background", "day", _BACKGROUND, _DAY_LAYOUT),
            Product("ql_spectra", "day", _SPECTRA, _DAY_LAYOUT, {"energy": N_CHANNELS, "detector": N_DETECTORS}),
            Product("ql_variance", "day", _VARIANCE, _DAY_LAYOUT),
            Product("ql_flareflag", "day", _FLAREFLAG, _DAY_LAYOUT),
            Product("cal_spectrum", "run", _CALIBRATION, _RUN_LAYOUT, {"detector": N_DETECTORS, "pixel": N_PIXELS}),
            Product("aspect", "day", _ASPECT, _DAY_LAYOUT),
            Product("tm_status", "day", _TM_STATUS, _DAY_LAYOUT, {"flare": N_FLARE_SLOTS}),
            *(
                Product(name, "day", _housekeeping(parameters), _DAY_LAYOUT)
                for name, parameters in HOUSEKEEPING.items()
            ),
            Product("ephemeris", "day", _EPHEMERIS, _DAY_LAYOUT),
        )
    }
)
"""Every product of the archive by name."""

GLOBAL_ATTRS = ("product", "level", "data_model_version")
"""Attributes that every Dataset carries; a request adds `request_id`, `seq_control`, `ssid`, `box` and `boxes`."""
