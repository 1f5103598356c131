"""Tables of the files of one day of housekeeping reports: engineering values and texts, one row a report."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stixflow.cubes.housekeeping import HOUSEKEEPING, Parameter
from stixflow.fits._tables import Span, day_packets, times
from stixflow.fits._writing import Column
from stixflow.fits.origin import Origin
from stixflow.telemetry.layouts import known_types, text_table
from stixflow.telemetry.structure import Field

_Array = NDArray[Any]

_KELVIN = 273.15
_TRUTHS = {"False", "True"}
_TYPES = {"hk_mini": (3, 25, 1), "hk_maxi": (3, 25, 2)}
_UNITS = {"degC": "K", "%": "10**-2"}
_COUNTED = {"archive_memory_usage"}
"""Parameters that the official files give as sent, although a scale is known."""

# Names and order of the official files; of short reports there is none to be seen.
_MAXI = [
    "sw_running",
    "instrument_number",
    "instrument_mode",
    "hk_dpu_pcb_t",
    "hk_dpu_fpga_t",
    "hk_dpu_3v3_c",
    "hk_dpu_2v5_c",
    "hk_dpu_1v5_c",
    "hk_dpu_spw_c",
    "hk_dpu_spw0_v",
    "hk_dpu_spw1_v",
    "hk_asp_ref_2v5a_v",
    "hk_asp_ref_2v5b_v",
    "hk_asp_tim01_t",
    "hk_asp_tim02_t",
    "hk_asp_tim03_t",
    "hk_asp_tim04_t",
    "hk_asp_tim05_t",
    "hk_asp_tim06_t",
    "hk_asp_tim07_t",
    "hk_asp_tim08_t",
    "hk_asp_vsensa_v",
    "hk_asp_vsensb_v",
    "hk_att_v",
    "hk_att_t",
    "hk_hv_01_16_v",
    "hk_hv_17_32_v",
    "det_q1_t",
    "det_q2_t",
    "det_q3_t",
    "det_q4_t",
    "hk_dpu_1v5_v",
    "hk_ref_2v5_v",
    "hk_dpu_2v9_v",
    "hk_psu_temp_t",
    "sw_version_number",
    "cpu_load",
    "archive_memory_usage",
    "autonomous_asw_boot_stat",
    "memory_load_ena_flag",
    "idpu_identifier",
    "active_spw_link",
    "overruns_for_tasks",
    "watchdog_state",
    "received_spw_packets",
    "rejected_spw_packets",
    "en/dis_detector_status",
    "spw1-power_status",
    "spw0-power_status",
    "q4-power_status",
    "q3-power_status",
    "q2-power_status",
    "q1-power_status",
    "aspect_b-power_status",
    "aspect_a-power_status",
    "att_m2-moving",
    "att_m1-moving",
    "hv17-32-enabled_status",
    "hv01-16-enabled_status",
    "lv-enabled_status",
    "hv1_depolar_in_progress",
    "hv2_depolar_in_progress",
    "att_ab_flag-open",
    "att_bc_flag-closed",
    "med_value_of_trig_acc",
    "max_value_of_trig_acc",
    "hv_regulators_mask",
    "tc(20,128)_seq_cnt",
    "attenuator_motions",
    "hk_asp_photoa0_v",
    "hk_asp_photoa1_v",
    "hk_asp_photob0_v",
    "hk_asp_photob1_v",
    "attenuator_currents",
    "hk_att_c",
    "hk_det_c",
    "fdir_function_status",
]


def housekeeping_control(dataset: xr.Dataset, origin: Origin) -> tuple[list[Column], NDArray[np.intp]]:
    """One row for each report."""
    scet = dataset["scet"].values
    columns = [
        Column("scet_coarse", scet >> 16),
        Column("scet_fine", scet & 0xFFFF),
        Column("integration_time", np.zeros(scet.size, dtype=np.int64)),
        *day_packets(scet.size, origin),
    ]
    return columns, np.arange(scet.size)


def housekeeping(dataset: xr.Dataset, span: Span) -> list[Column]:
    """DATA of housekeeping reports."""
    product = str(dataset.attrs["product"])
    known = {one.name: one for one in HOUSEKEEPING[product]}
    fields = {field.name: field for layout in known_types()[_TYPES[product]] for field in layout.scope.fields}
    columns = _MAXI if product == "hk_maxi" else list(known)
    names = {column: re.sub("[^a-z0-9]+", "_", column) for column in columns}
    return [
        *times(span),
        *(_parameter(dataset, column, known[name], fields[name]) for column, name in names.items()),
    ]


def _parameter(dataset: xr.Dataset, column: str, one: Parameter, field: Field) -> Column:
    values = dataset[one.name].values
    if one.name in _COUNTED:
        return Column(column, dataset[f"{one.name}_raw"].values.astype(np.int64))
    if one.is_calibrated:
        return Column(column, values + (_KELVIN if one.units == "degC" else 0.0), _UNITS.get(one.units, one.units))
    if field.enum:
        return Column(column, _texts(values, str(field.enum)))
    return Column(column, values.astype(np.int64))


def _texts(numbers: _Array, enum: str) -> _Array:
    """Texts of numbers, the number itself where it has none; logical values where the texts are those of them."""
    known = text_table(enum)
    distinct, inverse = np.unique(numbers, return_inverse=True)
    shown = [next((text for low, high, text in known if low <= n <= high), str(n)) for n in distinct.tolist()]
    texts = np.asarray(shown)[inverse.reshape(-1)]
    return texts == "True" if {text for _, _, text in known} <= _TRUTHS and set(shown) <= _TRUTHS else texts
