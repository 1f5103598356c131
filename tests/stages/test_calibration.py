"""Calibrations of an archive: once of each run, products below the root, trend and drift."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from example_calibrations import put_run

from stixflow.archive import Archive, collect, open_archive
from stixflow.calibration import read_calibration
from stixflow.cli import main
from stixflow.compute import open_engine
from stixflow.instrument import elut
from stixflow.simulate.calibration import simulate_calibration
from stixflow.stages.calibration import calibrate_runs, calibration_trend, drift_rows
from stixflow.stages.run import Run

_DAYS = (0, 4)
_START = 794271634


def _spectra(day: float, seconds: float = 86400.0, moved_kev: float = 0.0) -> xr.Dataset:
    """A run whose pixels have the scale of the table on board, but for one that has moved."""
    table, moved = elut("2025-03-03"), np.zeros((32, 12))
    moved[4, 5] = moved_kev
    run = simulate_calibration(
        table.gain,
        table.offset - moved / table.gain,
        start_scet=int(_START + day * 86400) << 16,
        counts=4000.0,
        seconds=seconds,
        seed=int(day),
    )
    return run.assign_attrs(books={})


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with three runs that are not calibrated, which no test may change."""
    root = tmp_path_factory.mktemp("spectra") / "archive"
    opened = open_archive(root, create=True)
    for number in _DAYS:
        put_run(opened, _spectra(number, moved_kev=1.0 if number else 0.0))
    put_run(opened, _spectra(6, seconds=3600.0))
    opened.close()
    return root


@pytest.fixture
def archive(spectra: Path, tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(shutil.copytree(spectra, tmp_path / "archive"))
    yield opened
    opened.close()


def _run(archive: Archive, name: str = "run", *, figures: bool = False) -> Run:
    with open_engine(serial=True) as pool:
        run = Run(archive, pool, name)
        calibrate_runs(run, figures=figures)
        return run


def test_each_run_is_calibrated_once(archive: Archive) -> None:
    first, again = _run(archive), _run(archive, "again")
    assert first.counts == {"calibrations": 2, "calibrated pixels": 768}
    assert [one["item"] for one in first.skipped] == ["1 run"]
    assert not again.counts
    assert not first.failed


def test_products_lie_below_the_root_and_stay_there(archive: Archive) -> None:
    _run(archive, figures=True)
    folders = sorted((Path(archive.root) / "calibration").iterdir())
    assert [folder.name for folder in folders] == [f"{_START + day * 86400}-86400" for day in _DAYS]
    collect(archive, grace_days=0.0)
    collect(archive, grace_days=0.0)
    for folder in folders:
        (fits,) = folder.glob("solo_CAL_stix-cal-energy_*.fits")
        assert np.isfinite(read_calibration(fits)["gain"]).all()
        assert (folder / "calibration.png").read_bytes().startswith(b"\x89PNG")
        assert len((folder / "pixels.csv").read_text().splitlines()) == 385
        assert json.loads((folder / "summary.json").read_text())["key"] == folder.name


def test_a_run_that_was_built_again_is_calibrated_again(archive: Archive) -> None:
    _run(archive)
    folder = Path(archive.root) / "calibration" / f"{_START}-86400"
    (folder / "solo_CAL_stix-cal-energy_of-another-clock_V02.fits").write_bytes(b"")
    put_run(archive, _spectra(0, moved_kev=-1.0), "R2")
    assert _run(archive, "again").counts["calibrations"] == 1
    assert calibration_trend(archive)["beyond"].tolist() == [1, 1]
    assert len(list(folder.glob("*.fits"))) == 1


def test_drift_and_trend_are_told(archive: Archive) -> None:
    assert drift_rows(archive) == [("calibrated", "runs", 0)]
    assert calibration_trend(archive).empty
    _run(archive)
    rows = drift_rows(archive)
    assert rows[0] == ("calibrated", "runs", 2)
    late = f"{_START + 4 * 86400}-86400"
    assert [row for row in rows if row[0] == "drift beyond the limit"] == [
        ("drift beyond the limit", late, "detector 5 pixel 5")
    ]
    trend = calibration_trend(archive)
    assert trend["key"].tolist()[1] == late
    assert trend["beyond"].tolist() == [0, 1]
    assert trend["gain"].to_numpy() == pytest.approx(np.median(elut("2025-03-03").gain), rel=5e-4)
    assert trend["hours"].tolist() == [24.0, 24.0]


def test_a_run_that_cannot_be_calibrated_is_told(tmp_path: Path) -> None:
    opened = open_archive(tmp_path / "archive", create=True)
    run = _spectra(0)
    put_run(opened, run.assign(counts=(run["counts"].dims, np.full_like(run["counts"].values, 100))))
    made = _run(opened)
    assert made.counts == {"calibrations": 1, "calibrated pixels": 0}
    assert "no pixel can be calibrated" in made.skipped[0]["reason"]
    assert calibration_trend(opened)["calibrated"].tolist() == [0]
    assert drift_rows(opened)[1][2].startswith("0 pixels")
    opened.close()


def test_the_command_calibrates_a_run_and_shows_the_trend(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(archive)
    key, out = f"{_START + 4 * 86400}-86400", tmp_path / "out.fits"
    place = ["--archive", str(archive.root)]
    assert main(["calibrate", key, *place, "--json", "--output", str(out), "--csv", str(tmp_path / "out.csv")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["summary"]["calibrated"] == 384
    assert told["summary"]["beyond"] == [[4, 5]]
    assert told["files"] == [str(out), str(tmp_path / "out.csv")]
    assert told["cpu_ms"] > 0
    assert main(["calibrate", key, *place]) == 0
    assert "beyond the limit: detector 5 pixel 5" in capsys.readouterr().out
    assert main(["calibrate", "--trend", *place, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["trend"]) == 2
    assert main(["calibrate", "--trend", *place]) == 0
    assert "20241114" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [([], 2, "no run was named"), (["1-2"], 1, "there is no calibration run"), (["none.fits"], 1, "no file")],
)
def test_what_is_not_there_is_refused(
    archive: Archive, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main(["calibrate", *arguments, "--archive", str(archive.root)]) == code
    assert message in capsys.readouterr().err


def test_a_file_without_lines_is_told(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared / "data/l1/solo_L1_stix-cal-energy_20200506_V01.fits"
    assert main(["calibrate", str(path), "--number", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["summary"]["calibrated"] == 0
    assert told["summary"]["gain"] is None
    assert sum(told["reasons"].values()) == 384
