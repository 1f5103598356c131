"""Light-curve files to flares, without an archive."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from stixflow.errors import InputFileError, MissingFile, UsageError
from stixflow.fits import read_level1
from stixflow.flares import detect, detect_files

DAY = "data/lightcurves/solo_L1A_stix-ql-lightcurve_20210606_010104_V01.fits"
EARLY = "data/l1/solo_L1_stix-ql-lightcurve_20200506_V01.fits"
BACKGROUND = "data/l1/solo_L1_stix-ql-background_20200506_V01.fits"


def test_a_file_gives_what_its_curve_gives(shared: Path) -> None:
    found = detect_files([shared / DAY], "snip")
    pd.testing.assert_series_equal(found["flare_id"], detect(read_level1(shared / DAY), "snip")["flare_id"])
    assert found.attrs["distance"] == "built-in orbit"
    # The operational list has 0.951554 au.
    assert found["distance_au"].to_numpy() == pytest.approx(0.951554, abs=1e-3)


def test_the_distance_is_that_of_the_header(shared: Path) -> None:
    found = detect_files([shared / EARLY], "snip")
    assert found.attrs["distance"] == "header"
    assert len(detect_files([shared / EARLY, shared / BACKGROUND], "poisson")) == 0


def test_what_cannot_be_searched(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        detect_files([tmp_path / "none.fits"])
    with pytest.raises(InputFileError, match="no light curve"):
        detect_files([shared / BACKGROUND])
    with pytest.raises(UsageError, match="overlap"):
        detect_files([shared / DAY, shared / DAY])
    with pytest.raises(InputFileError, match="ql_variance"):
        detect_files([shared / "data/l1/solo_L1_stix-ql-variance_20200506_V01.fits"])
