"""Files written against the official ones, bit by bit where they are of version 02, and against the documented list."""

import gzip
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import example_products as products
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from example_cubes import make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from stixflow.cubes.build import build_calibration, build_day
from stixflow.cubes.model import PRODUCTS
from stixflow.cubes.sources import record_names
from stixflow.ephemeris import Observer
from stixflow.errors import InputFileError, UsageError
from stixflow.fits import EXPORTED, Difference, compare_files, level1_name, read_level1, read_origin, write_level1
from stixflow.telemetry import Packets, decode, encode
from stixflow.telemetry.compression import pack_skm
from stixflow.time import scet_to_utc, utc_to_scet

L1 = "data/l1/solo_L1_stix-"
V02 = (
    L1 + "sci-xray-cpd_20240308T193915-20240308T203235_V02_2403087339-57240.fits",
    "data/spectrograms/solo_L1_stix-sci-xray-spec_20220830T020459-20220830T081003_V02_2208301654-61465.fits",
    "data/spectrograms/solo_L1_stix-sci-xray-spec_20230319T175504-20230320T000014_V02_2303197888-65462.fits",
)
V01 = (
    "data/flares_202211/pixel_data/solo_L1_stix-sci-xray-cpd_20221109T004455-20221109T005311_V01_2211090305-54678.fits",
    "data/spectrograms/solo_L1_stix-sci-xray-spec_20220208T212353-20220208T223255_V01_2202080003-58150.fits",
    L1 + "sci-xray-rpd_20200505T235959-20200506T000019_V01_0087031808-50882.fits",
    "data/flare_20200607/solo_L1_stix-sci-xray-cpd_20200607T213709-20200607T215208_V01_1178428688-49155.fits",
    "data/flare_20200607/8pixel_solo_L1_stix-sci-xray-cpd_20200607T213709-20200607T215208_V01_1178428688-49155.fits",
    L1 + "sci-xray-spec_20200505T235959-20200506T000019_V01_0087031812-50886.fits",
    L1 + "ql-lightcurve_20200506_V01.fits",
    L1 + "ql-background_20200506_V01.fits",
    L1 + "ql-variance_20200506_V01.fits",
    L1 + "ql-flareflag_20200506_V01.fits",
    L1 + "ql-ql-tmstatusflarelist_20200506_V01.fits",
    L1 + "hk-maxi_20200501_V01.fits",
    L1 + "sci-xray-scpd_20200505T235959-20200506T000019_V01_0087031810-50884.fits",
    L1 + "ql-spectra_20200506_V01.fits",
)
OLDER = (
    "data/telemetry/01c065_solo_L1_stix-ql-LightCurve_20210117_V01.fits",
    "data/lightcurves/solo_L1A_stix-ql-lightcurve_20210606_010104_V01.fits",
    "data/spectrograms/solo_L1A_stix-sci-spectrogram-2102140001_20210214T014006-20210214T015515_008648_V01.fits",
)
RENAMED = {f"{name}_err": f"{name}_comp_err" for name in ("counts", "triggers", "variance", "spectra")}
PAGE = Path(__file__).parents[2] / "docs/fits.md"

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Written:
    official: Path
    path: Path
    cube: xr.Dataset
    differences: tuple[Difference, ...]

    @property
    def keys(self) -> set[Key]:
        return {(one.hdu, one.kind, one.name) for one in self.differences}


@pytest.fixture(scope="module")
def written(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    found = {}
    for name in (*V02, *V01):
        cube = read_level1(shared / name)
        path = write_level1(tmp_path_factory.mktemp("level1"), cube, provenance=read_origin(shared / name))
        differences = tuple(compare_files(shared / name, path, renamed=RENAMED))
        found[name] = Written(shared / name, path, cube, differences)
    return found


# Against the official files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", V02)
def test_version_02_is_equal_to_the_last_bit(written: dict[str, Written], name: str) -> None:
    one = written[name]
    assert one.path.name == one.official.name
    assert {key[0] for key in one.keys} == {"PRIMARY"}
    with fits.open(one.official) as official, fits.open(one.path) as ours:
        sums = [[(hdu.name, hdu.header["DATASUM"]) for hdu in hdus] for hdus in (official, ours)]
        cards = [
            {key: hdu.header[key] for hdu in hdus[1:] for key in hdu.header if key not in ("COMMENT", "CHECKSUM")}
            for hdus in (official, ours)
        ]
    assert sums[0] == sums[1]
    assert cards[0] == cards[1]


@pytest.mark.parametrize("name", [*V02, *V01])
def test_what_was_written_is_read_back(written: dict[str, Written], name: str) -> None:
    one = written[name]
    again = read_level1(one.path)
    xr.testing.assert_identical(again.drop_attrs(), one.cube.drop_attrs())
    changed = {key for key in one.cube.attrs if one.cube.attrs[key] != again.attrs.get(key)}
    assert changed <= {"source_file"}


def test_every_difference_is_documented(written: dict[str, Written]) -> None:
    documented = _documented()
    found = {
        "all": set.union(*(written[name].keys for name in V02)),
        "V01": set.union(*(written[name].keys for name in V01)),
    }
    assert found["all"] <= documented["all"]
    assert found["V01"] <= documented["all"] | documented["V01"]
    assert documented["all"] | documented["V01"] <= found["all"] | found["V01"], "the page names what does not differ"


def _documented() -> dict[str, set[Key]]:
    rows = re.findall(r"^\| (all|V01) \| (\w+) \| (\w+) \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    keys: dict[str, set[Key]] = {"all": set(), "V01": set()}
    for files, hdu, kind, names in rows:
        keys[files] |= {(hdu, kind, name) for name in names.split() or [""]}
    return keys


@pytest.mark.parametrize("name", OLDER)
def test_older_generations_are_written_like_all_others(shared: Path, tmp_path: Path, name: str) -> None:
    cube = read_level1(shared / name)
    again = read_level1(write_level1(tmp_path, cube))
    for variable in set(cube.variables) - {"time", "time_start"}:
        np.testing.assert_array_equal(again[variable].values, cube[variable].values, err_msg=str(variable))
    apart = np.abs(again["time"].values - cube["time"].values)
    assert apart.max() <= np.timedelta64(5_500_000, "ns")


@pytest.mark.parametrize("name", [*V02, *V01])
def test_header_differs_only_as_much_as_documented(written: dict[str, Written], name: str) -> None:
    one = written[name]
    with fits.open(one.official) as official, fits.open(one.path) as ours:
        a, b = official[0].header, ours[0].header
    of_2020 = "_2020" in name
    frames = [f"{frame}{axis}_OBS" for frame in ("HEE", "HCI", "HEQ", "GSE") for axis in "XYZ"] + ["HAEX_OBS"]
    worst = max(abs(a[key] - b[key]) for key in frames)
    assert worst < (2e-4 if of_2020 else 5e-5) * a["DSUN_OBS"]
    longitude = a["CRLN_OBS"] if name in V02 else b["CRLN_OBS"]
    assert abs(longitude - b["CRLN_OBS"]) < 0.04
    assert abs(a["EAR_TDEL"] - b["EAR_TDEL"]) < 0.1
    # The official end of spectra is that of the sweep in which the last row begins, ours of that in which it ends.
    late = 1024.0 if "ql-spectra" in name else 0.0
    assert abs(a["OBT_END"] + late - b["OBT_END"]) < 5e-3
    assert a["OBT_BEG"] == b["OBT_BEG"]
    assert a["DATE-BEG"] == b["DATE-BEG"]
    for key in ("DATE-AVG", "DATE-END", "DATE_SUN"):
        apart = (np.datetime64(b[key]) - np.datetime64(a[key])) / np.timedelta64(1, "ms")
        assert abs(apart - late * _SHARE_OF_END.get(key, 0.0) * 1000) <= 5, key


def test_checksums_hold_and_history_goes_on(written: dict[str, Written]) -> None:
    one = written[V02[0]]
    with fits.open(one.path, checksum=True) as hdus:
        hdus.verify("exception")
        assert all("CHECKSUM" in hdu.header for hdu in hdus)
        lines = list(hdus[0].header["HISTORY"])
    assert lines[0] == "Processed by STIXCore L0"
    assert lines[-1].startswith("Processed by stixflow")
    assert read_origin(one.path).history[:-1] == read_origin(one.official).history
    assert read_origin(one.path).comments == read_origin(one.official).comments


@pytest.mark.skipif(find_spec("stixpy") is None, reason="needs stixpy")
def test_stixpy_opens_it(written: dict[str, Written]) -> None:
    code = "import sys; from stixpy.product import Product; [print(type(Product(p)).__name__) for p in sys.argv[1:]]"
    paths = [str(written[name].path) for name in (V02[0], V02[2], V01[3])]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *paths], capture_output=True, text=True)
    assert done.stdout.split() == ["CompressedPixelData", "Spectrogram", "QLLightCurve"], done.stderr


_SHARE_OF_END = {"DATE-AVG": 0.5, "DATE-END": 1.0}


# Without real data ----------------------------------------------------------------------------------------------------


def cube_of(product: str, seed: int = 0, n_time: int = 7, n_energy: int = 5, **attrs: object) -> xr.Dataset:
    """Return a Dataset as telemetry gives it: any clock, settings that change, counts that the compression can give."""
    ssids = {"sci_pixel_sums": 22, "sci_visibilities": 23, "sci_spectrogram": 24}
    if product in ssids:
        attrs["ssid"] = ssids[product]
    made = make_dataset(product, n_time=n_time, n_energy=n_energy, seed=seed, **attrs)
    rng = np.random.default_rng(seed)
    begin = int(utc_to_scet(np.datetime64("2022-11-09T00:50:00.123456789", "ns"))) + seed
    values: dict[str, np.ndarray] = {"scet": begin + (np.arange(n_time) << 18)}
    if "timedel" in made:
        values["time_start"] = scet_to_utc(values["scet"])
        values["time"] = scet_to_utc(values["scet"] + (1 << 17))
    else:
        values["time"] = scet_to_utc(values["scet"])
    late = np.arange(n_time) >= 4
    for name in made.variables:
        if str(name).endswith("_skm"):
            values[str(name)] = np.where(late, pack_skm(0, 4, 4), pack_skm(0, 5, 3))
    masks = {"detector_mask": (0xFFFFFCFF, 0xFFFFFFFF), "pixel_mask": (0x0FF, 0x00F), "channel_mask": (0x7FFE, 0x7FFE)}
    for name, (early, later) in masks.items():
        if name in made:
            values[name] = np.where(late, later, early)
    if product == "sci_pixels":
        sent = values["pixel_mask"][:, None] >> np.arange(12) & 1
        values["counts"] = rng.integers(0, 15, made["counts"].shape) * sent[:, None, None, :]
        values["observed"] = np.ones(made["observed"].shape, dtype=bool)
        values["pixel"] = np.arange(12)
    if product in ("sci_pixel_sums", "sci_visibilities"):
        n_sets = made.sizes["pixel" if product == "sci_pixel_sums" else "pixel_set"]
        values["pixel_set"] = np.tile(0x111 << np.arange(n_sets) % 4, (n_time, 1))
        values["pixel_mask"] = np.full(n_time, 0xFFF)
        values["observed"] = np.ones(made["observed"].shape, dtype=bool)
    if product == "sci_pixel_sums":
        values["counts"] = rng.integers(0, 15, made["counts"].shape)
    if product == "sci_visibilities":
        values["flux"] = rng.integers(0, 15, made["flux"].shape)
        parts = rng.integers(-15, 15, (2, *made["visibility"].shape))
        sent = values["detector_mask"][:, None, None] >> np.arange(32) & 1
        values["visibility"] = np.where(sent, parts[0] + 1j * parts[1], np.nan + 1j * np.nan)
        values["observed"][3, 2] = False
        values["flux"][3, 2], values["visibility"][3, 2] = 0, np.nan + 1j * np.nan
    if product == "tm_status":
        values["num_flares"] = rng.integers(0, 4, n_time)
        slots = np.arange(255) < values["num_flares"][:, None]
        for name in [name for name, spec in PRODUCTS[product].variables.items() if "flare" in spec.dims]:
            numbers = rng.integers(1, 100, slots.shape) << (16 if name.endswith("scet") else 0)
            values[name] = np.where(slots, numbers, 0)
    if "energy" in made.dims:
        edges = {"low": [4.0, 5, 6, 7, 8], "high": [5.0, 6, 7, 8, 9]}
        values |= {"energy": np.array(edges["low"]) + 0.5, "energy_low": np.array(edges["low"])}
        values |= {"energy_high": np.array(edges["high"])}
        values |= {"channel_start": np.arange(1, 6), "channel_stop": np.arange(2, 7)}
    for name, array in values.items():
        made[name] = made[name].copy(data=array.astype(made[name].dtype))
    return made


REQUEST = {"request_id": 2211090305, "seq_control": 54678, "box": 0, "boxes": 1}


def of_telemetry(product: str) -> xr.Dataset:
    """Return the cube of made records: settings that change, gaps, what was sent in part."""
    made = {
        "ql_background": lambda: products.background((4, 6)),
        "ql_spectra": lambda: products.spectra(
            [[(d, 0) for d in range(20, 32)] + [(d, 32) for d in range(32)], [(d, 0) for d in range(32)]],
            starts=[0, 9000],
        ),
        "ql_variance": products.variance,
        "ql_flareflag": products.flareflag,
        "aspect": lambda: products.aspect(40, summing=16, averaging=1),
        "tm_status": products.status,
        "hk_mini": products.housekeeping,
        "cal_spectrum": lambda: products.calibration([[(0, 0, 0), (3, 5, 1)], [(31, 11, 1)]]),
    }
    (only,) = decode(Packets.from_bytes(encode(made[product]())), products=record_names(product)).values()
    return build_calibration(only)[0] if product == "cal_spectrum" else build_day(product, only)


@pytest.mark.parametrize(
    "product",
    ["ql_background", "ql_spectra", "ql_variance", "ql_flareflag", "aspect", "tm_status", "hk_mini", "cal_spectrum"],
)
def test_cubes_of_telemetry_come_back(product: str, tmp_path: Path) -> None:
    cube = of_telemetry(product)
    again = read_level1(write_level1(tmp_path, cube))
    assert set(again.variables) == set(cube.variables)
    for name in cube.variables:
        a, b = again[name].values, cube[name].values
        assert a.dtype == b.dtype, name
        if a.dtype.kind == "M":
            assert np.abs((a - b) / np.timedelta64(1, "ms")).max() < 0.6, name
        elif name == "scet" and product == "aspect":
            assert np.abs(a - b).max() <= 1
        elif a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=str(name))
        else:
            np.testing.assert_array_equal(a, b, err_msg=str(name))


def test_what_was_not_received_has_no_error_and_comes_back_as_such(tmp_path: Path) -> None:
    cube = cube_of("sci_pixels", **REQUEST)
    observed = np.ones(cube["observed"].shape, dtype=bool)
    observed[2, 1:3] = False
    counts = np.where(observed[:, :, None, None], cube["counts"].values, 0)
    cube = cube.assign(observed=(("time", "energy"), observed), counts=(cube["counts"].dims, counts))
    path = write_level1(tmp_path, cube)
    with fits.open(path) as hdus:
        errors = hdus["DATA"].data["counts_comp_err"]
        assert np.isnan(errors[2, :, :, 1:3]).all()
        assert np.isnan(errors).sum() == errors[2, :, :, 1:3].size
        assert "2 of 35 values were not received" in str(hdus[0].header["COMMENT"])
    np.testing.assert_array_equal(read_level1(path)["observed"], observed)


_FROM_RECORDS = ("ql_spectra", "cal_spectrum", "aspect")


@pytest.mark.parametrize(
    "product", [name for name in EXPORTED if not name.startswith("hk") and name not in _FROM_RECORDS]
)
@given(seed=st.integers(0, 1 << 20))
@settings(max_examples=6, deadline=None)
def test_any_dataset_comes_back(product: str, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    attrs = REQUEST if product.startswith("sci") else {}
    cube = cube_of(product, seed, **attrs)
    path = write_level1(tmp_path_factory.mktemp("any"), cube)
    again = read_level1(path)
    apart = {"time", "time_start"} | ({"scet"} if product.startswith("sci") else set())
    for name in set(cube.variables) - apart:
        np.testing.assert_array_equal(again[name].values, cube[name].values, err_msg=str(name))
    for name in apart & set(cube.variables):
        difference = np.abs((again[name].values - cube[name].values).astype(np.int64))
        assert difference.max() <= (360 if name == "scet" else 5_600_000), name


def test_what_is_not_known_is_marked(tmp_path: Path) -> None:
    path = write_level1(tmp_path, cube_of("sci_pixels", **REQUEST))
    with fits.open(path) as hdus:
        control = hdus["CONTROL"]
        unknown = [name for name in control.columns.names if control.columns[name].null is not None]
        assert unknown == ["tc_packet_id_ref", "num_substructures", "packet"]
        assert np.isnan(control.data["time_stamp"]).all()
        assert hdus["IDB_VERSIONS"].data["version"].tolist() == ["unknown"]
        assert "HGLN_OBS" not in hdus[0].header


def test_missing_data_are_told(tmp_path: Path) -> None:
    cube = cube_of("sci_pixels", **REQUEST, missing=["the last packet"], corrections=["shifted_durations"])
    cube["observed"][2:4, 1] = False
    path = write_level1(tmp_path, cube)
    assert read_origin(path).comments == (
        "stixflow: the last packet",
        "stixflow: corrected: shifted_durations",
        "stixflow: time and count arrays offset fixed",
        "stixflow: 2 of 35 values were not received: 0 here, with NaN as their error where there is one",
    )


def test_a_shift_that_was_corrected_stays_corrected(tmp_path: Path) -> None:
    cube = cube_of("sci_spectrogram", **REQUEST, corrections=["shifted_durations"])
    times = {name: ("time", cube[name].values - np.timedelta64(500, "D")) for name in ("time", "time_start")}
    early = cube.assign_coords(times)
    assert read_level1(write_level1(tmp_path, early)).attrs["bin_shift"] == "corrected"


def test_place_of_the_spacecraft_is_given_or_its_own(tmp_path: Path) -> None:
    place = Observer(distance_m=8e10, hgln_deg=-20.0, hglt_deg=5.0, rsun_arcsec=1790.0)
    path = write_level1(tmp_path, cube_of("ql_lightcurve"), ephemeris=place)
    attrs = read_level1(path).attrs
    assert (attrs["dsun_m"], attrs["hgln_deg"], attrs["hglt_deg"]) == (8e10, -20.0, 5.0)


def test_gzip_is_the_same_file(tmp_path: Path) -> None:
    cube = cube_of("ql_lightcurve")
    plain = write_level1(tmp_path / "a.fits", cube)
    packed = write_level1(tmp_path / "a.fits.gz", cube)
    assert not [one for one in compare_files(plain, packed) if one.name != "DATE"]
    assert gzip.decompress(packed.read_bytes())[:6] == b"SIMPLE"
    xr.testing.assert_identical(read_level1(packed).drop_attrs(), read_level1(plain).drop_attrs())
    (tmp_path / "cut.fits.gz").write_bytes(packed.read_bytes()[:-500])
    with pytest.raises(InputFileError, match="cut"):
        read_level1(tmp_path / "cut.fits.gz")
    (tmp_path / "cut.fits.gz").unlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.fits", "a.fits.gz"]


def test_boxes_of_a_request_have_names_of_their_own() -> None:
    names = [level1_name(cube_of("sci_pixels", **REQUEST | {"box": box, "boxes": 2})) for box in (0, 1)]
    assert names[0] == "solo_L1_stix-sci-xray-cpd_20221109T005000-20221109T005028_V02_2211090305-54678-box0.fits"
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("cube", "words"),
    [
        (make_dataset("ephemeris"), "ephemeris"),
        (make_dataset("sci_pixels", ssid=99, **REQUEST), "SSID 99"),
        (make_dataset("ql_lightcurve").isel(time=slice(0)), "no time bins"),
    ],
)
def test_what_cannot_be_written_is_refused(cube: xr.Dataset, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        write_level1(tmp_path, cube)
    assert not list(tmp_path.iterdir())


def test_comparison_sees_each_kind_of_difference(tmp_path: Path) -> None:
    one, two = (tmp_path / f"{name}.fits" for name in "ab")
    columns = [fits.Column("a", "J", array=np.arange(3)), fits.Column("b", "E", unit="s", array=np.full(3, np.nan))]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="DATA")]).writeto(one)
    assert compare_files(one, one) == []
    other = [fits.Column("b", "D", array=np.full(3, 1.0)), fits.Column("a", "J", array=np.arange(3) * 2)]
    other.append(fits.Column("c", "J", array=np.arange(3)))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(other, name="DATA")]).writeto(two)
    found = {(one.kind, one.name) for one in compare_files(one, two)}
    assert found == {
        ("column", "c"),
        ("order", ""),
        ("values", "a"),
        ("format", "b"),
        ("unit", "b"),
        ("values", "b"),
    }
