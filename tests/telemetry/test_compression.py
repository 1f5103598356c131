from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stixflow.errors import UsageError
from stixflow.telemetry.compression import (
    RAW,
    compress,
    decompress,
    dtype_of,
    error,
    pack_skm,
    unpack_skm,
    unscale_triggers,
    variance,
)

SCHEMES = [(0, 3, 5), (0, 4, 4), (0, 5, 3), (1, 3, 4), (1, 4, 3), (0, 4, 3), (0, 2, 6), RAW]
CODES = np.arange(256, dtype=np.uint8)
schemes = st.sampled_from(SCHEMES)


@pytest.mark.parametrize(
    ("scheme", "largest"), [((0, 3, 5), 4063), ((0, 4, 4), 516095), ((0, 5, 3), 16642998271), (RAW, 255)]
)
def test_largest_value(scheme: tuple[int, int, int], largest: int) -> None:
    assert int(decompress(CODES, scheme)[-1]) == largest


@pytest.mark.parametrize("scheme", SCHEMES)
def test_compress_inverts_every_code(scheme: tuple[int, int, int]) -> None:
    back = compress(decompress(CODES, scheme), scheme)
    negative_zero = (CODES == 128) & (scheme[0] == 1)
    assert np.array_equal(back[~negative_zero], CODES[~negative_zero])


def test_dtype_is_as_wide_as_the_values_need() -> None:
    assert decompress(CODES, (0, 5, 3)).dtype == np.uint64
    assert decompress(CODES[:200], (0, 5, 3)).dtype == np.uint32
    assert decompress(CODES, (0, 4, 4)).dtype == np.uint32
    assert decompress(CODES, (1, 4, 3)).dtype == np.int32
    assert dtype_of((0, 5, 3)) == np.uint64


@given(schemes, arrays(np.uint8, st.integers(0, 9000)))
def test_long_and_short_arrays_give_the_same(scheme: tuple[int, int, int], codes: np.ndarray) -> None:
    whole = decompress(codes, scheme)
    pieces = [decompress(part, scheme) for part in np.array_split(codes, 5)]
    assert np.array_equal(whole, np.concatenate(pieces))


@given(st.sampled_from([(0, 4, 4), (0, 5, 3), (0, 3, 5)]), st.integers(0, 4000))
def test_error_bounds_what_compression_changes(scheme: tuple[int, int, int], value: int) -> None:
    found = int(decompress(compress(np.array([value]), scheme), scheme)[0])
    lost = max(value.bit_length() - scheme[2] - 1, 0)
    assert abs(found - value) <= 2**lost // 2
    expected = 0.0 if lost == 0 else (4.0**lost + 2) / 12
    assert variance(found, scheme) == pytest.approx(expected)


@given(schemes, st.integers(1, 255))
def test_values_rise_with_the_code(scheme: tuple[int, int, int], code: int) -> None:
    values = decompress(CODES, scheme).astype(np.int64)
    if scheme[0] == 0 or code < 128:
        assert values[code] > values[code - 1]


def test_error_of_many_schemes_at_once() -> None:
    values = np.array([[271, 271], [271, 5]])
    found = error(values, pack_skm(0, np.array([[5], [4]]), np.array([[3], [4]])))
    assert found.dtype == np.float32
    assert found == pytest.approx(
        np.sqrt([[(4**5 + 2) / 12, (4**5 + 2) / 12], [(4**4 + 2) / 12, 0]]).astype(np.float32)
    )


@given(st.integers(0, 1), st.integers(0, 7), st.integers(0, 7))
def test_packed_scheme_comes_back(s: int, k: int, m: int) -> None:
    packed = pack_skm(s, k, m)
    assert int(packed) == s << 8 | k << 4 | m
    assert tuple(int(part) for part in unpack_skm(packed)) == (s, k, m)


@pytest.mark.parametrize(("value", "scheme"), [(-1, (0, 4, 4)), (10**6, (0, 4, 4)), (256, RAW), (4096, (0, 3, 5))])
def test_value_without_code_is_refused(value: int, scheme: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match=str(value)):
        compress(np.array([value]), scheme)


def test_impossible_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="scheme"):
        decompress(CODES, (2, 0, 0))


@given(st.integers(0, 200000), st.integers(1, 600), st.integers(1, 16))
def test_scaled_triggers_come_back_within_half_a_step(triggers: int, tenths: int, accumulators: int) -> None:
    step = 30 * tenths * accumulators
    value, spread = unscale_triggers(triggers // step, tenths, accumulators)
    assert abs(value - triggers) <= step / 2
    assert spread == (step / 2) ** 2
