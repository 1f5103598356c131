"""What the detector is: detectors, pixels, energy channels, energy tables, live time, transmission."""

from stixflow.instrument.detectors import (
    BKG_INDEX,
    CFL_INDEX,
    IMAGING_RESOLUTIONS,
    LOCATION_RESOLUTIONS,
    Detectors,
    Pixels,
    SumCase,
    detectors,
    pixels,
    subcollimators,
)
from stixflow.instrument.elut import Elut, actual_edges, elut, elut_key
from stixflow.instrument.energies import N_CHANNELS, energy_edges, energy_shift
from stixflow.instrument.live_time import (
    live_fraction,
    live_fraction_error,
    live_fraction_of_rate,
    per_detector,
    photon_rate,
    trigger_rate,
)
from stixflow.instrument.transmission import (
    grid_transmission,
    grid_transmission_energy,
    window_transmission,
)

__all__ = [
    "BKG_INDEX",
    "CFL_INDEX",
    "IMAGING_RESOLUTIONS",
    "LOCATION_RESOLUTIONS",
    "N_CHANNELS",
    "Detectors",
    "Elut",
    "Pixels",
    "SumCase",
    "actual_edges",
    "detectors",
    "elut",
    "elut_key",
    "energy_edges",
    "energy_shift",
    "grid_transmission",
    "grid_transmission_energy",
    "live_fraction",
    "live_fraction_error",
    "live_fraction_of_rate",
    "per_detector",
    "photon_rate",
    "pixels",
    "subcollimators",
    "trigger_rate",
    "window_transmission",
]
