"""One flare to its maps: which box, which window, what is left out and why."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sunpy.map
from astropy.io import fits
from example_delivery import DAYS, PEAK, POSITION

from stixflow import jobs
from stixflow.archive import open_archive
from stixflow.errors import ImagingError
from stixflow.imaging import MemGE, reconstruction

BANDS = ((4.0, 10.0), (16.0, 28.0))


@pytest.fixture
def job(processed: Path, tmp_path: Path) -> jobs.ImageJob:
    archive = open_archive(processed)
    background, flare = sorted(archive.catalog.partitions("sci_pixels"), key=lambda item: item.key)
    ephemeris = archive.catalog.current("ephemeris", DAYS[1])
    assert ephemeris is not None
    row = archive.flares().iloc[0]
    return jobs.ImageJob(
        flare_id=row["flare_id"],
        start=row["start"].to_datetime64(),
        peak=row["peak"].to_datetime64(),
        stop=row["stop"].to_datetime64(),
        pixels=archive.url(flare.path),
        boxes=1,
        background=archive.url(background.path),
        background_id=background.key,
        background_reason="the quiet one",
        ephemeris=archive.url(ephemeris.path),
        root=str(tmp_path),
        run_id="run",
        energy_ranges=BANDS,
        methods=("bp", "clean"),
    )


def test_a_flare_is_where_it_was_put(job: jobs.ImageJob, tmp_path: Path) -> None:
    made = jobs.image(job)
    assert np.hypot(made.location["x_hpc"] - POSITION[0], made.location["y_hpc"] - POSITION[1]) < 1.0
    assert {(row["method"], row["energy_low"]) for row in made.images} == {
        (method, low) for method in ("bp", "clean") for low, _ in BANDS
    }
    for row in made.images:
        path = tmp_path / row["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["digest"]
        assert row["start"] <= PEAK < row["stop"] or row["energy_low"] == 16
        assert row["background_request"] == job.background_id
        one = sunpy.map.Map(path)
        assert one.meta["flare_id"] == job.flare_id
        assert one.observer_coordinate.radius.to_value("AU") == pytest.approx(0.62, rel=1e-4)


def test_the_sources_of_every_map_are_told(job: jobs.ImageJob, tmp_path: Path) -> None:
    for row in jobs.image(replace(job, methods=("clean",))).images:
        brightest = row["sources"][0]
        assert np.hypot(brightest["hpc"][0] - POSITION[0], brightest["hpc"][1] - POSITION[1]) < 5.0
        assert 5 < brightest["fwhm"] < 60
        assert brightest["hgs"] is not None
        with fits.open(tmp_path / row["path"]) as file:
            assert file["SOURCES"].data["NUMBER"].tolist() == [source["number"] for source in row["sources"]]


def test_the_window_is_the_peak_minute_of_each_band(job: jobs.ImageJob) -> None:
    made = jobs.image(replace(job, methods=("bp",)))
    for row in made.images:
        seconds = (row["stop"] - row["start"]) / np.timedelta64(1, "s")
        assert 40 < seconds <= 61 or row["energy_low"] == 16
        assert row["counts"] >= 10_000 or seconds > 61 or row["energy_low"] == 16


def test_a_band_with_too_few_counts_says_so(job: jobs.ImageJob) -> None:
    few = np.timedelta64(8, "s")
    brief = replace(job, start=job.peak - few, stop=job.peak + few)
    made = jobs.image(replace(brief, energy_ranges=((4.0, 10.0), (25.0, 28.0)), methods=("bp",)))
    assert {row["energy_low"] for row in made.images} == {4.0}
    assert "needed" in made.skipped["25-28 keV"]


def test_a_band_beyond_the_request_says_so(job: jobs.ImageJob) -> None:
    made = jobs.image(replace(job, energy_ranges=((4.0, 10.0), (50.0, 84.0)), methods=("bp",)))
    assert "no energy bin" in made.skipped["50-84 keV"]


def test_no_band_at_all_is_no_image(job: jobs.ImageJob, tmp_path: Path) -> None:
    made = jobs.image(replace(job, energy_ranges=((50.0, 84.0),)))
    assert made.images == ()
    assert made.location == {}
    assert list(made.skipped) == ["50-84 keV"]
    assert list(tmp_path.iterdir()) == []


def test_a_faint_second_band_is_dropped_with_its_reason(job: jobs.ImageJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stixflow.imaging.source.SIGNIFICANT_SIGMAS", 1e6)
    made = jobs.image(replace(job, methods=("bp",)))
    assert "nothing but background" in made.skipped["16-28 keV"]
    assert {row["energy_low"] for row in made.images} == {4.0}


def test_a_source_that_is_all_background_is_an_error(job: jobs.ImageJob) -> None:
    """The background imaged against itself."""
    span = {"start": np.datetime64("2022-06-15T22:00:00", "ns"), "stop": np.datetime64("2022-06-16T08:00:00", "ns")}
    quiet = replace(job, pixels=job.background or "", peak=np.datetime64("2022-06-16T05:00:00", "ns"), **span)
    with pytest.raises(ImagingError, match="no modulation"):
        jobs.image(quiet)


def test_without_ephemeris_nothing_is_claimed_on_the_sun(job: jobs.ImageJob, tmp_path: Path) -> None:
    made = jobs.image(replace(job, ephemeris=None, methods=("bp",)))
    assert made.location["x_hpc"] is None
    assert made.location["pointing"] == "unknown"
    assert made.location["warnings"]
    assert {row["x_hpc"] for row in made.images} == {None}
    for row in made.images:
        assert "SXLN" in (tmp_path / row["path"]).read_bytes()[:5760].decode("ascii")


def test_the_same_job_gives_the_same_images(job: jobs.ImageJob) -> None:
    first, second = jobs.image(job), jobs.image(job)
    assert [(row["path"], row["digest"]) for row in first.images] == [
        (row["path"], row["digest"]) for row in second.images
    ]
    assert first.location == second.location


ALL_METHODS = ("bp", "clean", "em", "mem_ge", "forward_fit")


def test_flares_together_get_the_maps_that_each_gets_alone(job: jobs.ImageJob, tmp_path: Path) -> None:
    first = replace(job, methods=ALL_METHODS, root=str(tmp_path / "alone"))
    second = replace(first, flare_id="later", energy_ranges=BANDS[:1], peak=job.peak + np.timedelta64(60, "s"))
    alone = [jobs.image(one) for one in (first, second)]
    group = [replace(one, root=str(tmp_path / "together")) for one in (first, second)]
    together = jobs.image_together(group)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, jobs.Imaged)
        assert (one.location, one.skipped) == (other.location, other.skipped)
        assert [row["image_id"] for row in one.images] == [row["image_id"] for row in other.images]
        assert {row["method"] for row in one.images} == set(ALL_METHODS)
        for row in one.images:
            left, right = (tmp_path / place / row["path"] for place in ("alone", "together"))
            assert left.read_bytes() == right.read_bytes(), row["image_id"]


def test_a_flare_that_cannot_be_imaged_does_not_keep_others_from_it(job: jobs.ImageJob, tmp_path: Path) -> None:
    job = replace(job, methods=("bp",))
    lost = replace(job, pixels=str(tmp_path / "nowhere.zarr"), flare_id="lost")
    outside = replace(job, energy_ranges=((50.0, 84.0),), flare_id="outside")
    made = jobs.image_together([lost, job, outside])
    assert isinstance(made[0], jobs.NotImaged)
    assert "nowhere.zarr" in made[0].error
    assert isinstance(made[1], jobs.Imaged)
    assert len(made[1].images) == 2
    assert made[2] == jobs.Imaged((), {}, jobs.image(outside).skipped)


def test_maps_of_a_fit_say_what_was_fitted(job: jobs.ImageJob, tmp_path: Path) -> None:
    for row in jobs.image(replace(job, methods=("forward_fit",))).images:
        header = fits.getheader(tmp_path / row["path"])
        assert header["FIT_KIND"] in ("circle", "ellipse", "circle+circle")
        assert header["FIT_DOF"] in (44, 42, 40)
        assert header["FIT_RULE"] == "bic"


def test_a_lost_store_is_an_error_not_an_empty_image(job: jobs.ImageJob, tmp_path: Path) -> None:
    with pytest.raises((ImagingError, RuntimeError, OSError)):
        jobs.image(replace(job, pixels=str(tmp_path / "nowhere.zarr")))


def test_a_map_that_has_not_converged_is_told(job: jobs.ImageJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reconstruction._METHODS, "mem_ge", lambda: MemGE(max_iterations=1))
    made = jobs.image(replace(job, methods=("mem_ge", "bp")))
    assert made.location["warnings"].count("the mem_ge map of 4-10 keV has not converged") == 1
    assert "bp" not in made.location["warnings"]
    (row,) = [row for row in made.images if (row["method"], row["energy_low"]) == ("mem_ge", 4.0)]
    header = fits.getheader(Path(job.root) / row["path"])
    assert header["CONVERGD"] is False
    assert header["DUAL_GAP"] > 0
