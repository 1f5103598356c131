"""The figure of what the maps predict."""

from __future__ import annotations

import numpy as np
import pytest

from stixflow.previews import Preview, visibility_figure


def test_every_sub_collimator_stands_there_coarse_to_fine(real_preview: Preview) -> None:
    upper, lower = visibility_figure(real_preview).axes
    labels = [text.get_text() for text in lower.get_xticklabels()]
    assert labels[:4] == ["10a", "10b", "10c", "9a"]
    assert labels[-1] == "3c"
    data = real_preview.source.visibilities
    (container,) = upper.containers
    shown = container.lines[0].get_ydata()
    measured = dict(zip(data["label"].to_numpy().tolist(), np.abs(data["visibility"].to_numpy()[0]), strict=True))
    assert shown == pytest.approx([measured[label] for label in labels])


def test_the_legend_tells_how_well_each_map_fits(real_preview: Preview) -> None:
    upper, lower = visibility_figure(real_preview).axes
    names = [text.get_text() for text in upper.get_legend().get_texts()]
    assert [name.split("   ")[0] for name in names] == ["measured", "CLEAN", "MEM_GE", "forward fit"]
    assert all(float(name.split("χ² ")[1]) < 5 for name in names[1:])
    predicted = [line for line in lower.get_lines() if line.get_marker() in "osD"]
    assert len(predicted) == 3
    assert all(np.abs(line.get_ydata()).max() <= 180 for line in predicted)
