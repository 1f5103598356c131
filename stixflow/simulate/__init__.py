"""A Sun, the instrument in front of it, and the telemetry that would come down: the writing twin of `telemetry`."""

from stixflow.simulate.sun import FlareModel, Scenario, Source, demo_scenario, random_scenario

__all__ = ["FlareModel", "Scenario", "Source", "demo_scenario", "random_scenario"]
