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
        (("--product", "aspect"), "no level-1 file"),
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
