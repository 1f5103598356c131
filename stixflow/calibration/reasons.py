"""Why a pixel has no calibration, and what to know of one that has."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag."""

    bit: int
    text: str
    is_fatal: bool = True
    """Whether the pixel has no calibration."""


FLAGS = MappingProxyType(
    {
        "not_received": Flag(1, "nothing was received of the pixel"),
        "few_counts": Flag(2, "fewer than 50 counts"),
        "no_spectrum": Flag(4, "the spectrum is not that of 133Ba on any scale from 800 to 1040 ADC channels"),
        "line_not_covered": Flag(8, "the points do not cover the lines"),
        "no_line": Flag(16, "the 31-keV or the 81-keV line has less than 5 sigma"),
        "not_converged": Flag(32, "the fit found no minimum"),
        "out_of_range": Flag(64, "scale or widths are none that a pixel of the instrument can have"),
        "poor_fit": Flag(128, "reduced chi2 above 10"),
        "known_bad": Flag(256, "the pixel is known to be bad", is_fatal=False),
        "wide_lines": Flag(512, "the 31-keV line is wider than 1.5 keV", is_fatal=False),
    }
)
FATAL = sum(flag.bit for flag in FLAGS.values() if flag.is_fatal)


def flag_attributes() -> dict[str, object]:
    """Attributes of the variable of the flags."""
    return {
        "long_name": "why not calibrated, or what to know",
        "flag_masks": [one.bit for one in FLAGS.values()],
        "flag_meanings": " ".join(FLAGS),
    }


def reasons(calibration: xr.Dataset) -> pd.DataFrame:
    """List the flagged pixels, one row each: detector, pixel, whether it is calibrated, and what the flags say."""
    import pandas as pd

    flags = calibration["flags"].values
    rows = [
        {
            "detector": int(calibration["detector"].values[detector]),
            "pixel": int(calibration["pixel"].values[pixel]),
            "calibrated": not flags[detector, pixel] & FATAL,
            "reason": "; ".join(flag.text for flag in FLAGS.values() if flags[detector, pixel] & flag.bit),
        }
        for detector, pixel in np.argwhere(flags)
    ]
    return pd.DataFrame(rows, columns=["detector", "pixel", "calibrated", "reason"])


def n_calibrated(calibration: xr.Dataset) -> int:
    """Count the pixels that have a calibration."""
    return int(np.isfinite(calibration["gain"].values).sum())


__all__ = ["FATAL", "FLAGS", "Flag", "flag_attributes", "n_calibrated", "reasons"]
