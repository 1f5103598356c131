"""Which packet types make which product."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stixflow.errors import UsageError
from stixflow.telemetry.layouts import CUBES_OF_TYPES, type_name
from stixflow.telemetry.structure import PacketType

SOURCES: Mapping[str, tuple[PacketType, ...]] = MappingProxyType(
    {
        product: tuple(one for one, made in CUBES_OF_TYPES.items() if made == product)
        for product in dict.fromkeys(CUBES_OF_TYPES.values())
    }
)
"""Packet types (service, subtype, second identifier) of every product that is made from telemetry."""


def product_of(packet_type: PacketType) -> str | None:
    """Name the product that packets of a type become part of; None for types that are kept as they are."""
    return CUBES_OF_TYPES.get(packet_type)


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
