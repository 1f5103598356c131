"""The housekeeping parameters: name, bits, unit and meaning, in the order of the packets.

The names are those of the packet layouts. A parameter with a unit other than "1" has an engineering value.
"""

from __future__ import annotations

from typing import NamedTuple


class Parameter(NamedTuple):
    """One housekeeping parameter."""

    name: str
    bits: int
    units: str
    """Of its engineering value; "1" where it has none."""
    long_name: str

    @property
    def dtype(self) -> str:
        """Type of its raw number."""
        return "uint8" if self.bits <= 8 else "uint16" if self.bits <= 16 else "uint32"

    @property
    def is_calibrated(self) -> bool:
        """Tell whether it has an engineering value."""
        return self.units != "1"


_STATE = (
    ("sw_running", 1, "1", "software running: 0 ASW, 1 SuSW"),
    ("instrument_number", 3, "1", "instrument number"),
    (
        "instrument_mode",
        4,
        "1",
        "instrument mode: 0 LIKELY_BOOT, 1 BOOT, 2 SAFE, 3 MAINTENANCE, 4 CONFIGURATION, 5 NOMINAL",
    ),
    ("hk_dpu_pcb_t", 12, "degC", "DPU board temperature"),
    ("hk_dpu_fpga_t", 12, "degC", "DPU FPGA temperature"),
    ("hk_dpu_3v3_c", 12, "mA", "DPU 3.3 V current"),
    ("hk_dpu_2v5_c", 12, "mA", "DPU 2.5 V current"),
    ("hk_dpu_1v5_c", 12, "mA", "DPU 1.5 V current"),
    ("hk_dpu_spw_c", 12, "mA", "DPU SpaceWire current"),
    ("hk_dpu_spw0_v", 12, "V", "DPU SpaceWire 0 voltage"),
    ("hk_dpu_spw1_v", 12, "V", "DPU SpaceWire 1 voltage"),
)
_LOAD = (
    ("sw_version_number", 8, "1", "software version number"),
    ("cpu_load", 5, "%", "CPU load"),
    ("autonomous_asw_boot_stat", 1, "1", "autonomous application software boot status: 0 False, 1 True"),
    ("memory_load_ena_flag", 1, "1", "memory load enabled flag: 0 False, 1 True"),
    ("archive_memory_usage", 8, "%", "archive memory usage"),
    ("idpu_identifier", 1, "1", "IDPU identifier: 0 Nominal, 1 Redundant"),
    ("active_spw_link", 1, "1", "active SpaceWire link: 0 Nominal, 1 Redundant"),
    ("watchdog_state", 1, "1", "watchdog state: 0 Off, 1 On"),
    ("overruns_for_tasks", 6, "1", "overruns for tasks"),
    ("received_spw_packets", 16, "1", "received SpaceWire packets"),
    ("rejected_spw_packets", 16, "1", "rejected SpaceWire packets"),
)
_SUPPLY = (
    ("hk_dpu_1v5_v", 12, "V", "DPU 1.5 V voltage"),
    ("hk_ref_2v5_v", 12, "V", "reference 2.5 V voltage"),
    ("hk_dpu_2v9_v", 12, "V", "DPU 2.9 V voltage"),
    ("hk_psu_temp_t", 12, "degC", "PSU temperature"),
)
_MINI = (
    *_STATE,
    *_LOAD,
    *_SUPPLY,
    ("fdir_function_status", 32, "1", "FDIR function status"),
    ("fdir_stat_msk_hk_temp_ch", 16, "1", "FDIR status mask temperature channels"),
    ("fdir_stat_msk_hk_volt_ch", 16, "1", "FDIR status mask voltage channels"),
    ("hkselftest_is_exec_stat", 1, "1", "HK self test is running: 0 False, 1 True"),
    ("memory_ser_exec_stat_fla", 1, "1", "memory service execution status flag: 0 False, 1 True"),
    ("fdir_stat_msk_hk_curr_ch", 6, "1", "FDIR status mask current channels"),
    ("number_of_executed_tc_pa", 16, "1", "number of executed telecommand packets"),
    ("number_of_sent_tm_packet", 16, "1", "number of sent telemetry packets"),
    ("number_of_failed_tm_gene", 16, "1", "number of failed telemetry generations"),
)
_MAXI = (
    *_STATE,
    ("hk_asp_ref_2v5a_v", 12, "V", "aspect reference 2.5 V A voltage"),
    ("hk_asp_ref_2v5b_v", 12, "V", "aspect reference 2.5 V B voltage"),
    ("hk_asp_tim01_t", 12, "degC", "aspect tim01 temperature"),
    ("hk_asp_tim02_t", 12, "degC", "aspect tim02 temperature"),
    ("hk_asp_tim03_t", 12, "degC", "aspect tim03 temperature"),
    ("hk_asp_tim04_t", 12, "degC", "aspect tim04 temperature"),
    ("hk_asp_tim05_t", 12, "degC", "aspect tim05 temperature"),
    ("hk_asp_tim06_t", 12, "degC", "aspect tim06 temperature"),
    ("hk_asp_tim07_t", 12, "degC", "aspect tim07 temperature"),
    ("hk_asp_tim08_t", 12, "degC", "aspect tim08 temperature"),
    ("hk_asp_vsensa_v", 12, "V", "aspect sensor A voltage"),
    ("hk_asp_vsensb_v", 12, "V", "aspect sensor B voltage"),
    ("hk_att_v", 12, "V", "attenuator voltage"),
    ("hk_att_t", 12, "degC", "attenuator temperature"),
    ("hk_hv_01_16_v", 12, "V", "high voltage of detectors 1-16"),
    ("hk_hv_17_32_v", 12, "V", "high voltage of detectors 17-32"),
    ("det_q1_t", 12, "degC", "detector quarter 1 temperature"),
    ("det_q2_t", 12, "degC", "detector quarter 2 temperature"),
    ("det_q3_t", 12, "degC", "detector quarter 3 temperature"),
    ("det_q4_t", 12, "degC", "detector quarter 4 temperature"),
    *_SUPPLY,
    *_LOAD,
    ("en_dis_detector_status", 32, "1", "detectors enabled, one bit each"),
    ("spw1_power_status", 1, "1", "SpaceWire 1 power status: 0 Off, 1 On"),
    ("spw0_power_status", 1, "1", "SpaceWire 0 power status: 0 Off, 1 On"),
    ("q4_power_status", 1, "1", "quarter 4 power status: 0 Off, 1 On"),
    ("q3_power_status", 1, "1", "quarter 3 power status: 0 Off, 1 On"),
    ("q2_power_status", 1, "1", "quarter 2 power status: 0 Off, 1 On"),
    ("q1_power_status", 1, "1", "quarter 1 power status: 0 Off, 1 On"),
    ("aspect_b_power_status", 1, "1", "aspect B power status: 0 Off, 1 On"),
    ("aspect_a_power_status", 1, "1", "aspect A power status: 0 Off, 1 On"),
    ("att_m2_moving", 1, "1", "attenuator motor 2 moving: 0 Still, 1 Moving"),
    ("att_m1_moving", 1, "1", "attenuator motor 1 moving: 0 Still, 1 Moving"),
    ("hv17_32_enabled_status", 1, "1", "high voltage of detectors 17-32 enabled: 0 Disabled, 1 Enabled"),
    ("hv01_16_enabled_status", 1, "1", "high voltage of detectors 1-16 enabled: 0 Disabled, 1 Enabled"),
    ("lv_enabled_status", 1, "1", "low voltage enabled status: 0 Disabled, 1 Enabled"),
    ("hv1_depolar_in_progress", 1, "1", "high voltage 1 depolarisation in progress: 0 False, 1 True"),
    ("hv2_depolar_in_progress", 1, "1", "high voltage 2 depolarisation in progress: 0 False, 1 True"),
    ("att_ab_flag_open", 1, "1", "attenuator AB flag open: 0 False, 1 True"),
    ("att_bc_flag_closed", 1, "1", "attenuator BC flag closed: 0 False, 1 True"),
    ("med_value_of_trig_acc", 24, "1", "median value of trigger accumulators"),
    ("max_value_of_trig_acc", 24, "1", "maximum value of trigger accumulators"),
    (
        "hv_regulators_mask",
        2,
        "1",
        "high voltage regulators mask: 0 1 off 2 off, 1 1 on 2 off, 2 1 off 2 on, 3 1 on 2 on",
    ),
    ("tc_20_128_seq_cnt", 14, "1", "telecommand 20 128 sequence count"),
    ("attenuator_motions", 16, "1", "attenuator motions"),
    ("hk_asp_photoa0_v", 16, "V", "aspect photodiode A0 voltage"),
    ("hk_asp_photoa1_v", 16, "V", "aspect photodiode A1 voltage"),
    ("hk_asp_photob0_v", 16, "V", "aspect photodiode B0 voltage"),
    ("hk_asp_photob1_v", 16, "V", "aspect photodiode B1 voltage"),
    ("attenuator_currents", 16, "1", "attenuator currents"),
    ("hk_att_c", 12, "mA", "attenuator current"),
    ("hk_det_c", 12, "mA", "detector current"),
    ("fdir_function_status", 32, "1", "FDIR function status"),
)

HOUSEKEEPING = {
    "hk_mini": tuple(Parameter(*row) for row in _MINI),
    "hk_maxi": tuple(Parameter(*row) for row in _MAXI),
}
"""The parameters of each housekeeping product."""
