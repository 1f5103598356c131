"""From telemetry records to the Datasets of the data model.

The books balance here too: every count of the records is either in a cube, or a repetition of one that is, or belongs
to a packet that could not be placed; `Books` says how many of each.
"""

from stixflow.cubes.build.books import Books
from stixflow.cubes.build.calibration import build_calibration
from stixflow.cubes.build.days import amount_of, build_day
from stixflow.cubes.build.requests import RequestCubes, build_requests
from stixflow.cubes.build.timing import Place, place
from stixflow.cubes.build.values import TRIGGER_DETECTORS

__all__ = [
    "TRIGGER_DETECTORS",
    "Books",
    "Place",
    "RequestCubes",
    "amount_of",
    "build_calibration",
    "build_day",
    "build_requests",
    "place",
]
