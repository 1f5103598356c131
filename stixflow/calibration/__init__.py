"""Energy calibration of the 384 pixels: lines of 133Ba, gain and offset, energy tables, drift."""

from stixflow.calibration.files import read_calibration, write_calibration, write_csv, write_elut
from stixflow.calibration.fit import calibrate
from stixflow.calibration.reasons import n_calibrated, reasons
from stixflow.calibration.table import drift_of, elut_of, energy_edges_of, summarise_drift
from stixflow.calibration.trend import summarise, trend_of

__all__ = [
    "calibrate",
    "drift_of",
    "elut_of",
    "energy_edges_of",
    "n_calibrated",
    "read_calibration",
    "reasons",
    "summarise",
    "summarise_drift",
    "trend_of",
    "write_calibration",
    "write_csv",
    "write_elut",
]
