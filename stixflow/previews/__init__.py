"""Pictures and pages for people: light curves, images on the Sun, reports."""

from __future__ import annotations

from stixflow.previews.image import Mark, SkyImage, image_figure
from stixflow.previews.lightcurve import lightcurve_figure
from stixflow.previews.report import Picture, write_report
from stixflow.previews.theme import figure_png

__all__ = ["Mark", "Picture", "SkyImage", "figure_png", "image_figure", "lightcurve_figure", "write_report"]
