"""Transmission of grids, windows and attenuator."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stixflow.errors import UsageError
from stixflow.instrument._tables import numbers
from stixflow.instrument.detectors import detectors

_WEDGE_WIDTH_MM = 5e-3
_WEDGE_DEPTH_MM = 5e-2


def grid_transmission(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Transmission of the grid pairs, measured at 10-15 keV and linear in the angle across the slits.

    Parameters
    ----------
    x, y
        Location of the source in the STIX frame, arcsec; broadcast against each other.

    Returns
    -------
    (..., 32), the shape of the locations with the detectors last; NaN for the two detectors without grids.
    """
    grids = detectors()
    orientation = np.deg2rad(grids.orientation_deg)
    across = np.multiply.outer(x, np.cos(orientation)) + np.multiply.outer(y, np.sin(orientation))
    return np.asarray(grids.transmission_intercept + grids.transmission_slope * across / 3600.0)


def grid_transmission_energy(location: ArrayLike, energies: ArrayLike) -> NDArray[np.float64]:
    """Transmission of the grid pairs as tungsten becomes transparent at high energy (slats with wedged edges).

    Parameters
    ----------
    location
        (x, y) of the source in the STIX frame, arcsec.
    energies
        (...,) in keV, within the table of tungsten.

    Returns
    -------
    (..., 32), energies first; NaN for the two detectors without grids.
    """
    grids = detectors()
    x, y = np.asarray(location, dtype=np.float64)
    open_part = np.sqrt(grid_transmission(x, y))
    length = _tungsten_absorption_length(energies)[..., None]
    wedge = np.where(grids.resolution > 2, _WEDGE_WIDTH_MM, 0.0)
    front, rear = (
        wedge_transmission(pitch, open_part * pitch, thickness, length, wedge_width=wedge)
        for pitch, thickness in (
            (grids.front_pitch_mm, grids.front_thickness_mm),
            (grids.rear_pitch_mm, grids.rear_thickness_mm),
        )
    )
    return front * rear


def wedge_transmission(
    pitch: ArrayLike,
    slit: ArrayLike,
    thickness: ArrayLike,
    absorption_length: ArrayLike,
    *,
    wedge_width: ArrayLike = _WEDGE_WIDTH_MM,
    wedge_depth: float = _WEDGE_DEPTH_MM,
) -> NDArray[np.float64]:
    """Transmission of one grid whose slats have wedges of the given width and depth (all lengths in mm)."""
    p, s, width = (np.asarray(value, dtype=np.float64) for value in (pitch, slit, wedge_width))
    length = np.asarray(absorption_length, dtype=np.float64)
    through = np.exp(-np.asarray(thickness, dtype=np.float64) / length)
    wedge = length / wedge_depth * -np.expm1(-wedge_depth / length) - through
    return np.asarray(s / p + (p - s) / p * through + 2.0 * width / p * wedge)


def _tungsten_absorption_length(energies: ArrayLike) -> NDArray[np.float64]:
    """Length in tungsten, mm, after which 1/e of the photons is left; logarithmic between the points of the table."""
    table = numbers("tungsten", "energy_keV"), numbers("tungsten", "attenuation_per_mm")
    return 1.0 / _log_interpolate(energies, *table)


def window_transmission(energies: ArrayLike, *, fine: bool = False) -> NDArray[np.float64]:
    """Transmission of windows, blankets and detector cover; `fine` for resolutions 1 and 2, which have one foil more.

    Parameters
    ----------
    energies
        In keV, 2 to 500.
    """
    return _material(energies, "window_fine" if fine else "window_coarse")


def _material(energies: ArrayLike, column: str) -> NDArray[np.float64]:
    return _log_interpolate(energies, numbers("materials", "energy_keV"), numbers("materials", column))


def _log_interpolate(
    energies: ArrayLike, table_energies: NDArray[np.float64], table_values: NDArray[np.float64]
) -> NDArray[np.float64]:
    wanted = np.asarray(energies, dtype=np.float64)
    if wanted.size and not (wanted.min() >= table_energies[0] and wanted.max() <= table_energies[-1]):
        raise UsageError(
            f"energies from {wanted.min():g} to {wanted.max():g} keV reach beyond the table of the material",
            expected=f"{table_energies[0]:g} to {table_energies[-1]:g} keV",
            advice="limit the energies",
        )
    return np.asarray(np.exp(np.interp(np.log(wanted), np.log(table_energies), np.log(table_values))))
