from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits
from astropy.time import Time
from example_cubes import make_dataset

import stixflow
from stixflow.archive import (
    Archive,
    Partition,
    Quarantined,
    day_key,
    draft_partition,
    open_archive,
    request_key,
    store_path,
)
from stixflow.cubes.store import delete_store, write_store
from stixflow.errors import MissingFile, NotFound, StoreError, UsageError

DAYS = [date(2022, 11, 8), date(2022, 11, 9), date(2022, 11, 11)]


def _add(archive: Archive, boxes: Sequence[xr.Dataset], day: date, run_id: str = "R1", **more: object) -> Partition:
    attrs = boxes[0].attrs
    key = request_key(attrs["request_id"], attrs["seq_control"]) if "request_id" in attrs else day_key(day)
    path = store_path(attrs["product"], key, day, run_id)
    record = write_store(archive.url(path), boxes)
    made = draft_partition(
        record,
        product=attrs["product"],
        run_id=run_id,
        key=key,
        day=day,
        path=path,
        input_digest="in",
        code_version="1",
        **more,
    )  # type: ignore[arg-type]
    partition_id = archive.catalog.stage(made)
    archive.catalog.publish(partition_id)
    return archive.catalog.partition(partition_id)


def _day(day: date, **more: object) -> xr.Dataset:
    values: dict[str, object] = {"n_time": 24, "step_s": 3600.0, "seed": day.day} | more
    return make_dataset("ql_lightcurve", start=np.datetime64(day, "ns"), **values)  # type: ignore[arg-type]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = open_archive(tmp_path / "archive", create=True)
    for day in DAYS:
        _add(made, [_day(day)], day)
    return made


class TestSpans:
    def test_one_day_is_the_day(self, archive: Archive) -> None:
        found = archive.lightcurves("2022-11-09", "2022-11-10")
        xr.testing.assert_identical(found.load(), _day(DAYS[1]))

    def test_days_are_joined_lazily(self, archive: Archive) -> None:
        found = archive.lightcurves("2022-11-08", "2022-11-12")
        assert found["counts"].chunks is not None
        whole = xr.concat([_day(day) for day in DAYS], dim="time", data_vars="minimal", coords="minimal",
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
        _add(archive, [_day(date(2022, 11, 10), n_energy=4)], date(2022, 11, 10))
        with pytest.raises(UsageError, match="energy bins of ql_lightcurve change between 2022-11-09 and 2022-11-10"):
            archive.lightcurves("2022-11-08", "2022-11-12")

    def test_wider_counts_of_one_day_widen_the_span(self, archive: Archive) -> None:
        wide = _day(date(2022, 11, 10), counts_dtype="uint64")
        _add(archive, [wide], date(2022, 11, 10))
        found = archive.lightcurves("2022-11-09", "2022-11-11")["counts"]
        assert found.dtype == "uint64"
        assert int(found.max()) == np.iinfo("uint64").max

    def test_an_open_cube_outlives_what_replaces_it(self, archive: Archive) -> None:
        before = archive.lightcurves("2022-11-09", "2022-11-10")
        _add(archive, [_day(DAYS[1], seed=99)], DAYS[1], "R2")
        xr.testing.assert_identical(before.load(), _day(DAYS[1]))
        after = archive.lightcurves("2022-11-09", "2022-11-10").load()
        assert not after["counts"].equals(before["counts"])
        archive.catalog.rollback("ql_lightcurve", "2022-11-09")
        xr.testing.assert_identical(archive.lightcurves("2022-11-09", "2022-11-10").load(), _day(DAYS[1]))


class TestRequests:
    def test_a_request_is_found_by_its_number(self, archive: Archive) -> None:
        dataset = make_dataset("sci_pixels")
        _add(archive, [dataset], DAYS[1], complete=False, missing="packet 3 of 9")
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
        _add(archive, boxes, DAYS[1])
        with pytest.raises(UsageError, match=r"has 2 boxes: box=0 from .*12 bins.*; box=1 from"):
            archive.spectrogram(2211090305)
        xr.testing.assert_identical(archive.spectrogram(2211090305, box=1).load(), boxes[1])
        with pytest.raises(UsageError, match="no box 2"):
            archive.spectrogram(2211090305, box=2)

    def test_several_answers_must_be_chosen_from(self, archive: Archive) -> None:
        for control in (1, 2):
            _add(archive, [make_dataset("sci_pixels", seq_control=control, seed=control)], DAYS[1])
        with pytest.raises(UsageError, match="answered 2 times: seq_control=1 from"):
            archive.pixels(2211090305)
        assert archive.pixels(2211090305, seq_control=2).attrs["seq_control"] == 2
        with pytest.raises(NotFound, match="seq_control 1, 2"):
            archive.pixels(2211090305, seq_control=3)

    def test_unknown_requests(self, archive: Archive) -> None:
        _add(archive, [make_dataset("sci_spectrogram")], DAYS[1])
        with pytest.raises(NotFound, match="but sci_spectrogram"):
            archive.pixels(2211090305)
        with pytest.raises(NotFound, match="no sci_pixels of the request 5"):
            archive.pixels(5)
        with pytest.raises(UsageError, match="not a kind"):
            archive.requests(kind="soup")


class TestTables:
    def test_flares_have_plain_times(self, archive: Archive) -> None:
        day = archive.catalog.current("ql_lightcurve", "2022-11-09")
        assert day is not None
        row = {"flare_id": 1, "start": "2022-11-09T01", "peak": "2022-11-09T02", "stop": "2022-11-09T03"}
        archive.catalog.replace_flares(day.id, [row | {"peak_counts": 12, "goes_class": "C1"}])
        table = archive.flares("2022-11-09", "2022-11-10")
        assert [str(table[name].dtype) for name in ("start", "peak", "stop")] == ["datetime64[ns]"] * 3
        assert table.columns[:5].tolist() == ["flare_id", "start", "peak", "stop", "peak_counts"]
        assert table.loc[0, "goes_class"] == "C1"
        assert archive.flares("2022-11-08", "2022-11-09").columns[0] == "flare_id"

    def test_an_image_is_a_map(self, archive: Archive) -> None:
        path = Path(archive.url("images/a.fits"))
        path.parent.mkdir()
        header = {
            "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CDELT1": 2.0,
            "CDELT2": 2.0, "CRPIX1": 2.5, "CRPIX2": 2.5, "CRVAL1": 100.0, "CRVAL2": 50.0, "RSUN_REF": 695700000.0,
            "DATE-OBS": "2022-11-09T01:00:00", "HGLN_OBS": 0.0, "HGLT_OBS": 0.0, "DSUN_OBS": 1.0e11,
        }  # fmt: skip
        fits.PrimaryHDU(np.arange(16.0).reshape(4, 4), fits.Header(header)).writeto(path)
        row = {"image_id": "a", "method": "bp", "energy_low": 4, "energy_high": 10, "digest": "d"}
        span = {"start": "2022-11-09T01", "stop": "2022-11-09T02"}
        archive.catalog.replace_images({"7": [row | span | {"path": "images/a.fits"}]}, run_id="R")
        assert archive.images(flare_id=7)["image_id"].tolist() == ["a"]
        assert len(archive.images(start="2022-11-10")) == 0
        assert archive.map("a").data[3, 3] == 15.0
        with pytest.raises(NotFound):
            archive.map("b")

    def test_runs_files_and_quarantine(self, archive: Archive) -> None:
        archive.catalog.begin_run("R1", "stixflow ingest", code_version="1")
        archive.catalog.quarantine([Quarantined("a.xml", "bad length")], run_id="R1")
        assert archive.runs().loc[0, "command"] == "stixflow ingest"
        assert archive.quarantine("R1").loc[0, "reason"] == "bad length"
        assert len(archive.quarantine("R2")) == len(archive.files()) == 0

    def test_coverage_sums_what_is_published(self, archive: Archive) -> None:
        _add(archive, [_day(DAYS[0], seed=3)], DAYS[0], "R2", complete=False)
        (row,) = archive.coverage().to_dict("records")
        assert (row["product"], row["partitions"], row["n_time"], row["incomplete"]) == ("ql_lightcurve", 3, 72, 1)
        assert row["n_bytes"] == sum(item.n_bytes for item in archive.catalog.partitions())
        assert (row["start"], row["stop"]) == (pd.Timestamp("2022-11-08"), pd.Timestamp("2022-11-12"))
        assert archive.catalog.totals() == {"files": 0, "quarantined": 0, "images": 0, "flares": 0}

    def test_the_repr_says_what_is_there(self, archive: Archive) -> None:
        assert "3 partitions  2022-11-08T00:00:00.000 to 2022-11-12T00:00:00.000" in repr(archive)


class TestVerify:
    def test_a_sound_archive_has_no_defect(self, archive: Archive) -> None:
        assert archive.verify() == []
        assert archive.lost() == []

    def test_every_defect_is_found(self, archive: Archive) -> None:
        gone, flipped, other = archive.catalog.partitions()
        delete_store(archive.url(gone.path))
        shard = Path(archive.url(flipped.path)) / "0" / "counts" / "c.0.0"
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
        delete_store(archive.url(other.path))
        write_store(archive.url(other.path), [_day(DAYS[2], seed=77)])
        found = {defect.url: defect.problem for defect in archive.verify()}
        assert "never completed" in found[archive.url(gone.path)]
        assert "SHA-256" in found[archive.url(flipped.path)]
        assert "has the digest" in found[archive.url(other.path)]
        assert archive.lost() == [gone]
        assert [item.url for item in archive.verify([gone])] == [archive.url(gone.path)]
        with pytest.raises(StoreError, match="never completed"):
            archive.lightcurves("2022-11-08", "2022-11-09")

    def test_a_catalog_that_counts_otherwise(self, archive: Archive) -> None:
        sound = archive.catalog.partitions()[0]
        partition_id = archive.catalog.stage(_renamed(archive, sound, counts_sum=1, n_time=25))
        archive.catalog.publish(partition_id)
        problems = {defect.problem for defect in archive.verify()}
        assert "the store has 24 time bins, the catalog 25" in problems
        assert f"the store has {sound.counts_sum} counts, the catalog 1" in problems


def _renamed(archive: Archive, sound: Partition, **changes: object) -> Partition:
    from dataclasses import replace

    path = sound.path.replace("R1", "R2")
    write_store(archive.url(path), [_day(DAYS[0])])
    return replace(sound, path=path, run_id="R2", **changes)  # type: ignore[arg-type]


class TestOpening:
    def test_there_must_be_one(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFile, match="is not an archive"):
            stixflow.open_archive(tmp_path / "none")
        assert list(tmp_path.iterdir()) == []

    def test_an_archive_can_be_moved(self, archive: Archive, tmp_path: Path) -> None:
        archive.close()
        Path(archive.root).rename(tmp_path / "elsewhere")
        assert stixflow.open_archive(tmp_path / "elsewhere").verify() == []

    def test_a_bucket_needs_a_catalog(self) -> None:
        with pytest.raises(UsageError, match="no place for SQLite"):
            stixflow.open_archive("s3://bucket/root")


class TestMoments:
    def test_what_covers_a_moment(self, archive: Archive) -> None:
        _add(archive, [make_dataset("sci_pixels")], DAYS[1])
        day = archive.catalog.current("ql_lightcurve", "2022-11-09")
        assert day is not None
        row = {"flare_id": "f", "start": "2022-11-09T00:50", "peak": "2022-11-09T00:50:30", "stop": "2022-11-09T00:51"}
        archive.catalog.replace_flares(day.id, [row | {"peak_counts": 12}])
        found = archive.at("2022-11-09T00:50:20")
        assert found["what"].tolist() == ["ql_lightcurve", "sci_pixels", "flare"]
        assert found["name"].tolist() == ["2022-11-09", "2211090305-54678", "f"]
        assert (found["start"] <= pd.Timestamp("2022-11-09T00:50:20")).all()
        assert archive.at("2022-11-09T00:51")["what"].tolist() == ["ql_lightcurve"]
        assert archive.at("2022-11-10T12:00").empty

    def test_light_curves_as_a_sunpy_timeseries(self, archive: Archive) -> None:
        series = archive.timeseries("2022-11-08", "2022-11-10")
        assert series.shape == (48, 5)
        assert series.quantity("4-5 keV").sum().value == int(
            archive.lightcurves("2022-11-08", "2022-11-10")["counts"][:, 0].sum()
        )

    def test_light_curve_of_a_request(self, archive: Archive) -> None:
        cube = make_dataset("sci_pixels")
        _add(archive, [cube], DAYS[1])
        found = archive.pixel_lightcurve(2211090305, energy_range=(4, 6), detectors=[3], pixels=[7])
        assert (found["counts"].values == cube["counts"].values[:, :2, 3, 7]).all()
