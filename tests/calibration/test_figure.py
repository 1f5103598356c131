"""The figure of a calibration, and the spectra in it."""

import numpy as np
import pytest
import xarray as xr
from example_calibrations import scales

from stixflow.calibration import calibrate
from stixflow.calibration.figure import calibration_figure, fitted_spectrum, sum_spectrum
from stixflow.previews import figure_png
from stixflow.simulate.calibration import simulate_calibration


@pytest.fixture(scope="module")
def run() -> xr.Dataset:
    return simulate_calibration(*scales(6), counts=4000.0, seed=6)


def test_every_panel_shows_something(run: xr.Dataset) -> None:
    figure = calibration_figure(calibrate(run), run)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.split(",")[0] for title in titles if title] == [
        "gain", "offset", "FWHM at 31 keV", "FWHM at 81 keV", "all calibrated pixels on one scale",
        "largest drift up to 84 keV from table 20241114", "drift of the edges: median",
    ]  # fmt: skip
    assert "384 of 384 pixels" in figure.get_suptitle()
    assert figure_png(figure, dpi=40).startswith(b"\x89PNG")


def test_pixels_are_summed_on_their_scale(run: xr.Dataset) -> None:
    found = calibrate(run)
    total, fitted = sum_spectrum(found, run), fitted_spectrum(found)
    grid = np.arange(22.0, 95.0, 0.25)
    inside = (grid[:-1] >= 26) & (grid[:-1] < 43)
    assert total[inside].sum() == pytest.approx(fitted[0][inside].sum(), rel=0.02)
    peak = grid[np.argmax(total)]
    assert 30.5 <= peak <= 31.0
    assert grid[:-1][grid[:-1] > 70][np.argmax(total[grid[:-1] > 70])] == pytest.approx(80.9, abs=0.4)


def test_a_run_without_lines_is_drawn_as_such(run: xr.Dataset) -> None:
    flat = run.assign(counts=(run["counts"].dims, np.full_like(run["counts"].values, 60)))
    figure = calibration_figure(calibrate(flat), flat)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "no pixel could be calibrated" in texts
    assert figure_png(figure, dpi=40)
