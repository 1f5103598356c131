"""The page of a flare over time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from stixflow.errors import UsageError
from stixflow.previews import SkyImage, series_figure
from stixflow.time import TimeRange

START = np.datetime64("2022-03-01T01:25:00", "ns")


def _spans(number: int) -> list[TimeRange]:
    edges = START + np.arange(number + 1) * np.timedelta64(60, "s")
    return [TimeRange(edges[i], edges[i + 1]) for i in range(number)]


def test_every_map_stands_below_its_time(image: SkyImage, lightcurve: xr.Dataset) -> None:
    later = replace(image, reference_xy=(image.reference_xy[0] + 40, image.reference_xy[1]))
    figure = series_figure([image] * 7 + [later], _spans(8), lightcurve, title="a flare")
    curve, *maps = figure.axes
    assert [text.get_text() for text in curve.texts] == [str(number) for number in range(1, 9)]
    shaded = [patch.get_x() for patch in curve.patches]
    assert shaded == sorted(shaded)
    assert len(shaded) == len(maps) == 8
    assert maps[1].get_title(loc="left") == "2  01:26:00 +60 s"
    assert {axes.get_xlim() for axes in maps} == {maps[0].get_xlim()}
    left, right = maps[0].get_xlim()
    assert right - left == pytest.approx(image.field()[1] - image.field()[0] + 40)


def test_each_map_needs_its_time(image: SkyImage, lightcurve: xr.Dataset) -> None:
    for images, spans in (([], []), ([image] * 2, _spans(1)), ([image] * 25, _spans(25))):
        with pytest.raises(UsageError, match="maps with"):
            series_figure(images, spans, lightcurve)
