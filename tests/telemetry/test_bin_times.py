from __future__ import annotations

from pathlib import Path

import pytest
from example_records import NEW, OLD, pixels, spectrogram

from stixflow.errors import UsageError
from stixflow.telemetry import Packets, decode, encode, read_packets
from stixflow.telemetry.bin_times import bin_starts, spectrogram_durations


def test_old_time_field_has_no_offset_and_the_new_one_a_switch() -> None:
    base = (OLD << 16, NEW << 16)
    old, new = (pixels([[(20, [1])]], coarse=coarse) for coarse in (OLD, NEW))
    assert bin_starts(old).tolist() == [base[0] + 2 * 65536]
    assert bin_starts(new).tolist() == [base[1] + round(2.1 * 65536)]
    assert bin_starts(new, start_offset=0.0).tolist() == [base[1] + 2 * 65536]
    both = decode(Packets.from_bytes(encode([new, old])))["sci_pixels"]
    assert bin_starts(both).tolist() == [base[1] + round(2.1 * 65536), base[0] + 2 * 65536]


def test_durations_of_spectrogram_samples() -> None:
    binning = (1, 4, 1)
    records = spectrogram([[(binning, [0, 5, 15], 7), (binning, [22, 30], 0)], [(binning, [50, 60], 0)]])
    assert spectrogram_durations(records).tolist() == [5, 10, 7, 8, 20, 10, 10]
    assert spectrogram_durations(spectrogram([[(binning, [5], 0)]])).tolist() == [1]
    assert spectrogram_durations(spectrogram([[(binning, [0, 6], 0), ((5, 6, 1), [20], 4)]])).tolist() == [6, 6, 4]


def test_durations_of_a_real_packet_without_closing_offset(shared: Path) -> None:
    records = decode(read_packets(shared / "data/telemetry/packets/965d5b_21_6_24.hex"))["sci_spectrogram"]
    durations = spectrogram_durations(records)
    assert durations[:3].tolist() == [194, 198, 190]
    assert (durations > 0).all()


def test_bins_of_other_records_are_refused(shared: Path) -> None:
    records = decode(read_packets(shared / "data/telemetry/packets/05bfed_21_6_41.hex"), products=["21,6,41"])
    with pytest.raises(UsageError, match="21,6,41"):
        bin_starts(records["21,6,41"])
