"""Flares: quiet background, detection, GOES estimate, and what to image of them."""

from __future__ import annotations

from stixflow.flares.background import Background, nearest_quiet, quiet_statistics
from stixflow.flares.detection import FLARE_COLUMNS, Column, detect, flare_columns, flare_id
from stixflow.flares.goes import GoesEstimate, estimate_goes, goes_class
from stixflow.flares.selection import (
    BackgroundNeed,
    ImagingWindow,
    NoWindow,
    channels_of,
    choose_background,
    imaging_window,
)
from stixflow.flares.snip import smooth, snip_envelope

__all__ = [
    "FLARE_COLUMNS",
    "Background",
    "BackgroundNeed",
    "Column",
    "GoesEstimate",
    "ImagingWindow",
    "NoWindow",
    "channels_of",
    "choose_background",
    "detect",
    "estimate_goes",
    "flare_columns",
    "flare_id",
    "goes_class",
    "imaging_window",
    "nearest_quiet",
    "quiet_statistics",
    "smooth",
    "snip_envelope",
]
