"""Reports about the instrument as rows: aspect, memory and flare list, housekeeping (SSID 42, 43; TM(3,25))."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stixflow.cubes.build.quick_look import Table
from stixflow.cubes.build.timing import averaging_ms, sample_times
from stixflow.cubes.housekeeping import HOUSEKEEPING
from stixflow.cubes.model import N_FLARE_SLOTS
from stixflow.cubes.sources import product_of
from stixflow.telemetry import Records
from stixflow.telemetry.runs import positions_in

_FLARE_COLUMNS = ("highest_flare_flag", "tm_byte_volume", "average_y", "average_z", "processing_status")


def aspect_table(records: Records) -> Table:
    """One row for each aspect sample."""
    timing = sample_times(records)
    columns = {
        **{name: records[name] for name in ("cha_diode0", "cha_diode1", "chb_diode0", "chb_diode1")},
        "averaging_value": averaging_ms(records).astype(np.uint16)[timing.packet],
        "summing_value": records["summing_value"][timing.packet],
    }
    return Table(timing.start, timing.seconds, columns)


def status_table(records: Records) -> Table:
    """One row for each report; its flares in the first slots."""
    timing = sample_times(records)
    number = records.lengths("num_flares")
    row = records.parents("num_flares")
    slot = positions_in(number)

    def in_slots(values: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros((len(records), N_FLARE_SLOTS), dtype=values.dtype)
        out[row, slot] = values
        return out

    columns = {
        "ubsd_counter": records["ubsd_counter"],
        "pald_counter": records["pald_counter"],
        "num_flares": number.astype(np.uint8),
        "flare_start_scet": in_slots(records["start_scet_coarse"].astype(np.int64) << 16),
        "flare_stop_scet": in_slots(records["end_scet_coarse"].astype(np.int64) << 16),
        **{name: in_slots(records[name]) for name in _FLARE_COLUMNS},
    }
    return Table(timing.start, timing.seconds, columns)


def housekeeping_table(records: Records) -> Table:
    """One row for each report: engineering values, and raw numbers beside them."""
    timing = sample_times(records)
    columns: dict[str, NDArray[Any]] = {}
    for one in HOUSEKEEPING[str(product_of(records.type))]:
        if one.is_calibrated:
            columns[one.name] = np.asarray(records.engineering(one.name), dtype=np.float64)
            columns[f"{one.name}_raw"] = records[one.name]
        else:
            columns[one.name] = records[one.name]
    return Table(timing.start, timing.seconds, columns)
