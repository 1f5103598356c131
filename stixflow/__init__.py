"""stixflow turns the telemetry of STIX on Solar Orbiter into cubes, flares, images and spectra."""

__version__ = "0.1.0"
