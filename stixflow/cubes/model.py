"""The data model: which variables a product has, and how they are laid out in a store.

Dimension order is always ``time, energy, detector, pixel``; intervals are half-open; ``time`` is the bin centre in UTC
and the onboard clock is kept beside it, so that a better clock kernel can redo UTC without the packets.

History of `DATA_MODEL_VERSION` (a new number whenever a reader of the old one would go wrong):

1. first model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

DATA_MODEL_VERSION = 1

N_DETECTORS = 32
N_PIXELS = 12
N_ACCUMULATORS = 16


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a product: its dimensions, the types it may have, and what its numbers mean."""

    dims: tuple[str, ...]
    dtypes: tuple[str, ...]
    units: str
    long_name: str


@dataclass(frozen=True, slots=True)
class Layout:
    """How arrays are cut in a store: `chunks` is what one read fetches, `shard_time` what one object holds at most."""

    chunks: Mapping[str, int]
    shard_time: int | None = None


@dataclass(frozen=True, slots=True)
class Product:
    """One product: what a partition of it is, its variables, and its layout."""

    name: str
    partition: Literal["day", "request"]
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
            Product("sci_spectrogram", "request", _SPECTROGRAM, _DAY_LAYOUT),
            Product("ephemeris", "day", _EPHEMERIS, _DAY_LAYOUT),
        )
    }
)
"""Every product of the archive by name."""

GLOBAL_ATTRS = ("product", "level", "data_model_version")
"""Attributes that every Dataset carries; a request adds `request_id`, `seq_control`, `ssid`, `box` and `boxes`."""
