"""Visibilities of a request, one box at a time (SSID 23)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.build.pixels import pixel_state
from stixflow.cubes.build.values import BoxCube, cube_values
from stixflow.cubes.model import N_DETECTORS, N_PIXEL_SETS, N_PIXELS
from stixflow.telemetry import Box, Records, Request


def build_visibility_box(request: Request, box: Box) -> BoxCube:
    """Variables of a cube of visibilities: NaN for detectors not sent, and for parts too large for their code."""
    records = request.records
    new, old = np.flatnonzero(~box.repeated), np.flatnonzero(box.repeated)
    total = cube_values(records, "flux")
    flux = np.zeros((box.start.size, len(box.channels)), dtype=total.dtype)
    flux[box.time[new], box.energy[new]] = total[box.row[new]]
    observed = np.zeros(flux.shape, dtype=np.bool_)
    observed[box.time, box.energy] = True
    visibility = np.full((*flux.shape, N_DETECTORS), np.nan + 1j * np.nan)
    entry, time, energy, detector = _entries(records, box, new)
    visibility[time, energy, detector] = entry
    repeated = total[box.row[old]]
    differ = flux[box.time[old], box.energy[old]] != repeated
    sets = _pixel_sets(records)
    pixel_mask = np.bitwise_or.reduce(sets, axis=1)
    state = pixel_state(records, box, pixel_mask, N_PIXELS)
    packet = records.parents("num_substructures")[box.header]
    state["counts_skm"] = records.skm("flux")[packet]
    variables = {"flux": flux, "observed": observed, "visibility": visibility, **state, "pixel_set": sets[box.header]}
    return BoxCube(variables, int(repeated.sum(dtype=np.uint64)), old.size, int(differ.sum()))


def _entries(
    records: Records, box: Box, chosen: NDArray[np.intp]
) -> tuple[NDArray[np.complex128], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Visibilities in the chosen rows of the box, with their time bin, energy bin and detector."""
    place = np.full(records.levels["num_energy_groups"].size, -1, dtype=np.intp)
    place[box.row[chosen]] = chosen
    position = place[records.parents("num_detectors")]
    inside = np.flatnonzero(position >= 0)
    real, imaginary = (records.engineering(name)[inside].astype(np.float64) for name in ("vis_real", "vis_imag"))
    at = position[inside]
    entry = np.empty(real.size, dtype=np.complex128)
    entry.real, entry.imag = real, imaginary
    return entry, box.time[at], box.energy[at], records["detector_id"][inside].astype(np.intp)


def _pixel_sets(records: Records) -> NDArray[np.uint16]:
    names = ["pixel_mask", *(f"pixel_mask_{number}" for number in range(2, N_PIXEL_SETS + 1))]
    stacked: NDArray[Any] = np.stack([records[name] for name in names], axis=1)
    return stacked.astype(np.uint16)
