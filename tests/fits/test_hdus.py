from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from stixflow.fits.hdus import card, image_hdu

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=68).map(str.rstrip)
VALUES = st.one_of(
    st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False), TEXT,
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(np.float32).map(float),
)  # fmt: skip


@given(value=VALUES)
def test_a_card_is_that_of_astropy(value: Any) -> None:
    assert card("KEYWORD", value) == fits.Card("KEYWORD", value).image
    if len(str(fits.Card("KEYWORD", value)).rstrip()) < 60:
        assert card("KEYWORD", value, "a comment") == fits.Card("KEYWORD", value, "a comment").image


def test_a_long_text_goes_on_in_further_cards() -> None:
    text = "pixels of a request " * 8
    header = fits.Header.fromstring(card("FLNM_SCI", text, "where from"))
    assert header["FLNM_SCI"] == text.rstrip()


def _file(parts: list[bytes]) -> fits.HDUList:
    file = fits.open(BytesIO(b"".join(parts)), checksum=True, memmap=False)
    file.verify("exception")
    return file


@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from([(3, 5), (2, 1, 4, 7), (129, 129)]))
def test_checksums_hold_and_arrays_come_back(seed: int, shape: tuple[int, ...]) -> None:
    data = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    cards = {"EXTNAME": "STIX MAP", "SEED": (seed, "of the noise")}
    parts = [image_hdu(data, cards, ["a line", "b" * 100], is_primary=True, last=False)]
    parts.append(image_hdu(data[0], cards, is_primary=False, last=True))
    with _file(parts) as file:
        np.testing.assert_array_equal(file[0].data, data)
        np.testing.assert_array_equal(file[1].data, data[0])
        assert file[0].header["SEED"] == seed
        assert list(file[0].header["HISTORY"]) == ["a line", "b" * 72, "b" * 28]


def test_a_header_is_that_of_astropy_but_for_the_time_of_the_checksum() -> None:
    data, cards = np.ones((4, 6), np.float32), {"EXTNAME": "STIX MAP", "PC1_1": 1.0 / 3.0, "CUNIT1": "arcsec"}
    ours = fits.Header.fromstring(image_hdu(data, cards, is_primary=True, last=True)[:2880])
    theirs = BytesIO()
    fits.PrimaryHDU(data, fits.Header(cards)).writeto(theirs, checksum=True)
    reference = fits.Header.fromstring(theirs.getvalue()[:2880])
    # astropy says that there may be extensions, where none follow
    reference.remove("EXTEND", ignore_missing=True)
    assert [c[:2] for c in ours.cards if c[0] != "CHECKSUM"] == [c[:2] for c in reference.cards if c[0] != "CHECKSUM"]


def test_the_same_map_is_the_same_file() -> None:
    data = np.ones((4, 6), np.float32)
    first, second = (image_hdu(data, {"A": 1.0}, is_primary=True, last=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64])
def test_every_type_of_image(kind: type) -> None:
    data = np.arange(12, dtype=kind).reshape(3, 4)
    with _file([image_hdu(data, {}, is_primary=True, last=True)]) as file:
        np.testing.assert_array_equal(file[0].data, data)
