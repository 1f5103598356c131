"""Where the spacecraft is and where it points: ancillary files, pointing, coordinates."""

from stixflow.ephemeris.ancillary import R_SUN_M, apparent_radius, read_ancillary, write_ancillary
from stixflow.ephemeris.attitude import (
    Observer,
    Pointing,
    average_pointing,
    earth_delay,
    observer,
    observer_of,
    pointing,
)
from stixflow.ephemeris.coordinates import hpc_to_stix, stix_to_hpc

__all__ = [
    "R_SUN_M",
    "Observer",
    "Pointing",
    "apparent_radius",
    "average_pointing",
    "earth_delay",
    "hpc_to_stix",
    "observer",
    "observer_of",
    "pointing",
    "read_ancillary",
    "stix_to_hpc",
    "write_ancillary",
]
