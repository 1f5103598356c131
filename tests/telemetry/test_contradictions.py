from __future__ import annotations

import numpy as np
import pytest
from example_records import light_curve, pixels, spectrogram

from stixflow.telemetry import Records, consistent, encode

BINS = [[(0, [1, 2, 3])], [(0, [4]), (10, [1, 2])], [(10, [3, 4]), (20, [1, 2, 3, 4])]]


def _spoiled(records: Records, name: str, row: int, value: int) -> Records:
    records[name][row] = value
    return records


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (_spoiled(pixels(BINS), "detector_mask", 1, 1), "not detectors times pixels"),
        (_spoiled(pixels(BINS), "pixel_mask", 5, 1), "rising order"),
        (_spoiled(pixels(BINS), "pixel_mask", 5, 3), "rising order"),
        (_spoiled(pixels(BINS), "e_high", 3, 0), "below the lower"),
        (_spoiled(pixels(BINS), "integration_time", 1, 0), "integration time is zero"),
        (_spoiled(pixels(BINS), "time_stamp", 1, 1 << 47), "not synchronised"),
        (_spoiled(light_curve((2, 3, 4)), "num_energies", 1, 4), "energy edges"),
        (_spoiled(light_curve((2, 3, 4)), "scet_coarse", 1, 1 << 31), "not synchronised"),
    ],
)
def test_contradictions_take_out_one_packet(records: Records, reason: str) -> None:
    if records.type[2] == 30 and "edges" in reason:
        records["num_energies"][1] = 5
        records["energy_edge_mask_0_31"][1] = 0b111
    kept, (entry,) = consistent(records)
    assert reason in entry.reason
    assert entry.data == encode(records.select(np.array([1])))
    assert encode(kept) == encode(records.select(np.array([0, 2])))


def test_contradictions_of_spectrograms() -> None:
    binning = (1, 4, 1)
    good = (binning, [0, 5], 5)
    for bad, reason in [((binning, [5, 5], 5), "do not rise"), ((binning, [9, 5], 5), "do not rise")]:
        kept, (entry,) = consistent(spectrogram([[good], [bad]]))
        assert reason in entry.reason
        assert len(kept) == 1
    records = _spoiled(spectrogram([[good], [good]]), "e_high", 1, 5)
    assert "number of energies" in consistent(records)[1][0].reason
    assert consistent(spectrogram([[good]]))[1] == []


def test_samples_of_different_numbers_contradict() -> None:
    records = light_curve((2, 3))
    records["num_samples"][5:7] = [2, 4]
    kept, (entry,) = consistent(records)
    assert entry.reason == "numbers of samples differ"
    assert len(kept) == 1
