"""Calibration runs of pixels with a known scale."""

import numpy as np
from example_calibrations import scales
from numpy.testing import assert_array_equal

from stixflow.cubes.build import build_calibration
from stixflow.cubes.check import check_dataset
from stixflow.cubes.sources import record_names
from stixflow.simulate import packetise
from stixflow.simulate.calibration import simulate_calibration
from stixflow.telemetry import Packets, decode, encode


def test_a_run_follows_the_data_model() -> None:
    check_dataset(simulate_calibration(0.108, 900.0, counts=500.0))


def test_a_run_is_the_same_each_time() -> None:
    gain, offset = scales(2)
    one, other, third = (simulate_calibration(gain, offset, counts=500.0, seed=seed) for seed in (1, 1, 2))
    assert one.identical(other)
    assert not one.identical(third)


def test_compression_keeps_four_bits() -> None:
    sent = simulate_calibration(0.108, 900.0, seed=1)["counts"].values.astype(float)
    raw = simulate_calibration(0.108, 900.0, seed=1, compressed=False)["counts"].values.astype(float)
    assert (sent != raw).any()
    assert (np.abs(sent - raw) <= raw / 32 + 1).all()


def test_points_sum_their_channels() -> None:
    fine = simulate_calibration(0.108, 900.0, counts=500.0, compressed=False, subspectra=((200, 64, 1),))
    wide = simulate_calibration(0.108, 900.0, counts=500.0, compressed=False, subspectra=((200, 16, 4),))
    summed = fine["counts"].values.reshape(16, 4, 32, 12).sum(axis=1)
    assert_array_equal(wide["counts"], summed)


def test_a_run_goes_through_telemetry() -> None:
    run = simulate_calibration(*scales(3), counts=1000.0, seed=3)
    records, _ = packetise(run)
    packets = Packets.from_bytes(encode([records]))
    (back,) = build_calibration(*decode(packets, products=record_names("cal_spectrum")).values())
    assert back.attrs["complete"]
    for name in ("counts", "adc_start", "adc_stop", "subspectrum", "live_time_raw", "scet", "average_temperature"):
        assert_array_equal(back[name], run[name], err_msg=name)
