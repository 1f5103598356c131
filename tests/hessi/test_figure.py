"""The count-rate plot."""

import numpy as np
import pytest

from stixflow.errors import NotFound, UsageError
from stixflow.hessi import ObservingSummary, find_flares, make_summary, rate_figure


def test_what_the_plot_shows(tmp_path):
    rates = np.full((900, 9), 2.0)
    rates[400:450, 1:3] += 100.0
    summary = make_summary(1017878400.0, rates, flags={"Eclipse": np.arange(900) < 100})
    flares = find_flares(summary)
    figure = rate_figure(summary, [(6, 100), (100, 1000)], flares)
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["6-100 keV", "100-1000 keV", "night"]
    assert axes.lines[0].get_ydata().max() == pytest.approx(2 * 104 + 4, abs=8)
    assert len(axes.lines) == 2 + 2 * len(flares.get("data"))
    figure.savefig(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 5000


def test_detectors_that_are_off_leave_a_gap():
    rates = np.full((900, 9), 2.0)
    rates[300:350] = 0.0
    summary = make_summary(1017878400.0, rates, flags={"SAA passage": np.arange(900) // 100 == 3})
    axes = rate_figure(summary).axes[0]
    rate = axes.lines[0].get_ydata()
    assert np.flatnonzero(np.isnan(rate)).tolist() == list(range(300, 350))
    assert rate[350] > 0
    figure = axes.figure
    figure.canvas.draw()
    assert "2011-Apr-04" in axes.xaxis.get_offset_text().get_text()


def test_what_cannot_be_drawn():
    with pytest.raises(NotFound):
        rate_figure(ObservingSummary())
    with pytest.raises(UsageError, match="edges of 3, 6"):
        rate_figure(make_summary(0.0, np.ones((3, 9))), [(7, 8)])
