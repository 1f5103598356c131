"""The 32 detectors with their grids, and the 12 pixels of each."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import UsageError
from stixflow.instrument._tables import frozen, integers, numbers, text_columns

CFL_INDEX = 8
BKG_INDEX = 9
IMAGING_RESOLUTIONS = (10, 9, 8, 7, 6, 5, 4, 3)
"""The resolutions with a phase calibration."""
LOCATION_RESOLUTIONS = (10, 9, 8, 7)


@dataclass(frozen=True, slots=True, eq=False)
class Detectors:
    """Every detector, one array element each, by detector index (detector number - 1).

    What a coarse flare locator and a background monitor do not have is NaN (or resolution 0).
    """

    index: NDArray[np.intp]
    label: tuple[str, ...]
    """Resolution and orientation as "10a", else "cfl" or "bkg"."""
    resolution: NDArray[np.intp]
    """1 (finest) to 10 (coarsest)."""
    u: NDArray[np.float64]
    """Spatial frequency along X of the STIX frame, 1/arcsec."""
    v: NDArray[np.float64]
    half_period: NDArray[np.float64]
    """1 / (2 sqrt(u² + v²)), arcsec."""
    accumulator: NDArray[np.intp]
    """Trigger accumulator, 0 to 15, that the detector shares with another."""
    grid_phase_deg: NDArray[np.float64]
    adhoc_phase_deg: NDArray[np.float64]
    transmission_intercept: NDArray[np.float64]
    transmission_intercept_error: NDArray[np.float64]
    transmission_slope: NDArray[np.float64]
    """Change of the transmission per degree across the slits."""
    transmission_slope_error: NDArray[np.float64]
    orientation_deg: NDArray[np.float64]
    """Mean of the measured orientations of front and rear grid."""
    front_pitch_mm: NDArray[np.float64]
    rear_pitch_mm: NDArray[np.float64]
    front_thickness_mm: NDArray[np.float64]
    rear_thickness_mm: NDArray[np.float64]
    x_mm: NDArray[np.float64]
    """Centre in the detector plane."""
    y_mm: NDArray[np.float64]


@cache
def detectors() -> Detectors:
    """The detectors and sub-collimators; arrays of 32, read-only."""
    values: dict[str, object] = {"label": tuple(text_columns("detectors")["label"])}
    values |= {name: integers("detectors", name) for name in ("index", "resolution", "accumulator")}
    names = {field.name for field in fields(Detectors)} - set(values) - {"half_period"}
    values |= {name: numbers("detectors", name) for name in names}
    frequency = np.hypot(numbers("detectors", "u"), numbers("detectors", "v"))
    return Detectors(half_period=frozen(0.5 / frequency), **values)  # type: ignore[arg-type]


def subcollimators(*resolutions: int) -> NDArray[np.intp]:
    """Detector indices of the given resolutions, in the order given, orientations a, b, c.

    Without arguments the 24 detectors of the standard imaging set, 10 to 3.

    Raises
    ------
    UsageError
        If a resolution is not 1 to 10.
    """
    wanted = resolutions or IMAGING_RESOLUTIONS
    wrong = [resolution for resolution in wanted if not 1 <= resolution <= 10]
    if wrong:
        raise UsageError(f"no sub-collimator has the resolution {wrong[0]}", expected="1 (finest) to 10 (coarsest)")
    labels = detectors().label
    return np.array([labels.index(f"{resolution}{letter}") for resolution in wanted for letter in "abc"], dtype=np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """The 12 pixels of a detector: 0-3 large top, 4-7 large bottom, 8-11 small."""

    index: NDArray[np.intp]
    column: NDArray[np.intp]
    """0 to 3 = A to D."""
    row: NDArray[np.intp]
    """0 top, 1 bottom, 2 small."""
    area_cm2: NDArray[np.float64]


@cache
def pixels() -> Pixels:
    """The pixels of a detector; arrays of 12, read-only."""
    index = np.arange(12)
    row, column = np.divmod(index, 4)
    areas = np.array([0.096194997, 0.096194997, 0.010009999])[row]
    return Pixels(frozen(index), frozen(column), frozen(row), frozen(areas))


class SumCase(StrEnum):
    """Which rows of pixels are added to the four columns A, B, C, D."""

    TOP = "TOP"
    BOTTOM = "BOTTOM"
    TOP_BOTTOM = "TOP_BOTTOM"
    ALL = "ALL"
    SMALL = "SMALL"

    @property
    def rows(self) -> tuple[int, ...]:
        return _ROWS[self]

    @property
    def pixels(self) -> NDArray[np.intp]:
        """Pixel indices, (rows, 4): summing over the first axis gives the columns."""
        return np.array(self.rows, dtype=np.intp)[:, None] * 4 + np.arange(4)

    @property
    def pixel_mask(self) -> int:
        """Bits of the pixels that the data must hold."""
        return int(np.sum(1 << self.pixels))

    @property
    def column_area_cm2(self) -> float:
        return float(pixels().area_cm2[self.pixels[:, 0]].sum())

    @property
    def phase_offset_deg(self) -> float:
        """Phase from the detector edge to the effective centre of column A, as in the calibration tables."""
        return {SumCase.ALL: 45.0, SumCase.SMALL: 22.5}.get(self, 46.1)

    @property
    def harmonic(self) -> int:
        """m of the first-harmonic efficiency sin(π/4m)/(π/4m): small pixels are half as wide."""
        return 2 if self is SumCase.SMALL else 1


_ROWS = {
    SumCase.TOP: (0,),
    SumCase.BOTTOM: (1,),
    SumCase.TOP_BOTTOM: (0, 1),
    SumCase.ALL: (0, 1, 2),
    SumCase.SMALL: (2,),
}
