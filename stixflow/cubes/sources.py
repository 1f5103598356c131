"""Which packet types make which product."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

from stixflow.errors import UsageError
from stixflow.telemetry.layouts import PacketType, type_name

SOURCES: Mapping[str, tuple[PacketType, ...]] = MappingProxyType(
    {
        "ql_lightcurve": ((21, 6, 30),),
        "ql_background": ((21, 6, 31),),
        "ql_spectra": ((21, 6, 32),),
        "ql_variance": ((21, 6, 33),),
        "ql_flareflag": ((21, 6, 34),),
        "cal_spectrum": ((21, 6, 41),),
        "aspect": ((21, 6, 42),),
        "tm_status": ((21, 6, 43),),
        "sci_pixels": ((21, 6, 20), (21, 6, 21)),
        "sci_pixel_sums": ((21, 6, 22),),
        "sci_visibilities": ((21, 6, 23),),
        "sci_spectrogram": ((21, 6, 24),),
        "hk_mini": ((3, 25, 1),),
        "hk_maxi": ((3, 25, 2),),
    }
)
"""Packet types (service, subtype, second identifier) of every product that is made from telemetry."""


def product_of(packet_type: PacketType) -> str | None:
    """Name the product that packets of a type become part of; None for types that are kept as they are."""
    return _products().get(packet_type)


@functools.cache
def _products() -> dict[PacketType, str]:
    return {one: product for product, types in SOURCES.items() for one in types}


def record_names(*products: str) -> tuple[str, ...]:
    """Names under which `telemetry.decode` gives the records of products; of all products if none is named.

    Raises
    ------
    UsageError
        If a product is not made from telemetry.
    """
    unknown = sorted(set(products) - SOURCES.keys())
    if unknown:
        raise UsageError(f"{', '.join(unknown)} is not made from telemetry", expected=", ".join(SOURCES))
    return tuple(type_name(one) for product in products or SOURCES for one in SOURCES[product])


__all__ = ["SOURCES", "product_of", "record_names"]
