"""A Sun, the instrument in front of it, and the telemetry that would come down: the writing twin of `telemetry`."""

from stixflow.simulate.calibration import PixelResponse, simulate_calibration
from stixflow.simulate.packetise import SequenceCounter, packetise
from stixflow.simulate.replay import replay
from stixflow.simulate.sun import FlareModel, Scenario, Source, demo_scenario, random_scenario
from stixflow.simulate.write import Truth, simulate

__all__ = [
    "FlareModel",
    "PixelResponse",
    "Scenario",
    "SequenceCounter",
    "Source",
    "Truth",
    "demo_scenario",
    "packetise",
    "random_scenario",
    "replay",
    "simulate",
    "simulate_calibration",
]
