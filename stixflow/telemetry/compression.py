"""Integer compression on board: one byte per number, s sign bits, k exponent bits, m mantissa bits.

Flight-software scheme as in the STIX data compression note: values below ``2**(m + 1)`` are exact, larger ones
lose their low bits and are reported as the lower middle of what they may have been. Scheme (0,0,0) is no
compression; (0,0,7), seen on triggers from late 2023 on, is linear scaling (`unscale_triggers`).
"""

from __future__ import annotations

import functools
import sys
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import UsageError
from stixflow.telemetry.runs import starts_of

Scheme: TypeAlias = tuple[int, int, int]

RAW: Scheme = (0, 0, 0)
SCALED: Scheme = (0, 0, 7)
DEFAULT_SCALE = 30

_CHUNK = 1 << 16
_PAIRS_FROM = 1 << 12


def pack_skm(s: ArrayLike, k: ArrayLike, m: ArrayLike) -> NDArray[np.uint16]:
    """Pack a scheme into one number, ``s << 8 | k << 4 | m``."""
    parts = [np.asarray(part, dtype=np.uint16) for part in (s, k, m)]
    return np.asarray(parts[0] << 8 | parts[1] << 4 | parts[2], dtype=np.uint16)


def unpack_skm(skm: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Inverse of `pack_skm`."""
    packed = np.asarray(skm, dtype=np.uint16)
    s, k, m = packed >> 8, packed >> 4 & 0xF, packed & 0xF
    return s.astype(np.uint8), k.astype(np.uint8), m.astype(np.uint8)


def scheme_of(packed: int) -> Scheme:
    """Scheme of one packed number, as `unpack_skm`."""
    s, k, m = unpack_skm(packed)
    return int(s), int(k), int(m)


def _is_raw(scheme: Scheme) -> bool:
    """Tell whether numbers of this scheme are stored as they are: not compressed, or scaled linearly."""
    return scheme in (RAW, SCALED)


def _check(scheme: Scheme) -> Scheme:
    s, k, m = (int(part) for part in scheme)
    if not (0 <= s <= 1 and 0 <= k <= 7 and 0 <= m <= 7):
        raise UsageError(
            f"compression scheme {scheme}", expected="s 0-1, k 0-7, m 0-7", advice="check the order s, k, m"
        )
    return s, k, m


@functools.cache
def dtype_of(scheme: Scheme, highest_code: int = 255) -> np.dtype[Any]:
    """Smallest of uint32, uint64, int32, int64 that holds the values of codes up to `highest_code`."""
    table = _table(_check(scheme))
    signed = scheme[0] == 1
    small, large = (np.int32, np.int64) if signed else (np.uint32, np.uint64)
    largest = table.max() if signed else table[highest_code]
    return np.dtype(small if largest <= np.iinfo(small).max else large)


@functools.cache
def _table(scheme: Scheme) -> NDArray[np.int64]:
    """Value of each of the 256 codes; values that no 63 bits hold (k = 6, 7) are cut to the largest that fits."""
    s, _, m = scheme
    codes = np.arange(256, dtype=np.int64)
    if _is_raw(scheme):
        return codes
    magnitude = codes & 0x7F if s else codes
    values = [_value(int(code), m) for code in magnitude]
    table = np.array([min(value, np.iinfo(np.int64).max) for value in values], dtype=np.int64)
    return np.where((codes >= 128) & (s == 1), -table, table)


def _value(code: int, m: int) -> int:
    if code < 2 << m:
        return code
    lost = (code >> m) - 1
    return ((1 << m) + (code & ((1 << m) - 1)) << lost) + (1 << lost - 1) - 1


def decompress(codes: NDArray[np.uint8], scheme: Scheme) -> NDArray[Any]:
    """Values of compressed numbers.

    Parameters
    ----------
    codes
        Bytes as they were sent, any shape.
    scheme
        s, k, m.

    Returns
    -------
    Same shape; uint32, or uint64 where a value exceeds it; signed for s = 1.
    """
    scheme = _check(scheme)
    flat = np.ascontiguousarray(codes, dtype=np.uint8).reshape(-1)
    dtype = dtype_of(scheme, int(flat.max(initial=0)))
    out = np.empty(flat.size, dtype=dtype)
    if dtype.itemsize == 4 and flat.size > _PAIRS_FROM:
        _decompress_pairs(flat, _pairs(scheme, dtype), out)
        out[-1] = _typed_table(scheme, dtype)[flat[-1]]
    else:
        np.take(_typed_table(scheme, dtype), flat, out=out, mode="clip")
    return out.reshape(np.shape(codes))


def _decompress_pairs(codes: NDArray[np.uint8], pairs: NDArray[np.uint64], out: NDArray[Any]) -> None:
    """Look up two codes at once, in pieces that stay in the cache; leaves out the last of an odd number."""
    even = codes.size & ~1
    wide, target = codes[:even].view(np.uint16), out[:even].view(np.uint64)
    for start in range(0, wide.size, _CHUNK):
        piece = slice(start, start + _CHUNK)
        np.take(pairs, wide[piece], out=target[piece], mode="clip")


@functools.cache
def _typed_table(scheme: Scheme, dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return _table(scheme).astype(dtype)


@functools.cache
def _pairs(scheme: Scheme, dtype: np.dtype[Any]) -> NDArray[np.uint64]:
    table = _typed_table(scheme, dtype).view(np.uint32)
    both = np.empty((256, 256, 2), dtype=np.uint32)
    first, second = (0, 1) if sys.byteorder == "little" else (1, 0)
    both[..., first], both[..., second] = table[None, :], table[:, None]
    return both.reshape(-1, 2).view(np.uint64)[:, 0].copy()


def compress(values: ArrayLike, scheme: Scheme) -> NDArray[np.uint8]:
    """Codes of numbers, as the instrument makes them: the exact inverse of `decompress` on its values.

    Raises
    ------
    UsageError
        If a value has no code: negative without sign bit, or too large for the scheme.
    """
    s, k, m = scheme = _check(scheme)
    number = np.asarray(values)
    largest, smallest = int(number.max(initial=0)), int(number.min(initial=0))
    limit = _limit(scheme)
    if largest > limit or smallest < (-limit if s else 0):
        raise UsageError(
            f"values from {smallest} to {largest}",
            expected=f"{-limit if s else 0} to {limit} in scheme ({s},{k},{m})",
            advice="choose a scheme with more exponent bits",
        )
    magnitude = np.abs(number.astype(np.int64)) if s else number.astype(np.uint64).astype(np.int64)
    if _is_raw(scheme):
        return magnitude.astype(np.uint8)
    lost = np.maximum(_bit_length(magnitude) - (m + 1), 0)
    code = (lost + 1 << m) + (magnitude >> lost & ((1 << m) - 1))
    code = np.where(magnitude < 2 << m, magnitude, code)
    return np.asarray(np.where(number < 0, code | 0x80, code), dtype=np.uint8)


def _limit(scheme: Scheme) -> int:
    """Largest number that has a code."""
    s, _, m = scheme
    top = 127 if s else 255
    if _is_raw(scheme) or top < 2 << m:
        return top
    lost = (top >> m) - 1
    return int(min(((1 << m) + (top & ((1 << m) - 1)) + 1 << lost) - 1, np.iinfo(np.int64).max))


def _bit_length(values: NDArray[np.int64]) -> NDArray[np.int64]:
    length = np.zeros(values.shape, dtype=np.int64)
    rest = values.copy()
    for step in (32, 16, 8, 4, 2, 1):
        large = rest >= 1 << step
        length += np.where(large, step, 0)
        rest = np.where(large, rest >> step, rest)
    return length + (rest > 0)


def variance(values: ArrayLike, scheme: Scheme) -> NDArray[np.float64]:
    """Variance that compression added to decompressed `values`: ``(2**(2e) + 2) / 12`` for e lost bits, else 0."""
    _, _, m = scheme = _check(scheme)
    magnitude = np.abs(np.asarray(values).astype(np.int64))
    if _is_raw(scheme):
        return np.zeros(magnitude.shape)
    lost = np.maximum(_bit_length(magnitude) - (m + 1), 0)
    return np.asarray(np.where(lost > 0, (np.exp2(2.0 * lost) + 2.0) / 12.0, 0.0))


def packed_variance(values: ArrayLike, skm: ArrayLike) -> NDArray[np.float64]:
    """Variance that compression added, where the scheme changes.

    Parameters
    ----------
    values
        Decompressed numbers, any shape.
    skm
        Packed schemes (`pack_skm`) along the first axes of `values`.
    """
    value, packed = np.asarray(values), np.asarray(skm)
    result = np.zeros(value.shape)
    for one in np.unique(packed).tolist():
        rows = packed == one
        result[rows] = variance(value[rows], scheme_of(one))
    return result


def error(values: ArrayLike, skm: ArrayLike) -> NDArray[np.float32]:
    """Compression error (one sigma) of decompressed `values`, as the `*_comp_err` columns of the public files.

    Parameters
    ----------
    values
        Decompressed numbers, any shape.
    skm
        Packed schemes (`pack_skm`), broadcast against `values`.
    """
    value, packed = np.broadcast_arrays(np.asarray(values), np.asarray(skm, dtype=np.uint16))
    return np.asarray(np.sqrt(packed_variance(value, packed)), dtype=np.float32)


def join_count_bytes(number: NDArray[Any], data: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Counts of raw pixel data (SSID 20): no byte says one count, otherwise the bytes are the number.

    Parameters
    ----------
    number
        Bytes of each sample, 0 to 3.
    data
        The bytes of all samples.
    """
    size = np.asarray(number, dtype=np.int64)
    first = starts_of(size)
    counts = np.where(size == 0, 1, 0).astype(np.uint32)
    for byte in range(int(size.max(initial=0))):
        rows = np.flatnonzero(size > byte)
        counts[rows] = counts[rows] << 8 | data[first[rows] + byte]
    return counts


def split_count_bytes(counts: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bytes of counts as raw pixel data (SSID 20) send them, as few as possible: how many for each, and the bytes.

    Raises
    ------
    UsageError
        If a count needs more than two bytes, which no packet was ever seen to have.
    """
    values = np.asarray(counts, dtype=np.int64)
    if values.size and not 0 <= values.min() <= values.max() < 1 << 16:
        raise UsageError(f"counts from {values.min()} to {values.max()}", expected="0 to 65535 in raw pixel data")
    number = np.where(values == 1, 0, np.where(values < 256, 1, 2)).astype(np.uint8)
    pairs = np.stack([values >> 8, values & 0xFF], axis=1).astype(np.uint8)
    return number, pairs[np.stack([number == 2, number > 0], axis=1)]


def unscale_triggers(
    codes: ArrayLike, duration: ArrayLike, accumulators: ArrayLike, *, factor: float = DEFAULT_SCALE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate triggers that were scaled on board, scheme (0,0,7): value and variance.

    Parameters
    ----------
    codes
        Numbers as sent.
    duration
        Integration time in units of 0.1 s.
    accumulators
        Number of trigger accumulators summed into each number.
    factor
        Scale factor of the request (30 unless its request table says otherwise).
    """
    step = factor * np.asarray(duration, dtype=np.float64) * np.asarray(accumulators, dtype=np.float64)
    return (np.asarray(codes, dtype=np.float64) + 0.5) * step, np.asarray((0.5 * step) ** 2)
