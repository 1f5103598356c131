"""Stores, blobs and the whole chain on a bucket, as on a disk; its faults are errors, never wrong data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import s3fs
import xarray as xr
from example_archive import DAYS as MADE_DAYS
from example_archive import add, day_of
from example_cubes import make_dataset
from example_delivery import DAYS, assert_balanced, published
from services.s3 import Bucket

from stixflow import cli
from stixflow.archive import Archive, collect, open_archive
from stixflow.compute import Serial
from stixflow.cubes.files import local_copy, open_files
from stixflow.cubes.store import delete_store, is_there, open_store, verify_store, write_store
from stixflow.errors import StoreError
from stixflow.jobs.kept import kept_of, read_kept, write_kept
from stixflow.stages import STAGES, run_stages

SHARDED = {"n_time": 700, "n_energy": 16}


def _run(root: str, catalog: str, *paths: Path) -> dict[str, object]:
    report = run_stages(STAGES, paths, root=root, catalog=catalog, pool=Serial(), command="test")
    assert_balanced(report["balance"])
    return report


def test_a_delivery_on_a_bucket_and_postgresql_is_that_on_a_disk_and_sqlite(
    s3: Bucket, postgres_url: str, delivery: Path, processed: Path
) -> None:
    root = f"{s3.url}/archive"
    report = _run(root, postgres_url, delivery / "telemetry", delivery / "ephemeris")
    assert not report["failed"]
    archive = open_archive(root, catalog=postgres_url)
    mine = {f"{p.product} {p.key}": (p.digest, p.n_time, p.counts_sum) for p in archive.catalog.partitions()}
    assert mine == published(processed)
    local = open_archive(processed)
    xr.testing.assert_identical(
        archive.lightcurves(DAYS[0], "2022-06-17").load(), local.lightcurves(DAYS[0], "2022-06-17").load()
    )
    assert archive.verify() == []
    assert collect(archive, grace_days=0).marked == ()
    assert archive.map(archive.images()["image_id"][0]).data.shape == (129, 129)
    assert _run(root, postgres_url, delivery)["counts"] == {}
    day = archive.catalog.current("ql_lightcurve", DAYS[1])
    assert day is not None
    delete_store(archive.url(day.path))
    assert [item.key for item in archive.lost()] == [DAYS[1]]
    assert _run(root, postgres_url)["counts"] == {"ql_lightcurve": 1, "flares": 1, "days_searched": 1}
    assert archive.verify() == []


@pytest.mark.parametrize("more", [{}, SHARDED])
def test_a_store_on_a_bucket(s3: Bucket, more: dict[str, int]) -> None:
    dataset = make_dataset("sci_pixels", **more)  # type: ignore[arg-type]
    url = f"{s3.url}/a/run.zarr"
    record = write_store(url, [dataset])
    assert write_store(url, [dataset]) == record
    with pytest.raises(StoreError, match="exists with other content"):
        write_store(url, [make_dataset("sci_pixels", seed=5)])
    xr.testing.assert_identical(open_store(url, digest=record.digest).load(), dataset)
    xr.testing.assert_identical(open_store(url, dask=True).compute(), dataset)
    assert verify_store(url, record.digest) == []
    delete_store(url)
    delete_store(url)
    assert not is_there(url)


def test_files_kept_on_a_bucket(s3: Bucket) -> None:
    root = f"{s3.url}/root"
    digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    write_kept(root, "packets/a.bin", b"foo")
    write_kept(root, "packets/a.bin", b"foo")
    assert read_kept(root, "packets/a.bin", digest) == b"foo"
    assert kept_of(root, ["packets/a.bin", "packets/b.bin"]) == {"packets/a.bin"}
    with local_copy(f"{root}/packets/a.bin") as path:
        assert path.read_bytes() == b"foo"
    assert not path.exists()
    with pytest.raises(StoreError, match="is not there"):
        read_kept(root, "packets/b.bin", digest)
    open_files(root).write({"packets/a.bin": b"fo0"})
    with pytest.raises(StoreError, match="does not have the content"):
        read_kept(root, "packets/a.bin", digest)
    open_files(root).unlink("packets/a.bin")
    open_files(root).unlink("packets/a.bin")
    assert kept_of(root, ["packets/a.bin"]) == set()


class TestRequests:
    """How often a typical question asks the service: each answer takes some 30 ms in the real world."""

    def test_opening_a_store_is_seven_requests(self, s3: Bucket) -> None:
        write_store(f"{s3.url}/run.zarr", [make_dataset("sci_pixels", **SHARDED)])  # type: ignore[arg-type]
        with s3.counted() as counted:
            open_store(f"{s3.url}/run.zarr")
        # The manifest, the listing, the metadata, and the coordinates of the four dimensions.
        assert dict(counted) == {"GET": 7}

    def test_a_lightcurve_of_one_energy_and_a_minute_of_all_are_one_request(self, s3: Bucket) -> None:
        dataset = make_dataset("sci_pixels", **SHARDED)  # type: ignore[arg-type]
        write_store(f"{s3.url}/run.zarr", [dataset])
        cube = open_store(f"{s3.url}/run.zarr")
        for part in ({"energy": 3}, {"time": slice(100, 160)}):
            with s3.counted() as counted:
                found = cube["counts"].variable.isel(part).values
            assert (found == dataset["counts"].isel(part).values).all()
            assert dict(counted) == {"GET": 1}

    def test_light_curve_of_a_request(self, s3: Bucket, tmp_path: Path) -> None:
        archive = open_archive(f"{s3.url}/root", catalog=f"sqlite:///{tmp_path}/c.sqlite", create=True)
        dataset = make_dataset("sci_pixels", **SHARDED)  # type: ignore[arg-type]
        add(archive, [dataset], MADE_DAYS[1])
        with s3.counted() as counted:
            curve = archive.pixel_lightcurve(2211090305, energy_range=(5, 8), detectors=[0, 5], pixels=[2])
        wanted = dataset["counts"].values[:, 1:4][:, :, [0, 5]][..., [2]].sum((2, 3))
        np.testing.assert_array_equal(curve["counts"], wanted)
        assert counted["GET"] <= 18
        assert set(counted) <= {"GET", "HEAD"}


# Faults -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(s3: Bucket, tmp_path: Path) -> Archive:
    made = open_archive(f"{s3.url}/root", catalog=f"sqlite:///{tmp_path}/c.sqlite", create=True)
    for day in MADE_DAYS[:2]:
        add(made, [day_of(day)], day)
    return made


SPAN = ("2022-11-08", "2022-11-10")


@pytest.mark.parametrize("what", ["0/time/c.0", "manifest.json"])
def test_a_write_that_is_refused_publishes_nothing_and_the_next_heals(archive: Archive, s3: Bucket, what: str) -> None:
    before = archive.lightcurves(*SPAN).load()
    changed = [day_of(MADE_DAYS[1], seed=77)]
    with (
        s3.failing(lambda method, path: method == "PUT" and path.endswith(what)),
        pytest.raises(StoreError, match="cannot be reached or refuses"),
    ):
        add(archive, changed, MADE_DAYS[1], "R2")
    xr.testing.assert_identical(archive.lightcurves(*SPAN).load(), before)
    assert archive.verify() == []
    add(archive, changed, MADE_DAYS[1], "R2")
    assert not archive.lightcurves(*SPAN).load()["counts"].equals(before["counts"])
    assert archive.verify() == []


@pytest.mark.parametrize("what", ["manifest.json", "0/counts/c.0.0", "zarr.json"])
def test_a_read_that_is_refused_is_an_error_not_zeros(archive: Archive, s3: Bucket, what: str) -> None:
    with (
        s3.failing(lambda method, path: method == "GET" and path.endswith(what)),
        pytest.raises(StoreError, match="cannot be reached or refuses"),
    ):
        archive.lightcurves(*SPAN).load()
    assert archive.lightcurves(*SPAN).load()["counts"].any()


def test_a_slow_service_gives_the_same(archive: Archive, s3: Bucket) -> None:
    before = archive.lightcurves(*SPAN).load()
    s3.delay_s = 0.02
    try:
        xr.testing.assert_identical(archive.lightcurves(*SPAN).load(), before)
    finally:
        s3.delay_s = 0.0


def test_a_service_that_fails_for_a_moment_is_asked_again(archive: Archive, s3: Bucket) -> None:
    before = archive.lightcurves(*SPAN).load()
    left = [3]

    def refuse(method: str, path: str) -> bool:
        left[0] -= "zarr" in path
        return method == "GET" and left[0] >= 0

    with s3.failing(refuse, status="503 Slow Down"):
        xr.testing.assert_identical(archive.lightcurves(*SPAN).load(), before)
    assert left[0] < 0


def test_lost_cut_and_flipped_objects(archive: Archive) -> None:
    fs = s3fs.S3FileSystem()
    lost, flipped = (archive.url(item.path) for item in archive.catalog.partitions())
    fs.rm_file(f"{lost}/0/counts/c.0.0")
    data = bytearray(fs.cat_file(f"{flipped}/0/counts/c.0.0"))
    data[len(data) // 2] ^= 1
    fs.pipe_file(f"{flipped}/0/counts/c.0.0", bytes(data))
    with pytest.raises(StoreError, match=r"counts/c\.0\.0 is missing"):
        archive.lightcurves("2022-11-08", "2022-11-09")
    problems = {defect.url: defect.problem for defect in archive.verify()}
    assert problems == {lost: "is missing", flipped: "differs from its SHA-256"}
    fs.pipe_file(f"{lost}/0/counts/c.0.0", b"short")
    with pytest.raises(StoreError, match="5 bytes instead of"):
        archive.lightcurves("2022-11-08", "2022-11-09")


def test_a_store_that_is_removed_while_it_is_open(archive: Archive) -> None:
    cube = archive.lightcurves(*SPAN)
    s3fs.S3FileSystem().rm(archive.url(archive.catalog.partitions()[0].path), recursive=True)
    with pytest.raises(StoreError, match="lost an object of 0/"):
        cube["counts"].load()


def test_a_bucket_that_is_not_there(tmp_path: Path, s3: Bucket) -> None:
    archive = open_archive(f"{s3.url}-none/root", catalog=f"sqlite:///{tmp_path}/c.sqlite", create=True)
    with pytest.raises(StoreError, match="is in no bucket"):
        add(archive, [day_of(MADE_DAYS[0])], MADE_DAYS[0])
    assert archive.catalog.partitions() == []


def test_the_command_line_takes_a_bucket_and_a_catalog(
    s3: Bucket, delivery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--archive", f"{s3.url}/cli", "--catalog", f"sqlite:///{tmp_path}/c.sqlite"]
    assert cli.main(["ingest", "--serial", "--quiet", str(delivery / "ephemeris"), *place]) == 0
    capsys.readouterr()
    assert cli.main(["status", "--json", *place]) == 0
    assert json.loads(capsys.readouterr().out)["products"]["ephemeris"]["partitions"] == 2
    assert cli.main(["verify", *place]) == 0
    assert cli.main(["status", "--archive", f"{s3.url}/cli"]) == 2
    assert "--catalog" in capsys.readouterr().err
