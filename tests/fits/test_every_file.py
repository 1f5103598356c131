"""Every FITS file among the real data opens, or is on the list below with the reason why it does not."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from stixflow.cubes.check import check_dataset
from stixflow.cubes.corrections import OVERLAPPING_DURATIONS, correct
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import InputFileError, UsageError
from stixflow.fits import read_level1
from stixflow.fits.level1 import read_every
from stixflow.flares.lists import read_official
from stixflow.instrument import actual_edges

_DATA = Path(__file__).resolve().parents[3] / "shared/data"
_FILES = [path.relative_to(_DATA).as_posix() for path in sorted(_DATA.rglob("*.fits*"))]

NOT_READ = {
    "images/20211101/": "an image map",
    "images/20220215/": "no telescope",  # image maps whose headers do not name the instrument
    "spectrograms/stx_": "an OSPEX spectrum or response",
    "rhessi/": "is from HESSI",
    "vis/hsi_": "is from RHESSI",
    "vis/sample_rhessi": "no telescope",
    "telemetry/5327d7_solo_L0": "level L0",
    "telemetry/883726_solo_LB": "level LB",
    # The first software wrote each bin of these spectrograms several times under one time.
    "l1/solo_L1_stix-sci-spectrogram-88217860": "the same time to",
}

OVERLAPPING = "spectrograms/solo_L1_stix-sci-xray-spec_20220830T020459-20220830T081003_V02_2208301654-61465.fits"
"""Its bin 8610 lasts 1.3 s, the next one begins after 0.5 s; it has half the counts of its neighbours."""


def _reason(name: str) -> str | None:
    return next((reason for start, reason in NOT_READ.items() if name.startswith(start)), None)


@pytest.mark.parametrize("name", _FILES)
def test_every_file_opens_or_tells_why_not(shared: Path, name: str) -> None:
    path, reason = shared / "data" / name, _reason(name)
    if reason is not None:
        with pytest.raises(InputFileError, match=re.escape(reason)):
            read_level1(path)
        return
    runs = 2 if "stix-cal-energy_20200506" in name else 1
    for run in range(runs):
        cube = read_level1(path, run=run if runs > 1 else None)
        assert cube.attrs["source_file"] == path.name
        assert min(cube.sizes.values()) > 0
        if cube.attrs["product"] in PRODUCTS:
            check_dataset(correct(cube, [OVERLAPPING_DURATIONS]) if name == OVERLAPPING else cube)


def test_nothing_on_the_list_is_read_by_now() -> None:
    assert all(any(name.startswith(start) for name in _FILES) for start in NOT_READ) or not _FILES


FLARES = "flarelists/solo_L3_stix-flarelist-sdcloc_20240901T000000-20241001T004710_V02.fits"
CALIBRATION = "calibration/solo_CAL_stix-cal-energy_20250302T230511-20250303T230512_V02.fits"


def test_a_flare_list_has_the_columns_of_the_flare_table(shared: Path) -> None:
    found, table = read_level1(shared / "data" / FLARES), read_official(shared / "data" / FLARES)
    assert (found.attrs["product"], found.attrs["level"]) == ("flare_list", "L3")
    assert set(found.data_vars) == set(table.columns)
    assert found.sizes["flare"] == len(table) == 2360
    np.testing.assert_array_equal(found["peak"], table["peak"])
    assert found["goes_flux"].attrs["units"] == "W m-2"


def test_an_energy_calibration_gives_gain_and_energies_of_every_pixel(shared: Path) -> None:
    found = read_level1(shared / "data" / CALIBRATION).isel(time=0)
    with fits.open(shared / "data" / CALIBRATION) as hdus:
        data = hdus["DATA"].data
        np.testing.assert_array_equal(found["gain"], data["gain"][0])
        np.testing.assert_array_equal(found["energy_edges"], data["e_edges_actual"][0])
    # The numbers are keV in an ADC channel of 4096, whatever the unit card says: 31 keV lie where the lines do.
    line = found["offset"].values + 30.97 / found["gain"].values
    assert np.nanpercentile(line, [1, 99]) == pytest.approx([1150, 1200], abs=40)
    assert found.attrs["ob_elut_name"] == "elut_table_20241114"
    apart = found["energy_edges"].values[:30, :, 1:-1] - actual_edges(found["time"].values)[:30, :, 1:-1]
    assert np.nanmedian(np.abs(apart)) < 0.2
    assert found.attrs["level"] == "CAL"


@pytest.mark.parametrize("name", [FLARES, CALIBRATION])
def test_no_cube_is_made_of_them(shared: Path, name: str) -> None:
    with pytest.raises(InputFileError, match="beyond level 1"):
        read_every(shared / "data" / name)


@pytest.mark.parametrize(
    "name", [FLARES, CALIBRATION, "lightcurves/solo_L1A_stix-ql-lightcurve_20210606_010104_V01.fits"]
)
def test_gzipped_files_are_read_as_they_are(shared: Path, tmp_path: Path, name: str) -> None:
    packed = tmp_path / (Path(name).name + ".gz")
    with (shared / "data" / name).open("rb") as source, gzip.open(packed, "wb", 1) as target:
        shutil.copyfileobj(source, target)
    a, b = read_level1(shared / "data" / name), read_level1(packed)
    assert a.drop_attrs().identical(b.drop_attrs())


def test_a_length_that_reaches_over_the_next_bin_ends_where_that_begins(shared: Path) -> None:
    found = read_level1(shared / "data" / OVERLAPPING)
    cut = correct(found, [OVERLAPPING_DURATIONS])
    changed = np.flatnonzero(found["timedel"].values != cut["timedel"].values)
    assert changed.tolist() == [8610]
    assert (float(found["timedel"][8610]), float(cut["timedel"][8610])) == (1.3, 0.5)
    assert cut["time"].values[8610] < cut["time_start"].values[8611]
    assert cut.attrs["corrections"] == [OVERLAPPING_DURATIONS]
    assert correct(cut, [OVERLAPPING_DURATIONS]).attrs["corrections"] == [OVERLAPPING_DURATIONS]


def test_runs_are_all_read(shared: Path) -> None:
    path = shared / "data/l1/solo_L1_stix-cal-energy_20200506_V01.fits"
    assert [int(cube["timedel"].values[0]) for cube in read_every(path)] == [45599, 49104]
    with pytest.raises(UsageError):
        read_level1(path)
