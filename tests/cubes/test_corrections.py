from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from example_records import pixels

from stixflow.cubes.build import build_requests
from stixflow.cubes.check import check_dataset
from stixflow.cubes.corrections import MISSING_DETECTORS, SHIFTED_DURATIONS, correct, has_shifted_durations
from stixflow.errors import UsageError

WITHOUT_TWO = 660_000_000
"""Onboard seconds at which detectors 9 and 10 were not recorded."""
BEFORE, AFTER = 659_318_489, 668_863_557
BINS = [[(10 * start, [3, 4]) for start in range(6)]]


def cube(coarse: int, *, detectors: int = 0b1100000011, corrections: tuple[str, ...] = ()) -> xr.Dataset:
    (request,) = build_requests(pixels(BINS, coarse=coarse, detectors=detectors), corrections=corrections)
    (dataset,) = request.datasets
    return dataset


def empty(dataset: xr.Dataset) -> xr.Dataset:
    counts = dataset["counts"].values.copy()
    counts[:, :, 8:10] = 0
    return dataset.assign(counts=dataset["counts"].copy(data=counts))


@pytest.mark.parametrize(("coarse", "applies"), [(BEFORE, False), (WITHOUT_TWO, True), (AFTER, False)])
def test_detectors_that_were_not_recorded_leave_the_mask(coarse: int, applies: bool) -> None:
    made = correct(empty(cube(coarse)), [MISSING_DETECTORS])
    check_dataset(made)
    assert made.attrs["corrections"] == ([MISSING_DETECTORS] if applies else [])
    assert set(made["detector_mask"].values.tolist()) == {0b11 if applies else 0b1100000011}


def test_detectors_with_counts_were_recorded() -> None:
    dataset = cube(WITHOUT_TWO)
    assert correct(dataset, [MISSING_DETECTORS])["detector_mask"].equals(dataset["detector_mask"])


def test_durations_move_by_one_row() -> None:
    """On board every bin had the duration of the one after it."""
    lasted = [10, 10, 20, 30, 10, 10]
    starts = np.cumsum([0, *lasted[:-1]]).tolist()
    records = pixels([[(start, [3, 4]) for start in starts]], coarse=WITHOUT_TWO)
    records["integration_time"][:] = [*lasted[1:], 10]
    (request,) = build_requests(records, corrections=())
    whole = request.datasets[0] if len(request.datasets) == 1 else xr.concat(request.datasets, "time").sortby("time")
    made = correct(whole, [SHIFTED_DURATIONS])
    check_dataset(made)
    assert made["timedel"].values.tolist() == [1.0, 2.0, 3.0, 1.0]
    assert np.array_equal(made["counts"], whole["counts"][1:-1])
    assert np.array_equal(made["scet"], whole["scet"][1:-1])
    half = (made["time"].values - made["time_start"].values) / np.timedelta64(1, "s")
    np.testing.assert_allclose(half, [0.5, 1.0, 1.5, 0.5], atol=1e-5)
    assert made.attrs["corrections"] == [SHIFTED_DURATIONS]


def test_bins_that_were_joined_on_board_are_not_shifted() -> None:
    dataset = cube(WITHOUT_TWO)
    long = dataset.assign(timedel=dataset["timedel"] * 20)
    assert not has_shifted_durations(long)
    assert correct(long, [SHIFTED_DURATIONS]).drop_attrs().identical(long.drop_attrs())
    assert not has_shifted_durations(cube(720_000_000))


def test_the_books_know_what_a_correction_left_out() -> None:
    records = pixels(BINS, coarse=WITHOUT_TWO)
    (whole,), (cut,) = (build_requests(records, corrections=names) for names in ((), (SHIFTED_DURATIONS,)))
    ends = whole.datasets[0]["counts"].values[[0, -1]]
    assert cut.books.corrected_counts == int(ends.sum())
    assert cut.books.counts == whole.books.counts - cut.books.corrected_counts
    assert cut.datasets[0].sizes["time"] == 4


def test_unknown_corrections_are_refused() -> None:
    with pytest.raises(UsageError, match="no correction 'soup'"):
        correct(cube(WITHOUT_TWO), ["soup"])
