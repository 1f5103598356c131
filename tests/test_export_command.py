"""`stixflow export` on an archive that was made from telemetry."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from example_delivery import process

import stixflow
from stixflow import cli
from stixflow.fits import compare_files, read_level1, read_origin
from stixflow.simulate import replay


def run(capsys: pytest.CaptureFixture[str], archive: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    code = cli.main(["export", "--archive", str(archive), "--json", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out)


def counts_of(cube: xr.Dataset) -> np.ndarray:
    return np.asarray(cube["counts"].values)


def test_days_of_light_curves(processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    span = ("2022-06-15T23:00:00", "2022-06-16T02:00:00")
    code, told = run(
        capsys, processed, "--product", "ql_lightcurve", "--start", span[0], "--stop", span[1], "--output", tmp_path
    )
    assert code == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"solo_L1_stix-ql-lightcurve_202206{day}_V02.fits" for day in (15, 16)]
    assert [one["name"] for one in told["files"]] == names
    with closing(stixflow.open_archive(processed)) as archive:
        curve = archive.lightcurves(*span).load()
    written = [read_level1(tmp_path / name) for name in names]
    assert np.array_equal(np.concatenate([counts_of(one) for one in written]), counts_of(curve))
    assert np.array_equal(np.concatenate([one["scet"].values for one in written]), curve["scet"].values)
    assert written[0].attrs["dsun_m"] > 0


def test_requests_as_they_are(processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(stixflow.open_archive(processed)) as archive:
        requests = archive.requests()
        cubes = {
            int(row.request_id): (archive.spectrogram if row.kind == "spectrogram" else archive.pixels)(row.request_id)
            for row in requests.itertuples()
        }
        for request_id, cube in cubes.items():
            folder = tmp_path / str(request_id)
            code, _ = run(capsys, processed, "--request", request_id, "--output", folder, "--gzip")
            (path,) = folder.iterdir()
            assert code == 0
            assert path.name.endswith(f"_V02_{request_id:010d}-{cube.attrs['seq_control']:05d}.fits.gz")
            origin = read_origin(path)
            assert len(origin.packets) == len(origin.substructures) > 0
            assert sum(origin.substructures) >= cube.sizes["time"] or cube.attrs["ssid"] == 24
            assert all(name.endswith(".xml") for name in origin.raw_files)
            assert origin.raw_files
            again = read_level1(path)
            for name in ("counts", "triggers", "rcr", "detector_mask", "pixel_mask", "counts_skm", "timedel"):
                assert np.array_equal(again[name].values, cube[name].values), name


REAL = (
    "data/l1/solo_L1_stix-sci-xray-cpd_20240308T193915-20240308T203235_V02_2403087339-57240.fits",
    "data/spectrograms/solo_L1_stix-sci-xray-spec_20230319T175504-20230320T000014_V02_2303197888-65462.fits",
)


def test_official_files_come_back_through_telemetry(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replay([shared / name for name in REAL], tmp_path / "telemetry")
    process(tmp_path / "archive", tmp_path / "telemetry", stages=("ingest", "cubes"))
    for name in REAL:
        request_id = int(name.rpartition("_")[2].split("-")[0])
        code, _ = run(capsys, tmp_path / "archive", "--request", request_id, "--output", tmp_path / "files")
        assert code == 0
        found = compare_files(shared / name, tmp_path / "files" / Path(name).name)
        assert {(one.hdu, one.name) for one in found if one.hdu != "PRIMARY"} == {
            *(("CONTROL", what) for what in ("packet", "raw_file", "parent", "time_stamp")),
            *(("IDB_VERSIONS", what) for what in ("version", "obt_start", "obt_end")),
        }


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (("--request", 1), "nothing of request 1"),
        (("--product", "ephemeris"), "no level-1 file"),
        (("--product", "ql_lightcurve", "--start", "2023-01-01"), "nothing of ql_lightcurve"),
        ((), "required"),
    ],
)
def test_what_cannot_be_exported_is_told(
    wish: tuple[object, ...], words: str, processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = run(capsys, processed, *wish, "--output", tmp_path / "none")
    assert code != 0
    assert words in str(told["error"])


def test_the_help_names_every_product() -> None:
    from stixflow.cli.exporting import _PRODUCTS
    from stixflow.fits import EXPORTED

    assert set(_PRODUCTS) == set(EXPORTED)


@pytest.fixture(scope="module")
def real_archive(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive of every official file of the real day that has a cube."""
    root = tmp_path_factory.mktemp("official") / "archive"
    assert not process(root, shared / "data/l1", stages=("ingest", "cubes"))["failed"]
    return root


def test_every_product_of_the_real_day_goes_out_and_in_again(
    real_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is exported and taken in again is the same cube, to the last bit and the last tick."""
    from stixflow.cubes.store import open_store

    with closing(stixflow.open_archive(real_archive)) as archive:
        items = archive.catalog.partitions()
        products = {item.product for item in items}
        for product in products:
            code, _ = run(capsys, real_archive, "--product", product, "--output", tmp_path / "files")
            assert code == 0
        report = process(tmp_path / "again", tmp_path / "files", stages=("ingest", "cubes"))
        assert not report["failed"]
        assert not report["skipped"]
        with closing(stixflow.open_archive(tmp_path / "again")) as other:
            for item in items:
                found = other.catalog.current(item.product, item.key)
                assert found is not None, (item.product, item.key)
                a, b = (open_store(one.url(p.path)).load() for one, p in ((archive, item), (other, found)))
                xr.testing.assert_identical(a.drop_attrs(), b.drop_attrs())


def test_files_of_files_keep_what_the_official_ones_say(
    real_archive: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Version 02 through an archive: every table is that of the official file."""
    official = shared / REAL[0]
    code, _ = run(capsys, real_archive, "--request", 2403087339, "--output", tmp_path)
    assert code == 0
    path = tmp_path / official.name
    assert {one.hdu for one in compare_files(official, path)} == {"PRIMARY"} or all(
        (one.hdu, one.name) == ("CONTROL", "parent") for one in compare_files(official, path) if one.hdu != "PRIMARY"
    )
    origin = read_origin(path)
    assert origin.packets == read_origin(official).packets
    assert origin.parents == (official.name,)
    assert any(line.startswith("stixflow partition sci_pixels") for line in origin.history)


def test_two_calibration_runs_of_a_day_have_two_files(
    real_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = run(capsys, real_archive, "--product", "cal_spectrum", "--output", tmp_path, "--gzip")
    assert code == 0
    names = sorted(one["name"] for one in told["files"])
    assert len(names) == 2
    assert all(name.startswith("solo_L1_stix-cal-energy_2020050") for name in names)
    assert len({name[:36] for name in names}) == 2 or names[0].endswith("-run2.fits.gz")
