"""By which scheme each packet compressed a field, and the numbers of packets whose schemes differ."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.telemetry.compression import Scheme, decompress, dtype_of, pack_skm, scheme_of, unpack_skm
from stixflow.telemetry.fields import Column
from stixflow.telemetry.layouts import layouts
from stixflow.telemetry.structure import Layout

_MANY_CHANGES = 64


def layout_scheme(layout: Layout, name: str) -> tuple[str, str, str] | None:
    """Names of the fields with s, k, m of a compressed field; None if it is not compressed."""
    return _schemes(layout.index).get(name)


@functools.cache
def _schemes(index: int) -> dict[str, tuple[str, str, str]]:
    scopes = layouts()[index].levels.values()
    return {one.name: one.scheme for _, scope in scopes for one in scope.fields if one.scheme}


def with_sign(packed: NDArray[np.uint16], sign: str) -> NDArray[np.uint16]:
    """Schemes of codes that have a sign bit (visibilities), or none (flux), whatever the packet says."""
    s, k, m = unpack_skm(packed)
    if sign == "always":
        return np.where(packed & 0xFF, pack_skm(1, k, m), packed)
    if sign == "never":
        return pack_skm(0, np.minimum(k + s, 7), m)
    return packed


def is_compressed(index: int, name: str) -> bool:
    """Tell whether the layout of that index has a field compressed."""
    return name in _schemes(index)


def decompress_packets(raw: NDArray[np.uint8], packed: NDArray[np.uint16], bounds: NDArray[np.int64]) -> Column:
    """Decompress codes, each packet's by its own scheme.

    Parameters
    ----------
    raw
        Codes, packet after packet on the first axis.
    packed
        Scheme of each packet, packed as in `compression.pack_skm`.
    bounds
        First row of each packet, and where the last one's rows end, shape (packets + 1,).
    """
    change = np.flatnonzero(np.diff(packed)) + 1
    if change.size > _MANY_CHANGES:
        return _looked_up(raw, packed, np.diff(bounds))
    first = np.concatenate([[0], change]) if packed.size else change
    edges = bounds[np.append(first, packed.size)].tolist()
    schemes = [scheme_of(one) for one in packed[first].tolist()]
    if len(schemes) == 1:
        return decompress(raw, schemes[0])
    return _mixed(raw, schemes, edges)


def _mixed(raw: NDArray[np.uint8], schemes: Sequence[Scheme], edges: Sequence[int]) -> Column:
    """Decompress stretches of packets, each by its own scheme."""
    out = np.empty(raw.shape, dtype=_mixed_dtype(raw, set(schemes)))
    for scheme, start, stop in zip(schemes, edges[:-1], edges[1:], strict=True):
        out[start:stop] = decompress(raw[start:stop], scheme)
    return out


def _looked_up(raw: NDArray[np.uint8], packed: NDArray[np.uint16], rows: NDArray[np.int64]) -> Column:
    """Decompress packets whose schemes change all the time, all in one table; `rows` of each packet."""
    found, position = np.unique(packed, return_inverse=True)
    schemes = [scheme_of(one) for one in found.tolist()]
    dtype = _mixed_dtype(raw, schemes)
    codes = np.arange(256, dtype=np.uint8)
    with np.errstate(over="ignore"):
        table = np.concatenate([decompress(codes, scheme).astype(dtype) for scheme in schemes])
    base = np.repeat(position * 256, rows)
    return np.asarray(table[base.reshape(-1, *[1] * (raw.ndim - 1)) + raw])


def _mixed_dtype(raw: NDArray[np.uint8], schemes: Collection[Scheme]) -> np.dtype[Any]:
    highest = int(raw.max(initial=0))
    return np.result_type(*{dtype_of(scheme, highest) for scheme in schemes})
