"""How much the pairs of grids let through and how strongly they modulate: the model of the ground software and others.

"measured" is the linear model fitted to flares at 10-15 keV, the default of the ground software. "wedge" adds what the
tungsten slats let through at high energy. "metrology" takes slits and thickness as measured on the ground, shadowed by
the tilt of the rays. "stixpy" is the same as that package computes it: with the absolute value taken of one part of
the tilt only, and no grids finer than resolution 3.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stixflow.errors import ImagingError, UsageError
from stixflow.imaging.grids import FloatArray
from stixflow.instrument import detectors, grid_transmission, grid_transmission_energy

GridModel = Literal["measured", "wedge", "metrology", "stixpy"]
_GRID_MODELS: tuple[GridModel, ...] = ("measured", "wedge", "metrology", "stixpy")

_SAMPLES = 16
_SIDES = "front", "rear"


class GridResponse(NamedTuple):
    """Mean transmission of the grid pairs, that of their slits alone, and the contrast left; (image, visibility)."""

    transmission: FloatArray
    slits: FloatArray
    """The part that the slats do not cover: it sets the modulation."""
    contrast: FloatArray
    """Modulation that is left where the slats are not opaque; 1 where they are."""


def grid_response(
    model: GridModel, places: FloatArray, energies: FloatArray, subcollimators: NDArray[np.intp]
) -> GridResponse:
    """Response of the grid pairs for a stack of images.

    Parameters
    ----------
    places
        (image, 2) location of the source in the STIX frame, arcsec.
    energies
        (image, 2) limits of the energies, keV; only the model "wedge" depends on them, as the mean over the range.
    subcollimators
        Detector indices.

    Raises
    ------
    UsageError
        If there is no such model.
    ImagingError
        If the model does not know a sub-collimator.
    """
    if model not in _GRID_MODELS:
        raise UsageError(f"grids={model!r}", expected=f"one of {', '.join(_GRID_MODELS)}", advice="choose one of them")
    if model in ("metrology", "stixpy"):
        known = metrology_transmission(places, as_stixpy=model == "stixpy")[:, subcollimators]
        return GridResponse(_check_known(known, model, subcollimators), known, np.ones(known.shape))
    slits = grid_transmission(places[:, 0], places[:, 1])[:, subcollimators]
    if model == "measured":
        return GridResponse(slits, slits, np.ones(slits.shape))
    total = _mean_over_energy(places, energies)[:, subcollimators]
    covered = 1.0 - np.sqrt(slits)
    return GridResponse(total, slits, ((1.0 - np.sqrt(total)) / covered) ** 2)


def metrology_transmission(places: FloatArray, *, as_stixpy: bool = False) -> FloatArray:
    """Transmission from the measured slits, less the shadow that thick slats throw on a source off the axis.

    Parameters
    ----------
    places
        (..., 2) location of the source in the STIX frame, arcsec.
    as_stixpy
        Take the absolute value of ``x cos o`` only, and 1 for what has no entry, instead of the whole tilt and NaN.

    Returns
    -------
    (..., 32)
    """
    slits = _slits()
    x, y = (np.asarray(places)[..., i, None] for i in range(2))
    product = np.ones((*np.shape(places)[:-1], slits["index"].size))
    for side in _SIDES:
        orientation = np.deg2rad(slits[f"{side}_orient_deg"])
        along, across = x * np.cos(orientation), y * np.sin(orientation)
        tilt = np.abs(along) + across if as_stixpy else np.abs(along + across)
        shadow = slits[f"{side}_thickness_mm"] * np.tan(np.deg2rad(tilt / 3600.0))
        product = product * (slits[f"{side}_slit_mm"] - shadow) / slits[f"{side}_pitch_mm"]
    result = np.full((*product.shape[:-1], detectors().index.size), 1.0 if as_stixpy else np.nan)
    result[..., slits["index"].astype(np.intp)] = product
    return result


def _check_known(transmission: FloatArray, model: str, subcollimators: NDArray[np.intp]) -> FloatArray:
    unknown = np.isnan(transmission).any(axis=0)
    if unknown.any():
        raise ImagingError(
            f"the grid model {model!r} has no slits for the detectors with index {subcollimators[unknown].tolist()}",
            expected="sub-collimators of the resolutions 10 to 3",
            advice="leave these out, or take grids='measured'",
        )
    return transmission


def _mean_over_energy(places: FloatArray, energies: FloatArray) -> FloatArray:
    cases, which = np.unique(np.concatenate([places, energies], axis=1), axis=0, return_inverse=True)
    part = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    rows = [grid_transmission_energy(case[:2], case[2] + (case[3] - case[2]) * part).mean(axis=0) for case in cases]
    return np.stack(rows)[which.ravel()]


@cache
def _slits() -> dict[str, FloatArray]:
    """Slits, pitch, thickness and orientation of front and rear grids, by detector, from the public table of them."""
    with (resources.files(__package__) / "tables" / "grid_slits.csv").open(encoding="ascii") as lines:
        header, *rows = csv.reader(lines)
    table = np.array(rows, dtype=np.float64)
    table.flags.writeable = False
    return {name: table[:, i] for i, name in enumerate(header)}
