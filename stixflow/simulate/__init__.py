"""Sun and instrument to counts to telemetry: the writing twin of `telemetry`."""
