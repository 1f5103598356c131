"""From which signal to noise of the visibilities a map shows its flare: real flares, from before to after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stixflow.ephemeris import read_ancillary
from stixflow.fits import read_level1
from stixflow.imaging.flare import image_flare
from stixflow.imaging.source import MODULATED_SNR

FLARES = {
    "2020-06-07": ("flare_20200607", "solo_L1*213709*", "*1178082832*", "*ephemeris*", (6.0, 10.0)),
    "2022-11-09": ("flares_202211", "*/*_2211091049-*", "*/*_2211098157-*", "*/*ephemeris_20221109*", (4.0, 10.0)),
    "2022-11-11": ("flares_202211", "*/*_2211116471-*", "*/*_2211098157-*", "*/*ephemeris_20221111*", (4.0, 10.0)),
}


@pytest.mark.parametrize("day", FLARES)
def test_maps_above_the_limit_show_the_flare_and_those_below_do_not(shared: Path, day: str) -> None:
    folder, *patterns, band = FLARES[day]
    signal, quiet, place = (next((shared / "data" / folder).glob(pattern)) for pattern in patterns)
    pixels = read_level1(signal)
    found = image_flare(
        pixels, [band], cadence=float(pixels["timedel"].sum()) / 12, background=read_level1(quiet),
        ephemeris=read_ancillary(place), size=65, pixel=4.0,
    ).source  # fmt: skip
    snr = found.visibility_snr
    main = {source.image: source for source in found.sources[0] if source.number == 0}
    shown = [i for i in range(len(snr)) if snr[i] >= MODULATED_SNR]
    assert len(shown) >= 5
    assert set(shown) <= set(main)
    apart = [np.hypot(main[i].x - found.location.x, main[i].y - found.location.y) for i in shown]
    # On 2022-11-11 the first brightening lies 112 arcsec from the flare.
    assert sum(distance > 30 for distance in apart) == (day == "2022-11-11")
    hidden = [i for i in range(len(snr)) if snr[i] < MODULATED_SNR]
    assert sum(i in main for i in hidden) <= len(hidden) / 2
