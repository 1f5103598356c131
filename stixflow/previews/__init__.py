"""Pictures and pages for people: light curves, images on the Sun, previews with their scripts, reports."""

from __future__ import annotations

from stixflow.previews.animation import overlay_figure, read_images, write_animation
from stixflow.previews.image import Mark, SkyImage, image_figure
from stixflow.previews.lightcurve import lightcurve_figure
from stixflow.previews.panels import Preview, panels_figure, preview
from stixflow.previews.report import Picture, write_report
from stixflow.previews.scripts import ScriptFiles, animation_script, idl_script, python_script
from stixflow.previews.theme import figure_png

__all__ = [
    "Mark",
    "Picture",
    "Preview",
    "ScriptFiles",
    "SkyImage",
    "animation_script",
    "figure_png",
    "idl_script",
    "image_figure",
    "lightcurve_figure",
    "overlay_figure",
    "panels_figure",
    "preview",
    "python_script",
    "read_images",
    "write_animation",
    "write_report",
]
