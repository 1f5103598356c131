"""Detectors, sub-collimators, pixels, against the public tables."""

import csv
from collections import Counter

import numpy as np
import pytest

from stixflow.errors import UsageError
from stixflow.instrument import BKG_INDEX, CFL_INDEX, SumCase, detectors, pixels, subcollimators


def test_uv_follow_from_the_nominal_grids(shared):
    rows = list(csv.DictReader((shared / "facts/imaging/subcollimators.csv").open()))
    for row, u, v in zip(rows, detectors().u, detectors().v, strict=True):
        if row["kind"] != "fourier":
            assert np.isnan(u)
            continue
        front, rear = np.deg2rad(float(row["front_orient_deg"])), np.deg2rad(float(row["rear_orient_deg"]))
        f = (47.78 + 545.30) / float(row["front_pitch_mm"])
        r = 47.78 / float(row["rear_pitch_mm"])
        sense = -float(row["phase_sense"]) / 206264.80624709636
        assert u == pytest.approx(sense * (f * np.cos(front) - r * np.cos(rear)), rel=1e-9)
        assert v == pytest.approx(sense * (f * np.sin(front) - r * np.sin(rear)), rel=1e-9)


def test_subcollimators_are_named_by_resolution():
    assert (subcollimators(10, 9) + 1).tolist() == [3, 20, 22, 16, 14, 32]
    assert len(subcollimators()) == 24
    assert detectors().resolution[subcollimators(7)].tolist() == [7, 7, 7]
    with pytest.raises(UsageError, match="resolution 11"):
        subcollimators(10, 11)


def test_imaging_sets_equal_the_ground_software(shared):
    import json

    constants = json.loads((shared / "facts/imaging/constants.json").read_text())
    assert (subcollimators() + 1).tolist() == constants["isc_10_to_3"]
    assert (subcollimators(10, 9, 8, 7) + 1).tolist() == constants["isc_10_to_7"]


def test_every_accumulator_serves_two_detectors():
    assert Counter(detectors().accumulator.tolist()) == dict.fromkeys(range(16), 2)


def test_detectors_without_grids_have_no_grid_numbers():
    special = [CFL_INDEX, BKG_INDEX]
    grids = detectors()
    assert [grids.label[index] for index in special] == ["cfl", "bkg"]
    assert np.isnan(grids.transmission_intercept[special]).all()
    assert np.isfinite(np.delete(grids.orientation_deg, special)).all()


def test_tables_cannot_be_changed_by_a_caller():
    with pytest.raises(ValueError, match="read-only"):
        detectors().u[0] = 0.0


@pytest.mark.parametrize(
    ("case", "mask", "area", "phase", "harmonic"),
    [
        (SumCase.TOP, 0x00F, 0.096195, 46.1, 1),
        (SumCase.BOTTOM, 0x0F0, 0.096195, 46.1, 1),
        (SumCase.TOP_BOTTOM, 0x0FF, 0.192390, 46.1, 1),
        (SumCase.ALL, 0xFFF, 0.202400, 45.0, 1),
        (SumCase.SMALL, 0xF00, 0.010010, 22.5, 2),
    ],
)
def test_sum_cases(case, mask, area, phase, harmonic):
    assert case.pixel_mask == mask
    assert case.column_area_cm2 == pytest.approx(area, abs=1e-6)
    assert (case.phase_offset_deg, case.harmonic) == (phase, harmonic)
    assert (pixels().column[case.pixels] == np.arange(4)).all()
