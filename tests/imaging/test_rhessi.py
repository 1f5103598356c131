from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stixflow.errors import InputFileError, MissingFile
from stixflow.imaging import Clean, Grid, find_sources, reconstruct
from stixflow.imaging.rhessi import read_rhessi_visibilities


def test_the_sample_of_rhessi_gives_the_maps_of_the_peer(shared: Path) -> None:
    (data,) = read_rhessi_visibilities(shared / "data/vis/sample_rhessi_visibilities.fits")
    peer = np.load(shared / "oracle/imaging/rhessi_sample.npz")
    np.testing.assert_array_equal(data["visibility"][0], peer["vis"])
    np.testing.assert_array_equal(data["u"], peer["u"])
    grid = Grid(65, 2.0)
    dirty = reconstruct(data, grid, "bp")["image"][0]
    np.testing.assert_allclose(dirty, peer["bp_natural"], atol=1e-9 * peer["bp_natural"].max())
    rule = json.loads(str(peer["params"]))["clean"]
    parameters = Clean(gain=rule["gain"], niter=rule["niter"], beam_fwhm=rule["beam_fwhm"])
    cleaned = reconstruct(data, grid, parameters)
    np.testing.assert_allclose(cleaned["image"][0], peer["clean_natural"], atol=1e-7 * peer["clean_natural"].max())
    source = find_sources(cleaned)[0]
    assert np.hypot(source.x - peer["xyoffset"][0], source.y - peer["xyoffset"][1]) < 40


def test_every_energy_of_a_file_is_a_set(shared: Path) -> None:
    sets = read_rhessi_visibilities(shared / "data/vis/hsi_20020220_110600_1time_4energies.fits")
    assert len(sets) == 4
    energies = [(float(one["energy_low"][0]), float(one["energy_high"][0])) for one in sets]
    assert energies == sorted(energies)
    for one in sets:
        assert one.sizes["visibility"] > 20
        assert (np.abs(one["visibility"]) > 0).all()
        assert str(one["time_start"].values[0]).startswith("2002-02-20T11:06:00")
        assert not {"1", "2"} & set(one["label"].values.tolist())
        assert reconstruct(one, Grid(33, 4.0), "mem_ge")["converged"].all()
    finest = read_rhessi_visibilities(
        shared / "data/vis/hsi_20020220_110600_1time_4energies.fits", subcollimators=[0, 8]
    )[0]
    assert set(finest["label"].values.tolist()) <= {"1", "9"}


def test_other_files_are_refused(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        read_rhessi_visibilities(tmp_path / "none.fits")
    (tmp_path / "text.fits").write_text("no FITS")
    with pytest.raises(InputFileError, match="not a FITS file"):
        read_rhessi_visibilities(tmp_path / "text.fits")
    with pytest.raises(InputFileError, match="no table of visibilities"):
        read_rhessi_visibilities(next((shared / "data/images/20211101").glob("*_em_map.fits")))
