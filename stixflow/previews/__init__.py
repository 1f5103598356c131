"""Pictures and pages for people: light curves, images on the Sun, previews with their scripts, reports."""

from __future__ import annotations

from stixflow.previews.animation import overlay_figure, read_images, write_animation
from stixflow.previews.image import Mark, SkyImage, image_figure
from stixflow.previews.lightcurve import lightcurve_figure, pixel_lightcurve
from stixflow.previews.panels import FitShape, Preview, fit_shape, panels_figure, preview
from stixflow.previews.report import Picture, write_report
from stixflow.previews.scripts import ScriptFiles, animation_script, idl_script, python_script
from stixflow.previews.series import series_figure
from stixflow.previews.theme import figure_png, write_pdf
from stixflow.previews.visibilities import visibility_figure

__all__ = [
    "FitShape",
    "Mark",
    "Picture",
    "Preview",
    "ScriptFiles",
    "SkyImage",
    "animation_script",
    "figure_png",
    "fit_shape",
    "idl_script",
    "image_figure",
    "lightcurve_figure",
    "overlay_figure",
    "panels_figure",
    "pixel_lightcurve",
    "preview",
    "python_script",
    "read_images",
    "series_figure",
    "visibility_figure",
    "write_animation",
    "write_pdf",
    "write_report",
]
