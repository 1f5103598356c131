from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stixflow.errors import ImagingError
from stixflow.fits import read_level1
from stixflow.imaging import Gaussian, flare_intervals, visibilities
from stixflow.imaging.readout import readout_of
from stixflow.instrument import SumCase

Maker = Callable[..., xr.Dataset]
SOURCES = [Gaussian(10.0, -12.0, 5.0, 15.0), Gaussian(4.0, 14.0, -9.0, 12.0)]
LOCATION = (300.0, -450.0)
RANGE = "2022-11-09T00:00:10/2022-11-09T00:00:40"


def _summed(pixels: xr.Dataset, case: SumCase = SumCase.ALL, order: tuple[int, ...] = (3, 2, 1, 0)) -> xr.Dataset:
    """The same data as columns that were summed on board, sent from D to A as the instrument does."""
    columns = case.pixels[:, list(order)]
    counts = pixels["counts"].to_numpy()[..., columns].sum(axis=-2, dtype=np.uint32)
    masks = np.broadcast_to(np.bitwise_or.reduce(1 << columns, axis=0), (pixels.sizes["time"], 4))
    return pixels.drop_vars(["counts", "pixel"]).assign(
        counts=(("time", "energy", "detector", "pixel"), counts), pixel_set=(("time", "pixel"), masks.astype(np.uint16))
    )


@pytest.mark.parametrize(("case", "rows"), [(SumCase.ALL, "all"), (SumCase.TOP_BOTTOM, "top+bottom")])
@pytest.mark.parametrize("elut", [None, "linear", "power_law"])
def test_columns_summed_on_board_give_the_same_visibilities(
    make_pixels: Maker, case: SumCase, rows: str, elut: str | None
) -> None:
    pixels = make_pixels(SOURCES, location=LOCATION, scale=1e3, background=3.0)
    background = make_pixels(background=3.0, n_times=30)
    single = visibilities(pixels, RANGE, [(6, 10), (4, 15)], background, location=LOCATION, rows=rows, elut=elut)  # type: ignore[arg-type]
    largest = float(np.abs(single["visibility"]).max())
    for quiet in (background, _summed(background, case)):
        found = visibilities(_summed(pixels, case), RANGE, [(6, 10), (4, 15)], quiet, location=LOCATION, elut=elut)  # type: ignore[arg-type]
        assert found.attrs["rows"] == rows
        np.testing.assert_allclose(found["visibility"], single["visibility"], atol=(1e-3 if elut else 1e-12) * largest)
        np.testing.assert_allclose(found["counts"], single["counts"])
        np.testing.assert_allclose(found["background_counts"], single["background_counts"])


def test_sums_are_counted_in_intervals_too(make_pixels: Maker) -> None:
    pixels = make_pixels(SOURCES, scale=10.0)
    single = flare_intervals(pixels, (6, 10), counts=2000, rows="all").intervals
    assert flare_intervals(_summed(pixels), (6, 10), counts=2000).intervals == single


def test_other_sums_cannot_be_imaged(make_pixels: Maker) -> None:
    pixels = _summed(make_pixels(SOURCES))
    pixels["pixel_set"][:, 0] = 0x008
    with pytest.raises(ImagingError, match="not the four columns"):
        visibilities(pixels, RANGE, (6, 10))
    changing = _summed(make_pixels(SOURCES))
    changing["pixel_set"][3:] = changing["pixel_set"].to_numpy()[3:, ::-1]
    with pytest.raises(ImagingError, match="not the four columns"):
        visibilities(changing, RANGE, (6, 10))
    with pytest.raises(ImagingError, match="background was summed on board"):
        visibilities(make_pixels(SOURCES), RANGE, (6, 10), _summed(make_pixels(background=1.0)))


def test_a_real_request_of_sums_is_read(shared: Path) -> None:
    pixels = read_level1(next((shared / "data/l1").glob("*xray-scpd*")))
    found = readout_of(pixels, SumCase.TOP)
    assert (found.case, found.positions, found.is_summed) == (SumCase.ALL, (3, 2, 1, 0), True)
    found_vis = visibilities(pixels, (pixels["time"].values[0], pixels["time"].values[-1]), (4, 10))
    assert np.isfinite(found_vis["visibility"]).all()
