"""Observing summaries: a real one of the flight, made ones, the archive, and what is not there."""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from stixflow.errors import InputFileError, MissingFile, NotFound, UsageError
from stixflow.hessi import (
    MISSING,
    ObservingSummary,
    compress_rates,
    decompress_rates,
    make_summary,
    modulation_probability,
    modulation_variance,
    read_summary,
)
from stixflow.hessi.tables import read_tables

_DAY = 1017878400.0
"""2011-04-04."""
_PARTS = ("obs_summ_rate", "mod_variance", "ephemeris", "obs_summ_flag", "particle_rate")


@pytest.fixture(scope="module")
def real(shared):
    return shared / "data/rhessi/hsi_obssumm_20110404_042.fits.gz"


def test_real_file_by_the_verbs_of_the_catalog(real):
    summary = ObservingSummary()
    data = summary.getdata(filename=real)
    assert data.shape == (21600,)
    assert data["countrate"].shape == (21600, 9)
    assert data["time"][0] == _DAY
    assert_allclose(np.diff(data["time"]), 4.0)
    assert summary.get("info")["summary_start_time"] == "2011-04-04T00:00:00.000"
    assert summary.get("summary_id").startswith("HSI_OBS_SUMMARY: 2011-04-04")
    assert summary.get("version") == 0
    assert_array_equal(summary.get("countrate"), data["countrate"].T)
    assert_array_equal(summary.get("data_times"), data["time"])
    rate = summary.get("obs_summ_rate")
    assert_allclose(rate.info["energy_edges"], [3, 6, 12, 25, 50, 100, 300, 800, 7000, 20000])
    assert len(rate.info["seg_index_mask"]) == 18
    assert_array_equal(decompress_rates(rate.data["countrate"]), data["countrate"])
    assert summary.get("particle_rate") == MISSING
    with pytest.raises(UsageError):
        summary.get("altitude")


def test_real_parts(real):
    summary = read_summary(real)
    ephemeris = summary.get("ephemeris")
    radius = np.linalg.norm(ephemeris.data["xyz_eci"][:, :3], axis=1)
    assert_allclose(radius, 6378 + 530, atol=40)
    assert_allclose(np.diff(ephemeris.times()), 20.0)
    modulation = summary.get("mod_variance").data["mod_variance"]
    assert modulation.shape == (21600, 2)
    watched = (summary.flag("ECLIPSE_FLAG") == 0) & (summary.flag("SAA_FLAG") == 0)
    assert 5 <= np.median(modulation[watched & (modulation[:, 0] > 0)]) <= 20
    assert 0.3 < summary.flag("eclipse_flag").mean() < 0.4
    with pytest.raises(NotFound):
        summary.flag("Tea break")


def test_real_file_is_written_as_it_was_read(real, tmp_path):
    summary = read_summary(real)
    summary.write(tmp_path / "copy.fits")
    for original, copy in zip(read_tables(real), read_tables(tmp_path / "copy.fits"), strict=True):
        assert original.name == copy.name
        assert original.rows.dtype == copy.rows.dtype
        assert original.rows.tobytes() == copy.rows.tobytes()


@pytest.fixture
def made():
    rng = np.random.default_rng(1)
    n = 900
    return make_summary(
        _DAY, rng.poisson(200.0, (n, 9)).astype(float), simulated=True,
        modulation=modulation_variance(rng.poisson(20.0, (n, 2, 40))), xyz_km=np.full((n // 5, 3), 6900.0),
        flags={"Attenuator State": np.arange(n) % 2, "Flare": 1}, particles=rng.poisson(5.0, (n, 2)),
    )  # fmt: skip


def test_made_summary_has_every_part_and_survives_the_file(made, tmp_path):
    made.write(tmp_path / "made.fits")
    back = read_summary(tmp_path / "made.fits")
    assert back.get("info")["simulated_data"] == 1
    assert back.get("info")["summary_end_time"] == "2011-04-04T01:00:00.000"
    for name in _PARTS:
        ours, theirs = made.get(name), back.get(name)
        assert_array_equal(ours.data.tobytes(), theirs.data.tobytes())
        assert_array_equal(ours.times(), theirs.times())
        assert {key: str(value) for key, value in ours.info.items()} == {
            key: str(value) for key, value in theirs.info.items()
        }
    assert_array_equal(back.flag("Flare"), 1)
    assert_array_equal(back.get("data"), made.get("data"))


def test_uncompressed_rates():
    rates = np.array([[1.5, 1e7], [np.nan, 2.0]])
    summary = make_summary(0.0, rates, energy_edges=(3, 6, 12), compress=False)
    assert_allclose(summary.get("data")["countrate"], rates)
    with pytest.raises(UsageError):
        make_summary(0.0, rates, energy_edges=(3, 6, 12))


def test_wrong_summaries():
    with pytest.raises(UsageError, match="energy edges"):
        make_summary(0.0, np.ones((3, 4)))
    with pytest.raises(UsageError, match="17 flags"):
        make_summary(0.0, np.ones((3, 9)), flags={str(i): 0 for i in range(17)})


def test_modulation_is_ten_without_modulation():
    rng = np.random.default_rng(2)
    flat = modulation_variance(rng.poisson(25.0, (2000, 40)))
    assert 9.5 < flat.mean() < 10.5
    phase = np.linspace(0, 8 * np.pi, 40)
    assert modulation_variance(rng.poisson(25.0 * (1 + 0.8 * np.sin(phase)), (2000, 40))).mean() > 20
    assert modulation_variance(np.zeros(40)) == 0


def test_time_range_in_an_archive(real, tmp_path, monkeypatch):
    shutil.copy(real, tmp_path / real.name)
    rates = compress_rates(np.full((21600, 9), 7.0))
    following = make_summary(
        _DAY + 86400.0, decompress_rates(rates), energy_edges=(3, 6, 12, 25, 50, 100, 300, 800, 7000, 20000),
        mask=np.ones(18),
    )  # fmt: skip
    (tmp_path / "sub").mkdir()
    for version in ("001", "002"):
        following.write(tmp_path / f"sub/hsi_obssumm_20110405_{version}.fits")
    summary = ObservingSummary()
    span = ("2011-04-04T23:00:00", "2011-04-05T01:00:00")
    monkeypatch.delenv("HSI_DATA_ARCHIVE", raising=False)
    with pytest.raises(NotFound, match="HSI_DATA_ARCHIVE"):
        summary.getdata(ut_time_range=span)
    monkeypatch.setenv("HSI_DATA_ARCHIVE", str(tmp_path))
    data = summary.getdata(ut_time_range=span)
    assert data.shape == (1800,)
    assert data["time"][0] == _DAY + 82800.0
    assert_allclose(data["countrate"][900:], 7.0)
    assert summary.get("info")["concat_flag"] == 1
    assert summary.get("obs_summ_rate").info["n_time_intv"] == 1800
    by_seconds = ObservingSummary(data_dir=tmp_path).getdata(ut_time_range=(_DAY + 82800.0, _DAY + 90000.0))
    assert_array_equal(by_seconds, data)


@pytest.mark.parametrize(
    "question", [{"ut_time_range": ("2001-01-01", "2001-01-02")}, {"filename": "hsi_obssumm_20010101_001.fits"}]
)
def test_what_is_not_there(question, tmp_path):
    summary = ObservingSummary(data_dir=tmp_path)
    with pytest.raises((NotFound, MissingFile)):
        summary.getdata(**question)
    assert summary.getdata(**question, missing="sentinel") == MISSING
    for name in ("info", "data", "data_times", "countrate", "version", "summary_id", *_PARTS):
        assert summary.get(name) == MISSING


def test_wrong_questions_and_files(shared, tmp_path):
    summary = ObservingSummary(data_dir=tmp_path)
    with pytest.raises(UsageError):
        summary.getdata()
    with pytest.raises(UsageError):
        summary.getdata(ut_time_range=("2011-04-05", "2011-04-04"))
    with pytest.raises(InputFileError, match="no observing summary"):
        read_summary(shared / "data/rhessi/hessi_flare_list_201802.fits")
    (tmp_path / "text.fits").write_text("not FITS")
    with pytest.raises(InputFileError):
        read_summary(tmp_path / "text.fits")


def test_probability_of_modulation():
    rng = np.random.default_rng(3)
    flat = modulation_probability(rng.poisson(25.0, (2000, 40)))
    assert 0.45 < flat.mean() < 0.55
    wave = 25.0 * (1 + 0.8 * np.sin(np.linspace(0, 8 * np.pi, 40)))
    assert (modulation_probability(rng.poisson(wave, (100, 40))) < 1e-6).mean() > 0.99
    assert np.isnan(modulation_probability(np.zeros(40)))


def test_ephemeris_as_coordinates(real):
    place = read_summary(real).get("ephemeris").cut(_DAY, _DAY + 100.0).coordinates()
    assert len(place) == 5
    assert str(place.obstime[1].isot).startswith("2011-04-04T00:00:20")
    assert_allclose(place.spherical.distance.km, 6378 + 530, atol=40)
