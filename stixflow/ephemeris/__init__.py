"""Where the spacecraft is and where it points: ancillary files, pointing, coordinates."""

from stixflow.ephemeris.ancillary import apparent_radius, read_ancillary, write_ancillary
from stixflow.ephemeris.attitude import (
    Observer,
    Pointing,
    average_pointing,
    earth_delay,
    observer,
    observer_of,
    pointing,
)
from stixflow.ephemeris.clock import read_clock
from stixflow.ephemeris.constants import R_SUN_M
from stixflow.ephemeris.coordinates import hpc_to_stix, stix_to_hpc
from stixflow.ephemeris.heliographic import (
    SolarPlace,
    earth_observer,
    heliographic_to_hpc,
    hpc_to_heliographic,
    place_on_sun,
)
from stixflow.ephemeris.keywords import observer_keywords
from stixflow.ephemeris.position import Position, distance_au, position
from stixflow.ephemeris.spice import Kernels

__all__ = [
    "R_SUN_M",
    "Kernels",
    "Observer",
    "Pointing",
    "Position",
    "SolarPlace",
    "apparent_radius",
    "average_pointing",
    "distance_au",
    "earth_delay",
    "earth_observer",
    "heliographic_to_hpc",
    "hpc_to_heliographic",
    "hpc_to_stix",
    "observer",
    "observer_keywords",
    "observer_of",
    "place_on_sun",
    "pointing",
    "position",
    "read_ancillary",
    "read_clock",
    "stix_to_hpc",
    "write_ancillary",
]
