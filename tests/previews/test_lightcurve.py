"""What the light-curve figure shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.dates import num2date

from stixflow.previews import figure_png, lightcurve_figure, pixel_lightcurve


def test_bands_flares_and_the_attenuator_are_shown(lightcurve: xr.Dataset, flares: pd.DataFrame) -> None:
    axes = lightcurve_figure(lightcurve, flares, title="A day").axes[0]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["4–10 keV", "10–15 keV", "15–25 keV", "25–50 keV", "50–84 keV", "attenuator in"]
    assert [text.get_text() for text in axes.texts] == ["C2 01:30", "01:37"]
    assert len(axes.patches) == 2
    assert axes.get_yscale() == "log"
    assert axes.get_title(loc="left") == "A day"


def test_lines_show_rates_and_break_at_gaps(lightcurve: xr.Dataset) -> None:
    axes = lightcurve_figure(lightcurve).axes[0]
    counted = axes.lines[0]
    times, rates = counted.get_data()
    assert np.isnan(rates).sum() == 1
    assert len(rates) == lightcurve.sizes["time"] + 1
    np.testing.assert_allclose(rates[np.isfinite(rates)], lightcurve["counts"][:, 0] / 4)
    hole = (
        pd.Timestamp(np.asarray(times)[np.isnan(rates)][0])
        if np.asarray(times).dtype.kind == "M"
        else num2date(np.asarray(times)[np.isnan(rates)][0])
    )
    assert f"{hole:%H:%M}" == "01:20"


def test_only_the_brightest_are_named(lightcurve: xr.Dataset) -> None:
    peaks = pd.date_range("2022-03-01T01:01", periods=30, freq="1min")
    many = pd.DataFrame({"start": peaks, "peak": peaks, "stop": peaks, "peak_counts": np.arange(30)})
    axes = lightcurve_figure(lightcurve, many).axes[0]
    assert len(axes.patches) == 30
    assert sorted(text.get_text() for text in axes.texts) == [f"01:{minute}" for minute in range(17, 31)]


def test_names_do_not_lie_over_each_other(lightcurve: xr.Dataset) -> None:
    """Of two flares within 1.5 % of the curve, 36 s, only the brighter is named."""
    peaks = pd.to_datetime(["2022-03-01T01:10:00", "2022-03-01T01:10:30", "2022-03-01T01:11:10"])
    close = pd.DataFrame({"start": peaks, "peak": peaks, "stop": peaks, "peak_counts": [10, 30, 20]})
    close["goes_class"] = ["A1", "A3", "A2"]
    axes = lightcurve_figure(lightcurve, close).axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["A2 01:11", "A3 01:10"]


@pytest.mark.parametrize("bins", [0, 1, 2])
def test_a_nearly_empty_curve_can_be_drawn(bins: int, lightcurve: xr.Dataset, flares: pd.DataFrame) -> None:
    figure = lightcurve_figure(lightcurve.isel(time=slice(bins)), flares.head(0), theme="dark")
    assert figure_png(figure).startswith(b"\x89PNG")


def test_pixel_data_give_a_curve_of_the_same_bands(real_inputs: dict[str, xr.Dataset]) -> None:
    pixels = real_inputs["pixels"]
    curve = pixel_lightcurve(pixels)
    assert curve["energy_low"].values.tolist()[:2] == [4.0, 10.0]
    low, high = pixels["energy_low"].to_numpy(), pixels["energy_high"].to_numpy()
    chosen = (low >= 4) & (high <= 10)
    assert curve["counts"][:, 0].values.tolist() == pixels["counts"][:, chosen].sum(axis=(1, 2, 3)).values.tolist()
    axes = lightcurve_figure(curve).axes[0]
    assert axes.get_legend().get_texts()[0].get_text() == "4–10 keV"
    assert not np.isnan(axes.lines[0].get_ydata()).any()
    lost = pixels.copy()
    lost["observed"] = lost["observed"].copy()
    lost["observed"][3, np.flatnonzero(chosen)[0]] = False
    counts = pixel_lightcurve(lost)["counts"]
    assert np.isnan(counts[3, 0])
    assert np.isfinite(counts[3, 1])
