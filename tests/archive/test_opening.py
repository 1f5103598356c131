from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.time import Time
from example_archive import DAYS, add, day_of, with_days
from example_cubes import make_dataset

from stixflow.archive import Archive
from stixflow.errors import NotFound, UsageError


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return with_days(tmp_path / "archive")


class TestSpans:
    def test_one_day_is_the_day(self, archive: Archive) -> None:
        found = archive.lightcurves("2022-11-09", "2022-11-10")
        xr.testing.assert_identical(found.load(), day_of(DAYS[1]))

    def test_days_are_joined_lazily(self, archive: Archive) -> None:
        found = archive.lightcurves("2022-11-08", "2022-11-12")
        assert found["counts"].chunks is not None
        whole = xr.concat([day_of(day) for day in DAYS], dim="time", data_vars="minimal", coords="minimal",
                          compat="override", combine_attrs="drop_conflicts", join="override")  # fmt: skip
        xr.testing.assert_identical(found.compute(), whole)
        assert found["counts"].dtype == "uint32"

    def test_spans_are_half_open_at_bin_centres(self, archive: Archive) -> None:
        half = archive.lightcurves("2022-11-08T23:30", "2022-11-09T00:30")
        assert half["time"].values.tolist() == [np.datetime64("2022-11-08T23:30", "ns").astype(int)]
        assert archive.lightcurves("2022-11-08T22:30", "2022-11-09T01:00").sizes["time"] == 3

    @pytest.mark.parametrize(
        "start",
        [
            "2022-11-09T00:00:00Z",
            datetime(2022, 11, 9),
            np.datetime64("2022-11-09"),
            Time("2022-11-09"),
            pd.Timestamp("2022-11-09"),
        ],
    )
    def test_times_of_any_kind(self, archive: Archive, start: object) -> None:
        assert archive.cube("ql_lightcurve", start, "2022-11-10").sizes["time"] == 24

    def test_nothing_there_says_what_is(self, archive: Archive) -> None:
        with pytest.raises(NotFound, match="2022-11-08 to 2022-11-09, 2022-11-11"):
            archive.lightcurves("2022-11-10", "2022-11-11")
        with pytest.raises(NotFound, match="nothing of it is published"):
            archive.ephemeris("2022-11-10", "2022-11-11")

    def test_wrong_use_is_named(self, archive: Archive) -> None:
        with pytest.raises(UsageError, match="is empty"):
            archive.lightcurves("2022-11-10", "2022-11-09")
        with pytest.raises(UsageError, match="not a day product"):
            archive.cube("sci_pixels", "2022-11-09", "2022-11-10")

    def test_other_energies_are_not_joined_in_silence(self, archive: Archive) -> None:
        add(archive, [day_of(date(2022, 11, 10), n_energy=4)], date(2022, 11, 10))
        with pytest.raises(UsageError, match="energy bins of ql_lightcurve change between 2022-11-09 and 2022-11-10"):
            archive.lightcurves("2022-11-08", "2022-11-12")

    def test_wider_counts_of_one_day_widen_the_span(self, archive: Archive) -> None:
        wide = day_of(date(2022, 11, 10), counts_dtype="uint64")
        add(archive, [wide], date(2022, 11, 10))
        found = archive.lightcurves("2022-11-09", "2022-11-11")["counts"]
        assert found.dtype == "uint64"
        assert int(found.max()) == np.iinfo("uint64").max

    def test_an_open_cube_outlives_what_replaces_it(self, archive: Archive) -> None:
        before = archive.lightcurves("2022-11-09", "2022-11-10")
        add(archive, [day_of(DAYS[1], seed=99)], DAYS[1], "R2")
        xr.testing.assert_identical(before.load(), day_of(DAYS[1]))
        after = archive.lightcurves("2022-11-09", "2022-11-10").load()
        assert not after["counts"].equals(before["counts"])
        archive.catalog.rollback("ql_lightcurve", "2022-11-09")
        xr.testing.assert_identical(archive.lightcurves("2022-11-09", "2022-11-10").load(), day_of(DAYS[1]))

    def test_light_curves_as_a_sunpy_timeseries(self, archive: Archive) -> None:
        series = archive.timeseries("2022-11-08", "2022-11-10")
        assert series.shape == (48, 5)
        assert series.quantity("4-5 keV").sum().value == int(
            archive.lightcurves("2022-11-08", "2022-11-10")["counts"][:, 0].sum()
        )


class TestRequests:
    def test_a_request_is_found_by_its_number(self, archive: Archive) -> None:
        dataset = make_dataset("sci_pixels")
        add(archive, [dataset], DAYS[1], complete=False, missing="packet 3 of 9")
        xr.testing.assert_identical(archive.pixels(2211090305).load(), dataset)
        table = archive.requests("2022-11-09", "2022-11-10", kind="pixels")
        assert table.loc[0, ["request_id", "seq_control", "kind", "n_time"]].tolist() == [
            2211090305, 54678, "pixels", 12,
        ]  # fmt: skip
        assert table.loc[0, "counts"] == int(dataset["counts"].sum())
        assert table["start"].dtype == "datetime64[ns]"
        assert (bool(table.loc[0, "complete"]), table.loc[0, "missing"]) == (False, "packet 3 of 9")
        assert len(archive.requests(kind="spectrogram")) == 0
        assert archive.requests(kind="spectrogram").dtypes["start"] == "datetime64[ns]"

    def test_several_boxes_must_be_chosen_from(self, archive: Archive) -> None:
        boxes = [make_dataset("sci_spectrogram", n_energy=n, box=i, boxes=2) for i, n in enumerate((3, 6))]
        add(archive, boxes, DAYS[1])
        with pytest.raises(UsageError, match=r"has 2 boxes: box=0 from .*12 bins.*; box=1 from"):
            archive.spectrogram(2211090305)
        xr.testing.assert_identical(archive.spectrogram(2211090305, box=1).load(), boxes[1])
        with pytest.raises(UsageError, match="no box 2"):
            archive.spectrogram(2211090305, box=2)

    def test_several_answers_must_be_chosen_from(self, archive: Archive) -> None:
        for control in (1, 2):
            add(archive, [make_dataset("sci_pixels", seq_control=control, seed=control)], DAYS[1])
        with pytest.raises(UsageError, match="answered 2 times: seq_control=1 from"):
            archive.pixels(2211090305)
        assert archive.pixels(2211090305, seq_control=2).attrs["seq_control"] == 2
        with pytest.raises(NotFound, match="seq_control 1, 2"):
            archive.pixels(2211090305, seq_control=3)

    def test_unknown_requests(self, archive: Archive) -> None:
        add(archive, [make_dataset("sci_spectrogram")], DAYS[1])
        with pytest.raises(NotFound, match="but sci_spectrogram"):
            archive.pixels(2211090305)
        with pytest.raises(NotFound, match="no sci_pixels of the request 5"):
            archive.pixels(5)
        with pytest.raises(UsageError, match="not a kind"):
            archive.requests(kind="soup")

    def test_light_curve_of_a_request(self, archive: Archive) -> None:
        cube = make_dataset("sci_pixels")
        add(archive, [cube], DAYS[1])
        found = archive.pixel_lightcurve(2211090305, energy_range=(4, 6), detectors=[3], pixels=[7])
        assert (found["counts"].values == cube["counts"].values[:, :2, 3, 7]).all()
