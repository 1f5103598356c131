"""Flares: quiet background, detection, GOES estimate, and what to image of them."""

from __future__ import annotations

from stixflow.flares.background import Background, nearest_quiet, quiet_statistics
from stixflow.flares.candidates import Candidates, choose_background
from stixflow.flares.cfl import CflLocations, cfl_posterior, locate_cfl
from stixflow.flares.cfl_counts import CflCounts, cfl_counts
from stixflow.flares.detection import CONTEXT, FLARE_COLUMNS, Column, detect, flare_columns, flare_id, join_days
from stixflow.flares.files import detect_files
from stixflow.flares.goes import (
    GoesEstimate,
    estimate_goes,
    fit_goes,
    goes_class,
    light_time_s,
    measure_goes,
    read_xrs,
)
from stixflow.flares.lists import compare_lists, read_list, read_official, write_list
from stixflow.flares.quiet import model_background
from stixflow.flares.selection import (
    BackgroundNeed,
    ImagingWindow,
    NoWindow,
    channels_of,
    imaging_window,
)
from stixflow.flares.snip import smooth, snip_envelope

__all__ = [
    "CONTEXT",
    "FLARE_COLUMNS",
    "Background",
    "BackgroundNeed",
    "Candidates",
    "CflCounts",
    "CflLocations",
    "Column",
    "GoesEstimate",
    "ImagingWindow",
    "NoWindow",
    "cfl_counts",
    "cfl_posterior",
    "channels_of",
    "choose_background",
    "compare_lists",
    "detect",
    "detect_files",
    "estimate_goes",
    "fit_goes",
    "flare_columns",
    "flare_id",
    "goes_class",
    "imaging_window",
    "join_days",
    "light_time_s",
    "locate_cfl",
    "measure_goes",
    "model_background",
    "nearest_quiet",
    "quiet_statistics",
    "read_list",
    "read_official",
    "read_xrs",
    "smooth",
    "snip_envelope",
    "write_list",
]
